"""The engine that every connection begins on, and that carries all of it where there is no native one.

What differs from stock aioquic:

* A server asks for the client's certificate; a certificate is judged by its key alone, before ours is sent.
* Credit is granted when bytes are consumed, not when they arrive, and credit that nobody will consume is given back.
* A stream of the peer counts against its limit until somebody was told of it and consumed its bytes.
* No session tickets, so no resumption and no early data; QUIC version 1 only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it does not list what it re-exports
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    Limit,
    QuicConnection,
    QuicConnectionId,
    QuicConnectionState,
)
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicHeader,
    pull_quic_transport_parameters,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509

from ...errors import LocalProtocolError
from ...limits import DATAGRAM_MIN
from ..interface import ALPN, CloseReason, HandshakeConfig, TransportOptions
from .first_packets import CID_SIZE, VERSION
from .private_names import OLD_SERIES, check

__all__ = [
    "NO_COMMON_PROTOCOL",
    "ConnectionIdIssued",
    "ConnectionIdRetired",
    "Engine",
    "HandshakeCompleted",
    "QuicEvent",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
    "client_engine",
    "server_engine",
]

check()

NO_COMMON_PROTOCOL = frozenset(int(QuicErrorCode.CRYPTO_ERROR) + alert for alert in (40, 120))
"""The TLS alerts for "no application protocol in common" as QUIC's error codes (RFC 9001, section 4.8); aioquic 1.3
sends the more general one."""

_OLD_DATAGRAM_MAX = 1_500
"""Bytes of a packet that aioquic 1.3 can seal."""

_ENDING = (QuicConnectionState.CLOSING, QuicConnectionState.DRAINING, QuicConnectionState.TERMINATED)
_GROUPS = (tls.Group.X25519, tls.Group.SECP256R1)
"""What a client offers, the cheapest for both sides first. It makes a key for each, and those that aioquic has besides
cost 0.4 ms, with Retry twice. Every server has the second (RFC 8446, section 9.1)."""

_VARINT_SIZE = 8  # at most
_TWO_BYTES_MAX = 0x3FFF
_LIMIT_CAPACITY = 1 + _VARINT_SIZE
_STREAM_LIMIT_CAPACITY = 1 + 2 * _VARINT_SIZE


class Engine(QuicConnection):
    """A :class:`QuicConnection` with credit on consumption and pinned certificates, and the few looks inside we need.

    The credit of a stream is ``consumed + window``. ``consumed`` is kept by the caller, who reports it through
    :meth:`grant_stream` and :meth:`grant_connection`; both return whether there is now something to send.
    """

    def __init__(
        self,
        *,
        handshake: HandshakeConfig,
        options: TransportOptions,
        token_of: Callable[[bytes], bytes] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.verify_error: Exception | None = None
        """What ``verify_peer`` raised; the handshake was then ended with the alert bad_certificate."""

        self.timed_out: bool = False
        self.was_reset: bool = False
        self.version_mismatch: bool = False
        """The server named its QUIC versions, and ours is not among them."""

        self._may_move = self._is_client
        self._datagram_max = 65_527  # of the peer, unless it says otherwise (RFC 9000, section 18.2)
        self._token_of = token_of
        if not self._is_client:
            self._give_tokens(self._host_cids)
        self._verify_peer = handshake.verify_peer
        self._stream_window = options.stream_window
        self._control_window = options.control_window
        self._connection_window = options.connection_window
        self._consumed = 0  # bytes of all streams that were consumed or given up
        self._held = {True: 0, False: 0}  # ended streams not yet consumed: unidirectional, bidirectional
        self._streams_allowed = {True: options.max_streams_uni, False: options.max_streams_bidi}
        self._ended_counted = 0
        self._first_secrets: dict[tls.Direction, bytes] = {}  # 1-RTT, before any key update
        self._held_back: dict[int, list[partial[None]]] = {}  # by stream: frames that must wait for its limit

        self._local_max_streams_uni = Limit(QuicFrameType.MAX_STREAMS_UNI, "max_streams_uni", options.max_streams_uni)
        self._local_max_streams_bidi = Limit(
            QuicFrameType.MAX_STREAMS_BIDI, "max_streams_bidi", options.max_streams_bidi
        )
        self._local_max_stream_data_uni = options.first_window
        self._local_max_stream_data_bidi_local = options.control_window
        self._local_max_stream_data_bidi_remote = options.control_window

    # What is going on.

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The certificate that the peer showed; its key is proved once the handshake is complete."""
        return self.tls._peer_certificate

    def get_peer_address(self) -> Any:
        """Where packets are sent now; None before there was one."""
        return self._network_paths[0].addr if self._network_paths else None

    @property
    def smoothed_rtt(self) -> float:
        """The estimate of RFC 9002, section 5.3, or the initial guess before the first sample."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else self._loss._rtt_initial

    @property
    def congestion_window(self) -> int:
        """Bytes that may be in flight (RFC 9002, section 7)."""
        return int(self._loss._cc.congestion_window)

    @property
    def started(self) -> bool:
        """At least one packet of the peer was opened with the right keys."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def closing(self) -> bool:
        """We sent CONNECTION_CLOSE and answer late packets with it (RFC 9000, section 10.2.1)."""
        return self._state is QuicConnectionState.CLOSING

    @property
    def path_is_valid(self) -> bool:
        """The peer is known to be where packets are sent (RFC 9000, section 8)."""
        return bool(self._network_paths and self._network_paths[0].is_validated)

    @property
    def terminated(self) -> bool:
        """The closing or draining period is over too: there is nothing left to do."""
        return self._state is QuicConnectionState.TERMINATED

    def ended(self) -> CloseReason | None:
        """How the connection ended, or None while it lives."""
        if self._state not in _ENDING or self._close_event is None:
            return None
        event = self._close_event
        if self.timed_out:
            return CloseReason(0, "", is_application=False, timed_out=True)
        if self.was_reset:
            return CloseReason(0, "", by_peer=True, is_application=False, was_reset=True)
        return CloseReason(
            int(event.error_code),
            event.reason_phrase,
            by_peer=self._state is QuicConnectionState.DRAINING,
            is_application=event.frame_type is None,
        )

    def await_backlog(self, stream_id: int, limit: int) -> None:
        """Nothing to do: its connection looks after each packet."""
        return

    def set_timer(self, at: float) -> None:
        """Nothing to do either."""
        return

    def backlog(self, stream_id: int) -> int:
        """Bytes not yet acknowledged, an unacknowledged FIN counting as one; 0 for what is finished or reset."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        sender = stream.sender
        if sender.is_finished or sender._reset_error_code is not None:
            return 0
        return sender._buffer_stop - sender._buffer_start + (sender._buffer_fin is not None)

    def sender_finished(self, stream_id: int) -> bool:
        """All of our direction was acknowledged, or its reset was."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished

    def highest_offset(self, stream_id: int) -> int | None:
        """The highest offset that the peer used on the stream, or None when the stream is forgotten."""
        stream = self._streams.get(stream_id)
        return None if stream is None else stream.receiver.highest_offset

    # Streams.

    def open_stream(self, unidirectional: bool) -> int:
        """Open a stream and return its ID."""
        stream_id = self.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.send_stream_data(stream_id, b"")
        return stream_id

    def abandon_sending(self, stream_id: int, code: int) -> None:
        """Reset our direction, as soon as the peer's stream limit allows to name the stream."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            if stream.is_blocked:
                stream.sender.buffer_is_empty = True
                self._held_back.setdefault(stream_id, []).append(partial(stream.sender.reset, code))
            else:
                stream.sender.reset(code)

    def abandon_receiving(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending, as soon as its stream limit allows to name the stream."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            if stream.is_blocked:
                self._held_back.setdefault(stream_id, []).append(partial(stream.receiver.stop, code))
            else:
                stream.receiver.stop(code)

    # Credit.

    def grant_stream(self, stream_id: int, consumed: int) -> bool:
        """Let the peer send up to ``consumed`` and a window; small steps are saved up to a quarter of the window."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            return False
        window = self._stream_window if stream_id & 2 else self._control_window
        limit = consumed + window
        if 4 * (limit - stream.max_stream_data_local) < window:
            return False
        stream.max_stream_data_local = limit
        return True

    def grant_connection(self, count: int) -> bool:
        """Count ``count`` more bytes of any streams as consumed."""
        self._consumed += count
        limit = self._consumed + self._connection_window
        if 4 * (limit - self._local_max_data.value) < self._connection_window:
            return False
        self._local_max_data.value = limit
        return True

    def hold_stream(self, unidirectional: bool) -> None:
        """Count a stream of the peer as open although it ended, until :meth:`release_stream`."""
        self._held[unidirectional] += 1

    def release_stream(self, unidirectional: bool) -> None:
        """End what :meth:`hold_stream` began."""
        self._held[unidirectional] -= 1

    def ping(self) -> None:
        """Send a PING, unless one is waiting to be sent."""
        if not self._ping_pending:
            self.send_ping(0)

    @property
    def reset_tokens(self) -> tuple[bytes, ...]:
        """What the peer's stateless resets may end with now (RFC 9000, section 10.3.1)."""
        token = self._peer_cid.stateless_reset_token
        return (token,) if token else ()

    def reset_by_peer(self, now: float) -> None:
        """A stateless reset came: send nothing any more, and forget the connection soon."""
        if self._state not in _ENDING:
            self.was_reset = True
            self._close_event = ConnectionTerminated(error_code=0, frame_type=0, reason_phrase="")
            self._close_begin(is_initiator=False, now=now)

    @property
    def confirmed(self) -> bool:
        """The handshake is confirmed (RFC 9001, section 4.1.2): from now on all packets have short headers."""
        return self._handshake_confirmed and self._state is QuicConnectionState.CONNECTED and not self._close_pending

    @property
    def may_move(self) -> bool:
        """:meth:`move` is possible now: the handshake is confirmed, the peer allows it, and has left an ID for it."""
        return self.confirmed and self._may_move and bool(self._peer_cid_available or not self._peer_cid.cid)

    def move(self, is_far: bool, now: float) -> None:
        """What is sent from now on leaves from another address of this client (RFC 9000, section 9.2)."""
        self.change_connection_id()
        self.ping()

    def abort(self) -> None:
        """Forget the connection without a word to the peer, or without a further one."""
        self._set_state(QuicConnectionState.TERMINATED)

    # Overrides.

    def handle_timer(self, now: float) -> None:
        if self._close_event is None and self._close_at is not None and now >= self._close_at:
            self.timed_out = True
        super().handle_timer(now)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = not self._is_client
        if self._is_client:
            self.tls._supported_groups = list(_GROUPS)
        # The context is made by aioquic, so its method is replaced on the instance.
        self.tls._set_peer_certificate = partial(  # type: ignore[method-assign]
            self._judge_certificate, self.tls._set_peer_certificate
        )

    def _replenish_connection_ids(self) -> None:
        known = len(self._host_cids)
        super()._replenish_connection_ids()
        self._give_tokens(self._host_cids[known:])

    def _give_tokens(self, ids: list[QuicConnectionId]) -> None:
        if self._token_of is not None:
            for issued in ids:
                issued.stateless_reset_token = self._token_of(issued.cid)

    def _update_traffic_key(
        self, direction: tls.Direction, epoch: tls.Epoch, cipher_suite: tls.CipherSuite, secret: bytes
    ) -> None:
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)
        if epoch is tls.Epoch.ONE_RTT:
            self._first_secrets[direction] = secret

    def _judge_certificate(self, keep: Callable[[tls.Certificate], None], message: tls.Certificate) -> None:
        try:
            keep(message)
        except x509.InvalidVersion as error:
            raise tls.AlertBadCertificate("The certificate is of an unknown version") from error
        certificate = self.tls._peer_certificate
        if self._verify_peer is None or certificate is None:
            return
        try:
            self._verify_peer(certificate)
        except Exception as error:
            self.verify_error = error
            raise tls.AlertBadCertificate("The certificate is not the expected one") from error

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        parameters = pull_quic_transport_parameters(Buffer(data=data))
        # Three parameters that aioquic reads and does not heed (RFC 9000, section 18.2).
        if parameters.ack_delay_exponent is not None:
            self._remote_ack_delay_exponent = parameters.ack_delay_exponent
        self._may_move = self._is_client and not parameters.disable_active_migration
        if parameters.max_udp_payload_size is not None:
            self._datagram_max = parameters.max_udp_payload_size
            self._max_datagram_size = min(self._max_datagram_size, self._datagram_max)

    def _receive_version_negotiation_packet(self, header: QuicHeader, now: float) -> None:
        super()._receive_version_negotiation_packet(header, now)
        self.version_mismatch = self.terminated

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        stream = self._streams.get(stream_id)
        return super()._get_or_create_stream(frame_type, stream_id) if stream is None else stream

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        super()._unblock_streams(is_unidirectional)
        for stream_id in [stream_id for stream_id in self._held_back if not self._is_blocked(stream_id)]:
            for act in self._held_back.pop(stream_id):
                act()

    def _is_blocked(self, stream_id: int) -> bool:
        stream = self._streams.get(stream_id)
        return stream is not None and stream.is_blocked

    def _write_stream_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream, max_offset: int
    ) -> int:
        # aioquic writes two bytes of length, which end at 16383; a large datagram takes more (RFC 9000, section 16).
        room = builder.remaining_flight_space
        if room <= _TWO_BYTES_MAX:
            return super()._write_stream_frame(builder, space, stream, max_offset)
        sender = stream.sender
        overhead = 1 + _VARINT_SIZE + _VARINT_SIZE + 4
        highest = sender.highest_offset
        frame = sender.get_frame(room - overhead, max_offset)
        if frame is None:
            return 0
        stop = frame.offset + len(frame.data)
        buf = builder.start_frame(
            QuicFrameType.STREAM_BASE | 6 | frame.fin,  # with offset and length
            capacity=overhead,
            handler=sender.on_data_delivery,
            handler_args=(frame.offset, stop, frame.fin),
        )
        buf.push_uint_var(stream.stream_id)  # type: ignore[arg-type]  # only the streams of CRYPTO data have none
        buf.push_uint_var(frame.offset)
        buf.push_uint32(len(frame.data) | 0x8000_0000)
        buf.push_bytes(frame.data)
        return sender.highest_offset - highest

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if stream.max_stream_data_local_sent == stream.max_stream_data_local or stream.receiver.is_finished:
            return
        buf = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=_STREAM_LIMIT_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        buf.push_uint_var(stream.stream_id)  # type: ignore[arg-type]  # only the streams of CRYPTO data have none
        buf.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        if OLD_SERIES:
            self._count_ended_streams()
        limit = self._local_max_data
        if limit.sent != limit.value:
            self._write_limit(builder, limit, limit.value)
        for limit, held in (
            (self._local_max_streams_uni, self._held[True]),
            (self._local_max_streams_bidi, self._held[False]),
        ):
            value = limit.value - held
            # Saved up until the peer has fewer streams left to open than the update grants.
            if value > limit.sent and limit.sent - limit.used < value - limit.sent:
                self._write_limit(builder, limit, value)

    def _count_ended_streams(self) -> None:
        """Allow a new stream of the peer for each one that ended (RFC 9000, section 4.6), as later series do."""
        ended: set[int] = self._streams_finished  # type: ignore[attr-defined]
        if len(ended) == self._ended_counted:
            return
        self._ended_counted = len(ended)
        theirs = [stream_id for stream_id in ended if (stream_id & 1 == 0) != self._is_client]
        for limit, kind, allowed in (
            (self._local_max_streams_uni, 2, self._streams_allowed[True]),
            (self._local_max_streams_bidi, 0, self._streams_allowed[False]),
        ):
            limit.value = allowed + sum(1 for stream_id in theirs if stream_id & 2 == kind)

    def _write_limit(self, builder: QuicPacketBuilder, limit: Limit, value: int) -> None:
        buf = builder.start_frame(
            limit.frame_type,
            capacity=_LIMIT_CAPACITY,
            handler=self._on_connection_limit_delivery,
            handler_args=(limit,),
        )
        buf.push_uint_var(value)
        limit.sent = value


def client_engine(
    handshake: HandshakeConfig, options: TransportOptions, token_of: Callable[[bytes], bytes] | None = None
) -> Engine:
    """An engine for the client's side; ``connect()`` starts it.

    ``token_of`` makes the stateless reset token of a connection ID; without it tokens are random, and of no use.
    """
    configuration = _configuration(handshake, options, True)
    return Engine(handshake=handshake, options=options, token_of=token_of, configuration=configuration)


def server_engine(
    handshake: HandshakeConfig,
    options: TransportOptions,
    original_cid: bytes,
    retry_cid: bytes | None,
    token_of: Callable[[bytes], bytes] | None = None,
) -> Engine:
    """An engine for the server's side; for ``token_of`` see :func:`client_engine`.

    ``original_cid`` is the destination of the client's first Initial packet, ``retry_cid`` what our Retry told the
    client to use instead, or None without one.
    """
    return Engine(
        handshake=handshake,
        options=options,
        token_of=token_of,
        configuration=_configuration(handshake, options, False),
        original_destination_connection_id=original_cid,
        retry_source_connection_id=retry_cid,
    )


def _configuration(handshake: HandshakeConfig, options: TransportOptions, is_client: bool) -> QuicConfiguration:
    if not is_client and (handshake.certificate is None or handshake.private_key is None):
        raise LocalProtocolError("a server needs a certificate and its key; give it both")
    try:
        suites = [tls.CipherSuite[name] for name in options.cipher_suites]
    except KeyError as error:
        raise LocalProtocolError(f"TLS knows no cipher suite named {error}; check the options") from None
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        certificate=handshake.certificate,
        cipher_suites=suites,
        connection_id_length=CID_SIZE,
        idle_timeout=options.idle_timeout,
        is_client=is_client,
        max_data=options.connection_window,
        max_datagram_size=_datagram_size(options),
        max_stream_data=options.first_window,
        private_key=handshake.private_key,
        supported_versions=[VERSION],
        verify_mode=0,  # ssl.CERT_NONE: a self-signed certificate has no chain; its key is judged by verify_peer
    )


def _datagram_size(options: TransportOptions) -> int:
    """Bytes of the handshake's datagrams; of all others as well, where it is not handed over."""
    if options.native or options.datagram_size is None:
        return DATAGRAM_MIN
    return min(options.datagram_size, _OLD_DATAGRAM_MAX) if OLD_SERIES else options.datagram_size
