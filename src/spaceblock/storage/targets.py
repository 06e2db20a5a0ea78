"""What one item is received into, other than a folder: a buffer in place, a file object, a pipe, or nothing.

A target gets its item's bytes in their order, from worker threads one at a time; only ``stop`` may be called by
another. Byte 0 of a target is the start of the requested range. Nothing is spooled: what a program does not take yet is
not received yet.
"""

from __future__ import annotations

import abc
import io
import os
import select
import stat
import sys
import time
from contextlib import suppress
from typing import Any

from ..blocks import SpaceblockRequest
from ..display import kind_of
from ..errors import BufferUnfit, StorageError, storage_error
from ..events import Phase
from ..options import DISCARD
from .readers import has_descriptor, is_open_for
from .sources import flat
from .waiting import CAN_WAIT, Patience, widen

_ZEROS = memoryview(bytes(1_048_576))

_SURE = 4_096
"""Bytes that a pipe which is ready takes without waiting (POSIX's PIPE_BUF on Linux; others take at least 512)."""

_REST = 0.0005
"""Seconds that the reader of a full pipe gets before more is written: it takes half of a mebibyte in that time at most.
A writer that waits for nothing but a free page is woken for every one, at the cost of both."""

_ANEW = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)


class Target(abc.ABC):
    """Where one item goes; ``index`` is its place in the caller's list."""

    is_program = False
    """Whether somebody else's program or object decides how fast bytes are taken."""

    def __init__(self, index: int) -> None:
        self.index = index

    def check(self, request: SpaceblockRequest) -> None:
        """Raise :class:`BufferUnfit` if the item cannot go here."""
        return

    def memory(self, offset: int, length: int) -> memoryview | None:
        """The memory where these bytes belong, or None if they are to be passed to :meth:`write`."""
        return None

    @abc.abstractmethod
    def write(self, data: memoryview) -> None:
        """Take the next bytes; raises :class:`StorageError`, and :class:`TransferCancelled` after :meth:`stop`."""

    def hole(self, offset: int, length: int) -> None:
        """Take the next bytes, which are all zero."""
        for start in range(0, length, len(_ZEROS)):
            self.write(_ZEROS[: length - start])

    def finish(self) -> None:
        """All bytes came; raises :class:`StorageError`."""
        return

    def stop(self) -> None:
        """Nobody wants the item any more: end a write that waits, as far as it can be ended."""
        return

    def close(self) -> None:
        """Give back what is held of the caller's; safe to call twice."""
        return


class BufferTarget(Target):
    """A caller's writable buffer, filled in place, exactly as long as the item's range."""

    def __init__(self, index: int, view: memoryview) -> None:
        super().__init__(index)
        self._view = view

    def check(self, request: SpaceblockRequest) -> None:
        item = self.index
        if request.length is None:
            raise BufferUnfit(f"the size of item {item} is not known yet: receive it into a folder or file", item=item)
        if len(self._view) != request.length:
            raise BufferUnfit(
                f"the buffer for item {item} has {len(self._view)} bytes and the item {request.length}: "
                "make them equal",
                item=item,
            )

    def whole(self) -> memoryview:
        """All of the buffer."""
        return self._view[:]

    def memory(self, offset: int, length: int) -> memoryview:
        return self._view[offset : offset + length]

    def write(self, data: memoryview) -> None:
        raise AssertionError("bytes for a buffer are received in place")

    def hole(self, offset: int, length: int) -> None:
        for start in range(0, length, len(_ZEROS)):
            size = min(len(_ZEROS), length - start)
            self._view[offset + start : offset + start + size] = _ZEROS[:size]

    def close(self) -> None:
        self._view.release()


class FileTarget(Target):
    """A caller's binary file object, written to from where it stands; a hole in a plain file stays one."""

    is_program = True

    def __init__(self, index: int, file: Any) -> None:
        super().__init__(index)
        self._file = file
        # What is opened to append is written at its end, wherever it stands, and so nothing would lie before that.
        self._keeps_holes = (
            has_descriptor(file) and stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not _appends(file.fileno())
        )
        self._ends_in_hole = False

    def write(self, data: memoryview) -> None:
        self._ends_in_hole = False
        while data:
            try:
                count = self._file.write(data)
            except BaseException as error:
                raise _failed(error, self.index) from error
            if count is None and isinstance(self._file, io.RawIOBase):
                raise StorageError(
                    f"into[{self.index}] does not wait until it can take bytes: make it blocking", item=self.index
                )
            if count is not None and (not hasattr(count, "__index__") or not 0 < count <= len(data)):
                # Of less than nothing, or of nothing again and again, there would be no end.
                raise StorageError(
                    f"into[{self.index}] says it took {count!r} bytes of {len(data)}: let it return how many it did",
                    item=self.index,
                    phase=str(Phase.MOVING),
                )
            data = data[len(data) if count is None else count :]

    def hole(self, offset: int, length: int) -> None:
        try:
            at_end = self._keeps_holes and self._is_at_end()
            if at_end:
                self._file.seek(length, os.SEEK_CUR)
        except BaseException as error:
            raise _failed(error, self.index) from error
        if at_end:
            self._ends_in_hole = True
        else:
            super().hole(offset, length)

    def finish(self) -> None:
        try:
            if self._ends_in_hole:
                self._file.truncate()
            if hasattr(self._file, "flush"):
                self._file.flush()
        except BaseException as error:
            raise _failed(error, self.index) from error

    def _is_at_end(self) -> bool:
        """Whether nothing lies ahead that a hole would have to replace."""
        self._file.flush()
        return bool(os.fstat(self._file.fileno()).st_size <= self._file.tell()) and self._file.seekable()


class PipeTarget(Target):
    """A pipe, terminal or socket, by a descriptor of its own; a wait for its reader can be called off."""

    is_program = True

    def __init__(self, index: int, file: Any) -> None:
        super().__init__(index)
        file.flush()
        fd, self._limit = _own_descriptor(file.fileno())
        self._pipe = Patience(fd, select.POLLOUT)
        self._is_wide = widen(fd)

    def write(self, data: memoryview) -> None:
        while data:
            self._pipe.wait()
            try:
                count = os.write(self._pipe.fd, data[: self._limit])
            except BlockingIOError:
                continue
            except OSError as error:
                raise _failed(error, self.index) from error
            data = data[count:]
            if data and self._is_wide:
                time.sleep(_REST)

    def stop(self) -> None:
        self._pipe.call_off()

    def close(self) -> None:
        self._pipe.close()


class NoTarget(Target):
    """Bytes are received, hashed and compared, and then forgotten."""

    def write(self, data: memoryview) -> None:
        return

    def hole(self, offset: int, length: int) -> None:
        return


def target_of(thing: Any, index: int) -> Target:
    """The target for one thing of a caller's list; raises :class:`BufferUnfit` for what cannot be written to."""
    if thing is DISCARD:
        return NoTarget(index)
    try:
        view = memoryview(thing)
    except TypeError:
        return _file_target(thing, index)
    except ValueError as error:
        raise BufferUnfit(f"cannot fill into[{index}]: {error}; give a bytearray or an array", item=index) from error
    if view.readonly:
        view.release()
        raise BufferUnfit(f"the buffer for item {index} is read-only: give a bytearray or a writable array", item=index)
    return BufferTarget(index, flat(view))


def is_memory(thing: Any) -> bool:
    """Whether the target for ``thing`` is a buffer, or nothing."""
    if thing is DISCARD:
        return True
    try:
        memoryview(thing).release()
    except (TypeError, ValueError, BufferError):
        return False
    return True


def _file_target(file: Any, index: int) -> Target:
    if not callable(getattr(file, "write", None)):
        raise BufferUnfit(
            f"into[{index}] is {kind_of(file)}, which is neither a buffer nor a file: "
            "give a bytearray, an array, a binary file or spaceblock.DISCARD",
            item=index,
        )
    if isinstance(file, io.TextIOBase):
        raise BufferUnfit(f"into[{index}] is a text file: open it in binary mode, or give its .buffer", item=index)
    try:
        if not is_open_for(file, "writable"):
            raise BufferUnfit(f"into[{index}] is closed or not open for writing: open it for writing", item=index)
        if CAN_WAIT and has_descriptor(file) and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return PipeTarget(index, file)
        return FileTarget(index, file)
    except OSError as error:
        raise _failed(error, index) from error


def _own_descriptor(fd: int) -> tuple[int, int]:
    """Another descriptor of a pipe, and how many bytes at a time it takes without waiting when it is ready.

    A mode in which writes do not wait would be shared with every program that has the pipe, so it is opened anew.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a socket cannot be opened
            return os.open(f"/proc/self/fd/{fd}", _ANEW), sys.maxsize
    return os.dup(fd), _SURE if sys.platform == "linux" else 512


def _appends(fd: int) -> bool:
    """Whether whatever is written goes to the end of an open file; where the system does not tell, it may."""
    if sys.platform == "win32":
        return True
    from fcntl import F_GETFL, fcntl

    return bool(fcntl(fd, F_GETFL) & os.O_APPEND)


def _failed(error: BaseException, index: int) -> StorageError:
    if isinstance(error, OSError) and error.errno:
        return storage_error(error, f"cannot write to into[{index}]", item=index, phase=str(Phase.MOVING))
    return StorageError(
        f"writing to into[{index}] raised {type(error).__name__}: see there what went wrong",
        item=index,
        phase=str(Phase.MOVING),
    )
