"""Reading again what has moved already: to catch up with a resumed item, and to find the blocks that differ.

Both run in threads beside the one that moves new bytes, a portion at a time, so that other work gets its turn.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Protocol

from blake3 import blake3

PORTION = 1_048_576
"""Bytes that are read at a time."""

PORTIONS = 32
"""Portions of one turn."""


class Reread(Protocol):
    """Bytes of an item that can be read by position; offsets are item-absolute."""

    def read(self, offset: int, room: memoryview) -> int:
        """Fill ``room`` as far as there is something, and return how much that was; raises a typed error."""

    def close(self) -> None:
        """No further call may follow."""


class FileBytes:
    """An open file, closed with this, whose byte 0 is the item's byte ``base``."""

    def __init__(self, fd: int, base: int = 0) -> None:
        self._fd = fd
        self._base = base

    def read(self, offset: int, room: memoryview) -> int:
        return os.preadv(self._fd, [room], offset - self._base)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


class MemoryBytes:
    """A buffer, released with this, whose byte 0 is the item's byte ``base``."""

    def __init__(self, view: memoryview, base: int = 0) -> None:
        self._view = view
        self._base = base

    def read(self, offset: int, room: memoryview) -> int:
        start = offset - self._base
        with self._view[start : start + len(room)] as piece:
            room[: len(piece)] = piece
            return len(piece)

    def close(self) -> None:
        self._view.release()


class Pursuit:
    """The hasher of an item that goes on from ``frontier``: it begins at ``start``, reads what moved before, and takes
    over when it has caught up with what moves now.

    It stands in for a hasher where bytes move: :meth:`update` and :meth:`digest` are for the thread that moves them,
    :meth:`chase` for another one.
    """

    def __init__(self, start: int, frontier: int, known: tuple[int, bytes] | None = None) -> None:
        self._hasher = blake3()
        self._position = self._start = start
        self._frontier = frontier
        self._known = known or (start, b"")
        self._caught_up = False
        self._is_over = False
        self._lock = threading.Lock()
        self.hashed: int = 0
        """Bytes that were read again so far."""

    def update(self, data: object) -> None:
        """The next bytes moved."""
        view = memoryview(data)  # type: ignore[arg-type]
        with self._lock:
            self._frontier += len(view)
            if not self._caught_up:
                return
        self._hasher.update(view)

    def mark(self) -> tuple[int, bytes]:
        """How far bytes are hashed, as far as the one who moves them may tell, and their digest."""
        with self._lock:
            caught_up = self._caught_up
        return (self._frontier, self._hasher.digest()) if caught_up else self._known

    def end(self) -> bytes | None:
        """All bytes moved: their digest, unless it is still to be found by :meth:`chase`."""
        with self._lock:
            self._is_over = True
            return self._hasher.digest() if self._caught_up else None

    def chase(self, source: Reread) -> tuple[bool, bytes | None]:
        """Go on for one turn: whether this is the last, and the digest where nothing more is to move.

        Raises what ``source`` raises, and :class:`EOFError` where it has less than moved.
        """
        buffer = memoryview(bytearray(PORTION))
        for _ in range(PORTIONS):
            with self._lock:
                behind = self._frontier - self._position
                if not behind:
                    self._caught_up = True
                    return True, self._hasher.digest() if self._is_over else None
            count = source.read(self._position, buffer[: min(behind, PORTION)])
            if not count:
                raise EOFError
            self._hasher.update(buffer[:count])
            self._position += count
            self.hashed += count
        return False, None


class BlockHashing:
    """The digests of an item's blocks over ``[start, stop)``, and of all of that, in one reading."""

    def __init__(self, start: int, stop: int, block_size: int) -> None:
        self.blocks: list[bytes] = []
        self._whole = blake3()
        self._block = blake3()
        self._position = start
        self._stop = stop
        self._block_size = block_size
        self.hashed: int = 0
        """Bytes that were read again so far."""

    def chase(self, source: Reread) -> tuple[bool, bytes | None]:
        """Go on for one turn: whether this is the last, and then the digest of the whole.

        Raises what ``source`` raises, and :class:`EOFError` where it has less.
        """
        buffer = memoryview(bytearray(PORTION))
        for _ in range(PORTIONS):
            left = min(self._stop - self._position, self._block_size - self._position % self._block_size)
            if self._position >= self._stop:
                break
            count = source.read(self._position, buffer[: min(left, PORTION)])
            if not count:
                raise EOFError
            piece = buffer[:count]
            self._whole.update(piece)
            self._block.update(piece)
            self._position += count
            self.hashed += count
            if count == left:
                self.blocks.append(self._block.digest())
                self._block = blake3()
        is_last = self._position >= self._stop
        return is_last, self.digest() if is_last else None

    def digest(self) -> bytes:
        """The digest of the whole, once all is read."""
        return self._whole.digest()
