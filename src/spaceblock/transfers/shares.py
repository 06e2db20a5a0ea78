"""What one peer holds of this side, over all its connections."""

from __future__ import annotations

import asyncio

from ..errors import LimitExceeded
from ..limits import Limits


class Share:
    """Counts of one peer, which the listener's connections with it share; on the event loop only."""

    def __init__(self) -> None:
        self.connections: int = 0
        self.offers: int = 0
        self.offered_bytes: int = 0
        self.answer: asyncio.Lock = asyncio.Lock()
        """Held while the peer is told how a transfer ended: it takes as much memory as the transfer had names."""

    def refusal(self, limits: Limits) -> LimitExceeded | None:
        """Why this peer can make no further offer at present, if it cannot."""
        if self.offers < limits.offers:
            return None
        return LimitExceeded(f"{self.offers} offers wait for the receiver's answer: send again when some have it")


class Stake:
    """What one transfer adds to its peer's :class:`Share`."""

    def __init__(self, share: Share, limits: Limits) -> None:
        self._share = share
        self._limits = limits
        self._size = 0
        self._waits = True
        share.offers += 1

    def grow(self, size: int) -> None:
        """``size`` bytes more of the offer came; raises :class:`LimitExceeded`."""
        self._size += size
        self._share.offered_bytes += size
        if self._share.offered_bytes > self._limits.offered_bytes:
            raise LimitExceeded("the lists of this sender's transfers are longer than the receiver takes: send fewer")

    def answered(self) -> None:
        """The offer waits for nobody any more; harmless when said twice."""
        if self._waits:
            self._waits = False
            self._share.offers -= 1

    def over(self) -> None:
        """The transfer is over; harmless when said twice."""
        self.answered()
        self._share.offered_bytes -= self._size
        self._size = 0
