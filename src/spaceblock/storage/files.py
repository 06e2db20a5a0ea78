"""Files and folders to send: what each looked like when it was offered, so that no change goes unnoticed.

A folder becomes its files, its folders, empty ones too, and its symbolic links if that was asked for; special files
are left out and named in the log, and so is a link that leads out of the folder. A file with several names is sent
under each.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import field, replace
from typing import Any

from ..blocks import Full, Partial, SpaceblockRequest
from ..core import find_files, make_records
from ..display import printable
from ..errors import LocalProtocolError, SourceChanged, SourceError, SpaceblockError, source_error
from ..events import Phase
from ..names import DEPTH_MAX, WIRE_RULES
from ..options import Links
from ..process.lazily import dataclass
from ..wire.manifest import Entry, EntryKind
from .metadata import MODE, is_usual_time, leads_out

logger: logging.Logger = logging.getLogger("spaceblock")

TICK = 20_000_000
"""Nanoseconds within which two changes of a file may have the same time: twice Linux's longest tick."""

SMALL = 131_072
"""Bytes up to which a file fits into the smallest block (see :class:`~spaceblock.blocks.BlockSize`)."""

PREPARING = str(Phase.PREPARING)

# Without O_NONBLOCK, opening what has become a named pipe meanwhile would wait for its writer.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file from what it was before or from another: rewriting and deleting change ``changed_ns``, which no
    program can set back."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file to read by position; ``identity`` is what it looked like when it was offered."""

    path: str
    name: str | None
    request: SpaceblockRequest
    identity: Identity
    mode: int | None = None
    is_sparse: bool = False
    """Whether it takes less of its disk than it has bytes."""

    held: int = field(default=-1, compare=False)
    """A descriptor to read from instead of opening ``path``, for a caller's open file."""

    def is_small(self, before: int) -> bool:
        """Whether it can be read in one go with others: a small file of a usual time that travels whole and was not
        written to since ``before``, in nanoseconds since 1970."""
        identity, request = self.identity, self.request
        return (
            0 < identity.size <= SMALL
            and type(request.range) is Full
            and not self.is_sparse
            and self.held < 0
            and identity.changed_ns <= before
            and is_usual_time(identity.modified_ns)
        )

    def open(self) -> int:
        """A descriptor for reading; raises :class:`SourceError`, :class:`SourceChanged` among them."""
        self._let_the_tick_pass()
        try:
            fd = os.open(self.path, _READ) if self.held < 0 else os.dup(self.held)
        except OSError as error:
            raise self._vanished(error) if error.errno in _GONE else self.error(error, "open") from error
        try:
            self.check(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check(self, fd: int) -> None:
        """Raise :class:`SourceChanged` unless the open file is still what was offered; and :class:`SourceError`."""
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise self.error(error, "look at") from error
        now = Identity.of(status)
        if now != self.identity:
            raise self.changed("was deleted or replaced" if not status.st_nlink else _difference(self.identity, now))

    def changed(self, how: str, other_way: str = "") -> SourceChanged:
        """The error for a file that is not any more what was offered; ``other_way`` may add to what to do."""
        advice = f"send it again when nobody writes to it{other_way}"
        text = f"{printable(self.path)!r} {how} after it was offered: {advice}"
        return SourceChanged(text, name=self.name, path=self.path)

    def error(self, error: OSError, action: str) -> SourceError:
        """What the system says, as an error of this source."""
        return source_error(error, f"cannot {action} {printable(self.path)!r}", name=self.name, path=self.path)

    def _let_the_tick_pass(self) -> None:
        """Wait until another change would have another time: a file that was written just now could be written to again
        within the same tick of the system's clock, while it is read, and look the same."""
        age = time.time_ns() - self.identity.changed_ns
        if 0 <= age < TICK:
            time.sleep((TICK - age) / 1e9)

    def _vanished(self, error: OSError) -> SourceChanged:
        changed = self.changed("was moved away or deleted")
        changed.errno = error.errno
        return changed

    def close(self) -> None:
        """Give the caller's open file back; harmless for all others."""
        if self.held >= 0:
            os.close(self.held)


def expand(path: str, name: str | None, part: tuple[int, int] | None, links: Links) -> Iterator[FileSource | Entry]:
    """The files below ``path``, and the entry of each folder before what is in it.

    Raises :class:`SourceError`, :class:`NameRejected`, and :class:`LocalProtocolError` for a ``part`` of a folder.
    """
    path = os.path.abspath(path)
    if name is None:
        name = _text_of(os.path.basename(path))
    try:
        status = os.stat(path)
    except OSError as error:
        raise _cannot_send(error, path) from error
    except ValueError:
        raise SourceError(f"{printable(path)!r} is no path on this system: check it", phase=PREPARING) from None
    if stat.S_ISDIR(status.st_mode):
        if part is not None:
            raise LocalProtocolError(f"{printable(path)!r} is a folder: a range can only be asked of a file or buffer")
        yield from _walk(path, name, status, links)
    elif stat.S_ISREG(status.st_mode):
        yield _file(path, name, status, part)
    else:
        raise SourceError(f"{printable(path)!r} is neither a file nor a folder: send a regular file", phase=PREPARING)


def raw(name: str) -> bytes | str:
    """A name or path as the core takes it."""
    return name if name.isascii() else os.fsencode(name)


def open_file(file: Any, name: str | None, part: tuple[int, int] | None) -> FileSource:
    """A caller's open plain file, from where it stands to its end, unless ``part`` says otherwise; it is read by
    position, which leaves the caller's where it is."""
    if file.writable():
        file.flush()
    position = file.tell()
    held = os.dup(file.fileno())
    try:
        status = os.fstat(held)
        if part is None and position:
            part = (min(position, status.st_size), status.st_size)
        path = os.path.abspath(os.fsdecode(file.name)) if isinstance(file.name, (str, bytes)) else "the open file"
        source = FileSource(path, name, _request(status, part), Identity.of(status))
        return replace(source, is_sparse=_is_sparse(status), held=held)
    except BaseException:
        os.close(held)
        raise


def request_of(size: int, part: tuple[int, int] | None) -> SpaceblockRequest:
    """The request for ``part`` of ``size`` bytes; raises :class:`LocalProtocolError` for a part that leaves them."""
    if part is None:
        return SpaceblockRequest(size)
    start, stop = part
    if not 0 <= start <= stop <= size:
        raise LocalProtocolError(f"the range {start} to {stop} leaves the source's {size} bytes: choose one within")
    return SpaceblockRequest(size, Partial(start, stop))


def _walk(path: str, name: str, status: os.stat_result, links: Links, depth: int = 0) -> Iterator[FileSource | Entry]:
    if name.count("/") >= DEPTH_MAX:  # whatever a user might call it: what walks here goes no deeper
        WIRE_RULES.check(name)
    yield Entry(EntryKind.FOLDER, name, mode=status.st_mode & MODE, mtime_ns=status.st_mtime_ns)
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        plain = _plain_files(found, name)
        for entry in found:
            source = plain.get(entry.name)
            if source is not None:
                yield source
                continue
            inner = f"{name}/{_text_of(entry.name)}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, inner, entry.stat(follow_symlinks=False), links, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                yield _file(entry.path, inner, entry.stat(follow_symlinks=False), None)
            elif entry.is_symlink() and links == "copy":
                yield from _link(entry, inner, depth)
            else:
                kind = "link, and links are copied only if asked for" if entry.is_symlink() else "special file"
                logger.warning("left out %s: it is a %s", printable(entry.path), kind)
    except SpaceblockError:
        raise
    except OSError as error:
        raise _cannot_send(error, path) from error


def _plain_files(entries: Sequence[os.DirEntry[str]], folder: str) -> dict[str, FileSource]:
    """The files of a folder that are as plain as can be, by name: all at once, and the first that is not, and those
    behind it, are left to be looked at alone."""
    files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    if len(files) < 2:
        return {}
    found = find_files([raw(entry.path) for entry in files])
    requests = make_records(SpaceblockRequest, ((identity[2], _FULL, True, None) for _, identity in found))
    identities = make_records(Identity, (identity for _, identity in found))
    rows = (
        (entry.path, f"{folder}/{_text_of(entry.name)}", request, identity, mode & MODE, False, -1)
        for entry, request, identity, (mode, _) in zip(files, requests, identities, found, strict=False)
    )
    return {entry.name: source for entry, source in zip(files, make_records(FileSource, rows), strict=False)}


def _text_of(name: str) -> str:
    """A name from the disk as it travels: what this locale has no letters for is UTF-8, as it is elsewhere."""
    if name.isascii():
        return name
    with suppress(UnicodeError):
        name.encode()
        return name
    with suppress(UnicodeError):
        return os.fsencode(name).decode()
    return name


def _link(entry: os.DirEntry[str], name: str, depth: int) -> Iterator[Entry]:
    """The entry of a link, unless it leads out of the folder that is sent, ``depth`` folders above it."""
    target = _text_of(os.readlink(entry.path))
    if leads_out(target, depth):
        logger.warning("left out %s: it is a link that leads out of what is sent", printable(entry.path))
    else:
        yield Entry(EntryKind.LINK, name, target=target, mtime_ns=entry.stat(follow_symlinks=False).st_mtime_ns)


def _file(path: str, name: str, status: os.stat_result, part: tuple[int, int] | None) -> FileSource:
    if not os.access(path, os.R_OK):
        raise _cannot_send(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)
    request = _request(status, part)
    return FileSource(path, name, request, Identity.of(status), status.st_mode & MODE, _is_sparse(status))


def _request(status: os.stat_result, part: tuple[int, int] | None) -> SpaceblockRequest:
    request = request_of(status.st_size, part)
    if not _is_sparse(status):
        return request
    return replace(request, data=min(status.st_blocks * 512, request.length or 0))


def _is_sparse(status: os.stat_result) -> bool:
    return hasattr(os, "SEEK_DATA") and status.st_blocks * 512 < status.st_size


def _cannot_send(error: OSError, path: str) -> SourceError:
    return source_error(error, f"cannot send {printable(path)!r}", name=path, phase=PREPARING)


def _difference(before: Identity, now: Identity) -> str:
    if (before.device, before.inode) != (now.device, now.inode):
        return "was replaced"
    if now.size != before.size:
        return "grew" if now.size > before.size else "became shorter"
    return "was changed"


_FULL = Full()
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
