"""The contract of the compiled core that reads, kept by its twin ``_pydeframer`` as well; import ``spaceblock.core``.

Sizes, buffers and numbers are as in ``_fastblock``.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, final

from _typeshed import ReadableBuffer, WriteableBuffer

@final
class Deframer:
    """Parses one stream's messages from pieces of any size; not safe for concurrent use.

    Call :meth:`feed` until the data is used up; after each call :attr:`event` says what was found. A Block's data goes
    to the room that :meth:`provide` gave, before or after its header came; :meth:`landed` lists what is complete, and
    nothing of its head was checked but the length. ``BLOCK`` says that no room fits, or that too many have landed:
    feeding before that is put right is a ValueError. What breaks the wire's rules or a limit raises
    :class:`~spaceblock.errors.RemoteProtocolError`, before any of it is buffered, and the stream is lost: every later
    feed raises it again.

    A belt is for many Blocks of one item: :meth:`convey` has them land in a few pieces of memory, each of which is free
    again as soon as :meth:`settle` has passed its Block on.

    A compiled caller can feed without the GIL, through :attr:`capsule`: it stops at an event, until :meth:`proceed` or
    :meth:`ready` says that it was dealt with.
    """

    NEED_DATA: ClassVar[int]
    """Everything was consumed and nothing is complete."""
    MESSAGE: ClassVar[int]
    """A whole message: see :attr:`message_type` and :attr:`payload`."""
    BLOCK: ClassVar[int]
    """A Block without a place: see :attr:`item`, :attr:`offset` and :attr:`length`; its data follows."""

    def __init__(self, message_limit: int, block_limit: int, end_type: int = 0) -> None:
        """Allow payloads up to ``message_limit`` bytes and Blocks up to ``block_limit`` bytes of data; 0: no Blocks.

        A message of the type ``end_type`` whose payload is two numbers, an item and its size, is no event: it is listed
        by :meth:`landed` in its turn, as long as there is room in that list. 0: there is no such type.
        """

    def feed(self, data: ReadableBuffer, pos: int = 0) -> int:
        """Consume ``data`` from ``pos`` up to the next event or to its end; returns the new position."""

    def provide(self, memory: WriteableBuffer, start: int = 0, item: int | None = None, offset: int = 0) -> int:
        """Give room for Blocks to come: they go to ``memory`` from ``start`` on, back to back, as long as they fit.

        With ``item``, only Blocks of that item whose offsets go on from ``offset``. Rooms are used in the order given;
        one that a Block does not fit is left behind for good. Returns the room's number, counted from 0. Eight rooms
        are held at most, a left one until the next call: ValueError. The memory is held until then or :meth:`release`.
        """

    def landed(self) -> list[tuple[int, int, int, int, int]]:
        """Blocks that are complete in a room and were not listed yet: item, offset, length, room, start in the room.

        Between them the ends of items: item, size, 0, and two numbers without meaning. Blocks from the belt, which this
        settles, are listed as one: item, offset, length of all, -1, their number; and not before a call that lists
        nothing else in front of them, so that this is to be called until it lists nothing.
        """

    def convey(
        self,
        item: int,
        limit: int,
        grid: int,
        keep: Callable[[int, memoryview], object],
        memories: Sequence[WriteableBuffer],
        start: int | None = None,
    ) -> bool:
        """Put up a belt for Blocks of ``item`` that go on from the last Block that found a place.

        It takes what ends at or before the offset ``limit`` and lies within one cell of ``grid`` bytes; until
        :meth:`extend` or :meth:`halt` other Blocks of the item that go on there have no place. Each Block is in one of
        up to four ``memories``, or, with ``start``, in the one memory whose first byte is the item's at that offset.
        ``keep(offset, data)`` gets each of them, once and in order; an :class:`Exception` that it raises is kept in
        :attr:`belt_error`, and it is not called any more. False: the last Block was of another item, or not within
        these bounds, and there is no belt. ValueError where there is one already, or no or too many memories.
        """

    def extend(self, limit: int) -> None:
        """Let Blocks that end at or before ``limit`` on the belt, if it said less and they do not lie in place."""

    def settle(self) -> None:
        """Have ``keep`` called for what lies on the belt, unless a Block before it was not listed yet.

        Only by the thread that calls :meth:`landed`, and not by ``keep``.
        """

    def halt(self) -> bool:
        """Let no more Blocks on the belt and take it down; False while a Block is under way on it, or one before what
        it carries was not listed, or :attr:`belt_error` is about something that was not."""

    @property
    def has_settled(self) -> bool:
        """Whether ``keep`` was called for something that :meth:`landed` has not listed."""

    @property
    def belt_error(self) -> Exception | None:
        """What ``keep`` raised, until the belt is taken down."""

    def ready(self) -> bool:
        """Whether the next feed can go on: no message waits for :meth:`proceed`, and no Block for a place."""

    def proceed(self) -> None:
        """The event was dealt with; ``BLOCK`` stays until there is a place. :meth:`feed` implies it."""

    def check(self) -> None:
        """Raise what :meth:`feed` would raise, if what was fed through :attr:`capsule` broke a rule."""

    def withdraw(self) -> int:
        """Leave all rooms behind but one with a Block under way; returns the number below which all rooms are left."""

    def release(self) -> None:
        """Let go of all rooms, and of the belt with what it carries. A Block under way loses its place; when some of it
        had come, the stream is stuck."""

    @property
    def in_block(self) -> bool:
        """Whether a Block's header came and its data did not all come."""

    @property
    def free(self) -> int:
        """Bytes free in the rooms that take any item, and those that may still come on a belt, but not in place."""

    @property
    def room(self) -> int:
        """Number below which all rooms are left."""

    @property
    def capsule(self) -> object:
        """For compiled callers; None in the twin, which has to be fed by :meth:`feed`."""

    @property
    def event(self) -> int:
        """What the last :meth:`feed` stopped for: one of the three constants."""

    @property
    def message_type(self) -> int:
        """Type of the message whose header was read last."""

    @property
    def payload(self) -> bytes:
        """Payload of the last message that was no Block."""

    @property
    def item(self) -> int:
        """Item index of the last Block."""

    @property
    def offset(self) -> int:
        """Offset in its item of the last Block's first byte."""

    @property
    def length(self) -> int:
        """Bytes of data of the last Block."""

    @property
    def at_boundary(self) -> bool:
        """Whether no message is half read, so that the stream may end here."""
