"""What is received into: what the caller gives for each item (see :mod:`.targets`), or a folder (see :mod:`.folder`).

A sink works in worker threads, one call per item at a time, and on the event loop only where it says so. Offsets are
item-absolute; byte 0 of a sink's item is the start of the requested range.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..blocks import Had, SpaceblockRequests
from ..errors import BufferUnfit, SpaceblockError, StorageError
from ..names import NameRules, Problem, local_rules
from ..process.lazily import dataclass
from ..wire.manifest import Manifest
from .rereading import MemoryBytes, Reread
from .targets import BufferTarget, NoTarget, Target, target_of


@dataclass(frozen=True, slots=True)
class Mark:
    """The bytes of an item up to ``offset`` are written; up to ``checked`` they have ``digest``."""

    item: int
    offset: int
    checked: int
    digest: bytes


class Sink(abc.ABC):
    """Where the items of one transfer go."""

    durable = False
    """Whether what is placed survives a loss of power."""

    keeps = False
    """Whether what is left of an item that breaks off can be another attempt's beginning: then marks are wanted."""

    place_of_all = ""
    """The folder that everything goes into, if it is one."""

    repairable = False
    """Whether what was received can be read again, and be written to once more."""

    is_program = False
    """Whether somebody else's program decides how fast bytes are taken, and not a disk."""

    on_work: Callable[[], None] = staticmethod(lambda: None)
    """Called again and again, from any thread, during calls that may take long."""

    limits: NameRules = local_rules()
    """What this sink accepts as a name, known once :meth:`name_problems` was called."""

    unseen: frozenset[str] = frozenset()
    """Names that the sender gave in place of others after the offer was accepted: nobody agreed to overwrite these."""

    comparable: frozenset[int] = frozenset()
    """Of the items that :meth:`prepare` says to skip, those that may be here already, byte for byte."""

    def __init__(self) -> None:
        self.had: dict[int, Had] = {}
        """What :meth:`prepare` found of the items from earlier attempts."""

    def name_problems(self, requests: SpaceblockRequests, manifest: Manifest | None) -> list[Problem]:
        """The entries that cannot have their names here, by index; may be called again with other names.

        Raises :class:`StorageError`.
        """
        return []

    def name_of(self, item: int) -> str:
        """The name that an item is to have here; empty where items have none."""
        return ""

    def digest(self, item: int) -> Iterator[int | bytes]:
        """Hash what is here already of a comparable item: yields the length of each portion, and at last the digest."""
        raise AssertionError("only what is comparable is hashed")

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

    def forgets(self, item: int) -> bool:
        """Whether nobody keeps the bytes of ``item``, so that none have to be passed to :meth:`write`."""
        return False

    def never_waits(self, item: int) -> bool:
        """Whether :meth:`write` only copies memory for ``item``, so that the event loop may call it."""
        return False

    @abc.abstractmethod
    def begin(self, item: int) -> None:
        """The first bytes of the item, or its end if it has none, are about to come."""

    def store_whole(self, items: Sequence[tuple[int, memoryview]]) -> list[bytes]:
        """Begin, write and finish items with all their bytes, one after another; returns the digests of those for which
        that went well.

        The first for which it did not is left as if it had not begun.
        """
        return []

    def resume(self, item: int) -> None:
        """As :meth:`begin`, for an item of which something is ``had``: the bytes behind that are about to come."""
        raise AssertionError("nothing is had")

    def reopen(self, item: int) -> None:
        """Some bytes of a finished item are about to come once more."""
        raise AssertionError("only what is repairable is sent again")

    def reread(self, item: int) -> Reread:
        """Read what there is of an unfinished item, or of one that is not in its place; raises :class:`StorageError`.

        Unlike everything else this may be called while the item is being written to.
        """
        raise AssertionError("only what is had or repairable is read again")

    def checkpoint(self, marks: Sequence[Mark]) -> dict[int, StorageError]:
        """Make the bytes before each mark durable, and then note that; returns the items for which that failed.

        May be called while the items are being written to. Raises :class:`StorageError` where nothing can be noted.
        """
        raise AssertionError("only a sink that keeps things wants marks")

    @abc.abstractmethod
    def write(self, item: int, offset: int, data: memoryview) -> None:
        """Store bytes; raises :class:`StorageError`."""

    @abc.abstractmethod
    def hole(self, item: int, offset: int, length: int) -> None:
        """Store ``length`` zero bytes, without using space for them where that can be; raises :class:`StorageError`."""

    @abc.abstractmethod
    def finish(self, item: int) -> None:
        """All bytes of the item came; raises :class:`StorageError`."""

    @abc.abstractmethod
    def place(self, items: Sequence[int], digests: Mapping[int, bytes] | None = None) -> list[str | SpaceblockError]:
        """Put finished and verified items where they belong; returns for each its final name (empty for a buffer), or
        why it could not be done. ``digests`` are what they hold."""

    def confirmed(self, item: int) -> None:
        """What is in its place since an earlier attempt is what was to be sent."""
        return

    def set_aside(self, item: int) -> str:
        """Leave what there is of a finished item to the user; returns where it is, or nothing."""
        return ""

    @abc.abstractmethod
    def discard(self, item: int) -> None:
        """Drop what there is of an item that will not be completed."""

    def conclude(self) -> None:
        """Every item has come to its end, some of them by failing; there is nothing to do if all were placed."""
        return

    def tidy(self) -> None:
        """Everything is in its place: remove what was needed on the way. Nothing but :meth:`close` comes after this."""
        return

    def stop(self) -> None:
        """Nobody wants the bytes any more: end a write that waits for a program. Any thread may call this."""
        return

    @abc.abstractmethod
    def close(self, *, lost: bool = False, over: bool = True) -> bool:
        """Release everything, and remove what is unfinished unless it is of use for another attempt: then this is true.

        Unless the connection was ``lost``, nobody comes back for items without a name. Where the transfer is not
        ``over``, another attempt has to learn of what is in its place. Safe to call twice."""


class IntoSink(Sink):
    """One target for each item: a writable buffer, filled in place, a binary file object, or ``DISCARD``."""

    def __init__(self, things: Sequence[object]) -> None:
        super().__init__()
        self._targets: list[Target] = []
        self._starts: list[int] = []
        try:
            for index, thing in enumerate(things):
                self._targets.append(target_of(thing, index))
        except BaseException:
            self.close()
            raise
        self.is_program: bool = any(target.is_program for target in self._targets)
        self.repairable: bool = all(isinstance(target, BufferTarget) for target in self._targets)

    def prepare(self, requests: SpaceblockRequests, manifest: Manifest | None) -> set[int]:
        count, items = len(self._targets), len(requests.items)
        if count != items:
            raise BufferUnfit(f"into has {count} targets for {items} items: give one for each")
        for target, request in zip(self._targets, requests.items, strict=True):
            target.check(request)
            self._starts.append(request.start)
        return set()

    def memory(self, item: int, offset: int, length: int) -> memoryview | None:
        return self._targets[item].memory(offset - self._starts[item], length)

    def forgets(self, item: int) -> bool:
        return isinstance(self._targets[item], NoTarget)

    def begin(self, item: int) -> None:
        return

    def reopen(self, item: int) -> None:
        return

    def reread(self, item: int) -> Reread:
        target = self._targets[item]
        assert isinstance(target, BufferTarget)
        return MemoryBytes(target.whole(), self._starts[item])

    def write(self, item: int, offset: int, data: memoryview) -> None:
        self._targets[item].write(data)

    def hole(self, item: int, offset: int, length: int) -> None:
        self._targets[item].hole(offset - self._starts[item], length)

    def finish(self, item: int) -> None:
        self._targets[item].finish()

    def place(self, items: Sequence[int], digests: Mapping[int, bytes] | None = None) -> list[str | SpaceblockError]:
        return [""] * len(items)

    def discard(self, item: int) -> None:
        return

    def stop(self) -> None:
        for target in self._targets:
            target.stop()

    def close(self, *, lost: bool = False, over: bool = True) -> bool:
        for target in self._targets:
            target.close()
        return False
