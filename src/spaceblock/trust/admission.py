"""A listener's book of tickets: whom it lets in, recorded durably before anybody is let in.

1. A ticket binds to the first peer ID that proves it, and the binding is on the disk before :meth:`AdmissionBook.admit`
   returns. The same peer may come back with it until it expires, and after that only to finish what it began.
2. A proof that does not fit leaves no trace: guessing costs the guesser a handshake, and this side one look-up.
3. One listener for each folder, held by a lock on a file that the system drops when the process ends, however it ends.
4. Every call may wait for the disk, so an event loop makes them in a worker thread. ``now`` is in seconds since 1970.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import math
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, final

from cryptography import x509

from ..errors import (
    AdmissionRefused,
    CertificateMissing,
    LimitExceeded,
    ListenerBusy,
    LocalProtocolError,
    PeerNotTrusted,
    StorageError,
    TicketExpired,
    TicketUnknown,
    TicketUsed,
    storage_error,
)
from ..process.lazily import dataclass
from .identity import (
    Identity,
    check_private,
    parse_peer_id,
    peer_id_of,
    peer_id_text,
    private_folder,
    proof_of,
    public_key_of,
    sync_folder,
)
from .tickets import EXPIRY_MAX, SECRET_SIZE, TICKET_ID_SIZE, Ticket, proof_tag, read_proof

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TICKETS_MAX = 100_000
"""Tickets in one book: 10 to 20 MB on the disk, and more than one listener can serve."""

EXPIRED_KEPT = 7 * 86_400
"""Seconds for which an expired ticket that nobody used is still called expired rather than unknown."""

BOOK_FILE = "listener.db"
LOCK_FILE = "listener.lock"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A peer that was let in, and why; ``finish_only`` if it may only finish transfers that are unfinished."""

    peer_id: str
    via: Literal["ticket", "trust"]
    finish_only: bool


@final
class AdmissionBook:
    """The tickets of one listener, in a folder or in memory. Made by :meth:`open`; safe to call from any thread."""

    def __init__(
        self,
        database: sqlite3.Connection,
        lock: FileLock | None,
        server: Identity,
        trusted: frozenset[str],
        has_unfinished: Callable[[str], bool],
        limit: int,
    ) -> None:
        self._database: sqlite3.Connection | None = database  # None once closed
        self._lock = lock
        self._server = server
        self._trusted = trusted
        self._has_unfinished = has_unfinished
        self._limit = limit
        self._mutex = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path | None,
        server: Identity,
        trusted: Iterable[str] = (),
        *,
        has_unfinished: Callable[[str], bool] = lambda peer_id: False,
        limit: int = TICKETS_MAX,
    ) -> AdmissionBook:
        """The book kept in ``folder``, which is made if needed, or a book in memory if there is none.

        ``trusted`` are peer IDs that need no ticket. ``has_unfinished`` says whether a peer ID has transfers to finish;
        it is called inside :meth:`admit`. ``limit`` bounds the tickets kept.

        Raises :class:`ListenerBusy` while another book holds the folder, :class:`StorageError` when the book cannot be
        read or made, and :class:`LocalProtocolError` when a trusted peer ID is not one.
        """
        known = frozenset(peer_id_text(parse_peer_id(peer)) for peer in trusted)
        lock = None if folder is None else FileLock(private_folder(folder) / LOCK_FILE)
        try:
            database = _open_database(folder)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return cls(database, lock, server, known, has_unfinished, limit)

    def issue(self, addresses: Iterable[tuple[str, int]], lifetime: float, now: float) -> Ticket:
        """One new ticket; see :meth:`issue_many`."""
        return self.issue_many(1, addresses, lifetime, now)[0]

    def issue_many(self, count: int, addresses: Iterable[tuple[str, int]], lifetime: float, now: float) -> list[Ticket]:
        """New tickets, each good for one peer during ``lifetime`` seconds, recorded durably together.

        Raises :class:`LimitExceeded` when the book is full, :class:`StorageError` when it cannot be written to, and
        :class:`LocalProtocolError` for a lifetime or an address that no ticket can hold.
        """
        if not 0 < lifetime <= EXPIRY_MAX:
            raise LocalProtocolError("a ticket's lifetime is a number of seconds above 0: choose another lifetime")
        expires = math.ceil(now + lifetime)
        where = tuple(addresses)
        with self._use("the listener's tickets cannot be recorded") as database, _transaction(database):
            _make_room(database, count, self._limit, now)
            tickets = [self._new_ticket(where, expires) for _ in range(count)]
            rows = [(ticket.ticket_id, ticket.secret, ticket.expires) for ticket in tickets]
            database.executemany("INSERT INTO tickets (ticket_id, secret, expires) VALUES (?, ?, ?)", rows)
        return tickets

    def admit(self, certificate: x509.Certificate | None, now: float) -> Admitted:
        """Judge the peer that showed ``certificate`` and proved its key in the TLS handshake.

        A ticket's first use is durable when this returns. Raises :class:`CertificateMissing`, :class:`TicketUnknown`,
        :class:`TicketUsed`, :class:`TicketExpired` or :class:`PeerNotTrusted`, and :class:`StorageError` when the use
        cannot be recorded.
        """
        if certificate is None:
            raise CertificateMissing("the peer showed no certificate: connect with a ticket for this listener")
        public_key = public_key_of(certificate)
        peer_id = peer_id_text(peer_id_of(public_key))
        is_trusted = peer_id in self._trusted
        try:
            finish_only = self._admit_by_ticket(proof_of(certificate), public_key, peer_id, now)
        except AdmissionRefused:
            if not is_trusted:
                raise
            finish_only = True
        if is_trusted and finish_only:
            return Admitted(peer_id, "trust", False)
        return Admitted(peer_id, "ticket", finish_only)

    @property
    def port(self) -> int | None:
        """The UDP port that was remembered last, so that tickets given out stay good after a restart."""
        with self._use("the listener's port cannot be read") as database:
            row = database.execute("SELECT port FROM listener").fetchone()
        return None if row is None else int(row[0])

    def remember_port(self, port: int) -> None:
        """Record the UDP port durably. Raises :class:`StorageError`."""
        if port == self.port:
            return
        with self._use("the listener's port cannot be recorded") as database:
            database.execute("REPLACE INTO listener (id, port) VALUES (1, ?)", (port,))

    def expire(self, now: float) -> None:
        """Let every ticket expire: who used one may only finish what it began. Raises :class:`StorageError`."""
        with self._use("the listener's tickets cannot be taken back") as database:
            database.execute("UPDATE tickets SET expires = ? WHERE expires > ?", (int(now), int(now)))

    def close(self) -> None:
        """Let go of the folder; harmless when done twice. Any other call afterwards is an error."""
        with self._mutex:
            database, self._database = self._database, None
            if database is not None:
                database.close()
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> AdmissionBook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_ticket(self, addresses: tuple[tuple[str, int], ...], expires: int) -> Ticket:
        ticket_id, secret = secrets.token_bytes(TICKET_ID_SIZE), secrets.token_bytes(SECRET_SIZE)
        return Ticket(self._server.peer_id_bytes, addresses, ticket_id, secret, expires)

    def _admit_by_ticket(self, proof: bytes | None, public_key: bytes, peer_id: str, now: float) -> bool:
        """Whether the peer is admitted only to finish what it began; refusals are raised."""
        if proof is None:
            raise PeerNotTrusted("the peer has no ticket and is not trusted: ask for a ticket, or to be trusted")
        parts = read_proof(proof)
        if parts is None:
            raise TicketUnknown("the proof of the ticket is not of a kind known here: update the older side")
        ticket_id, tag = parts
        with self._use("the ticket's use cannot be recorded") as database:
            query = "SELECT secret, expires, peer_id FROM tickets WHERE ticket_id = ?"
            secret, expires, bound = database.execute(query, (ticket_id,)).fetchone() or (b"", 0, None)
            expected = proof_tag(secret, ticket_id, public_key, self._server.peer_id_bytes)
            if not secret or not hmac.compare_digest(tag, expected):
                raise TicketUnknown("this listener does not know the ticket: ask for a new one")
            if bound is not None and bound != peer_id:
                raise TicketUsed("the ticket was already used by another peer: ask for a new one")
            if now < expires:
                if bound is None:
                    database.execute("UPDATE tickets SET peer_id = ? WHERE ticket_id = ?", (peer_id, ticket_id))
                return False
        if bound is None or not self._has_unfinished(peer_id):
            raise TicketExpired("the ticket has expired: ask for a new one")
        return True

    @contextlib.contextmanager
    def _use(self, what: str) -> Iterator[sqlite3.Connection]:
        """The database, for one thread at a time, with its errors translated; ``what`` begins the sentence."""
        with self._mutex:
            if self._database is None:
                raise LocalProtocolError("the listener's book of tickets is closed: open a new listener")
            try:
                yield self._database
            except sqlite3.Error as error:
                raise _database_error(error, what) from error


class FileLock:
    """An exclusive lock on a file, until :meth:`release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise storage_error(error, f"the lock file {path} cannot be opened") from error
        try:
            if sys.platform == "win32":
                msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                message = f"another listener uses {path.parent}: stop it, or choose another port or SPACEBLOCK_HOME"
                raise ListenerBusy(message) from error
            raise storage_error(error, f"the lock file {path} cannot be locked") from error

    def release(self) -> None:
        """Let go; harmless when done twice."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if sys.platform != "win32":
            # A child made by fork shares the lock, and would keep it if this side only closed its own descriptor.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):
            os.close(descriptor)


_SCHEMA_VERSION = 1
_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS tickets (
    ticket_id BLOB PRIMARY KEY,
    secret BLOB NOT NULL,
    expires INTEGER NOT NULL,  -- seconds since 1970
    peer_id TEXT               -- who used it; NULL while it is unspent
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tickets_by_expiry ON tickets (expires);
CREATE TABLE IF NOT EXISTS listener (id INTEGER PRIMARY KEY, port INTEGER NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""


def _open_database(folder: Path | None) -> sqlite3.Connection:
    path = None if folder is None else folder / BOOK_FILE
    what = f"the listener's book {path} cannot be opened"
    try:
        if path is not None:
            _make_private_file(path)
        # Without an isolation level each statement commits by itself, outside of a transaction begun by hand.
        database = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, what) from error
    except sqlite3.Error as error:
        raise _database_error(error, what) from error
    try:
        # The folder's lock keeps others out, so the log needs no shared memory and works on network disks too. EXTRA
        # makes each commit durable with a write-ahead log, and also where SQLite has to do without one.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = EXTRA")
        database.execute("PRAGMA fullfsync = ON")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StorageError(f"{what}: it was written by a newer version of Spaceblock; update this one")
        if version < _SCHEMA_VERSION:
            database.executescript(_SCHEMA)
            if folder is not None:
                sync_folder(folder)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error):
            raise _database_error(error, what) from error
        raise
    return database


def _make_private_file(path: Path) -> None:
    """An empty file for SQLite to fill; its log takes over the permissions."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        check_private(descriptor, path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _make_room(database: sqlite3.Connection, count: int, limit: int, now: float) -> None:
    """Forget unused tickets long expired and, in a full book, those that expired first; used ones let peers finish."""
    database.execute("DELETE FROM tickets WHERE expires <= ? AND peer_id IS NULL", (now - EXPIRED_KEPT,))
    surplus = database.execute("SELECT count(*) FROM tickets").fetchone()[0] + count - limit
    if surplus <= 0:
        return
    oldest = "SELECT ticket_id FROM tickets WHERE expires <= ? ORDER BY expires LIMIT ?"
    removed = database.execute(f"DELETE FROM tickets WHERE ticket_id IN ({oldest})", (now, surplus)).rowcount
    if removed < surplus:
        raise LimitExceeded(f"a listener keeps at most {limit} tickets: wait until some expire, or issue fewer")


def _database_error(error: sqlite3.Error, what: str) -> StorageError:
    if not isinstance(error, sqlite3.OperationalError):
        message = f"{what}: it is damaged; move it away, which makes the tickets given out useless, and start again"
        return StorageError(message, errno=errno.EIO)
    # SQLite's words, because Python 3.10 does not tell its numbers.
    number = next((number for words, number in _SQLITE_REASONS.items() if words in str(error)), errno.EIO)
    return storage_error(OSError(number, str(error)), f"{what} ({error})")


# A whole disk that is for reading only has said so before SQLite looks at the book.
_SQLITE_REASONS = {"is full": errno.ENOSPC, "readonly": errno.EACCES}
