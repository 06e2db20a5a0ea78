"""What is received into: callers' buffers in place, or a folder (see :mod:`.folder`).

A sink works in worker threads, one call per item at a time, and never on the event loop. Offsets are item-absolute;
byte 0 of a sink's item is the start of the requested range.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

from ..blocks import SpaceblockRequests
from ..errors import BufferUnfit, SpaceblockError
from ..manifest import Manifest
from .sources import flat


class Sink(abc.ABC):
    """Where the items of one transfer go."""

    durable: bool
    """Whether what is placed survives a loss of power."""

    @abc.abstractmethod
    def prepare(self, requests: SpaceblockRequests, manifest: Manifest | None) -> set[int]:
        """Check everything that can be checked before data moves; returns the items to skip.

        Raises :class:`NameRejected`, :class:`StorageError` or :class:`BufferUnfit`.
        """

    @abc.abstractmethod
    def memory(self, item: int, offset: int, length: int) -> memoryview | None:
        """The memory where these bytes of the item belong, or None if they are to be passed to :meth:`write`.

        Called on the event loop, and so must not block.
        """

    @abc.abstractmethod
    def begin(self, item: int) -> None:
        """The first bytes of the item, or its end if it has none, are about to come."""

    @abc.abstractmethod
    def write(self, item: int, offset: int, data: memoryview) -> None:
        """Store bytes; raises :class:`StorageError`."""

    @abc.abstractmethod
    def finish(self, item: int) -> None:
        """All bytes of the item came: make them durable if that was asked for; raises :class:`StorageError`."""

    @abc.abstractmethod
    def place(self, items: Sequence[int]) -> list[str | SpaceblockError]:
        """Put finished and verified items where they belong; returns for each its final name (empty for a buffer), or
        why it could not be done."""

    @abc.abstractmethod
    def discard(self, item: int) -> None:
        """Drop what there is of an item that will not be completed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything and remove what is unfinished; safe to call twice."""


class BufferSink(Sink):
    """Callers' writable buffers, filled in place: one for each item, exactly as long as the item's range."""

    durable = False

    def __init__(self, buffers: Sequence[object]) -> None:
        self._views: list[memoryview] = []
        self._starts: list[int] = []
        try:
            for index, buffer in enumerate(buffers):
                self._views.append(_writable(buffer, index))
        except BaseException:
            self.close()
            raise

    def prepare(self, requests: SpaceblockRequests, manifest: Manifest | None) -> set[int]:
        if len(self._views) != len(requests.items):
            raise BufferUnfit(
                f"{len(self._views)} buffers were given for {len(requests.items)} items: give one for each"
            )
        for index, (view, request) in enumerate(zip(self._views, requests.items, strict=True)):
            if request.length is None:
                raise BufferUnfit(f"the size of item {index} is not known yet: receive it into a folder", item=index)
            if len(view) != request.length:
                raise BufferUnfit(
                    f"the buffer for item {index} has {len(view)} bytes and the item {request.length}: make them equal",
                    item=index,
                )
            self._starts.append(request.start)
        return set()

    def memory(self, item: int, offset: int, length: int) -> memoryview | None:
        start = offset - self._starts[item]
        return self._views[item][start : start + length]

    def begin(self, item: int) -> None:
        return

    def write(self, item: int, offset: int, data: memoryview) -> None:
        raise AssertionError("bytes for a buffer are received in place")

    def finish(self, item: int) -> None:
        return

    def place(self, items: Sequence[int]) -> list[str | SpaceblockError]:
        return [""] * len(items)

    def discard(self, item: int) -> None:
        return

    def close(self) -> None:
        for view in self._views:
            view.release()


def _writable(buffer: object, index: int) -> memoryview:
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
    except TypeError:
        raise BufferUnfit(
            f"into[{index}] is a {type(buffer).__name__}, which is not a buffer: give a bytearray or an array",
            item=index,
        ) from None
    except ValueError as error:
        raise BufferUnfit(f"cannot fill into[{index}]: {error}; give a bytearray or an array", item=index) from error
    if view.readonly:
        view.release()
        raise BufferUnfit(f"the buffer for item {index} is read-only: give a bytearray or a writable array", item=index)
    return flat(view)
