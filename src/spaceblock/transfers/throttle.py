"""A limit to the bytes a second that are sent: a token bucket that a portion may overdraw, and the next one waits for.

What is counted is the contents of items with their block headers. Packet headers, and what is sent again after a loss,
come on top: some 3 % with datagrams of 1452 bytes.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..options import Options

_SPAN = 0.05
"""Seconds that a portion is meant to last: short, so that the rate holds within a second too."""

_CATCH_UP = 0.1
"""Seconds of lateness that are made up for: an event loop wakes late, and the rate should hold all the same."""

_PORTION_MIN = 16_384


class Throttle:
    """One bucket for all that share a limit of ``rate`` bytes a second. Times are in seconds on any one clock."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.portion: int = max(int(rate * _SPAN), _PORTION_MIN)
        """Bytes to send at once."""
        self._free_at = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds to wait before the next portion; 0: it may go."""
        return max(self._free_at - now, 0.0)

    def spend(self, count: int, now: float) -> None:
        """``count`` bytes go out."""
        self._free_at = max(self._free_at, now - _CATCH_UP) + count / self.rate

    async def turn(self) -> None:
        """Wait until a portion may go."""
        while True:
            delay = self.delay(monotonic())
            if not delay:
                return
            await asyncio.sleep(delay)

    def sent(self, count: int) -> None:
        """``count`` bytes went out just now."""
        self.spend(count, monotonic())


def throttle_of(options: Options) -> Throttle | None:
    """The limit that all peers of one endpoint share."""
    return None if options.bandwidth is None else Throttle(options.bandwidth)
