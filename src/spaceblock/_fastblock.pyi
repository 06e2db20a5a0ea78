"""The compiled core's contract, which its twin ``_pyblock`` keeps as well; import it from ``spaceblock.core``.

All sizes and offsets are bytes, all ranges half-open. An input is any contiguous buffer, an output a writable one: else
``BufferError``, and ``TypeError`` when it is no buffer. A number outside its range is a ``ValueError``. No buffer is
held after a call returns, save a :class:`Deframer`'s target. Tables hold native unsigned 64-bit words, so that an
``array("Q")`` or a NumPy array reads them.
"""

from typing import ClassVar, Final, final

from _typeshed import ReadableBuffer, WriteableBuffer

UINT_VAR_MAX: Final[int]
"""The largest number a varint holds, 2^62-1 (RFC 9000, section 16)."""

BLOCK_TYPE: Final[int]
"""Wire type of the ``Block`` message."""

HEADER_ROOM: Final[int]
"""A bound on a ``Block`` header: one byte of type, at most eight each of length, item and offset, rounded up."""

MESSAGE_DATA_MAX: Final[int]
"""Bytes of data that one ``Block`` message may carry."""

def encode_uint_var(value: int) -> bytes:
    """Encode a number up to :data:`UINT_VAR_MAX` in its shortest form (RFC 9000, section 16)."""

def decode_uint_var(data: ReadableBuffer, pos: int = 0) -> tuple[int, int]:
    """The number at ``pos``, of any of the four lengths, and the position behind it; ValueError when it is cut off."""

def write_uint_var(out: WriteableBuffer, pos: int, value: int) -> int:
    """Write a number's shortest form at ``pos`` and return the position behind it; ValueError when it does not fit."""

def slice_range(table: WriteableBuffer, start: int, stop: int, block_size: int, limit: int = ...) -> int:
    """Cut ``[start, stop)`` into pieces of at most ``limit`` bytes, none crossing a multiple of ``block_size``.

    Writes a pair (offset, length) for each into ``table`` and returns how many; when the table filled up before
    ``stop``, go on from the end of the last piece.
    """

def frame_blocks(
    out: WriteableBuffer, table: WriteableBuffer, item: int, start: int, stop: int, block_size: int
) -> tuple[int, int, int]:
    """Write the ``Block`` headers for ``[start, stop)`` of an item whose data lies elsewhere.

    Headers go into ``out`` one behind the other; ``table`` gets a row (header start, header stop, offset, length) for
    each. Ends at ``stop`` or when either buffer is full. Returns the rows, the bytes of ``out`` used and the offset to
    go on from.
    """

def fill_blocks(
    fd: int,
    slot: WriteableBuffer,
    table: WriteableBuffer,
    item: int,
    offset: int,
    stop: int,
    block_size: int,
    used: int = 0,
) -> tuple[int, int, int, bool]:
    """Append ``Block`` messages with the file's bytes ``[offset, stop)`` to ``slot``, from its byte ``used`` on.

    Reads by position, without the GIL, straight to where the bytes stay; ``table`` gets a row (data start, data stop,
    offset, length) for each message. Ends at ``stop``, at the end of the file, when the table is full, or when no more
    than :data:`HEADER_ROOM` bytes are free; a message shrinks to the room there is. Returns the rows, the bytes of
    ``slot`` in use, the offset to go on from, and whether the file ended before ``stop``: then the last message holds
    exactly what was read. Raises OSError when reading fails; what is behind ``used`` is then undefined.

    A short file is only noticed by reading: when the last message filled the slot, the next call finds out.
    """

def write_all(fd: int, data: ReadableBuffer, offset: int) -> None:
    """Write all of ``data`` at ``offset`` of the file, without the GIL; OSError when writing fails."""

@final
class Deframer:
    """Parses one stream's messages from pieces of any size; not safe for concurrent use.

    Call :meth:`feed` until the data is used up; after each call :attr:`event` says what was found. After ``BLOCK`` give
    the data a place with :meth:`set_target`; feeding without one is a ValueError. What breaks the wire's rules or a
    limit raises :class:`~spaceblock.errors.RemoteProtocolError`, before any of it is buffered, and the stream is lost:
    every later feed raises it again.

    Blocks may also find room that was given before: see :meth:`provide`. They raise no event, and :meth:`landed` lists
    them; nothing of their heads was checked but the length. Then a compiled caller can feed without the GIL, through
    :attr:`capsule`: it stops at an event, until :meth:`proceed` or :meth:`ready` says that it was dealt with.
    """

    NEED_DATA: ClassVar[int]
    """Everything was consumed and nothing is complete."""
    MESSAGE: ClassVar[int]
    """A whole message: see :attr:`message_type` and :attr:`payload`."""
    BLOCK: ClassVar[int]
    """A Block's header: see :attr:`item`, :attr:`offset` and :attr:`length`; its data follows."""
    BLOCK_END: ClassVar[int]
    """The Block's data is all in its target, which is no longer held."""

    def __init__(self, message_limit: int, block_limit: int) -> None:
        """Allow payloads up to ``message_limit`` bytes and Blocks up to ``block_limit`` bytes of data; 0: no Blocks."""

    def feed(self, data: ReadableBuffer, pos: int = 0) -> int:
        """Consume ``data`` from ``pos`` up to the next event or to its end; returns the new position."""

    def set_target(self, target: WriteableBuffer, start: int) -> None:
        """Have the Block's data written to ``target[start : start + length]``, which must exist: else ValueError.

        The buffer is held until ``BLOCK_END`` or :meth:`release`. After a release within a Block a new target may be
        set: the rest of the data goes where it would have gone in it.
        """

    def provide(self, memory: WriteableBuffer, start: int = 0, item: int | None = None, offset: int = 0) -> int:
        """Give room for Blocks to come: they go to ``memory`` from ``start`` on, back to back, as long as they fit.

        With ``item``, only Blocks of that item whose offsets go on from ``offset``. Rooms are used in the order given;
        one that a Block does not fit is left behind for good. Returns the room's number, counted from 0. Eight rooms
        are held at most, a left one until the next call: ValueError. The memory is held until then or :meth:`release`.
        """

    def landed(self) -> list[tuple[int, int, int, int, int]]:
        """Blocks that are complete in a room and were not listed yet: item, offset, length, room, start in the room."""

    def ready(self) -> bool:
        """Whether the next feed can go on: no message waits for :meth:`proceed`, and no Block for a place."""

    def proceed(self) -> None:
        """The event was dealt with; ``BLOCK`` stays until there is a place. :meth:`feed` implies it."""

    def check(self) -> None:
        """Raise what :meth:`feed` would raise, if what was fed through :attr:`capsule` broke a rule."""

    def withdraw(self) -> int:
        """Leave all rooms behind but one with a Block under way; returns the number below which all rooms are left."""

    def release(self) -> None:
        """Let go of the target, if there is one, and of all rooms."""

    @property
    def in_block(self) -> bool:
        """Whether a Block's header came and its data did not all come."""

    @property
    def free(self) -> int:
        """Bytes free in the rooms that take any item."""

    @property
    def room(self) -> int:
        """Number below which all rooms are left."""

    @property
    def capsule(self) -> object:
        """For compiled callers; None in the twin, which has to be fed by :meth:`feed`."""

    @property
    def event(self) -> int:
        """What the last :meth:`feed` stopped for: one of the four constants."""

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
