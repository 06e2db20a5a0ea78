# Invariant: whatever a stream holds and however it is cut, the compiled Deframer and its twin find the same messages,
# blocks and errors as the twin finds in the whole; they agree on where the stream may end; a lost stream stays lost.
"""The Deframer against its twin."""

from __future__ import annotations

from collections.abc import Hashable

import spaceblock.core
from framing import block, collect, message
from spaceblock import _pyblock, _pydeframer
from spaceblock.errors import RemoteProtocolError

from .choices import Choices, piece

SIZE_MAX = 600
LIMITS = (0, 1, 5, 64, 300, 4_096, 65_536)


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    limits = LIMITS[choices.below(len(LIMITS))], LIMITS[choices.below(len(LIMITS))]
    steps = [1 + choices.byte() for _ in range(choices.below(8))]
    stream = choices.rest()
    whole = _pydeframer.Deframer(*limits)
    expected = collect(whole, [stream])
    for kind in (_pydeframer.Deframer, spaceblock.core.Deframer):
        for parts in ([stream], _parts(stream, steps)):
            deframer = kind(*limits)
            assert collect(deframer, parts) == expected
            assert deframer.at_boundary == whole.at_boundary
            if expected and expected[-1][0] == "error":
                _stays_lost(deframer)
    return tuple(kind for kind, _ in expected[:6]), whole.event, whole.at_boundary


def seeds() -> dict[str, bytes]:
    head = bytes([4, 5, 3, 0, 6, 40])
    one = message(_pyblock, 0x24, b"payload")
    data = block(_pyblock, 3, 4_096, b"data" * 20)
    return {
        "message": head + one,
        "block": head + data,
        "several": head + one + data + message(_pyblock, 2**40, b"") + data + one,
        "too-long": head + bytes.fromhex("06ffffffffffffffff"),
        "beyond-the-end": head + bytes.fromhex("200b00fffffffffffffffe0000"),
        "long-varints": head + bytes.fromhex("c000000000000020c000000000000011c000000000000001c000000000000002ff"),
        "no-blocks": bytes([4, 0, 0]) + data,
        "pieces": head + piece(one),
    }


def _parts(stream: bytes, steps: list[int]) -> list[bytes]:
    """The stream in pieces whose sizes are ``steps``, again and again."""
    parts, at = list[bytes](), 0
    while at < len(stream):
        step = steps[len(parts) % len(steps)] if steps else 1
        parts.append(stream[at : at + step])
        at += step
    return parts


def _stays_lost(deframer: spaceblock.core.Deframer | _pydeframer.Deframer) -> None:
    try:
        deframer.feed(b"\x06\x00")
    except RemoteProtocolError:
        return
    raise AssertionError("a stream that was lost went on")
