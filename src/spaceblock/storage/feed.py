"""The sending path of the bytes: from files and callers' buffers to the hasher and to pieces of one data stream.

A :class:`Feed` works in a worker thread, one call at a time, and touches neither the event loop nor the protocol's
state: each call fills one buffer of the ring and reports what was finished with it. The bytes of a file or a pipe are
read behind their block headers, straight into the ring, and hashed there; a caller's buffer is hashed and sent where it
lies, with only the headers in the ring. The holes of a sparse file are neither read nor sent.
"""

from __future__ import annotations

import errno
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from functools import partial
from typing import TypeVar

from blake3 import blake3

from ..blocks import Partial
from ..core import HEADER_ROOM, MESSAGE_DATA_MAX, fill_blocks, frame_blocks, is_in_memory, read_files
from ..display import printable
from ..errors import SourceChanged, SpaceblockError, source_error
from ..events import Phase
from ..process.lazily import dataclass
from ..protocol.sender import abort_message
from ..wire import MessageType
from ..wire.messages import Hole, ItemEnd
from .files import TICK, FileSource, raw
from .readers import read_error
from .rereading import Pursuit
from .resident import is_resident
from .sources import BufferSource, Source, StreamSource

_T = TypeVar("_T")

_TABLE_ROWS = 64
_ROW = 4
"""A row of the core's table is four numbers: start and stop in the buffer, offset in the item, length."""

_TAIL_ROOM = 2_048
"""Bytes of a buffer that only an ItemEnd or ItemAbort may use."""

_ROOM_MIN = HEADER_ROOM + 4_096
"""Free bytes of a buffer below which it counts as full: shorter blocks cost more than they carry."""

_HOLES_MAX = 64 * 1_048_576
"""Bytes of holes that one call hashes; they need no room, and a call must not take seconds."""

_ZEROS = bytes(1_048_576)


@dataclass(slots=True)
class Filled:
    """One buffer's worth of a data stream: ``pieces`` in order, what ended with them, and whether the lane is done."""

    pieces: list[memoryview] = field(default_factory=list)
    sent: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """Item, size and digest; None where that is still to be found by reading what moved before, or is known."""

    aborted: list[tuple[int, SpaceblockError]] = field(default_factory=list)
    done: bool = False

    def release(self) -> None:
        """Let go of the pieces, some of which are callers' buffers."""
        for piece in self.pieces:
            piece.release()
        self.pieces.clear()


class Feed:
    """The items of one data stream, in order.

    ``refuse``, ``current`` and ``question`` are for any thread; all else is for one at a time.
    """

    def __init__(
        self,
        lane: Iterable[int],
        sources: Sequence[Source],
        block_size: int,
        pursuits: Mapping[int, tuple[int, Pursuit]] | None = None,
        again: Mapping[int, Sequence[Partial]] | None = None,
    ) -> None:
        """``pursuits`` has the items that are resumed, each with where it goes on and what hashes it; of those in
        ``again`` only these ranges are sent, for another time."""
        self._pursuits = pursuits or {}
        self._again = again or {}
        self._ranges: deque[Partial] = deque()
        self._passed = 0
        self._lane = deque(lane)
        self._sources = sources
        self._block_size = block_size
        self._refused: dict[int, SpaceblockError] = {}
        self._table = array("Q", bytes(8 * _ROW * _TABLE_ROWS))
        self._item = -1
        self._fd = -1
        self._offset = self._start = 0
        self._stop: int | None = 0
        self._is_over = False
        self._data_stop = 0
        self._holes = 0
        self._hasher: blake3 | Pursuit | None = blake3()
        self._head = bytearray(HEADER_ROOM)
        self._asked = 0
        self._has_buffers_only = all(_is_resident(sources[item]) for item in self._lane)
        self._only_copies = False  # all that is left
        self.question: int = 0
        """The number of the question to somebody else's program that :meth:`fill` waits for; 0: it does not wait."""

    @property
    def never_waits(self) -> bool:
        """Whether :meth:`fill` only computes from now on, so that it may be called on the event loop: there are only
        buffers, or all that is left is in an open file that is in memory."""
        return self._has_buffers_only or self._only_copies

    @property
    def position(self) -> int:
        """Bytes of the present item that were read so far."""
        return self._offset - self._start if self._item >= 0 else 0

    @property
    def current(self) -> tuple[int, int] | None:
        """The item that is being sent and how many of its bytes were taken so far; for any thread."""
        item, taken = self._item, self._offset - self._start
        return None if item < 0 else (item, max(taken, 0))

    def refuse(self, item: int, error: SpaceblockError) -> None:
        """The receiver cannot take ``item``: end it at the next opportunity."""
        self._refused[item] = error
        source = self._sources[item]
        if isinstance(source, StreamSource):
            source.reader.stop()

    def fill(self, slot: memoryview) -> Filled:
        """Put as much of the lane as fits into ``slot``, or as pieces of callers' buffers beside it.

        This waits for bytes that are still to come, but never for more once it has some.
        """
        filled = Filled()
        wire = _Wire(slot, filled.pieces)
        self._holes = 0
        while wire.room >= _ROOM_MIN and self._holes < _HOLES_MAX:
            if self._item < 0 and not self._lane:
                filled.done = True
                break
            if self._item < 0 and self._take_small(wire, filled):
                continue
            try:
                if self._item < 0:
                    self._open(self._lane.popleft())
                elif not self._is_over:
                    self._advance(wire)
                if self._is_over:
                    filled.sent.append(self._finish(wire))
            except SpaceblockError as error:
                self._give_up(self._refused.get(self._item, error), wire, filled)
            if self._must_wait and wire.used:
                break
        wire.cut()
        return filled

    def close(self) -> None:
        """Close what is open; no further call may follow."""
        self._lane.clear()
        self._leave()

    def _take_small(self, wire: _Wire, filled: Filled) -> bool:
        """Send as many of the next files as are small, unchanged and to be sent whole, all at once; False if that is
        none."""
        limit = wire.used + wire.room
        files: list[tuple[int, bytes | str, int, int, int, int, int]] = []
        room = wire.room
        before = time.time_ns() - TICK
        unusual = self._refused.keys() | self._pursuits.keys() | self._again.keys()
        for item in self._lane:
            source = self._sources[item]
            if not isinstance(source, FileSource) or not source.is_small(before) or item in unusual:
                break
            identity = source.identity
            room -= identity.size + HEADER_ROOM
            if room < 0:
                break
            changed = identity.modified_ns, identity.changed_ns
            files.append((item, raw(source.path), identity.device, identity.inode, identity.size, *changed))
        if not files:
            return False
        wire.used, done = read_files(wire.slot, wire.used, limit, MessageType.BLOCK, MessageType.ITEM_END, files)
        for (start, digest), (item, _, _, _, length, _, _) in zip(done, files, strict=False):
            if digest is None:
                digest = blake3(wire.slot[start : start + length]).digest()
            filled.sent.append((item, length, digest))
            self._lane.popleft()
        return bool(done)

    def _open(self, item: int) -> None:
        source = self._sources[item]
        self._item = item
        self._hasher = blake3()
        self._passed = 0
        self._start = self._offset = source.request.start
        self._stop = source.request.stop
        self._ranges = deque(self._again.get(item, ()))
        if self._ranges:
            self._hasher = None
            self._start, self._stop = self._offset, self._offset
            self._take_next_range()
        elif item in self._pursuits:
            self._offset, self._hasher = self._pursuits[item]
        self._is_over = self._offset == self._stop
        self._check_refused()
        if isinstance(source, FileSource):
            self._fd = source.open()
            holes = source.is_sparse and self._hasher is not None
            self._data_stop = self._offset if holes else source.identity.size
            is_last = not self._lane and not holes and isinstance(self._hasher, blake3)
            self._only_copies = is_last and is_in_memory(self._fd)
        elif isinstance(source, StreamSource):
            self._ask(source, lambda: source.reader.begin(self._start))

    def _advance(self, wire: _Wire) -> None:
        self._check_refused()
        source = self._sources[self._item]
        if isinstance(source, BufferSource):
            self._borrow(source, wire)
        elif isinstance(source, StreamSource):
            self._pour(source, wire)
        elif self._offset < self._data_stop or not self._skip_hole(source, wire):
            self._read(source, wire)
        while self._offset == self._stop and self._ranges:
            self._take_next_range()
        self._is_over = self._is_over or self._offset == self._stop

    def _take_next_range(self) -> None:
        assert self._stop is not None
        self._passed += self._stop - self._start
        part = self._ranges.popleft()
        self._start, self._stop = part.start, part.stop
        self._offset = self._start

    def _hash(self, data: bytes | memoryview) -> None:
        if self._hasher is not None:
            self._hasher.update(data)

    @property
    def _must_wait(self) -> bool:
        """Whether what is sent next may be long in coming, so that nothing is to be held back for it."""
        source = self._sources[self._item] if self._item >= 0 else None
        return isinstance(source, StreamSource) and not source.reader.is_ready()

    def _read(self, source: FileSource, wire: _Wire) -> None:
        assert self._stop is not None
        end = wire.used + wire.room
        source.check(self._fd)
        try:
            rows, used, offset, short = fill_blocks(
                self._fd,
                wire.slot[:end],
                self._table,
                self._item,
                self._offset,
                min(self._stop, self._data_stop),
                self._block_size,
                wire.used,
            )
        except OSError as error:
            raise source.error(error, "read") from error
        for row in range(rows):
            start, stop = self._table[_ROW * row], self._table[_ROW * row + 1]
            self._hash(wire.slot[start:stop])
        wire.used = used
        self._offset = offset
        if short:
            raise source.changed("became shorter")

    def _skip_hole(self, source: FileSource, wire: _Wire) -> bool:
        """Send the hole at the present offset, if there is one, as a message; and learn how far the data behind it
        reach."""
        assert self._stop is not None
        source.check(self._fd)
        try:
            data = _seek(self._fd, self._offset, os.SEEK_DATA, self._stop)
            if data <= self._offset:
                self._data_stop = _seek(self._fd, self._offset, os.SEEK_HOLE, self._stop)
                return False
        except OSError as error:
            raise source.error(error, "read") from error
        while self._offset < data and wire.room >= _ROOM_MIN and self._holes < _HOLES_MAX:
            length = min(data - self._offset, self._block_size - self._offset % self._block_size)
            for start in range(0, length, len(_ZEROS)):
                self._hash(_ZEROS[: length - start])
            wire.append(Hole(self._item, self._offset, length).encode())
            self._offset += length
            self._holes += length
        return True

    def _pour(self, source: StreamSource, wire: _Wire) -> None:
        """One block's worth of what comes next, or less: what is there is not held back."""
        room = min(wire.room - HEADER_ROOM, self._block_size - self._offset % self._block_size, MESSAGE_DATA_MAX)
        if self._stop is not None:
            room = min(room, self._stop - self._offset)
        start = wire.used + len(self._header(room))
        got = 0
        while got < room and (got == 0 or source.reader.is_ready()):
            count = self._ask(source, partial(source.reader.read_into, wire.slot[start + got : start + room]))
            if not count:
                self._is_over = True
                break
            got += count
        if got:
            with wire.slot[start : start + got] as data:
                self._hash(data)
            header = self._header(got)
            if wire.used + len(header) < start:  # few bytes came, whose header is shorter than was planned for
                few = bytes(wire.slot[start : start + got])
                wire.append(header + few)
            else:
                wire.append(header)
                wire.used += got
            self._offset += got
        if self._is_over and self._stop is not None:
            raise _changed(source, "ended before")

    def _header(self, length: int) -> bytes:
        start, stop = self._offset, self._offset + length
        _, used, _ = frame_blocks(self._head, self._table, self._item, start, stop, self._block_size)
        return bytes(self._head[:used])

    def _ask(self, source: StreamSource, question: Callable[[], _T]) -> _T:
        """What the caller's object answers; whatever it raises is an error of this source."""
        self._asked += 1
        self.question = self._asked
        try:
            return question()
        except OSError as error:
            if isinstance(error, SpaceblockError):
                raise
            raise source_error(error, f"cannot read {_name(source)}", name=source.name) from error
        except BaseException as error:  # a worker thread is not what SystemExit and its like are meant to end
            raise read_error(error, f"reading {_name(source)}") from error
        finally:
            self.question = 0

    def _borrow(self, source: BufferSource, wire: _Wire) -> None:
        assert self._stop is not None
        stop = min(self._stop, self._offset + wire.room)
        with wire.slot[wire.used :] as out:
            rows, _, self._offset = frame_blocks(out, self._table, self._item, self._offset, stop, self._block_size)
        base = wire.used
        for row in range(rows):
            _, end, offset, length = self._table[_ROW * row : _ROW * row + _ROW]
            wire.used = base + end
            wire.cut()
            piece = source.view[offset : offset + length]
            self._hash(piece)
            wire.borrow(piece)

    def _finish(self, wire: _Wire) -> tuple[int, int, bytes | None]:
        source = self._sources[self._item]
        if isinstance(source, FileSource):
            source.check(self._fd)
            if not source.identity.size and self._has_bytes(source):
                raise source.changed("has more bytes than its size says", ", or through a pipe")  # as those in /proc
        elif isinstance(source, StreamSource) and self._stop is not None:
            with memoryview(bytearray(1)) as room:
                if self._ask(source, lambda: source.reader.read_into(room)):
                    raise _changed(source, "goes on behind")
        item, size = self._item, self._passed + self._offset - self._start
        wire.append(ItemEnd(item, size).encode())
        self._leave()
        if isinstance(self._hasher, Pursuit):
            return item, size, self._hasher.end()
        return item, size, None if self._hasher is None else self._hasher.digest()

    def _has_bytes(self, source: FileSource) -> bool:
        try:
            return bool(os.pread(self._fd, 1, 0))
        except OSError as error:
            raise source.error(error, "read") from error

    def _give_up(self, error: SpaceblockError, wire: _Wire, filled: Filled) -> None:
        error.item = self._item
        error.phase = error.phase or str(Phase.MOVING)
        filled.aborted.append((self._item, error))
        wire.append(abort_message(self._item, error).encode())
        self._leave()

    def _leave(self) -> None:
        self._item = -1
        self._only_copies = False
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # what was read is read
                os.close(fd)

    def _check_refused(self) -> None:
        error = self._refused.get(self._item)
        if error is not None:
            raise error


class _Wire:
    """The bytes of one call to :meth:`Feed.fill`: runs of the slot, and borrowed pieces between them."""

    __slots__ = ("_borrowed", "_pieces", "_run", "slot", "used")

    def __init__(self, slot: memoryview, pieces: list[memoryview]) -> None:
        self.slot = slot
        self.used = 0
        self._run = 0
        self._borrowed = 0
        self._pieces = pieces

    @property
    def room(self) -> int:
        """Bytes that this call may still send, with a little kept back for what ends an item."""
        return len(self.slot) - _TAIL_ROOM - self.used - self._borrowed

    def append(self, data: bytes) -> None:
        self.slot[self.used : self.used + len(data)] = data
        self.used += len(data)

    def borrow(self, piece: memoryview) -> None:
        self._pieces.append(piece)
        self._borrowed += len(piece)

    def cut(self) -> None:
        """End the run of the slot's own bytes, so that a borrowed piece can follow."""
        if self.used > self._run:
            self._pieces.append(self.slot[self._run : self.used])
            self._run = self.used


def _seek(fd: int, offset: int, whence: int, stop: int) -> int:
    """Where the next data (or the next hole) begins, at most ``stop``; where files have no holes, all is data."""
    try:
        return min(os.lseek(fd, offset, whence), stop)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole is left
            return stop
        if error.errno == errno.EINVAL:
            return offset if whence == os.SEEK_DATA else stop
        raise


def _name(source: StreamSource) -> str:
    return "a pipe or program" if source.name is None else repr(printable(source.name))


def _changed(source: StreamSource, how: str) -> SourceChanged:
    text = f"{_name(source)} {how} the size it had when it was offered: send it again when nobody writes to it"
    return SourceChanged(text, name=source.name)


def _is_resident(source: Source) -> bool:
    return isinstance(source, BufferSource) and is_resident(source.view)
