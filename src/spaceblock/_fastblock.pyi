"""The contract of the compiled core that writes, kept by its twin ``_pyblock`` as well; import ``spaceblock.core``.

All sizes and offsets are bytes, all ranges half-open. An input is any contiguous buffer, an output a writable one: else
``BufferError``, and ``TypeError`` when it is no buffer. A number outside its range is a ``ValueError``. No buffer is
held after a call returns. Tables hold native unsigned 64-bit words, so that an ``array("Q")`` or a NumPy array reads
them.
"""

from typing import Final

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
