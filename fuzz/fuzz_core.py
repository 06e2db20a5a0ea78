# Invariant: for any arguments the compiled core and its twin return the same, write the same and refuse the same;
# pieces that they cut cover the range without a gap and never cross the grid.
"""The core's functions on numbers and tables, against their twins."""

from __future__ import annotations

import array
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

import spaceblock.core
from framing import pairs, quads, words
from spaceblock import _pyblock

from .choices import Choices, large

TOP = 2**62 - 1
Outcome = tuple[Any, ...]


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    act = ACTS[choices.below(len(ACTS))]
    arguments = choices.rest()
    ours, twin = (act(core, Choices(arguments)) for core in (spaceblock.core, _pyblock))
    assert ours == twin
    return act.__name__, type(ours[0]), len(ours)


def seeds() -> dict[str, bytes]:
    grid = large(1 << 17) + large(1 << 20)
    return {
        "encode": b"\0" + large(TOP),
        "encode-too-much": b"\0" + large(TOP + 1),
        "decode": b"\1\2\0\0\x80\x01\x00\x00",
        "write": b"\2\x09\1" + large(16_384),
        "slice": b"\3\x08" + large(100) + large(1 << 20) + grid,
        "slice-the-end": b"\3\x08" + large(TOP - 10) + large(TOP) + grid,
        "frame": b"\4\x08\x60" + large(7) + large(100) + large(1 << 20) + large(1 << 17),
        "frame-the-end": b"\4\x08\x60" + large(TOP) + large(TOP - 3_000_000) + large(TOP) + large(1 << 20),
    }


def _encode(core: ModuleType, choices: Choices) -> Outcome:
    return _outcome(lambda: core.encode_uint_var(choices.large()))


def _decode(core: ModuleType, choices: Choices) -> Outcome:
    pos = choices.byte() - 2
    # An array has not a byte to spare behind its data, so that a checked build sees every one read too many.
    exact = array.array("B", choices.rest())
    return _outcome(lambda: core.decode_uint_var(exact, pos))


def _write(core: ModuleType, choices: Choices) -> Outcome:
    out = array.array("B", bytes(choices.below(20)))
    pos = choices.byte() - 2
    return (*_outcome(lambda: core.write_uint_var(out, pos, choices.large())), out.tobytes())


def _slice(core: ModuleType, choices: Choices) -> Outcome:
    table = words(2 * choices.below(17))
    start, stop, block_size, limit = (choices.large() for _ in range(4))
    outcome = _outcome(lambda: core.slice_range(table, start, stop, block_size, limit))
    if isinstance(outcome[0], int):
        pieces = pairs(table, outcome[0])
        _check_pieces(pieces, start, stop, block_size, limit)
        assert outcome[0] == len(table) // 2 or sum(length for _, length in pieces) == stop - start
    return (*outcome, table.tobytes())


def _frame(core: ModuleType, choices: Choices) -> Outcome:
    table, out = words(4 * choices.below(17)), array.array("B", bytes(choices.below(256)))
    item, start, stop, block_size = (choices.large() for _ in range(4))
    outcome = _outcome(lambda: core.frame_blocks(out, table, item, start, stop, block_size))
    if isinstance(outcome[0], tuple):
        rows, used, following = outcome[0]
        pieces = [(offset, length) for _, _, offset, length in quads(table, rows)]
        _check_pieces(pieces, start, stop, block_size, core.MESSAGE_DATA_MAX)
        assert used <= len(out)
        assert following == start + sum(length for _, length in pieces)
    return (*outcome, table.tobytes(), out.tobytes())


def _check_pieces(pieces: list[tuple[int, int]], start: int, stop: int, block_size: int, limit: int) -> None:
    at = start
    for offset, length in pieces:
        assert offset == at
        assert 0 < length <= limit
        assert offset // block_size == (offset + length - 1) // block_size
        at += length
    assert at <= stop


def _outcome(call: Callable[[], Any]) -> Outcome:
    """What a call returns, or the error that it raises; a refusal's text is the same on both sides too."""
    try:
        return (call(),)
    except (ValueError, OverflowError) as error:
        return (type(error).__name__, str(error))


ACTS = (_encode, _decode, _write, _slice, _frame)
