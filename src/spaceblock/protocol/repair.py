"""Which parts of an item differ between the two sides, told by the digests of its blocks."""

from __future__ import annotations

from collections.abc import Sequence

from ..blocks import Partial
from ..errors import RemoteProtocolError

_RANGES_MAX = 2_000
"""Ranges asked for at once, as many as one message surely holds; where there are more, neighbours are joined."""


class BlockList:
    """The digests of an item's blocks over ``[start, stop)``, in order, as far as they are known."""

    def __init__(self, start: int, stop: int, block_size: int) -> None:
        self.start = start
        self.stop = stop
        self.block_size = block_size
        self.first: int = start // block_size
        self.count: int = -(-stop // block_size) - self.first if stop > start else 0
        self.digests: list[bytes] = []

    @property
    def next(self) -> int:
        """The block of the grid whose digest is the next to come."""
        return self.first + len(self.digests)

    @property
    def whole(self) -> bool:
        """Whether none is missing."""
        return len(self.digests) == self.count

    def extend(self, first: int, digests: Sequence[bytes]) -> None:
        """Take the digests from block ``first`` on; raises :class:`RemoteProtocolError` unless they are the next."""
        if first != self.next or len(digests) > self.count - len(self.digests):
            raise RemoteProtocolError("the peer's block digests do not follow each other, or are too many")
        self.digests.extend(digests)


class Repair:
    """An item over ``[start, stop)`` that differs: the block digests of both sides, then what is to come once more."""

    def __init__(self, start: int, stop: int, block_size: int) -> None:
        self.mine: BlockList = BlockList(start, stop, block_size)
        self.theirs: BlockList = BlockList(start, stop, block_size)
        self.ranges: list[Partial] = []

    @property
    def may_compare(self) -> bool:
        """Whether both lists are whole."""
        return self.mine.whole and self.theirs.whole

    def compare(self) -> list[Partial]:
        """Find the ranges that differ, and keep them; none where only the whole differs."""
        self.ranges = differing_ranges(self.mine, self.theirs)
        return self.ranges


def differing_ranges(mine: BlockList, theirs: BlockList) -> list[Partial]:
    """The ranges in which two whole lists differ, ascending and apart."""
    ranges: list[Partial] = []
    for index, (one, other) in enumerate(zip(mine.digests, theirs.digests, strict=True), mine.first):
        if one == other:
            continue
        start = max(index * mine.block_size, mine.start)
        stop = min((index + 1) * mine.block_size, mine.stop)
        if ranges and ranges[-1].stop == start:
            ranges[-1] = Partial(ranges[-1].start, stop)
        else:
            ranges.append(Partial(start, stop))
    while len(ranges) > _RANGES_MAX:
        ranges = [
            Partial(pair[0].start, pair[-1].stop) for pair in (ranges[i : i + 2] for i in range(0, len(ranges), 2))
        ]
    return ranges
