"""The hidden folder of one transfer inside its target: partial files, their journal, and what earlier attempts left.

Rules: the folder is ours alone (its owner is checked and, where the disk keeps any, its mode) and locked while it is in
use. What is in it is used only as far as its journal says so; the rest is removed when it is taken over. What nobody
comes back for is removed by a later transfer into the same target.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import count

from blake3 import blake3

from ..blocks import Had, SpaceblockRequest
from ..errors import StorageError
from ..limits import PARTIALS_BYTES, PARTIALS_KEPT, PARTIALS_MAX, PARTIALS_PEER
from ..names import STAGING_PREFIX
from .journal import JOURNAL, Journal, Keeper, Part, Placing, inode_of

if sys.platform != "win32":
    import fcntl

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_OLD_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)

_PEER_DIGITS = 8
"""Of a folder's name, those that tell whose transfer it is."""

_ATTEMPTS = 10
"""How often a folder is opened anew that is gone as soon as it is locked."""

_BEGINNING = 600.0
"""Seconds in which a folder without a journal may still get one."""


class Staging:
    """Made by :meth:`make`; ``fd`` is the open folder."""

    def __init__(self, root: int, name: str, fd: int, journal: Journal | None) -> None:
        self.fd: int = fd
        self.name = name
        self.journal = journal
        self._root = root
        self._unnamed = {fd, root}
        self._flushing = threading.Lock()
        self._unlocking = threading.Lock()

    @classmethod
    def make(cls, root: int, uuid: bytes, keeper: Keeper | None, durable: bool) -> Staging:
        """The folder for this transfer inside the open target ``root``, taken over if an earlier attempt left it.

        Without a ``keeper`` nothing is kept or taken over. Raises :class:`OSError`, and :class:`StorageError` while
        somebody else uses it.
        """
        name = STAGING_PREFIX + _folder_name(uuid, keeper)
        fd, is_new = _open_locked(root, name, may_exist=keeper is not None)
        staging = cls(root, name, fd, None)
        try:
            if keeper is not None:
                if not is_new:
                    staging.journal = Journal.open(fd, uuid, keeper, durable)
                    staging._keep_only_known()
                if staging.journal is None:
                    staging.journal = Journal.create(fd, uuid, keeper, durable)
        except BaseException:
            staging.close(keep=not is_new)
            raise
        return staging

    def keep_only(self, keys: Collection[bytes]) -> None:
        """Forget what belongs to items that are not offered any more."""
        if self.journal is not None:
            for key in {*self.journal.contents.parts, *self.journal.contents.placings}.difference(keys):
                self.journal.dropped(key)
                _remove(partial_name(key), self.fd)

    def part(self, key: bytes, request: SpaceblockRequest) -> Had | None:
        """What the partial file of an item holds, if that can be believed."""
        contents = self.journal.contents if self.journal is not None else None
        if contents is None or request.stop is None:
            return None
        part, placing = contents.parts.get(key), contents.placings.get(key)
        status = self.status(key)
        if status is None or status.st_nlink > 1 or status.st_size > request.stop - request.start:
            # With another name it is somebody's already, who may have written to it, and would find it written to here.
            return None
        if placing is not None and (placing.inode, placing.size) == (inode_of(status), status.st_size):
            part = Part(placing.inode, request.stop, request.stop, placing.digest)
        if part is None or part.inode != inode_of(status) or status.st_size < part.offset - request.start:
            return None
        if not request.start < part.offset <= request.stop or part.checked < request.start:
            return None
        return Had(part.offset, part.checked, part.digest)

    def speaks_of(self, key: bytes) -> bool:
        """Whether the journal says anything of an item."""
        contents = self.journal.contents if self.journal is not None else None
        return contents is not None and (key in contents.parts or key in contents.placings)

    def placing(self, key: bytes) -> Placing | None:
        """The name that the item's file was about to get, or has got."""
        return None if self.journal is None else self.journal.contents.placings.get(key)

    def status(self, key: bytes) -> os.stat_result | None:
        """What the partial file of an item is; None if there is none that is ours and a plain file."""
        try:
            status = os.lstat(partial_name(key), dir_fd=self.fd)
        except OSError:
            return None
        return status if stat.S_ISREG(status.st_mode) and _is_ours(status) else None

    def made(self, key: bytes) -> tuple[int, int, int] | None:
        """The inode, size and time of change of an item's partial file; None if there is none."""
        status = self.status(key)
        return None if status is None else (inode_of(status), status.st_size, status.st_mtime_ns)

    def open_part(self, key: bytes, length: int | None = None) -> int:
        """A descriptor of the partial file for writing, cut to ``length`` bytes if that is given."""
        fd = self._open(key, os.O_RDWR)
        try:
            if length is not None:
                os.ftruncate(fd, length)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read_part(self, key: bytes) -> int:
        """A descriptor of the partial file for reading and flushing."""
        return self._open(key, os.O_RDONLY)

    def flush(self, key: bytes, *, durable: bool) -> int | None:
        """Make the bytes of a partial file durable, unless nobody wants that; returns its inode, or None if it is not
        there any more."""
        try:
            fd = self.read_part(key)
        except FileNotFoundError:
            return None
        try:
            if durable:
                os.fdatasync(fd)
            return inode_of(os.fstat(fd))
        finally:
            os.close(fd)

    def named(self) -> None:
        """There are new names in the folder."""
        self._unnamed.add(self.fd)

    def flush_names(self) -> None:
        """Make the names in the folder durable, and its own: an entry of the journal is worth nothing without the files
        that it is about, nor they without it. Raises :class:`OSError`."""
        with self._flushing:  # whoever finds nothing left to flush may rely on it
            for fd in (self.fd, self._root):
                if fd in self._unnamed:
                    self._unnamed.discard(fd)  # before, as there may be further names meanwhile
                    try:
                        os.fsync(fd)
                    except OSError:
                        self._unnamed.add(fd)
                        raise

    def close(self, *, keep: bool) -> None:
        """Give the folder up; unless ``keep``, the journal goes, and the folder if it is empty then. Safe to call
        twice."""
        if self.fd < 0:
            return
        if self.journal is not None:
            self.journal.close()
        if not keep:
            with suppress(OSError):
                os.unlink(JOURNAL, dir_fd=self.fd)
            with suppress(OSError):
                os.rmdir(self.name, dir_fd=self._root)
        fd, self.fd = self.fd, -1
        with suppress(OSError):
            os.close(fd)

    def _open(self, key: bytes, way: int) -> int:
        """A descriptor of the partial file, also where it has got a mode already that forbids that to its owner."""
        name = partial_name(key)
        with self._unlocking:
            try:
                return os.open(name, way | _OLD_FILE, dir_fd=self.fd)
            except PermissionError:
                status = self.status(key)
                if status is None:
                    raise
                os.chmod(name, 0o600, dir_fd=self.fd)
                try:
                    return os.open(name, way | _OLD_FILE, dir_fd=self.fd)
                finally:
                    os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=self.fd)

    def _keep_only_known(self) -> None:
        known = {JOURNAL} if self.journal is not None else set()
        if self.journal is not None:
            contents = self.journal.contents
            known |= {partial_name(key) for key in (*contents.parts, *contents.placings)}
        for name in os.listdir(self.fd):
            if name not in known:
                _remove(name, self.fd)


def sweep(root: int, now: float | None = None) -> None:
    """Remove what transfers into the open folder ``root`` left and nobody came back for: what is older than
    :data:`PARTIALS_KEPT`, holds nothing of use, or is one too many, also of one peer, as is what makes that peer's too
    large. What is in use is locked, and stays."""
    now = time.time() if now is None else now
    left: list[tuple[float, str]] = []
    for name in _left_behind(root):
        age = _age(root, name, now)
        if age is not None:
            left.append((age, name))
    left.sort()
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for number, (age, name) in enumerate(left):
        peer = name[: len(STAGING_PREFIX) + _PEER_DIGITS]
        sizes[peer] += _size(root, name)
        too_large = sizes[peer] > PARTIALS_BYTES and counts[peer] > 0
        if age > PARTIALS_KEPT or number >= PARTIALS_MAX or counts[peer] >= PARTIALS_PEER or too_large:
            with suppress(OSError, StorageError):
                _remove_left(root, name)
        counts[peer] += 1


def remove_left(target: str, uuid: bytes, keeper: Keeper) -> None:
    """Remove what a transfer that is over left in the folder ``target``, if anything; nothing is told of a failure."""
    with suppress(OSError, StorageError, ValueError):
        root = os.open(target, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
        try:
            _remove_left(root, STAGING_PREFIX + _folder_name(uuid, keeper))
        finally:
            os.close(root)


def partial_name(key: bytes) -> str:
    """The name of an item's partial file, which tells nothing and fits everywhere."""
    return key.hex()


def _left_behind(root: int) -> Iterator[str]:
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(STAGING_PREFIX):
                yield entry.name


def _age(root: int, name: str, now: float) -> float | None:
    """Seconds since something of use was written; infinite for what never held any, None for what is not to be touched:
    what is not ours, or may just be coming into being."""
    try:
        fd, _ = _open_own(root, name, may_exist=True, make=False)
    except (OSError, StorageError):
        return None
    try:
        return now - os.lstat(JOURNAL, dir_fd=fd).st_mtime
    except FileNotFoundError:
        return float("inf") if now - os.fstat(fd).st_mtime > _BEGINNING else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _size(root: int, name: str) -> int:
    """Bytes on the disk of what is in a folder of ours; 0 where nothing can be known."""
    try:
        fd, _ = _open_own(root, name, may_exist=True, make=False)
    except (OSError, StorageError):
        return 0
    try:
        with os.scandir(fd) as entries:
            return sum(_blocks(entry) for entry in entries)
    except OSError:
        return 0
    finally:
        os.close(fd)


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def _remove_left(root: int, name: str) -> None:
    fd, _ = _open_own(root, name, may_exist=True, make=False)
    try:
        _lock(fd)
        for inner in os.listdir(fd):
            _remove(inner, fd)
        os.rmdir(name, dir_fd=root)
    finally:
        os.close(fd)


def _open_own(root: int, name: str, *, may_exist: bool, make: bool = True) -> tuple[int, bool]:
    """A descriptor of the folder ``name`` in ``root``, and whether it was made now."""
    is_new = False
    if make:
        try:
            os.mkdir(name, 0o700, dir_fd=root)
            is_new = True
        except FileExistsError:
            if not may_exist:
                raise
    try:
        fd = os.open(name, _FOLDER, dir_fd=root)
    except BaseException:
        if is_new:
            os.rmdir(name, dir_fd=root)
        raise
    try:
        if not _is_ours(os.fstat(fd)) or not _is_private(fd):
            raise FileExistsError(errno.EEXIST, "it is not this user's alone")
    except BaseException:
        os.close(fd)
        if is_new:
            os.rmdir(name, dir_fd=root)
        raise
    return fd, is_new


def _open_locked(root: int, name: str, *, may_exist: bool) -> tuple[int, bool]:
    """As :func:`_open_own`, and locked; where somebody else gave it up and removed it just before that, another one."""
    for attempt in count():
        fd, is_new = _open_own(root, name, may_exist=may_exist)
        try:
            _lock(fd)
            if os.fstat(fd).st_nlink or attempt == _ATTEMPTS:  # some file systems count no links at all
                break
        except BaseException as error:
            os.close(fd)
            if is_new and not isinstance(error, StorageError):  # then somebody else uses it
                os.rmdir(name, dir_fd=root)
            raise
        os.close(fd)
    return fd, is_new


def _is_ours(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _is_private(fd: int) -> bool:
    """Whether nobody else gets into a folder of ours, or its disk gives everything on it one mode, as one with FAT
    does, so that this is for who mounts it to say."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if not mode & 0o077 or not hasattr(os, "fchmod"):
        return True
    with suppress(OSError):
        os.fchmod(fd, mode & 0o700)
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)
            return False
    return True


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = "the same transfer is being received already: wait until that is over"
        raise StorageError(text, errno=error.errno) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _folder_name(uuid: bytes, keeper: Keeper | None) -> str:
    """Transfers of two peers never share a folder, whatever UUID one of them claims; those of one peer begin alike."""
    if keeper is None:
        return uuid.hex()
    peer = blake3(keeper.peer_id.encode(), key=keeper.key).digest(length=_PEER_DIGITS // 2).hex()
    return peer + blake3(uuid + keeper.peer_id.encode(), key=keeper.key).hexdigest(length=16)[_PEER_DIGITS:]


def _remove(name: str, folder: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""How a file system says that it has no locks; then a second program is not kept away."""
