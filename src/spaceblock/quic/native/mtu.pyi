"""How large a datagram the path carries: found out by probes, and given up when large ones vanish (RFC 8899).

Sizes are bytes of a UDP payload, times microseconds of a monotonic clock. Not safe for concurrent use.
"""

from typing import Final, final

DATAGRAM_BASE: Final[int]
"""What every path of QUIC carries (RFC 9000, section 14.1)."""

DATAGRAM_TOP: Final[int]
"""A UDP datagram's payload over IPv4 at most."""

@final
class PathMtu:
    """One connection's path: datagrams of ``size`` bytes are sent, and up to ``limit`` are tried.

    ValueError unless DATAGRAM_BASE <= size <= limit <= DATAGRAM_TOP.
    """

    def __new__(cls, size: int, limit: int) -> PathMtu: ...
    @property
    def size(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def failed(self) -> int:
        """The smallest size that did not get through, the limit and 1 if there is none."""

    @property
    def probing(self) -> int:
        """The size of the probe under way, 0 for none."""

    @property
    def black_holes(self) -> int:
        """How often large datagrams vanished."""

    def due(self, window: int, now: int) -> int:
        """The size of the probe to send now, 0 for none: no more than half of the congestion window."""

    def on_probe_sent(self, size: int) -> None: ...
    def on_probe_acked(self, size: int) -> bool:
        """A probe arrived; True where datagrams are larger from now on. It may have been declared lost before."""

    def on_probe_lost(self, size: int) -> None: ...
    def on_refused(self, size: int, now: int) -> bool:
        """The system does not send so large a datagram at all; True where datagrams are smaller from now on."""

    def on_outcome(self, any_acked: bool, any_lost: bool, now: int) -> bool:
        """Whether an ACK frame acknowledged, or had declared lost, datagrams of the present size.

        True where datagrams are smaller from now on.
        """

    def fall_back(self, now: int) -> bool:
        """Datagrams of the present size vanish; True where they are smaller from now on."""

    def reset(self, size: int, limit: int) -> None:
        """Another path, or another limit."""
