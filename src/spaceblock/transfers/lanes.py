"""Which items share a data stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..limits import SMALL_ITEM
from ..storage.sources import Source, source_length

_LANE_BYTES = 64 * SMALL_ITEM
_LANE_ITEMS = 4_096
"""Small items on one data stream: enough to make the stream's own cost vanish, few enough to spread over the lanes."""


def lanes_of(wanted: Sequence[int], sources: Sequence[Source]) -> Iterator[list[int]]:
    """The items of each data stream: a large one, or one of unknown size, alone; small ones together in their order."""
    lane: list[int] = []
    size = 0
    for item in wanted:
        length = source_length(sources[item])
        if length is None or length > SMALL_ITEM:
            yield [item]
            continue
        lane.append(item)
        size += length
        if len(lane) >= _LANE_ITEMS or size >= _LANE_BYTES:
            yield lane
            lane, size = [], 0
    if lane:
        yield lane
