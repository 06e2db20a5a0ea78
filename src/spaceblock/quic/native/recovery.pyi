"""What was sent and is not yet acknowledged: round trips, losses, probes and packet numbers (RFC 9002).

One packet number space, after the handshake was confirmed. Times are microseconds of a monotonic clock that never goes
back, sizes bytes, ranges half-open. Packets are listed as (number modulo 2^32, flags, state), ascending. Not safe for
concurrent use.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias, final

from .congestion import Congestion, Pacer
from .ecn import PathEcn

_Packet: TypeAlias = tuple[int, int, int]

ACK_ELICITING: Final[int]
IN_FLIGHT: Final[int]
HAS_STREAM: Final[int]
FIN: Final[int]
HAS_CONTROL: Final[int]
MTU_PROBE: Final[int]
"""Its loss is no sign of congestion (RFC 9000, section 14.4)."""

MARKED: Final[int]
"""Sent with ECT(0)."""

PASSED: Final[int]
OUTSTANDING: Final[int]
ACKED: Final[int]
LOST: Final[int]
LATE: Final[int]
"""Acknowledged after it had been declared lost."""

ACK_OF_UNSENT: Final[int]
ACK_OF_SKIPPED: Final[int]

TIMER_EARLY: Final[int]
TIMER_LOSS: Final[int]
TIMER_PROBE: Final[int]

SENT_MAX: Final[int]
"""Packets tracked at most."""

SENT_RESERVE: Final[int]
"""Of these, how many :meth:`Recovery.allowance` leaves for acknowledgements, probes and control."""

LATE_MAX: Final[int]
"""Lost packets remembered at most, for one probe time-out each."""

PACKET_THRESHOLD: Final[int]
PACKET_THRESHOLD_MAX: Final[int]

NEVER: Final[int]
"""The time of what will not happen by itself."""

@final
class SentPackets:
    """The ring of records, which only the engine reads."""

    def __new__(cls, next_pn: int) -> SentPackets: ...
    @property
    def oldest(self) -> int: ...
    @property
    def next_pn(self) -> int: ...
    @property
    def capacity(self) -> int: ...

@final
class Recovery:
    """Loss detection and congestion control of a connection's 1-RTT packets.

    ``secret`` is 16 random bytes that place the skipped numbers, ``next_pn`` the oldest number to be tracked,
    ``batch_size`` what the pacer lets go at once; the peer's transport parameters follow, ``max_ack_delay`` in
    microseconds. ValueError where one is out of range.
    """

    def __new__(
        cls,
        secret: bytes,
        next_pn: int = 0,
        datagram_size: int = 1200,
        batch_size: int = 65_507,
        max_ack_delay: int = 25_000,
        ack_delay_exponent: int = 3,
    ) -> Recovery: ...
    @property
    def sent(self) -> SentPackets: ...
    @property
    def congestion(self) -> Congestion: ...
    @property
    def pacer(self) -> Pacer: ...
    @property
    def ecn(self) -> PathEcn: ...
    @property
    def oldest(self) -> int:
        """The oldest packet in flight; the next number when there is none."""

    @property
    def next_pn(self) -> int:
        """One behind the largest number sent."""

    @property
    def bytes_in_flight(self) -> int: ...
    @property
    def largest_acked(self) -> int:
        """-1 for none."""

    @property
    def latest_rtt(self) -> int: ...
    @property
    def min_rtt(self) -> int: ...
    @property
    def smoothed_rtt(self) -> float: ...
    @property
    def rtt_variation(self) -> float: ...
    @property
    def max_ack_delay(self) -> int: ...
    @property
    def ack_delay_exponent(self) -> int: ...
    @property
    def pto_count(self) -> int:
        """Probe time-outs in a row."""

    @property
    def probes(self) -> int:
        """Packets that may go beyond the window now."""

    @property
    def lost_total(self) -> int:
        """Packets declared lost so far."""

    @property
    def late_total(self) -> int:
        """Of these, how many arrived after all."""

    @property
    def packet_threshold(self) -> int:
        """How far the largest number acknowledged is beyond a packet that counts as lost (RFC 9002, section 6.1.1)."""

    @property
    def time_threshold(self) -> int:
        """Eighths of a round trip after which a packet counts as lost (RFC 9002, section 6.1.2)."""

    def allowance(self, now: int) -> int:
        """Bytes in flight that window and pacer let go now, at least a datagram for each probe that is due."""

    def room(self) -> int:
        """Bytes that the window has left, whatever the pacer says."""

    def send_time(self) -> int:
        """When the pacer will allow more, as of the last :meth:`allowance`; NEVER when it was not what stopped it."""

    def next_number(self) -> int:
        """The number of the next packet, which now and then steps over one (RFC 9000, section 21.4)."""

    def mark_batch(self) -> int:
        """The ECN bits for the packets that are sent from now on, which are counted as having them: 0 or ECT_0."""

    def send(self, now: int, size: int, flags: int = ..., count: int = 1) -> int | None:
        """Record ``count`` packets of ``size`` bytes, and return the last one's number; None when they are too many."""

    def take_over(self, pn: int, time: int, size: int, flags: int = ...) -> None:
        """Record a packet sent before the hand-over, ascending; ValueError when it is not, or one too many."""

    def start_at(self, pn: int) -> int:
        """Hand-over: numbers below ``pn`` that were not taken over are settled. 0, or -1 when it is too far away."""

    def on_app_limited(self, now: int) -> None:
        """The sender stopped though :meth:`allowance` left room."""

    def acknowledge(
        self,
        spans: Sequence[tuple[int, int]],
        now: int,
        delay: int = 0,
        counts: tuple[int, int, int] | None = None,
    ) -> None:
        """Process an ACK frame with these ranges, newest first, and its delay as on the wire (RFC 9002, appendix A.7).

        ``counts`` are those of ECT(0), ECT(1) and CE, if the frame has any.

        RemoteProtocolError when it acknowledges what was never sent, or was skipped; nothing has changed then.
        ValueError when these are not the ranges of an ACK frame.
        """

    def acked_packets(self) -> list[_Packet]:
        """What the last :meth:`acknowledge` found newly acknowledged."""

    def lost_packets(self) -> list[_Packet]:
        """What the last :meth:`acknowledge` or :meth:`on_timer` declared lost."""

    def timeout(self) -> int:
        """When :meth:`on_timer` is due (RFC 9002, section 6.2.1), or NEVER."""

    def on_timer(self, now: int) -> int:
        """TIMER_EARLY, TIMER_LOSS or TIMER_PROBE (RFC 9002, appendix A.9)."""

    def probe_packet(self) -> int | None:
        """The number, modulo 2^32, of the oldest ack-eliciting packet in flight, which a probe repeats."""

    def pto(self) -> int:
        """One probe time-out, without backoff (RFC 9002, section 6.2.1)."""

    def seed_rtt(self, latest: int, smoothed: int, variation: int, minimum: int, now: int) -> None:
        """Hand-over: what the handshake has measured."""

    def reset_path(self) -> None:
        """Another path: round trips, window and skipped losses begin anew (RFC 9000, section 9.4)."""
