"""The sending path of the bytes: from files and callers' buffers to the hasher and to pieces of one data stream.

A :class:`Feed` works in a worker thread, one call at a time, and touches neither the event loop nor the protocol's
state: each call fills one buffer of the ring and reports what was finished with it. A file's bytes are read behind
their block headers, straight into the ring, and hashed there; a caller's buffer is hashed and sent where it lies, with
only the headers in the ring.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from ..core import HEADER_ROOM, fill_blocks, frame_blocks
from ..display import printable
from ..errors import SourceChanged, SpaceblockError, source_error
from ..messages import ItemEnd
from ..protocol.sender import abort_message
from .sources import BufferSource, FileSource, Source, source_length

_TABLE_ROWS = 64
_ROW = 4
"""A row of the core's table is four numbers: start and stop in the buffer, offset in the item, length."""

_TAIL_ROOM = 2_048
"""Bytes of a buffer that only an ItemEnd or ItemAbort may use."""

_ROOM_MIN = HEADER_ROOM + 4_096
"""Free bytes of a buffer below which it counts as full: shorter blocks cost more than they carry."""


@dataclass(slots=True)
class Filled:
    """One buffer's worth of a data stream: ``pieces`` in order, what ended with them, and whether the lane is done."""

    pieces: list[memoryview] = field(default_factory=list)
    sent: list[tuple[int, int, bytes]] = field(default_factory=list)
    aborted: list[tuple[int, SpaceblockError]] = field(default_factory=list)
    done: bool = False

    def release(self) -> None:
        """Let go of the pieces, some of which are callers' buffers."""
        for piece in self.pieces:
            piece.release()
        self.pieces.clear()


class Feed:
    """The items of one data stream, in order.

    ``refuse`` may be called from another thread; all else is one thread at a time.
    """

    def __init__(self, lane: Iterable[int], sources: Sequence[Source], block_size: int) -> None:
        self._lane = deque(lane)
        self._sources = sources
        self._block_size = block_size
        self._refused: dict[int, SpaceblockError] = {}
        self._table = array("Q", bytes(8 * _ROW * _TABLE_ROWS))
        self._item = -1
        self._fd = -1
        self._offset = self._start = self._stop = 0
        self._hasher = blake3()

    def refuse(self, item: int, error: SpaceblockError) -> None:
        """The receiver cannot take ``item``: end it at the next opportunity."""
        self._refused[item] = error

    def fill(self, slot: memoryview) -> Filled:
        """Put as much of the lane as fits into ``slot``, or as pieces of callers' buffers beside it."""
        filled = Filled()
        wire = _Wire(slot, filled.pieces)
        while wire.room >= _ROOM_MIN:
            if self._item < 0 and not self._lane:
                filled.done = True
                break
            try:
                if self._item < 0:
                    self._open(self._lane.popleft())
                self._advance(wire)
                if self._offset == self._stop:
                    filled.sent.append(self._finish(wire))
            except SpaceblockError as error:
                error.item = self._item
                filled.aborted.append((self._item, error))
                wire.append(abort_message(self._item, error).encode())
                self._leave()
        wire.cut()
        return filled

    def close(self) -> None:
        """Close what is open; no further call may follow."""
        self._lane.clear()
        self._leave()

    def _open(self, item: int) -> None:
        source = self._sources[item]
        self._item = item
        self._hasher = blake3()
        self._start = self._offset = source.request.start
        self._stop = self._start + source_length(source)
        self._check_refused()
        if isinstance(source, FileSource):
            self._fd = source.open()

    def _advance(self, wire: _Wire) -> None:
        self._check_refused()
        source = self._sources[self._item]
        if self._offset == self._stop:
            return
        if isinstance(source, BufferSource):
            self._borrow(source, wire)
        else:
            self._read(source, wire)

    def _read(self, source: FileSource, wire: _Wire) -> None:
        end = wire.used + wire.room
        try:
            rows, used, offset, short = fill_blocks(
                self._fd,
                wire.slot[:end],
                self._table,
                self._item,
                self._offset,
                self._stop,
                self._block_size,
                wire.used,
            )
        except OSError as error:
            what = f"cannot read {printable(source.path)!r}"
            raise source_error(error, what, name=source.name, path=source.path) from error
        for row in range(rows):
            start, stop = self._table[_ROW * row], self._table[_ROW * row + 1]
            self._hasher.update(wire.slot[start:stop])
        wire.used = used
        self._offset = offset
        if short:
            raise SourceChanged(
                f"{printable(source.path)!r} became shorter while it was sent: send it again when nobody writes to it",
                name=source.name,
                path=source.path,
            )

    def _borrow(self, source: BufferSource, wire: _Wire) -> None:
        stop = min(self._stop, self._offset + wire.room)
        with wire.slot[wire.used :] as out:
            rows, _, self._offset = frame_blocks(out, self._table, self._item, self._offset, stop, self._block_size)
        base = wire.used
        for row in range(rows):
            _, end, offset, length = self._table[_ROW * row : _ROW * row + _ROW]
            wire.used = base + end
            wire.cut()
            piece = source.view[offset : offset + length]
            self._hasher.update(piece)
            wire.borrow(piece)

    def _finish(self, wire: _Wire) -> tuple[int, int, bytes]:
        source = self._sources[self._item]
        if isinstance(source, FileSource):
            source.check(self._fd)
        item, size = self._item, self._stop - self._start
        wire.append(ItemEnd(item, size).encode())
        self._leave()
        return item, size, self._hasher.digest()

    def _leave(self) -> None:
        self._item = -1
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
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
