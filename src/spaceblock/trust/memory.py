"""What an identity remembers of its transfers over the end of a program: what it is sending, and what it received.

1. What is being sent has its UUID kept under a digest of the peer and of what was given to send, until the receiver
   has verified it, and whoever sent it has been told. So the same command resumes, and asks first whether all is there
   already.
2. What was received has its outcome kept before the sender hears of it, for whom it came from and nobody else. So a
   lost last message is neither a failure nor a second copy.
3. Every file is bound to its identity by a keyed digest (see :mod:`.storage.records`); what does not fit counts as not
   there. The numbers of files are bounded. Without a home nothing outlives the program.

Every call may wait for the disk, so an event loop makes them in a worker thread. Safe to call from any thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path

from blake3 import blake3

from ..core import decode_uint_var
from ..errors import RemoteProtocolError
from ..limits import OUTCOMES_KEPT, REMEMBERED_MAX, REMEMBERED_SECONDS
from ..process.lazily import dataclass
from ..storage.journal import Keeper
from ..storage.records import MAGIC, Record, RecordWriter, read_file, read_records
from ..wire import UUID_SIZE, MessageType
from ..wire.messages import Outcome, VerifiedPage, decode_message, pages_of_verified
from .identity import Identity, private_folder, sync_folder

if sys.platform != "win32":
    import fcntl

_OVER_MAX = 16
"""Transfers that are complete and whose UUIDs are still there, as their sender may not have been told."""

_over: set[Path] = set()
_over_lock = threading.Lock()

_SENDING = "sending"
_RECEIVED = "received"
_TEXT_MAX = 65_536
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class _Kind(IntEnum):
    SENDING = 1
    UNFINISHED = 2
    FOLDER = 3
    OUTCOMES = 4


@dataclass(slots=True)
class Claim:
    """The UUID of something that is being sent, and whether an earlier attempt has used it; nobody else uses it until
    :meth:`release`."""

    uuid: bytes
    is_known: bool = False
    path: Path | None = None
    lock: int = -1

    def release(self, *, forget: bool) -> None:
        """Let others use it; with ``forget`` the next attempt gets another one. Harmless when done twice."""
        if self.lock < 0:
            return
        if forget and self.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        lock, self.lock = self.lock, -1
        with contextlib.suppress(OSError):
            os.close(lock)


@dataclass(frozen=True, slots=True)
class Received:
    """How a transfer ended here, and the folder it went to (empty: none)."""

    outcomes: tuple[Outcome, ...]
    folder: str = ""


class Memory:
    """The memory of one identity. Several programs may have it at once."""

    def __init__(self, identity: Identity) -> None:
        self._home = identity.home
        self._key = identity.derived_key("memory")
        self._journal_key = identity.derived_key("journal")
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[bytes, Received] = OrderedDict()  # of which there is no file
        self._outcomes_kept = 0
        self._to_tell: deque[Path] = deque()
        self._named: set[Path] = set()

    def keeper(self, peer_id: str) -> Keeper:
        """Whose partial files are kept, for transfers from ``peer_id``."""
        return Keeper(peer_id, self._journal_key)

    # What is being sent.

    def claim(self, peer_id: str, what: Sequence[str] | None) -> Claim:
        """The UUID under which to send ``what`` to ``peer_id``: that of an earlier attempt if there is one, and a new
        one where nothing can be remembered or another program is sending the same."""
        fresh = Claim(secrets.token_bytes(UUID_SIZE))
        if what is None or self._home is None or sys.platform == "win32":
            return fresh
        try:
            folder = private_folder(self._home / _SENDING)
            path = folder / self._name("\0".join((peer_id, *what)).encode(errors="surrogateescape"))
            _forget_over(path)  # whoever sends it once more has been told
            found = self._claim(path)
        except OSError:  # what cannot be remembered can still be sent
            return fresh
        with contextlib.suppress(OSError):
            self._prune(folder)
        return found or fresh

    def _claim(self, path: Path) -> Claim | None:
        for _ in range(10):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(path, fd):
                    return self._claim_open(path, fd)
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was forgotten meanwhile
        return None

    def _claim_open(self, path: Path, fd: int) -> Claim:
        with contextlib.suppress(ValueError):
            for record in read_records(read_file(fd), self._key).records:
                if record.kind == _Kind.SENDING and len(record.payload) == UUID_SIZE:
                    os.utime(fd)
                    return Claim(record.payload, True, path, fd)
        uuid = secrets.token_bytes(UUID_SIZE)
        os.ftruncate(fd, 0)
        os.pwrite(fd, self._encode(Record(_Kind.SENDING, uuid)), 0)
        os.fsync(fd)
        self._sync(path.parent)
        return Claim(uuid, False, path, fd)

    def complete(self, claim: Claim) -> None:
        """What was sent under ``claim`` is verified. It is forgotten when this program sends the same again, or at
        :meth:`told`; a program that is killed before it could tell anybody hears of it when it is started again."""
        if claim.path is None:
            claim.release(forget=True)
            return
        claim.release(forget=False)
        with _over_lock:
            _over.add(claim.path)
            self._to_tell.append(claim.path)
        self._forget_all_but(_OVER_MAX)

    @property
    def is_told(self) -> bool:
        """Whether :meth:`told` has nothing to do."""
        return not self._to_tell

    def told(self) -> None:
        """Whoever sent what is complete knows of it."""
        self._forget_all_but(0)

    def _forget_all_but(self, count: int) -> None:
        while True:
            with _over_lock:
                if len(self._to_tell) <= count:
                    return
                path = self._to_tell.popleft()
            _forget_over(path)

    # What was received.

    def begin(self, uuid: bytes, peer_id: str, folder: str) -> None:
        """A transfer from ``peer_id`` into ``folder`` begins, which the peer may come back to finish."""
        path = self._received(uuid, peer_id)
        if path is not None:
            records = [Record(_Kind.UNFINISHED, peer_id.encode()), _folder_record(folder)]
            with contextlib.suppress(OSError):
                self._write(path, records, durable=False)

    def finish(
        self, uuid: bytes, peer_id: str, outcomes: Sequence[Outcome], folder: str = "", *, durable: bool = True
    ) -> None:
        """Keep how a transfer ended; raises :class:`OSError` if that has to be durable and cannot be."""
        key = uuid + peer_id.encode()
        self._keep(key, Received(tuple(outcomes), folder))
        path = self._received(uuid, peer_id)
        if path is None or not folder:
            return
        pages = [Record(_Kind.OUTCOMES, page.encode()) for page in pages_of_verified(outcomes)]
        try:
            self._write(path, [_folder_record(folder), *pages], durable=durable)
        except OSError:
            if durable:
                raise
        else:
            self._drop(key)  # the file has it

    def _keep(self, key: bytes, ended: Received) -> None:
        """Keep in memory how a transfer ended, and forget the oldest of what is too much."""
        self._drop(key)
        with self._lock:
            self._outcomes[key] = ended
            self._outcomes_kept += len(ended.outcomes)
            while len(self._outcomes) > 1 and self._has_too_much:
                _, oldest = self._outcomes.popitem(last=False)
                self._outcomes_kept -= len(oldest.outcomes)

    @property
    def _has_too_much(self) -> bool:
        return len(self._outcomes) > REMEMBERED_MAX or self._outcomes_kept > OUTCOMES_KEPT

    def _drop(self, key: bytes) -> None:
        with self._lock:
            ended = self._outcomes.pop(key, None)
            if ended is not None:
                self._outcomes_kept -= len(ended.outcomes)

    def forget(self, uuid: bytes, peer_id: str) -> None:
        """A transfer that :meth:`begin` told of ended, and left nothing to come back for."""
        path = self._received(uuid, peer_id)
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def outcome(self, uuid: bytes, peer_id: str) -> Received | None:
        """How a transfer from ``peer_id`` ended; None if it did not, or that is not known any more."""
        with self._lock:
            found = self._outcomes.get(uuid + peer_id.encode())
        path = self._received(uuid, peer_id)
        if found is not None or path is None:
            return found
        return _read_outcomes(self._read(path))

    def has_unfinished(self, peer_id: str) -> bool:
        """Whether ``peer_id`` has any transfer to finish."""
        wanted = Record(_Kind.UNFINISHED, peer_id.encode())
        if self._home is None:
            return False
        try:
            names = os.listdir(self._home / _RECEIVED)
        except OSError:
            return False
        return any(wanted in self._read(self._home / _RECEIVED / name) for name in names)

    def is_unfinished(self, uuid: bytes, peer_id: str) -> bool:
        """Whether ``peer_id`` has this transfer to finish."""
        path = self._received(uuid, peer_id)
        return path is not None and Record(_Kind.UNFINISHED, peer_id.encode()) in self._read(path)

    # Files.

    def _received(self, uuid: bytes, peer_id: str) -> Path | None:
        if self._home is None:
            return None
        return self._home / _RECEIVED / self._name(uuid + peer_id.encode())

    def _name(self, what: bytes) -> str:
        return blake3(what, key=self._key).digest(length=16).hex()

    def _encode(self, *records: Record) -> bytes:
        return MAGIC + RecordWriter(self._key).encode(*records)

    def _read(self, path: Path) -> tuple[Record, ...]:
        """The records of a file; none if there is no such file, or not one of this identity's."""
        try:
            fd = os.open(path, _READ)
        except OSError:
            return ()
        try:
            return read_records(read_file(fd), self._key).records
        except (OSError, ValueError):
            return ()
        finally:
            os.close(fd)

    def _write(self, path: Path, records: Sequence[Record], *, durable: bool) -> None:
        """Write a file whole or not at all."""
        folder = private_folder(path.parent)
        draft = folder / f"{path.name}.{secrets.token_hex(8)}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                with memoryview(self._encode(*records)) as data:
                    written = 0
                    while written < len(data):
                        written += os.write(fd, data[written:])
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        if durable:
            self._sync(folder)
        self._prune(folder)

    def _sync(self, folder: Path) -> None:
        """Make the names in a folder durable, and once its own: an earlier attempt may have made it without that."""
        sync_folder(folder)
        if folder not in self._named:
            sync_folder(folder.parent)
            self._named.add(folder)

    def _prune(self, folder: Path) -> None:
        """Forget what is too old, and the oldest of what is too much."""
        names = os.listdir(folder)
        if len(names) <= REMEMBERED_MAX:
            return
        now = time.time()
        files = sorted(_ages(folder, names, now))
        for number, (age, path) in enumerate(files):
            if age > REMEMBERED_SECONDS or number >= REMEMBERED_MAX - REMEMBERED_MAX // 8:
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _forget_over(path: Path) -> None:
    """Forget the UUID of a transfer that is complete, if this program completed it."""
    with _over_lock:
        if path in _over:
            _over.discard(path)
            with contextlib.suppress(OSError):
                os.unlink(path)


def _read_outcomes(records: Sequence[Record]) -> Received | None:
    folder, is_whole = "", False
    outcomes: list[Outcome] = []
    for record in records:
        if record.kind == _Kind.FOLDER:
            folder = record.payload.decode(errors="surrogateescape")
        elif record.kind == _Kind.OUTCOMES:
            page = _page(record.payload)
            if page is None or page.first != len(outcomes):
                return None
            outcomes += page.outcomes
            is_whole = page.last
    return Received(tuple(outcomes), folder) if is_whole else None


def _page(data: bytes) -> VerifiedPage | None:
    try:
        _, start = decode_uint_var(data)
        _, start = decode_uint_var(data, start)
        page = decode_message(MessageType.VERIFIED, data[start:])
    except (ValueError, RemoteProtocolError):
        return None
    return page if isinstance(page, VerifiedPage) else None


def _folder_record(folder: str) -> Record:
    return Record(_Kind.FOLDER, folder.encode(errors="surrogateescape")[:_TEXT_MAX])


def _is_still(path: Path, fd: int) -> bool:
    """Whether the open file is the one that has the name ``path``."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(fd))


def _ages(folder: Path, names: Sequence[str], now: float) -> Iterator[tuple[float, Path]]:
    for name in names:
        with contextlib.suppress(OSError):
            yield now - os.stat(folder / name).st_mtime, folder / name
