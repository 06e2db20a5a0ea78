"""What is sent: paths and buffers turned into a list of items with their sizes, before anything is offered.

Rules: everything that can be found wrong without reading the data is found here. A folder becomes its files; symbolic
links and special files in it are left out and named in the log. The identity of each file is kept, so that a change
while it waits or is read is noticed.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..blocks import BlockSize, Partial, SpaceblockRequest, SpaceblockRequests
from ..display import printable
from ..errors import BufferUnfit, LocalProtocolError, SourceChanged, SourceError, SpaceblockError, source_error
from ..manifest import Entry, EntryKind, Manifest
from ..names import local_rules

logger = logging.getLogger("spaceblock")

_PREPARING = "preparing"

# Without O_NONBLOCK, opening what has become a named pipe meanwhile would wait for its writer.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to send, with choices: ``source`` is a path or any C-contiguous buffer, ``name`` the name to offer it
    under ('/' between folders; None: a path keeps its own and a buffer has none), ``range`` the half-open part of it in
    bytes that travels (None: all).

    The source has no narrower type because before Python 3.12 no type holds for the buffers of other libraries."""

    source: Any
    name: str | None = None
    range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file to read; ``identity`` is what it looked like when it was offered."""

    path: str
    name: str
    request: SpaceblockRequest
    identity: tuple[int, int, int, int]

    def open(self) -> int:
        """A descriptor for reading; raises :class:`SourceError`, :class:`SourceChanged` among them."""
        try:
            fd = os.open(self.path, _READ)
        except OSError as error:
            what = f"cannot open {printable(self.path)!r}"
            raise source_error(error, what, name=self.name, path=self.path) from error
        try:
            self.check(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check(self, fd: int) -> None:
        """Raise :class:`SourceChanged` unless the open file is still what was offered."""
        if _identity(os.fstat(fd)) != self.identity:
            raise SourceChanged(
                f"{printable(self.path)!r} changed after it was offered: send it again when nobody writes to it",
                name=self.name,
                path=self.path,
            )


@dataclass(frozen=True, slots=True)
class BufferSource:
    """A caller's buffer, held until the transfer ends."""

    view: memoryview
    name: str | None
    request: SpaceblockRequest


Source = FileSource | BufferSource


def source_length(source: Source) -> int:
    """Bytes of ``source`` that travel."""
    length = source.request.length
    assert length is not None, "files and buffers know their sizes"
    return length


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that an offer says, and where each item's bytes are."""

    requests: SpaceblockRequests
    manifest: Manifest | None
    sources: tuple[Source, ...]

    def release(self) -> None:
        """Give the callers' buffers back."""
        for source in self.sources:
            if isinstance(source, BufferSource):
                source.view.release()


def hold_buffers(things: Sequence[object]) -> list[Item | BufferSource]:
    """Take hold of every buffer among ``things`` at once, so that none can be resized before the transfer starts."""
    held: list[Item | BufferSource] = []
    try:
        for thing in things:
            item = thing if isinstance(thing, Item) else Item(thing)
            if isinstance(item.source, (str, os.PathLike)):
                held.append(item)
            else:
                view = _flat_view(item.source)
                try:
                    held.append(BufferSource(view, item.name, _request(item, len(view))))
                except BaseException:
                    view.release()
                    raise
    except BaseException:
        release_buffers(held)
        raise
    return held


def release_buffers(held: Sequence[Item | BufferSource]) -> None:
    """Undo :func:`hold_buffers`."""
    for thing in held:
        if isinstance(thing, BufferSource):
            thing.view.release()


def prepare(held: Sequence[Item | BufferSource]) -> Prepared:
    """Look at every source; raises :class:`SourceError`, :class:`NameRejected`, or :class:`LocalProtocolError` for two
    of one name, before anything is offered.

    This walks folders and so belongs in a worker thread.
    """
    sources: list[Source] = []
    folders: list[str] = []
    for thing in held:
        if isinstance(thing, BufferSource):
            sources.append(thing)
        else:
            for found in _expand(thing):
                if isinstance(found, str):
                    folders.append(found)
                else:
                    sources.append(found)
    rules = local_rules()
    for name in [*folders, *(source.name for source in sources if source.name is not None)]:
        rules.check(name)
    items = tuple(source.request for source in sources)
    largest = max((source.request.size or 0 for source in sources), default=0)
    requests = SpaceblockRequests(uuid.uuid4().bytes, BlockSize.for_size(largest), items)
    return Prepared(requests, _manifest(folders, sources), tuple(sources))


def _manifest(folders: Sequence[str], sources: Sequence[Source]) -> Manifest | None:
    entries = [Entry(EntryKind.FOLDER, name) for name in folders]
    entries += [
        Entry(EntryKind.FILE, source.name, item=index)
        for index, source in enumerate(sources)
        if source.name is not None
    ]
    return Manifest(tuple(entries), len(sources)) if entries else None


def _expand(item: Item) -> Iterator[FileSource | str]:
    """The files of ``item``, and the name of each folder before what is in it."""
    path = os.path.abspath(os.fspath(item.source))
    name = os.path.basename(path) if item.name is None else item.name
    try:
        status = os.stat(path)
    except OSError as error:
        raise _source_error(error, path) from error
    except ValueError:
        raise SourceError(f"{printable(path)!r} is no path on this system: check it", phase=_PREPARING) from None
    if stat.S_ISDIR(status.st_mode):
        if item.range is not None:
            raise LocalProtocolError(f"{printable(path)!r} is a folder: a range can only be asked of a file or buffer")
        yield from _walk(path, name)
    elif stat.S_ISREG(status.st_mode):
        yield _file(path, name, status, item)
    else:
        raise SourceError(f"{printable(path)!r} is neither a file nor a folder: send a regular file", phase=_PREPARING)


def _walk(path: str, name: str) -> Iterator[FileSource | str]:
    yield local_rules().check(name)
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            inner = f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, inner)
            elif entry.is_file(follow_symlinks=False):
                yield _file(entry.path, inner, entry.stat(follow_symlinks=False), None)
            else:
                logger.warning("left out %s: it is a link or a special file", printable(entry.path))
    except SpaceblockError:
        raise
    except OSError as error:
        raise _source_error(error, path) from error


def _file(path: str, name: str, status: os.stat_result, item: Item | None) -> FileSource:
    if not os.access(path, os.R_OK):
        raise _source_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)
    size = status.st_size
    return FileSource(path, name, SpaceblockRequest(size) if item is None else _request(item, size), _identity(status))


def _source_error(error: OSError, path: str) -> SourceError:
    return source_error(error, f"cannot send {printable(path)!r}", name=path, phase=_PREPARING)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _request(item: Item, size: int) -> SpaceblockRequest:
    if item.range is None:
        return SpaceblockRequest(size)
    start, stop = item.range
    if not 0 <= start <= stop <= size:
        raise LocalProtocolError(f"the range {start} to {stop} leaves the source's {size} bytes: choose one within")
    return SpaceblockRequest(size, Partial(start, stop))


def _flat_view(source: object) -> memoryview:
    try:
        view = memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        raise LocalProtocolError(
            f"cannot send a {type(source).__name__}: give a path, a buffer or a spaceblock.Item"
        ) from None
    except ValueError as error:
        raise BufferUnfit(f"cannot send this {type(source).__name__}: {error}; send its bytes instead") from error
    return flat(view)


def flat(view: memoryview) -> memoryview:
    """``view`` as bytes; raises :class:`BufferUnfit` if its items are not one contiguous run."""
    if not view.c_contiguous:
        view.release()
        raise BufferUnfit("the buffer is not C-contiguous: copy it first, for example with numpy.ascontiguousarray")
    if view.nbytes == 0:
        view.release()
        return memoryview(bytearray())
    if view.format == "B" and view.ndim == 1:
        return view
    with view:
        return view.cast("B")
