"""Whom a listener lets in, and what it remembers."""

from __future__ import annotations

import datetime
import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from spaceblock.errors import (
    AdmissionRefused,
    CertificateMissing,
    ErrorCode,
    LimitExceeded,
    ListenerBusy,
    LocalProtocolError,
    PeerNotTrusted,
    StorageError,
    TargetMissing,
    TicketExpired,
    TicketUnknown,
    TicketUsed,
)
from spaceblock.trust.admission import EXPIRED_KEPT, LOCK_FILE, AdmissionBook, Admitted
from spaceblock.trust.identity import Identity
from spaceblock.trust.tickets import Ticket, proof
from support import uncounted

NOW = 1_800_000_000.0
HOUR = 3_600.0
ADDRESSES = (("192.0.2.7", 4433),)

posix_only = pytest.mark.skipif(os.name != "posix", reason="file permissions are POSIX's")


@pytest.fixture(scope="module")
def server() -> Identity:
    return Identity.ephemeral()


@pytest.fixture(scope="module")
def alice() -> Identity:
    return Identity.ephemeral()


@pytest.fixture(scope="module")
def mallory() -> Identity:
    return Identity.ephemeral()


@pytest.fixture(params=["memory", "folder"])
def book(request: pytest.FixtureRequest, tmp_path: Path, server: Identity) -> Iterator[AdmissionBook]:
    folder = tmp_path / "state" if request.param == "folder" else None
    with AdmissionBook.open(folder, server) as book:
        yield book


def shown_by(peer: Identity, ticket: Ticket | None = None) -> x509.Certificate:
    """The certificate that ``peer`` shows when it connects with ``ticket``."""
    certificate = peer.certificate(None if ticket is None else proof(ticket, peer.public_key))
    return x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))


def test_a_ticket_lets_its_holder_in(book: AdmissionBook, alice: Identity) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)

    assert ticket.addresses == ADDRESSES
    assert ticket.expires == NOW + HOUR
    assert book.admit(shown_by(alice, ticket), NOW) == Admitted(alice.peer_id, "ticket", finish_only=False)


def test_the_ticket_may_travel_as_text(book: AdmissionBook, alice: Identity) -> None:
    text = book.issue(ADDRESSES, HOUR, NOW).encode()

    assert book.admit(shown_by(alice, Ticket.parse(text)), NOW).via == "ticket"


def test_the_same_peer_may_come_back_until_the_ticket_expires(book: AdmissionBook, alice: Identity) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)
    for later in (0, 1, HOUR - 1):
        assert not book.admit(shown_by(alice, ticket), NOW + later).finish_only

    with pytest.raises(TicketExpired, match="ask for a new one"):
        book.admit(shown_by(alice, ticket), NOW + HOUR)


def test_a_used_ticket_lets_nobody_else_in(book: AdmissionBook, alice: Identity, mallory: Identity) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)
    book.admit(shown_by(alice, ticket), NOW)

    for later in (0, 2 * HOUR):
        with pytest.raises(TicketUsed, match="another peer"):
            book.admit(shown_by(mallory, ticket), NOW + later)


def test_an_unused_ticket_expires(book: AdmissionBook, alice: Identity) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)

    with pytest.raises(TicketExpired):
        book.admit(shown_by(alice, ticket), NOW + HOUR)
    assert book.admit(shown_by(alice, ticket), NOW).via == "ticket", "a refusal does not use the ticket up"


def test_of_many_peers_at_once_one_gets_in(book: AdmissionBook) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)
    peers = [Identity.ephemeral() for _ in range(8)]
    together = threading.Barrier(len(peers))

    def admitted(peer: Identity) -> bool:
        together.wait()
        try:
            return book.admit(shown_by(peer, ticket), NOW).peer_id == peer.peer_id
        except TicketUsed:
            return False

    with ThreadPoolExecutor(len(peers)) as threads:
        assert sum(threads.map(admitted, peers)) == 1


def test_tickets_are_independent(book: AdmissionBook, alice: Identity, mallory: Identity) -> None:
    first, second = book.issue_many(2, ADDRESSES, HOUR, NOW)

    assert book.admit(shown_by(alice, first), NOW).peer_id == alice.peer_id
    assert book.admit(shown_by(mallory, second), NOW).peer_id == mallory.peer_id


def test_nobody_comes_in_without_a_ticket(book: AdmissionBook, alice: Identity) -> None:
    with pytest.raises(CertificateMissing, match="showed no certificate"):
        book.admit(None, NOW)
    with pytest.raises(PeerNotTrusted, match="no ticket and is not trusted"):
        book.admit(shown_by(alice), NOW)


def test_another_kind_of_key_is_refused(book: AdmissionBook) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(2120, 1, 1))

    with pytest.raises(CertificateMissing, match="Ed25519"):
        book.admit(builder.sign(key, hashes.SHA256()), NOW)


def test_a_ticket_of_another_listener_is_unknown(book: AdmissionBook, alice: Identity) -> None:
    with AdmissionBook.open(None, Identity.ephemeral()) as elsewhere:
        ticket = elsewhere.issue(ADDRESSES, HOUR, NOW)

    with pytest.raises(TicketUnknown):
        book.admit(shown_by(alice, ticket), NOW)


def test_a_ticket_proves_nothing_to_a_listener_with_another_key(
    tmp_path: Path, server: Identity, alice: Identity
) -> None:
    with AdmissionBook.open(tmp_path, server) as book:
        ticket = book.issue(ADDRESSES, HOUR, NOW)

    with AdmissionBook.open(tmp_path, Identity.ephemeral()) as book, pytest.raises(TicketUnknown):
        book.admit(shown_by(alice, ticket), NOW)


def test_a_stolen_proof_is_of_no_use_with_another_key(book: AdmissionBook, alice: Identity, mallory: Identity) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)
    stolen = proof(ticket, alice.public_key)

    with pytest.raises(TicketUnknown):
        book.admit(mallory.certificate(stolen), NOW)
    assert book.admit(alice.certificate(stolen), NOW).peer_id == alice.peer_id


def test_guesses_are_unknown_and_leave_no_trace(
    tmp_path: Path, server: Identity, alice: Identity, mallory: Identity
) -> None:
    with AdmissionBook.open(tmp_path, server) as book:
        ticket = book.issue(ADDRESSES, HOUR, NOW)
        good = proof(ticket, mallory.public_key)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for bad in (b"", good[:-1], good + b"\x00", b"\x02" + good[1:], bytes(127)):
            with pytest.raises(TicketUnknown):
                book.admit(mallory.certificate(bad), NOW)
        for index in range(1, len(good)):
            flipped = good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :]
            with pytest.raises(TicketUnknown):
                book.admit(mallory.certificate(flipped), NOW)

        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert book.admit(shown_by(alice, ticket), NOW).via == "ticket"


def test_refusals_have_distinct_codes() -> None:
    kinds = (CertificateMissing, TicketUnknown, TicketUsed, TicketExpired, PeerNotTrusted)

    assert len({kind.code for kind in kinds}) == len({kind.wire_code for kind in kinds}) == len(kinds)
    assert all(issubclass(kind, AdmissionRefused) for kind in kinds)
    assert ErrorCode.INTERNAL not in {kind.wire_code for kind in kinds}


def test_after_expiry_a_peer_may_finish_what_it_began(server: Identity, alice: Identity, mallory: Identity) -> None:
    unfinished = {alice.peer_id, mallory.peer_id}
    with AdmissionBook.open(None, server, has_unfinished=unfinished.__contains__) as book:
        used, unused = book.issue_many(2, ADDRESSES, HOUR, NOW)
        book.admit(shown_by(alice, used), NOW)

        late = NOW + 2 * HOUR
        assert book.admit(shown_by(alice, used), late) == Admitted(alice.peer_id, "ticket", finish_only=True)
        with pytest.raises(TicketExpired):
            book.admit(shown_by(mallory, unused), late)

        unfinished.clear()
        with pytest.raises(TicketExpired):
            book.admit(shown_by(alice, used), late)


def test_trusted_peers_need_no_ticket(server: Identity, alice: Identity, mallory: Identity) -> None:
    trust = Admitted(alice.peer_id, "trust", finish_only=False)
    trusted = [f" {alice.peer_id.upper()}\n"]
    with AdmissionBook.open(None, server, trusted, has_unfinished=lambda _: True) as book:
        spent, own = book.issue_many(2, ADDRESSES, HOUR, NOW)
        book.admit(shown_by(mallory, spent), NOW)

        assert book.admit(shown_by(alice), NOW) == trust
        assert book.admit(shown_by(alice, spent), NOW) == trust
        assert book.admit(alice.certificate(b"unknown"), NOW) == trust
        assert book.admit(shown_by(alice, own), NOW).via == "ticket"
        assert book.admit(shown_by(alice, own), NOW + 2 * HOUR) == trust
        with pytest.raises(TicketUsed):
            book.admit(shown_by(mallory, own), NOW)
        with pytest.raises(PeerNotTrusted):
            book.admit(shown_by(mallory), NOW)


def test_a_trusted_peer_id_is_checked_before_anything_is_opened(tmp_path: Path, server: Identity) -> None:
    with pytest.raises(LocalProtocolError, match="not a peer ID"):
        AdmissionBook.open(tmp_path / "state", server, ["alice"])

    assert not (tmp_path / "state").exists()


def test_a_lock_that_cannot_be_opened_is_a_typed_error(tmp_path: Path, server: Identity) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(StorageError, match=r"lock file .*lock cannot be opened: is a directory"):
        AdmissionBook.open(tmp_path, server)


@pytest.mark.skipif(sys.platform == "win32", reason="it locks otherwise")
def test_a_disk_without_locks_is_no_other_listener(
    tmp_path: Path, server: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a home on a network that has no locks."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = set(os.listdir("/dev/fd"))
    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StorageError, match=r"lock file .*lock cannot be locked: no locks available") as caught:
        AdmissionBook.open(tmp_path, server)
    assert not isinstance(caught.value, ListenerBusy)
    assert caught.value.errno == errno.ENOLCK
    assert set(os.listdir("/dev/fd")) <= before
    monkeypatch.undo()
    AdmissionBook.open(tmp_path, server).close()


def test_tickets_bindings_and_port_survive_a_restart(
    tmp_path: Path, server: Identity, alice: Identity, mallory: Identity
) -> None:
    with AdmissionBook.open(tmp_path, server) as book:
        assert book.port is None
        book.remember_port(4433)
        book.remember_port(4434)
        used, unspent = book.issue_many(2, ADDRESSES, HOUR, NOW)
        book.admit(shown_by(alice, used), NOW)

    with AdmissionBook.open(tmp_path, server) as book:
        assert book.port == 4434
        with pytest.raises(TicketUsed):
            book.admit(shown_by(mallory, used), NOW)
        assert book.admit(shown_by(alice, used), NOW).via == "ticket"
        assert book.admit(shown_by(mallory, unspent), NOW).via == "ticket"


def test_a_binding_outlives_a_kill_right_after_admission(
    tmp_path: Path, server: Identity, alice: Identity, mallory: Identity
) -> None:
    server = Identity.load(tmp_path)
    with AdmissionBook.open(tmp_path, server) as book:
        ticket = book.issue(ADDRESSES, HOUR, NOW)
    (tmp_path / "alice.der").write_bytes(shown_by(alice, ticket).public_bytes(Encoding.DER))

    program = """if True:
        import sys
        from pathlib import Path
        from cryptography import x509
        from spaceblock.trust.admission import AdmissionBook
        from spaceblock.trust.identity import Identity
        folder, now = Path(sys.argv[1]), float(sys.argv[2])
        book = AdmissionBook.open(folder, Identity.load(folder))
        print(book.admit(x509.load_der_x509_certificate((folder / "alice.der").read_bytes()), now).via, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", program, str(tmp_path), str(NOW)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ticket\n"
        with pytest.raises(ListenerBusy):
            AdmissionBook.open(tmp_path, server)
        child.kill()

    with AdmissionBook.open(tmp_path, server) as book:
        with pytest.raises(TicketUsed):
            book.admit(shown_by(mallory, ticket), NOW)
        assert book.admit(shown_by(alice, ticket), NOW).via == "ticket"


@posix_only
def test_nobody_is_let_in_when_the_use_cannot_be_recorded(tmp_path: Path, alice: Identity, mallory: Identity) -> None:
    server = Identity.load(tmp_path)
    with AdmissionBook.open(tmp_path, server) as book:
        ticket = book.issue(ADDRESSES, HOUR, NOW)
    (tmp_path / "alice.der").write_bytes(shown_by(alice, ticket).public_bytes(Encoding.DER))

    # The child's limit on the size of files stands for a full disk.
    program = """if True:
        import resource, sys
        from pathlib import Path
        from cryptography import x509
        from spaceblock.trust.admission import AdmissionBook
        from spaceblock.errors import StorageError
        from spaceblock.trust.identity import Identity
        folder, now = Path(sys.argv[1]), float(sys.argv[2])
        book = AdmissionBook.open(folder, Identity.load(folder))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            book.admit(x509.load_der_x509_certificate((folder / "alice.der").read_bytes()), now)
        except StorageError as error:
            print(error)
    """
    command = [sys.executable, "-c", program, str(tmp_path), str(NOW)]
    child = subprocess.run(command, capture_output=True, text=True, check=True, env=uncounted())

    assert child.stdout.startswith("the ticket's use cannot be recorded")
    with AdmissionBook.open(tmp_path, server) as book:
        assert book.admit(shown_by(mallory, ticket), NOW).via == "ticket", "the ticket was not used up"


def test_one_listener_for_each_folder(tmp_path: Path, server: Identity) -> None:
    with AdmissionBook.open(tmp_path / "one", server) as book:
        with pytest.raises(ListenerBusy, match=r"stop it, or choose another"):
            AdmissionBook.open(tmp_path / "one", server)
        AdmissionBook.open(tmp_path / "two", server).close()
        assert book.issue(ADDRESSES, HOUR, NOW)

    AdmissionBook.open(tmp_path / "one", server).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path, server: Identity) -> None:
    book = AdmissionBook.open(tmp_path, server)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        book.close()
        AdmissionBook.open(tmp_path, server).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@posix_only
def test_the_book_is_for_its_owner_alone(tmp_path: Path, server: Identity) -> None:
    previous = os.umask(0)
    try:
        with AdmissionBook.open(tmp_path / "state", server) as book:
            book.issue(ADDRESSES, HOUR, NOW)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    finally:
        os.umask(previous)

    assert modes == {"listener.db": 0o600, "listener.db-wal": 0o600, "listener.lock": 0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@posix_only
def test_a_book_that_others_can_reach_is_refused_with_the_remedy(tmp_path: Path, server: Identity) -> None:
    AdmissionBook.open(tmp_path, server).close()
    (tmp_path / "listener.db").chmod(0o644)

    with pytest.raises(StorageError, match=f"chmod 600 {tmp_path / 'listener.db'}"):
        AdmissionBook.open(tmp_path, server)


def test_a_damaged_book_is_a_typed_error_and_is_kept(tmp_path: Path, server: Identity) -> None:
    book_file = tmp_path / "listener.db"
    book_file.write_bytes(b"not a database" * 500)
    book_file.chmod(0o600)

    for _ in range(2):
        with pytest.raises(StorageError, match="damaged; move it away"):
            AdmissionBook.open(tmp_path, server)
    assert book_file.read_bytes() == b"not a database" * 500

    book_file.unlink()
    AdmissionBook.open(tmp_path, server).close()


def test_a_book_from_a_newer_version_is_left_alone(tmp_path: Path, server: Identity) -> None:
    AdmissionBook.open(tmp_path, server).close()
    database = sqlite3.connect(tmp_path / "listener.db")
    database.execute("PRAGMA user_version = 2")
    database.close()

    with pytest.raises(StorageError, match="newer version"):
        AdmissionBook.open(tmp_path, server)


def test_a_file_in_place_of_the_folder_is_a_typed_error(tmp_path: Path, server: Identity) -> None:
    (tmp_path / "state").write_text("not a folder")
    with pytest.raises(TargetMissing):
        AdmissionBook.open(tmp_path / "state", server)

    (tmp_path / "listener.db").mkdir()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"listener\.db cannot be opened"):
            AdmissionBook.open(tmp_path, server)


def test_a_full_book_issues_no_more_until_some_expire(server: Identity, alice: Identity) -> None:
    with AdmissionBook.open(None, server, limit=3, has_unfinished=lambda _: True) as book:
        used = book.issue(ADDRESSES, HOUR, NOW)
        book.admit(shown_by(alice, used), NOW)
        book.issue_many(2, ADDRESSES, 2 * HOUR, NOW)
        with pytest.raises(LimitExceeded, match="at most 3 tickets"):
            book.issue(ADDRESSES, HOUR, NOW)
        with pytest.raises(LimitExceeded):
            book.issue_many(4, ADDRESSES, HOUR, NOW + 3 * HOUR)
        assert book.admit(shown_by(alice, used), NOW + HOUR).finish_only, "a failed issue forgets nothing"

        fresh = book.issue(ADDRESSES, HOUR, NOW + HOUR)
        assert book.admit(shown_by(alice, fresh), NOW + HOUR).via == "ticket"
        with pytest.raises(TicketUnknown):
            book.admit(shown_by(alice, used), NOW + HOUR)


def test_unused_tickets_are_forgotten_in_the_end(server: Identity, alice: Identity) -> None:
    with AdmissionBook.open(None, server, has_unfinished=lambda _: True) as book:
        used, unused = book.issue_many(2, ADDRESSES, HOUR, NOW)
        book.admit(shown_by(alice, used), NOW)
        much_later = NOW + HOUR + EXPIRED_KEPT

        book.issue(ADDRESSES, HOUR, much_later - 1)
        with pytest.raises(TicketExpired):
            book.admit(shown_by(alice, unused), much_later)
        book.issue(ADDRESSES, HOUR, much_later)
        with pytest.raises(TicketUnknown):
            book.admit(shown_by(alice, unused), much_later)
        assert book.admit(shown_by(alice, used), much_later).finish_only


@pytest.mark.parametrize("lifetime", [0, -1.0, float("inf"), float("nan"), 1e12])
def test_a_lifetime_is_a_plain_number_of_seconds(book: AdmissionBook, lifetime: float) -> None:
    with pytest.raises(LocalProtocolError, match="lifetime"):
        book.issue(ADDRESSES, lifetime, NOW)


def test_a_short_lifetime_is_not_rounded_away(book: AdmissionBook, alice: Identity) -> None:
    ticket = book.issue(ADDRESSES, 0.25, NOW + 0.5)

    assert book.admit(shown_by(alice, ticket), NOW + 0.75).via == "ticket"


def test_a_ticket_that_cannot_be_made_is_not_recorded(server: Identity) -> None:
    with AdmissionBook.open(None, server, limit=1) as book:
        with pytest.raises(LocalProtocolError, match="port"):
            book.issue([("192.0.2.7", 0)], HOUR, NOW)
        assert book.issue(ADDRESSES, HOUR, NOW)


def test_a_closed_book_is_closed(book: AdmissionBook, alice: Identity) -> None:
    ticket = book.issue(ADDRESSES, HOUR, NOW)
    book.close()
    book.close()

    for call in (
        lambda: book.issue(ADDRESSES, HOUR, NOW),
        lambda: book.admit(shown_by(alice, ticket), NOW),
        lambda: book.remember_port(1),
        lambda: book.port,
    ):
        with pytest.raises(LocalProtocolError, match="closed"):
            call()
