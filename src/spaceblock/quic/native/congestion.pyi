"""How much may be in flight, and how fast it may leave: CUBIC (RFC 9438) with HyStart++ (RFC 9406), and a pacer.

Windows and sizes are bytes, times microseconds of a monotonic clock. Not safe for concurrent use.
"""

from typing import final

@final
class Congestion:
    """The congestion window. Packets of up to ``datagram_size`` bytes, 1 to 65535, else ValueError."""

    def __new__(cls, datagram_size: int) -> Congestion: ...
    @property
    def window(self) -> int:
        """Bytes that may be in flight."""

    @property
    def threshold(self) -> int:
        """Where slow start ends; 2^64-1 before it ever has."""

    @property
    def datagram_size(self) -> int: ...
    @property
    def maximum(self) -> int:
        """The window never grows beyond."""

    @property
    def app_limited(self) -> bool:
        """The sender has less to send than it might, so the window does not grow (RFC 9002, section 7.8)."""

    @property
    def recovery_until(self) -> int:
        """Packets with a smaller number were sent before the last reduction (RFC 9002, section 7.3.2)."""

    @property
    def reductions(self) -> int:
        """How often the window was reduced."""

    @property
    def undone(self) -> int:
        """How often a reduction was taken back (RFC 9438, section 4.9)."""

    @property
    def spared(self) -> int:
        """Losses that were taken for the path's noise: few, and without a queue."""

    def on_acked(self, size: int, largest: int, next_pn: int, smoothed_rtt: int, now: int) -> None:
        """An ACK frame acknowledged something new.

        ``size`` counts the bytes in flight of those packets that are not below :attr:`recovery_until`; ``largest`` is
        the largest number acknowledged so far, ``next_pn`` the next to be sent.
        """

    def on_rtt(self, rtt: int) -> None:
        """A round trip was measured; tell before :meth:`on_acked` (RFC 9406, section 4.2)."""

    def on_lost(self, pn: int, next_pn: int) -> None:
        """A packet was lost: the window shrinks once for all that was sent before (RFC 9002, section 7.3.2)."""

    def on_marked(self, pn: int, next_pn: int) -> None:
        """An ACK frame whose newest packet is ``pn`` counts more CE marks than before (RFC 9002, section 7.1)."""

    def on_spurious(self, pn: int) -> None:
        """A packet told to :meth:`on_lost` arrived after all (RFC 9438, section 4.9.2)."""

    def on_persistent(self) -> None:
        """The congestion is persistent: begin again with the least window (RFC 9002, section 7.6.2)."""

    def on_app_limited(self, now: int) -> None:
        """The sender stopped for want of data or of the peer's credit."""

    def on_filled(self, now: int) -> None:
        """The window, or the pacer, stopped the sender."""

    def set_datagram_size(self, size: int) -> None:
        """The path carries datagrams of another size; the window stays what it is."""

    def reset(self) -> None:
        """Another path, of which nothing is known (RFC 9000, section 9.4)."""

@final
class Pacer:
    """A token bucket (RFC 9002, section 7.7) that gives leave by the batch of ``quantum`` bytes, not 0."""

    is_needless: bool
    """The peer is on this computer: there is no queue on the way but its socket's, which its credit guards."""

    def __new__(cls, quantum: int) -> Pacer: ...
    @property
    def quantum(self) -> int: ...
    def allowed(self, window: int, smoothed_rtt: int, now: int) -> int:
        """Bytes that may be sent now: 0, or at least a quantum; 2^64-1 where it is needless, and while round trips are
        below a millisecond."""

    def on_sent(self, size: int) -> None: ...
    def set_quantum(self, quantum: int) -> None:
        """Batches are of another size from now on."""

    def next_time(self) -> int:
        """When :meth:`allowed` will not be 0, if nothing is sent before then."""
