"""Keys on disk, peer IDs, and the certificates that carry them."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.errors import CertificateMissing, LocalProtocolError, StorageError, TargetMissing, TargetNotWritable
from spaceblock.trust import identity
from spaceblock.trust.identity import Identity

posix_only = pytest.mark.skipif(os.name != "posix", reason="file permissions are POSIX's")


def test_a_key_is_made_on_first_use_and_kept(tmp_path: Path) -> None:
    first = Identity.load(tmp_path / "alice")
    again = Identity.load(tmp_path / "alice")

    assert first.peer_id == again.peer_id
    assert first.home == tmp_path / "alice"
    assert [path.name for path in first.home.iterdir()] == ["identity.pem"]


def test_without_a_path_the_key_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEBLOCK_HOME", str(tmp_path / "home"))

    assert Identity.load().home == tmp_path / "home"
    assert (tmp_path / "home" / "identity.pem").is_file()


def test_a_path_may_name_the_key_file_itself(tmp_path: Path) -> None:
    made = Identity.load(tmp_path / "keys" / "bob.pem")

    assert (tmp_path / "keys" / "bob.pem").is_file()
    assert made.home == tmp_path / "keys"

    (tmp_path / "keys" / "bob.pem").rename(tmp_path / "keys" / "bob")
    assert Identity.load(tmp_path / "keys" / "bob").peer_id == made.peer_id


@posix_only
def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        Identity.load(tmp_path / "alice")
    finally:
        os.umask(previous)

    assert stat.S_IMODE((tmp_path / "alice").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "alice" / "identity.pem").stat().st_mode) == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_key_that_others_can_reach_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    made = Identity.load(tmp_path)
    key_file = tmp_path / "identity.pem"
    key_file.chmod(mode)

    with pytest.raises(StorageError, match=f"chmod 600 {key_file}"):
        Identity.load(tmp_path)

    key_file.chmod(0o600)
    assert Identity.load(tmp_path).peer_id == made.peer_id


def other_kinds_of_key() -> dict[str, bytes]:
    plain = Ed25519PrivateKey.generate()
    curve = ec.generate_private_key(ec.SECP256R1())
    pem = plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "empty": b"",
        "garbage": b"\x00\xff" * 100,
        "truncated": pem[:60],
        "with a passphrase": plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p")),
        "of another kind": curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }


@pytest.mark.parametrize("data", other_kinds_of_key().values(), ids=other_kinds_of_key().keys())
def test_a_damaged_key_is_never_overwritten(tmp_path: Path, data: bytes) -> None:
    key_file = tmp_path / "identity.pem"
    key_file.write_bytes(data)
    key_file.chmod(0o600)

    with pytest.raises(StorageError, match="restore it from a backup, or move it away"):
        Identity.load(tmp_path)

    assert key_file.read_bytes() == data


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from spaceblock.trust.identity import Identity
        print("ready", flush=True)
        sys.stdin.readline()
        print(Identity.load(sys.argv[1]).peer_id)
    """
    command = [sys.executable, "-c", program, str(tmp_path / "shared")]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = {child.communicate()[0].strip() for child in children}

    assert answers == {Identity.load(tmp_path / "shared").peer_id}
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["identity.pem"]


def test_whoever_names_its_key_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_link = os.link
    winners: list[Identity] = []

    def link_second(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real_link)
        winners.append(Identity.load(tmp_path))
        real_link(source, target)

    monkeypatch.setattr(os, "link", link_second)

    assert Identity.load(tmp_path).peer_id == winners[0].peer_id


def test_a_disk_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)

    assert Identity.load(tmp_path).peer_id == Identity.load(tmp_path).peer_id
    assert [path.name for path in tmp_path.iterdir()] == ["identity.pem"]


def test_a_file_in_place_of_the_folder_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setenv("SPACEBLOCK_HOME", str(tmp_path / "home"))

    with pytest.raises(TargetMissing, match="choose a folder"):
        Identity.load()
    with pytest.raises(StorageError):
        Identity.load(tmp_path / "home" / "below")


def test_a_folder_that_cannot_be_written_to_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> int:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(os, "link", read_only)
    monkeypatch.setattr(os, "rename", read_only)

    with pytest.raises(TargetNotWritable, match=r"identity\.pem cannot be read or made"):
        Identity.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


@posix_only
def test_a_dangling_link_in_place_of_the_key_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "identity.pem").symlink_to(tmp_path / "nowhere")

    with pytest.raises(StorageError):
        Identity.load(tmp_path)


@posix_only
@pytest.mark.parametrize(("name", "shown"), [("a\0b", r"a\\x00b"), ("\ud800", r"\\ud800")])
def test_a_path_that_the_system_cannot_have(tmp_path: Path, name: str, shown: str) -> None:
    with pytest.raises(StorageError) as caught:
        Identity.load(tmp_path / name)
    assert caught.value.message == f"'{tmp_path}/{shown}' is no path on this system: choose another"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="they keep such data elsewhere")
def test_the_home_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SPACEBLOCK_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert identity.home() == tmp_path / ".local" / "share" / "spaceblock"

    monkeypatch.setenv("XDG_DATA_HOME", "relative/paths/are/ignored")
    assert identity.home() == tmp_path / ".local" / "share" / "spaceblock"

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert identity.home() == tmp_path / "data" / "spaceblock"

    monkeypatch.setenv("SPACEBLOCK_HOME", "~/mine")
    assert identity.home() == tmp_path / "mine"
    assert stat.S_IMODE(identity.home().stat().st_mode) == 0o700


def test_a_peer_id_is_the_digest_of_the_public_key() -> None:
    someone = Identity.ephemeral()

    assert someone.home is None
    assert len(someone.public_key) == 32
    assert someone.peer_id_bytes == blake3(someone.public_key).digest()
    assert len(someone.peer_id) == 52
    assert someone.peer_id != Identity.ephemeral().peer_id


@given(st.binary(min_size=32, max_size=32))
def test_peer_ids_survive_being_written_down(peer_id: bytes) -> None:
    text = identity.peer_id_text(peer_id)

    assert identity.parse_peer_id(text) == peer_id
    assert identity.parse_peer_id(f"  {text.upper()}\n") == peer_id


@pytest.mark.parametrize("text", ["", "abc", "1" * 52, "a" * 51, "a" * 53, "a" * 51 + "b", "é" * 52, "aaaa====" * 7])
def test_other_texts_are_not_peer_ids(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="not a peer ID"):
        identity.parse_peer_id(text)


def test_a_certificate_carries_the_key_and_the_proof() -> None:
    someone = Identity.ephemeral()
    certificate = someone.certificate(b"the proof")
    again = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))

    assert identity.public_key_of(again) == someone.public_key
    assert identity.proof_of(again) == b"the proof"
    assert again.extensions.get_extension_for_oid(identity.ADMISSION_OID).critical is False
    assert identity.proof_of(someone.certificate()) is None
    assert someone.certificate().serial_number != someone.certificate().serial_number
    certificate.verify_directly_issued_by(certificate)


def test_a_certificate_is_valid_at_any_date() -> None:
    certificate = Identity.ephemeral().certificate()
    utc = datetime.timezone.utc

    assert certificate.not_valid_before_utc < datetime.datetime(2001, 1, 1, tzinfo=utc)
    assert certificate.not_valid_after_utc > datetime.datetime(9999, 1, 1, tzinfo=utc)


def test_no_arc_of_the_extension_is_too_large_for_other_parsers() -> None:
    assert max(int(arc) for arc in identity.ADMISSION_OID.dotted_string.split(".")) < 2**31


def test_a_proof_has_its_limit() -> None:
    someone = Identity.ephemeral()

    assert identity.proof_of(someone.certificate(bytes(127))) == bytes(127)
    with pytest.raises(LocalProtocolError):
        someone.certificate(bytes(128))


def foreign_certificate(value: bytes | None = None, *, ed25519: bool = True) -> x509.Certificate:
    """What another program might show: any extension value, any kind of key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone else")])
    key = Ed25519PrivateKey.generate() if ed25519 else ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2120, 1, 1))
    )
    if value is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(identity.ADMISSION_OID, value), critical=False)
    return builder.sign(key, None if ed25519 else hashes.SHA256())


@pytest.mark.parametrize(
    "value", [b"", b"\x04", b"\x04\x02a", b"\x04\x01ab", b"\x05\x01a", b"\x04\x81\x80" + bytes(128)]
)
def test_a_malformed_extension_proves_nothing(value: bytes) -> None:
    assert identity.proof_of(foreign_certificate(value)) == b""


def test_another_kind_of_key_is_no_certificate() -> None:
    with pytest.raises(CertificateMissing, match="Ed25519"):
        identity.public_key_of(foreign_certificate(ed25519=False))


def test_a_twice_given_extension_is_no_certificate() -> None:
    # The builder refuses to repeat an extension, so make two that differ in one arc and then spell them alike.
    oid = x509.ObjectIdentifier("1.3.999")
    twin = x509.ObjectIdentifier("1.3.998")
    key = Ed25519PrivateKey.generate()
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(2120, 1, 1))
    for extension in (oid, twin):
        builder = builder.add_extension(x509.UnrecognizedExtension(extension, b"\x05\x00"), critical=False)
    der = builder.sign(key, None).public_bytes(Encoding.DER)
    repeated = x509.load_der_x509_certificate(der.replace(b"\x06\x03\x2b\x87\x66", b"\x06\x03\x2b\x87\x67"))

    with pytest.raises(CertificateMissing, match="malformed"):
        identity.proof_of(repeated)


def test_private_material_is_never_shown(tmp_path: Path) -> None:
    someone = Identity.load(tmp_path)
    assert repr(someone) == str(someone) == f"<Identity {someone.peer_id}>"

    key_file = tmp_path / "identity.pem"
    secret = key_file.read_bytes().splitlines()[1].decode()
    key_file.write_bytes(key_file.read_bytes().replace(b"END", b"end"))
    with pytest.raises(StorageError) as caught:
        Identity.load(tmp_path)
    assert secret not in "".join(traceback.format_exception(caught.value))
