"""What is read once, from front to back: pipes, file objects and asynchronous iterators.

Nothing is spooled: a reader is asked for bytes only when there is room to send them, and what is read is read into that
room. A reader works in a worker thread, one call at a time; only ``stop`` may be called by another.
"""

from __future__ import annotations

import abc
import asyncio
import io
import operator
import os
import select
import stat
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from ..display import kind_of
from ..errors import LocalProtocolError, SourceError, SpaceblockError
from .waiting import CAN_WAIT, Patience, called_off, widen

_AHEAD = 1_048_576
"""Bytes that an asynchronous iterator may be ahead of what is sent."""


class SourceReader(abc.ABC):
    """Bytes that come in their order, and only once unless ``measure`` says otherwise."""

    def measure(self) -> tuple[int, int] | None:
        """Where reading would begin and where the end is, in bytes; None where only the end will tell."""
        return None

    def begin(self, start: int) -> None:
        """The first read is about to come; ``start`` is the offset that it must begin at, if this can be measured."""
        return

    @abc.abstractmethod
    def read_into(self, room: memoryview) -> int:
        """Wait for bytes and put at least one into ``room``; returns how many, 0 at the end.

        Raises :class:`SourceError` or OSError, and :class:`TransferCancelled` once :meth:`stop` was called.
        """

    def is_ready(self) -> bool:
        """Whether a read is known not to wait."""
        return False

    def stop(self) -> None:
        """Nobody wants more: end a read that waits, as far as it can be ended, and every later one."""
        return

    def close(self) -> None:
        """Give back what is the reader's own, never the caller's object; safe to call twice."""
        return


class PipeReader(SourceReader):
    """A pipe, terminal or socket, by a descriptor of its own, so that the caller may close the object any time."""

    def __init__(self, file: io.FileIO | io.BufferedReader) -> None:
        self._file: io.FileIO | io.BufferedReader | None = file
        self._ahead = memoryview(b"")
        self._pipe = Patience(os.dup(file.fileno()), select.POLLIN)
        widen(self._pipe.fd)

    def begin(self, start: int) -> None:
        file, self._file = self._file, None
        if isinstance(file, io.BufferedReader):
            self._ahead = memoryview(_read_ahead(file))

    def read_into(self, room: memoryview) -> int:
        if self._ahead:
            return self._take_ahead(room)
        while True:
            self._pipe.wait()
            with suppress(BlockingIOError):
                return os.readv(self._pipe.fd, [room])

    def is_ready(self) -> bool:
        return bool(self._ahead) or self._pipe.is_ready()

    def stop(self) -> None:
        self._pipe.call_off()

    def close(self) -> None:
        self._pipe.close()

    def _take_ahead(self, room: memoryview) -> int:
        count = min(len(room), len(self._ahead))
        room[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count


class ObjectReader(SourceReader):
    """Any other object with ``read``; a read that waits inside of it ends when the object lets it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._stopped = False
        self._measured = False

    def measure(self) -> tuple[int, int] | None:
        if not _answers(self._file, "seekable"):
            return None
        start = int(self._file.tell())
        stop = int(self._file.seek(0, os.SEEK_END) or self._file.tell())
        self._file.seek(start)
        self._measured = True
        return start, max(start, stop)

    def begin(self, start: int) -> None:
        if self._measured:
            self._file.seek(start)

    def read_into(self, room: memoryview) -> int:
        if self._stopped:
            raise called_off()
        for method in ("readinto1", "readinto"):
            if hasattr(self._file, method):
                with suppress(NotImplementedError, io.UnsupportedOperation):
                    return _counted(getattr(self._file, method)(room), len(room))
        data = self._file.read(len(room))
        if isinstance(data, str):
            raise _no_bytes(data)
        count = _counted(None if data is None else len(data), len(room))
        room[:count] = data
        return count

    def stop(self) -> None:
        self._stopped = True


class IteratorReader(SourceReader):
    """An asynchronous iterator of bytes-like pieces, which runs on the event loop, a bounded way ahead."""

    def __init__(self, pieces: AsyncIterator[Any]) -> None:
        self._pieces = pieces
        self._loop = asyncio.get_running_loop()
        self._news = threading.Condition()
        self._ready: deque[memoryview] = deque()
        self._size = 0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._begun = self._over = self._stopped = False
        self._error: BaseException | None = None

    def begin(self, start: int) -> None:
        with self._news:
            if not self._stopped:
                self._begun = True
                self._loop.call_soon_threadsafe(self._start)

    def read_into(self, room: memoryview) -> int:
        with self._news:
            self._news.wait_for(lambda: self._ready or self._over or self._stopped)
            if self._stopped:
                raise called_off()
            if not self._ready:
                if self._error is not None:
                    raise self._error
                return 0
            piece = self._ready.popleft()
            count = min(len(room), len(piece))
            room[:count] = piece[:count]
            if count < len(piece):
                self._ready.appendleft(piece[count:])
            was_full = self._size >= _AHEAD
            self._size -= count
            if was_full and self._size < _AHEAD:
                self._loop.call_soon_threadsafe(self._wanted.set)
        return count

    def is_ready(self) -> bool:
        return bool(self._ready) or self._over

    def stop(self) -> None:
        with self._news:
            self._stopped = True
            self._news.notify_all()
        with suppress(RuntimeError):  # the loop is closed, and the iterator with it
            self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        """Wait until the iterator has ended, which takes as long as its own cleaning up; not for the event loop."""
        self.stop()
        with self._news:
            self._news.wait_for(lambda: self._over or not self._begun or self._loop.is_closed())

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async for piece in self._pieces:
                data = _bytes_of(piece)
                with self._news:
                    if data:
                        self._ready.append(data)
                        self._size += len(data)
                        self._news.notify_all()
                while self._size >= _AHEAD:
                    self._wanted.clear()
                    if self._size >= _AHEAD:
                        await self._wanted.wait()
        finally:
            close = getattr(self._pieces, "aclose", None)
            if close is not None:
                await close()

    def _end(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        with self._news:
            self._over = True
            self._error = error
            self._news.notify_all()


def reader_of(thing: Any) -> SourceReader | None:
    """The reader for a file object that is not a plain file, or for an asynchronous iterable; None for what is neither.

    Raises :class:`LocalProtocolError` for a text file and for one that is closed or cannot be read.
    """
    if hasattr(thing, "__aiter__"):
        return IteratorReader(aiter(thing))
    if not (hasattr(thing, "read") or hasattr(thing, "readinto")):
        return None
    if isinstance(thing, io.TextIOBase):
        raise LocalProtocolError("cannot send a text file: open it in binary mode, or give its .buffer")
    if not is_open_for(thing, "readable"):
        raise LocalProtocolError(f"cannot send this {type(thing).__name__}: it is closed or not open for reading")
    if CAN_WAIT and has_descriptor(thing) and not stat.S_ISREG(os.fstat(thing.fileno()).st_mode):
        return PipeReader(thing)
    return ObjectReader(thing)


def has_descriptor(file: Any) -> bool:
    """Whether the bytes of ``file`` are those of its descriptor: not so for, say, a compressed file."""
    try:
        raw = file.raw if type(file) in _BUFFERED else file
    except ValueError:  # detached
        return False
    return type(raw) is io.FileIO


def is_open_for(file: Any, use: str) -> bool:
    """Whether ``file`` does not say that it is closed, or that it is not ``"readable"`` or ``"writable"``."""
    try:
        return not getattr(file, "closed", False) and _answers(file, use, otherwise=True)
    except ValueError:  # detached
        return False


def read_error(error: BaseException, what: str) -> SpaceblockError:
    """``error`` of a caller's object or iterator as an error of this side's source."""
    if isinstance(error, SpaceblockError):
        return error
    return SourceError(f"{what} raised {type(error).__name__}: see there what went wrong")


_BUFFERED = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def _answers(file: Any, question: str, otherwise: bool = False) -> bool:
    try:
        return bool(getattr(file, question)())
    except (AttributeError, ValueError):
        return otherwise


def _read_ahead(file: io.BufferedReader) -> bytes:
    """What ``file`` has read and not given out yet. It would wait for more if it had nothing, so it must not block."""
    fd = file.fileno()
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        count = len(file.peek(1))
        return file.read1(count) if count else b""
    finally:
        os.set_blocking(fd, blocking)


def _counted(count: Any, room: int) -> int:
    """How much a caller's object says that it has read: it becomes a length on the wire, and behind what was read the
    buffer holds bytes of other items."""
    if count is None:
        raise SourceError("the file object to send does not wait for bytes: make it blocking and send again")
    if not hasattr(count, "__index__") or not 0 <= count <= room:
        text = f"the file object to send says it read {count!r} bytes of {room}: let it return how many it did"
        raise SourceError(text)
    return operator.index(count)


def _bytes_of(piece: Any) -> memoryview:
    """A copy of a piece that its maker might change; bytes cannot be changed."""
    if isinstance(piece, str):
        raise _no_bytes(piece)
    try:
        return memoryview(piece if isinstance(piece, bytes) else bytes(memoryview(piece)))
    except TypeError:
        raise SourceError(f"the source to send gave {kind_of(piece)}: let it give bytes") from None


def _no_bytes(text: str) -> SourceError:
    return SourceError("the source to send gave text: let it give bytes")
