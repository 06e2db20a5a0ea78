"""An endpoint's Ed25519 key, its peer ID, and the self-signed certificate that carries the key into TLS.

1. A peer ID is the BLAKE3 digest of the raw 32-byte public key (RFC 8032, section 5.1.5). Peers pin it, so a
   certificate's names and dates mean nothing here.
2. A key file is readable by its owner alone from its first byte, is written whole before it gets its name, and is never
   overwritten: losing a key means losing the trust that others put into it.
3. Nothing here prints or logs private material.
"""

from __future__ import annotations

import base64
import datetime
import errno
import os
import secrets
import shlex
import sys
from pathlib import Path

from blake3 import blake3

from ..display import printable
from ..errors import CertificateMissing, LocalProtocolError, StorageError, storage_error
from ..process.unneeded import called_later, put_off, uncompiled

with put_off("email.utils", parseaddr=called_later("email.utils", "parseaddr")), uncompiled("cryptography"):
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

KEY_SIZE = 32
"""Bytes of a raw Ed25519 public key."""

PEER_ID_SIZE = 32
"""Bytes of a peer ID; its text form has 52 characters."""

KEY_FILE = "identity.pem"
"""The key's name in an identity folder."""

ADMISSION_OID = x509.ObjectIdentifier("1.2.840.113556.1.8000.2554.55408.37479.41925.17483.48701.11883069.8716341")
"""The certificate extension that proves a ticket.

A UUID (d8709267-a3c5-444b-be3d-b5523d850035) cut into small arcs under the arc set aside for that. The shorter
``2.25.<UUID>`` has one arc of 128 bits, and several certificate parsers refuse a whole certificate for any arc of more
than 31 bits.
"""

_KEY_FILE_SIZE_MAX = 65_536
_OCTET_STRING = 0x04  # DER's tag (X.690, section 8.7)
_PROOF_SIZE_MAX = 127  # what DER's one-byte form of a length can say


class Identity:
    """One endpoint's key pair. Make one with :meth:`load` or :meth:`ephemeral`; it never changes."""

    __slots__ = ("_home", "_peer_id_bytes", "_private_key", "_public_key")

    def __init__(self, private_key: Ed25519PrivateKey, home: Path | None = None) -> None:
        self._private_key = private_key
        self._public_key = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._peer_id_bytes = peer_id_of(self._public_key)
        self._home = home

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Identity:
        """The identity kept at ``path``, made now if there is none yet.

        ``path`` is a key file, or a folder with a key file named ``identity.pem`` in it; where nothing exists yet, a
        name ending in ``.pem`` means a file. Without a path it is the folder :func:`home`. Two processes that start at
        once get the same key.

        Raises :class:`StorageError` when the file is damaged, is readable by others, or cannot be read or made.
        """
        key_file: Path | None = None
        try:
            key_file = _key_file(path)
            try:
                data = _read_key_file(key_file)
            except FileNotFoundError:
                _make_key_file(key_file)
                data = _read_key_file(key_file)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, f"the key file {key_file or path} cannot be read or made") from error
        except ValueError:  # a NUL, or a letter that the locale cannot write
            raise StorageError(f"{printable(str(path))!r} is no path on this system: choose another") from None
        return cls(_parse_key(data, key_file), key_file.parent)

    @classmethod
    def ephemeral(cls) -> Identity:
        """A new identity that is never written to disk."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def peer_id(self) -> str:
        """The peer ID in its text form."""
        return peer_id_text(self._peer_id_bytes)

    @property
    def peer_id_bytes(self) -> bytes:
        """The peer ID, 32 bytes."""
        return self._peer_id_bytes

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._public_key

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The private key, for TLS."""
        return self._private_key

    def derived_key(self, purpose: str) -> bytes:
        """A secret of 32 bytes that only this identity can find again, another one for each ``purpose``."""
        raw = self._private_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return blake3(raw, derive_key_context=f"spaceblock 2026-11 {purpose}").digest()

    @property
    def home(self) -> Path | None:
        """The folder for what belongs to this identity, such as a listener's tickets; ``None`` for an ephemeral one."""
        return self._home

    def certificate(self, proof: bytes | None = None) -> x509.Certificate:
        """A new self-signed certificate, with ``proof`` (see :func:`spaceblock.trust.tickets.proof`) in its extension.

        It is valid at any date (RFC 5280, section 4.1.2.5), because a wrong clock must not keep peers apart. A proof
        has at most 127 bytes.
        """
        if proof is not None and len(proof) > _PROOF_SIZE_MAX:
            raise LocalProtocolError(f"a proof has at most {_PROOF_SIZE_MAX} bytes, not {len(proof)}")
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "spaceblock")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime(2000, 1, 1))
            .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59))
        )
        if proof is not None:
            # RFC 5280, section 4.1: an extension's value is the DER of something, here of an octet string.
            value = bytes([_OCTET_STRING, len(proof)]) + proof
            builder = builder.add_extension(x509.UnrecognizedExtension(ADMISSION_OID, value), critical=False)
        return builder.sign(self._private_key, None)

    def __repr__(self) -> str:
        return f"<Identity {self.peer_id}>"


def home() -> Path:
    """This user's folder for keys and listeners' tickets, made with access for its owner alone.

    ``SPACEBLOCK_HOME`` if set; else ``spaceblock`` in ``XDG_DATA_HOME``, or in the place where the system keeps such
    data. Raises :class:`StorageError` when it cannot be made.
    """
    path = _home_path()
    try:
        return private_folder(path)
    except StorageError as error:
        message = f"{error.message}, and name it in SPACEBLOCK_HOME"
        raise type(error)(message, errno=error.errno) from error


def peer_id_of(public_key: bytes) -> bytes:
    """The peer ID of a raw 32-byte public key: its BLAKE3 digest."""
    return blake3(public_key).digest()


def peer_id_text(peer_id: bytes) -> str:
    """The text form of a 32-byte peer ID: 52 characters of lowercase base32."""
    return to_base32(peer_id)


def parse_peer_id(text: str) -> bytes:
    """The 32 bytes of a peer ID's text form; white space around it and upper case are forgiven.

    Raises :class:`LocalProtocolError` for anything else.
    """
    try:
        peer_id = from_base32(text.strip().lower())
    except (AttributeError, ValueError):  # the former where it is no text at all
        peer_id = b""
    if len(peer_id) != PEER_ID_SIZE:
        raise LocalProtocolError("this is not a peer ID: copy all 52 characters of it, made of the letters and 2 to 7")
    return peer_id


def public_key_of(certificate: x509.Certificate) -> bytes:
    """The raw 32-byte Ed25519 key of a certificate; :class:`CertificateMissing` if it holds another kind of key."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateMissing("the peer's certificate does not hold an Ed25519 key: connect with Spaceblock")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def proof_of(certificate: x509.Certificate) -> bytes | None:
    """The admission extension's content, ``None`` without one, ``b""`` if it is not a short DER octet string.

    Raises :class:`CertificateMissing` when the certificate's extensions cannot be read.
    """
    try:
        value = certificate.extensions.get_extension_for_oid(ADMISSION_OID).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CertificateMissing("the peer's certificate is malformed: connect with Spaceblock") from error
    data = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    is_short = 2 <= len(data) <= 2 + _PROOF_SIZE_MAX
    return data[2:] if is_short and data[:2] == bytes([_OCTET_STRING, len(data) - 2]) else b""


def to_base32(data: bytes) -> str:
    """Lowercase base32 (RFC 4648, section 6) without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def from_base32(text: str) -> bytes:
    """The mirror of :func:`to_base32`; ``ValueError`` for any text that it does not produce, spare bits included."""
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if to_base32(data) != text:
        raise ValueError("not the canonical base32 of any bytes")
    return data


def private_folder(path: Path) -> Path:
    """Make the folder ``path``, and those above it, unless it exists; a new one is open to its owner alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError):
            error = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise storage_error(error, f"the folder {path} cannot be made") from error
    return path


def check_private(descriptor: int, path: Path) -> None:
    """Raise :class:`StorageError` when others than the owner can read or write the open file (POSIX only)."""
    if os.name == "posix" and os.fstat(descriptor).st_mode & 0o077:
        command = f"chmod 600 {shlex.quote(str(path))}"
        raise StorageError(f"the file {path} holds secrets and is open to others: run {command}", errno=errno.EACCES)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the system has a call for it."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _home_path() -> Path:
    try:
        if chosen := os.environ.get("SPACEBLOCK_HOME"):
            return Path(chosen).expanduser()
        if os.path.isabs(data_home := os.environ.get("XDG_DATA_HOME", "")):
            return Path(data_home, "spaceblock")
        user = Path.home()
        is_empty = sys.platform != "win32" and os.environ.get("HOME") == ""  # which Python takes for the root
        if is_empty or not user.is_absolute():  # no key belongs into whatever folder is the current one
            raise RuntimeError(f"HOME is {os.environ.get('HOME')!r}")
    except RuntimeError as error:
        message = "this user's home folder is not known: set SPACEBLOCK_HOME to a folder"
        raise StorageError(message, errno=errno.ENOENT) from error
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or user / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = user / "Library" / "Application Support"
    else:
        folder = user / ".local" / "share"
    return folder / "spaceblock"


def _key_file(path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        return home() / KEY_FILE
    if not os.fspath(path):  # nobody means the current folder by that
        raise StorageError("the path of the key is empty: name a file or a folder, or leave it out")
    chosen = Path(path).expanduser()
    is_file = chosen.is_file() or (chosen.suffix == ".pem" and not chosen.is_dir())
    return chosen if is_file else chosen / KEY_FILE


def _read_key_file(path: Path) -> bytes:
    with open(path, "rb") as file:
        check_private(file.fileno(), path)
        return file.read(_KEY_FILE_SIZE_MAX)


def _make_key_file(path: Path) -> None:
    """Write a new key under ``path`` unless another process does so first."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    folder = private_folder(path.parent)
    temporary = folder / f".{path.name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)


def _publish(temporary: Path, path: Path) -> None:
    """Give a file its name, or raise ``FileExistsError``, leaving alone what is there."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here. Windows' rename refuses an existing name by itself; elsewhere two first uses within the
        # same few microseconds could still disagree.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(temporary, path)


def _parse_key(data: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None  # the parser's own words could quote the file
    if not isinstance(key, Ed25519PrivateKey):
        raise StorageError(
            f"the key file {path} is damaged or holds no plain Ed25519 key: restore it from a backup, or move it away "
            "to be given a new peer ID",
            errno=errno.EINVAL,
        )
    return key
