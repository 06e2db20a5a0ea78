"""What is sent: paths, buffers, file objects and iterators turned into items, before anything is offered.

Rules: everything that can be found wrong without reading the data is found here. What the caller might change or close
is held from the call on. Where only the end will tell the size, the item says so, and that it cannot be read again.
"""

from __future__ import annotations

import io
import operator
import os
import stat
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..blocks import BlockSize, SpaceblockRequest, SpaceblockRequests
from ..core import MESSAGE_DATA_MAX, make_records
from ..display import kind_of
from ..errors import BufferUnfit, LocalProtocolError, SpaceblockError, source_error
from ..names import WIRE_RULES
from ..options import Links
from ..process.lazily import dataclass
from ..wire.manifest import Entry, EntryKind, Manifest, retargeted
from .files import PREPARING, FileSource, expand, open_file, request_of
from .readers import SourceReader, has_descriptor, is_open_for, read_error, reader_of
from .rereading import FileBytes, MemoryBytes, Reread

_ADDRESSES = frozenset("OPXZz&")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to send, with choices: ``source`` is all that :meth:`Peer.send` takes, ``name`` the name to offer it
    under ('/' between folders; None: a path keeps its own and all else has none), ``range`` the half-open part of it in
    bytes that travels (None: all).

    The source has no narrower type because before Python 3.12 no type holds for the buffers of other libraries."""

    source: Any
    name: str | None = None
    range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class BufferSource:
    """A caller's buffer, held until the transfer ends."""

    view: memoryview
    name: str | None
    request: SpaceblockRequest

    def close(self) -> None:
        """Give the buffer back."""
        self.view.release()


@dataclass(frozen=True, slots=True)
class StreamSource:
    """What is read from front to back: a pipe, a file object or an asynchronous iterator."""

    reader: SourceReader
    name: str | None
    request: SpaceblockRequest

    def close(self) -> None:
        """Give back what the reader holds."""
        self.reader.close()


Source = FileSource | BufferSource | StreamSource
Held = Item | FileSource | BufferSource | StreamSource
"""What was given to send: a path still to be looked at, or what is held already."""


def source_length(source: Source) -> int | None:
    """Bytes of ``source`` that travel, None where only the end will tell."""
    return source.request.length


def reread(source: FileSource | BufferSource) -> Reread:
    """Read a source by position, beside what else reads it; raises :class:`SourceError`."""
    if isinstance(source, BufferSource):
        return MemoryBytes(source.view[:])
    return _CheckedBytes(source)


class _CheckedBytes(FileBytes):
    """A file that is to be sent, which must stay what was offered."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._checked_fd = source.open()
        super().__init__(self._checked_fd)

    def read(self, offset: int, room: memoryview) -> int:
        self._source.check(self._checked_fd)
        try:
            count = super().read(offset, room)
        except OSError as error:
            raise self._source.error(error, "read") from error
        if not count:
            raise self._source.changed("became shorter")
        return count


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that an offer says, and where each item's bytes are."""

    requests: SpaceblockRequests
    manifest: Manifest | None
    sources: tuple[Source, ...]
    entries: tuple[Entry, ...]
    """What the manifest is made of; the names are those that the caller gave."""

    def named(self, entries: Sequence[Entry]) -> Prepared:
        """The same with a manifest of ``entries``; raises :class:`NameRejected` for a name that no receiver could take,
        :class:`LocalProtocolError` for two of one name."""
        entries = retargeted(self.entries, entries)
        if not WIRE_RULES.are_plain([entry.name for entry in entries]):
            for entry in entries:
                WIRE_RULES.check(entry.name)
        return replace(self, manifest=Manifest(tuple(entries), len(self.sources)) if entries else None)

    def release(self) -> None:
        """Give the caller's things back."""
        for source in self.sources:
            source.close()


def hold_buffers(things: Sequence[object]) -> list[Held]:
    """Take hold of everything but paths at once, so that no buffer can be resized and no file closed before the
    transfer starts.

    Raises :class:`LocalProtocolError`, :class:`BufferUnfit` and :class:`SourceError`.
    """
    held: list[Held] = []
    try:
        for thing in things:
            held.append(_hold(thing if isinstance(thing, Item) else Item(thing)))
    except BaseException as error:
        release_buffers(held)
        if isinstance(error, OSError) and not isinstance(error, SpaceblockError):
            raise source_error(error, f"cannot hold source {len(held)}", phase=PREPARING) from error
        raise
    return held


def check_sources(things: Sequence[object], links: Links = "skip") -> None:
    """Raise what :func:`hold_buffers` and :func:`prepare` find wrong at a first look, which holds and opens nothing.

    What gives its bytes once, as a pipe or an iterator, is not touched, and no folder is walked.
    """
    for thing in things:
        item = _checked(thing if isinstance(thing, Item) else Item(thing))
        if isinstance(item.source, str):
            next(expand(item.source, item.name, item.range, links), None)
        elif not any(hasattr(item.source, name) for name in ("__aiter__", "read", "readinto")):
            release_buffers([_hold(item)])


def description(held: Sequence[Held], links: Links) -> list[str] | None:
    """What was given to send, in words that say the same when the same is given again; None where it is not only
    paths."""
    words: list[str] = [links]
    for thing in held:
        if not isinstance(thing, Item):
            return None
        words.append(f"{os.path.abspath(thing.source)!r} {thing.name!r} {thing.range!r}")
    return words


def stop_reading(held: Sequence[Held]) -> None:
    """Nobody wants the bytes any more: end what waits for them in another thread."""
    for thing in held:
        if isinstance(thing, StreamSource):
            thing.reader.stop()


def release_buffers(held: Sequence[Held]) -> None:
    """Undo :func:`hold_buffers`; this may wait for an iterator's own cleaning up."""
    for thing in held:
        if not isinstance(thing, Item):
            thing.close()


def prepare(
    held: Sequence[Held],
    links: Links = "skip",
    *,
    names_later: bool = False,
    on_work: Callable[[], None] = lambda: None,
) -> Prepared:
    """Look at every source; raises :class:`SourceError` and, unless the names are to be looked at later, what
    :meth:`Prepared.named` raises, before anything is offered.

    This walks folders and so belongs in a worker thread; ``on_work`` is called for each thing that it finds.
    """
    sources: list[Source] = []
    entries: list[Entry] = []
    for thing in held:
        if isinstance(thing, Item):
            for found in expand(thing.source, thing.name, thing.range, links):
                on_work()
                if isinstance(found, Entry):
                    entries.append(found)
                else:
                    sources.append(found)
        else:
            sources.append(_measured(thing) if isinstance(thing, StreamSource) else thing)
    rows = (_entry_row(source, item) for item, source in enumerate(sources) if source.name is not None)
    entries += make_records(Entry, rows)
    items = tuple(source.request for source in sources)
    requests = SpaceblockRequests(uuid.uuid4().bytes, _block_size(items), items)
    prepared = Prepared(requests, None, tuple(sources), tuple(entries))
    return prepared if names_later else prepared.named(entries)


def _hold(item: Item) -> Held:
    item = _checked(item)
    source = item.source
    if isinstance(source, str):
        return item
    if type(source) is io.BytesIO and not source.closed:
        return _hold_bytes(item, source)
    view = _flat_view(source)
    if view is not None:
        return _hold_view(view, item.name, item.range)
    if has_descriptor(source) and is_open_for(source, "readable") and stat.S_ISREG(os.fstat(source.fileno()).st_mode):
        return open_file(source, item.name, item.range)
    reader = reader_of(source)
    if reader is None:
        raise LocalProtocolError(
            f"cannot send {kind_of(source)}: give a path, a buffer, a binary file, an asynchronous iterator "
            "of bytes, or a spaceblock.Item"
        )
    if item.range is not None:
        reader.close()
        raise LocalProtocolError("a range can only be asked of a path, a buffer or an open file: leave it out")
    return StreamSource(reader, item.name, SpaceblockRequest(None, rereadable=False))


def _checked(item: Item) -> Item:
    """``item`` with a path as a string and a range of whole numbers; raises :class:`LocalProtocolError`."""
    source, part = item.source, item.range
    if item.name is not None and not isinstance(item.name, str):
        raise LocalProtocolError(f"the name {item.name!r} is not a string: write it with '/' between folders")
    if isinstance(source, os.PathLike):
        source = os.fsdecode(source)
    if isinstance(source, str) and not source:  # nobody means the current folder by that
        raise LocalProtocolError('the path to send is empty: name a file or folder, "." for the current one')
    if part is not None:
        try:
            start, stop = map(operator.index, part)
        except (TypeError, ValueError):
            raise LocalProtocolError(
                f"the range {part!r} is not a pair of whole numbers: write (start, stop)"
            ) from None
        part = start, stop
    return Item(source, item.name, part)


def _hold_bytes(item: Item, file: io.BytesIO) -> BufferSource:
    position = file.tell()
    view = file.getbuffer()
    part = item.range or ((min(position, len(view)), len(view)) if position else None)
    return _hold_view(view, item.name, part)


def _hold_view(view: memoryview, name: str | None, part: tuple[int, int] | None) -> BufferSource:
    try:
        return BufferSource(view, name, request_of(len(view), part))
    except BaseException:
        view.release()
        raise


def _measured(source: StreamSource) -> StreamSource:
    """``source`` with its size, where it can be found without reading it."""
    try:
        found = source.reader.measure()
    except OSError as error:
        raise source_error(error, "cannot find the size of a file object", name=source.name, phase=PREPARING) from error
    except BaseException as error:  # a worker thread is not what SystemExit and its like are meant to end
        raise read_error(error, "a file object") from error
    if found is None:
        return source
    start, stop = found
    return StreamSource(source.reader, source.name, request_of(stop, (start, stop) if start else None))


def _entry_row(source: Source, item: int) -> tuple[Any, ...]:
    """The fields of the entry that names ``source``."""
    if isinstance(source, FileSource) and source.mode is not None:
        return EntryKind.FILE, source.name, item, source.mode, source.identity.modified_ns, None
    return EntryKind.FILE, source.name, item, None, None, None


def _block_size(items: Sequence[SpaceblockRequest]) -> int:
    """By the largest item; one of unknown size, which cannot be repaired anyway, asks for few messages instead."""
    known = BlockSize.for_size(max((item.size or 0 for item in items), default=0))
    return max(known, MESSAGE_DATA_MAX) if any(item.size is None for item in items) else known


def _flat_view(source: object) -> memoryview | None:
    try:
        view = memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        return None
    except ValueError as error:
        raise BufferUnfit(f"cannot send this {type(source).__name__}: {error}; send its bytes instead") from error
    return flat(view)


def flat(view: memoryview) -> memoryview:
    """``view`` as bytes; raises :class:`BufferUnfit` if its items are not one contiguous run, or are addresses."""
    if _holds_addresses(view.format):
        # A peer's would be followed here, and ours are nobody's business.
        view.release()
        raise BufferUnfit(
            "the buffer holds Python objects or pointers: give one of numbers, or what pickle makes of it"
        )
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


def _holds_addresses(layout: str) -> bool:
    """Whether a buffer of this format (PEP 3118) has objects, pointers, functions or C's strings in it."""
    kinds = "".join(layout.split(":")[::2])  # the names of fields are between colons
    for complex_number in ("Zf", "Zd", "Zg"):
        kinds = kinds.replace(complex_number, "")
    return not _ADDRESSES.isdisjoint(kinds)
