"""Received packet numbers, and the ACK frames that tell of them (RFC 9000, sections 13.2 and 19.3).

Ranges are half-open pairs, newest first. Packet numbers are 0 to 2^62-1; an argument that no unsigned 64-bit word holds
is an ``OverflowError``. Times are microseconds of a monotonic clock. Not safe for concurrent use.
"""

from typing import Final, final

from _typeshed import ReadableBuffer

__pyx_capi__: Final[dict[str, object]]

RANGES_MAX: Final[int]
"""Ranges remembered of what was received, and at most in an ACK frame written."""

ACK_RANGES_MAX: Final[int]
"""Ranges kept of an ACK frame read; older ones behind them are checked, then dropped."""

DUPLICATE_WINDOW: Final[int]
"""Packet numbers below the largest in which a duplicate is told from a late packet."""

ACK_FRAME_MAX: Final[int]
"""Bytes of the longest ACK frame that is written."""

REPEATED: Final[int]
"""A duplicate (RFC 9000, section 12.3), or too old to tell: the packet must be dropped."""

IN_ORDER: Final[int]
"""The next number, or the first of all."""

OUT_OF_ORDER: Final[int]
"""A number that opens a gap or comes late: to be acknowledged at once (RFC 9000, section 13.2.1)."""

@final
class PacketRanges:
    """The packet numbers received in one packet number space."""

    def __new__(cls) -> PacketRanges: ...
    @property
    def largest(self) -> int:
        """The largest number received, -1 before the first."""

    @property
    def largest_time(self) -> int:
        """When that packet came, from where the ACK delay counts (RFC 9000, section 13.2.5)."""

    @property
    def floor(self) -> int:
        """Numbers below count as duplicates."""

    @property
    def count(self) -> int:
        """How many ranges there are."""

    @property
    def ect0(self) -> int: ...
    @property
    def ect1(self) -> int: ...
    @property
    def ce(self) -> int:
        """Packets that came with this ECN mark, like the two before."""

    def add(self, pn: int, now: int) -> int:
        """Take the number of a packet that was authenticated: REPEATED, IN_ORDER or OUT_OF_ORDER."""

    def add_span(self, start: int, stop: int, now: int) -> None:
        """Take the numbers of a range that the handshake received, before newer ones; ValueError beyond 2^62."""

    def count_marks(self, ecn: int, packets: int) -> None:
        """Count packets that :meth:`add` took by the ECN bits that they came with (RFC 9000, section 13.4.1)."""

    def forget_below(self, pn: int) -> None:
        """Tell of numbers below ``pn`` no more, since the peer knows (RFC 9000, section 13.2.4); the largest stays."""

    def spans(self) -> list[tuple[int, int]]: ...
    def ack_frame(self, delay: int, room: int = ...) -> bytes:
        """An ACK frame with as many ranges as ``room`` bytes hold; empty when nothing was received or none fits.

        It has the counts of ECN marks once there was one. ``delay`` is as on the wire: microseconds, shifted right by
        our ``ack_delay_exponent``.
        """

def read_ack(data: ReadableBuffer) -> tuple[int, int, list[tuple[int, int]], tuple[int, int, int] | None]:
    """Read the ACK frame that ``data`` begins with (RFC 9000, section 19.3).

    Returns the bytes used, the delay as on the wire, the ranges, and the counts of ECT(0), ECT(1) and CE or None.
    RemoteProtocolError when it is malformed or cut off.
    """
