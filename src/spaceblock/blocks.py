"""What is asked for: sizes, ranges and the block grid. Bytes everywhere, ranges half-open, no names.

A request says nothing about files: an unnamed buffer is as good a thing to send. Values that cannot be are a
ValueError; whoever reads them from a peer turns that into the peer's fault.
"""

from __future__ import annotations

from typing import ClassVar

from .core import UINT_VAR_MAX
from .process.lazily import dataclass


class BlockSize:
    """The rule for block sizes, that of the Block Exchange Protocol: powers of two from 128 KiB to 16 MiB.

    A block is the unit that repair sends again, so small blocks repair little too much; but every block costs a digest
    of 32 bytes, so an item should not have too many. The smallest size that gives fewer than 2000 blocks keeps an
    item's list of digests below 64 KB and one block below a thousandth of a large item, up to 31 GiB; beyond that the
    list grows rather than the block, because a block of 16 MiB is as much as anyone should have to send twice.
    """

    MIN: ClassVar[int] = 1 << 17
    MAX: ClassVar[int] = 1 << 24
    TARGET_COUNT: ClassVar[int] = 2000

    @classmethod
    def for_size(cls, size: int) -> int:
        """The block size for ``size`` bytes: the smallest that gives fewer than 2000 blocks, or the largest."""
        _check_size(size)
        block_size = cls.MIN
        while block_size < cls.MAX and cls.count(size, block_size) >= cls.TARGET_COUNT:
            block_size *= 2
        return block_size

    @classmethod
    def count(cls, size: int, block_size: int) -> int:
        """How many blocks of ``block_size`` bytes ``size`` bytes make, a last short one included."""
        return -(-size // block_size)


class Range:
    """The part of an item that is asked for: :class:`Full` or :class:`Partial`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Full(Range):
    """The whole item, however long it is."""


@dataclass(frozen=True, slots=True)
class Partial(Range):
    """The bytes ``[start, stop)`` of an item; ValueError unless 0 <= start <= stop <= 2^62-1."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= UINT_VAR_MAX:
            raise ValueError(
                f"{self.start} to {self.stop} is no range; give a start and a stop of at most 2^62-1 in order"
            )


@dataclass(frozen=True, slots=True)
class SpaceblockRequest:
    """One item: its size in bytes, or None when only its end will tell, and the range of it to transfer.

    ``rereadable`` says that the sender can read the bytes a second time, for repair. ``data`` estimates how many bytes
    of the range are not in holes; None where it has none. Raises ValueError when the size is out of bounds, the range
    ends behind it or is shorter than its data.
    """

    size: int | None
    range: Range = Full()
    rereadable: bool = True
    data: int | None = None

    def __post_init__(self) -> None:
        if self.data is not None and not 0 <= self.data <= (self.length or 0):
            raise ValueError(f"{self.data} bytes of data do not fit a range of {self.length}; give fewer")
        if self.size is None:
            return
        _check_size(self.size)
        if isinstance(self.range, Partial) and self.range.stop > self.size:
            raise ValueError(
                f"the range ends at {self.range.stop}, behind the item's {self.size} bytes; end it earlier"
            )

    @property
    def start(self) -> int:
        """The first byte's offset."""
        return self.range.start if isinstance(self.range, Partial) else 0

    @property
    def stop(self) -> int | None:
        """The offset behind the last byte; None when unknown."""
        return self.range.stop if isinstance(self.range, Partial) else self.size

    @property
    def length(self) -> int | None:
        """The bytes to transfer; None when unknown."""
        part = self.range  # asked for again and again, of every item
        return part.stop - part.start if isinstance(part, Partial) else self.size

    @property
    def space(self) -> int:
        """The bytes of a disk that the range needs, as far as that is known before it came."""
        return (self.length or 0) if self.data is None else self.data


@dataclass(frozen=True, slots=True)
class SpaceblockRequests:
    """All items of one transfer, which its 16-byte UUID names, on a grid of ``block_size`` bytes."""

    uuid: bytes
    block_size: int
    items: tuple[SpaceblockRequest, ...]


@dataclass(frozen=True, slots=True)
class Had:
    """What a receiver has of an item from an earlier attempt: its range up to ``offset``.

    ``digest`` is that of the range up to ``checked``, which is at most ``offset``. ``place`` is the name under which
    the whole item is in its place already.
    """

    offset: int
    checked: int
    digest: bytes
    place: str | None = None


def _check_size(size: int) -> None:
    if not 0 <= size <= UINT_VAR_MAX:
        raise ValueError(f"{size} is no size; give one from 0 to 2^62-1 bytes")
