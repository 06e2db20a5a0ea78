"""What moves from the handshake's engine to the native one when the handshake is confirmed: all of a connection's
state.

Rules: values only, in QUIC's own terms; ``handshake`` fills them in, the native engine takes them over. Times are in
seconds on the event loop's clock, sizes in bytes. Packet numbers are those of the 1-RTT space (RFC 9000, section 12.3).
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from ..process.lazily import dataclass

if TYPE_CHECKING:
    from cryptography import x509

Span = tuple[int, int]
"""Half-open."""


@dataclass(frozen=True, slots=True)
class StreamDataTaken:
    """An event of the native engine: ``count`` bytes of a stream went to its intake."""

    stream_id: int
    count: int
    end_stream: bool


@dataclass(frozen=True, slots=True)
class SentPiece:
    """Bytes of a stream that are in a packet; ``fin`` if the stream ends with them."""

    stream_id: int
    start: int
    stop: int
    fin: bool


@dataclass(frozen=True, slots=True)
class SentPacket:
    """A packet that is not acknowledged yet; ``frames`` are the other frames to send again if it is lost."""

    number: int
    time: float
    size: int
    frames: tuple[bytes, ...]
    pieces: tuple[SentPiece, ...]


@dataclass(frozen=True, slots=True)
class ReceivingState:
    """The peer's direction of a stream: ``arrived`` bytes came in order and were taken, ``early`` ones came beyond a
    gap, by offset; the peer may send up to ``limit``."""

    arrived: int
    highest: int
    final_size: int | None
    early: tuple[tuple[int, bytes], ...]
    limit: int


@dataclass(frozen=True, slots=True)
class SendingState:
    """Our direction of a stream: ``data`` is what is not acknowledged, from offset ``acknowledged`` on; ``sent`` is the
    first offset that was never sent, ``lost`` and ``acknowledged_beyond`` are ranges before it."""

    acknowledged: int
    data: bytes
    sent: int
    lost: tuple[Span, ...]
    acknowledged_beyond: tuple[Span, ...]
    fin_written: bool
    fin_pending: bool
    fin_acknowledged: bool
    limit: int
    waits_for_limit: bool


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream that is not finished; a direction that it does not have, or that is done, is None."""

    stream_id: int
    receiving: ReceivingState | None
    sending: SendingState | None


@dataclass(frozen=True, slots=True)
class ConnectionId:
    """A connection ID of one side with its sequence number and, where there is one, its stateless reset token."""

    cid: bytes
    sequence: int
    token: bytes


@dataclass(frozen=True, slots=True)
class HandOver:
    """The state of one connection at the moment when its first engine retires."""

    is_client: bool
    peer_certificate: x509.Certificate | None
    peer_address: Any
    path_room: int | None
    """What may be sent there while the address is not validated (RFC 9000, section 8.1); None: it is."""
    validated_address: Any
    """Another address of the peer that is, if there is one."""
    suite: str
    send_secret: bytes = field(repr=False)
    receive_secret: bytes = field(repr=False)
    key_phase: int
    """The bit of the phase whose secrets these are (RFC 9001, section 6)."""
    first_send_secret: bytes = field(repr=False)
    first_receive_secret: bytes = field(repr=False)
    """Those of the first phase, from which the header keys of all come."""

    next_packet_number: int
    sent: list[SentPacket]
    unsent_frames: list[bytes]
    received: list[Span]
    """Ascending, the largest number among them; what lies below the first is not to be accepted any more."""
    ack_due: bool
    largest_received_time: float

    local_ids: list[ConnectionId]
    used_cid: bytes
    """The one of these that the peer uses."""
    peer_id: ConnectionId
    spare_peer_ids: list[ConnectionId]
    peer_ids_known: frozenset[int]
    """The numbers of all IDs that the peer has issued and this side has heard of, from the next one on."""
    peer_ids_retired_below: int

    rtt: tuple[float, float, float, float] | None
    """Smoothed, variation, minimum, latest (RFC 9002, section 5); None before the first sample."""

    ack_delay_exponent: int
    max_ack_delay: float
    idle_timeout: float
    datagram_max: int
    """Bytes of UDP payload that the peer takes at most."""

    may_move: bool
    """The peer lets this side change its address (RFC 9000, section 18.2)."""

    max_data: int
    """What the peer allows on the connection, and what of it is used."""
    data_sent: int
    max_stream_data_bidi_local: int
    max_stream_data_bidi_remote: int
    max_stream_data_uni: int
    max_streams_bidi: int
    max_streams_uni: int
    next_stream_bidi: int
    next_stream_uni: int

    local_max_data: int
    """What this side allows on the connection, what the peer used of it, and what of that was consumed."""
    data_received: int
    data_consumed: int
    local_max_streams_bidi: Span
    """Allowed, and told to the peer."""
    local_max_streams_uni: Span
    streams_bidi_used: int
    streams_uni_used: int
    held_bidi: int
    held_uni: int
    streams: list[StreamState]
    abandoned: list[tuple[int, bool, int]]
    """Streams that wait for the peer's limit and were given up: ID, whether it is our direction, error code."""
