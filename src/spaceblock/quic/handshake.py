"""aioquic, bent to Spaceblock's needs: the one module that imports it, and the only one that knows its private names.

Those names are checked when this module is imported, so that an aioquic that differs is refused with the list of what
is missing, not with a puzzling failure later. Sans-IO: no clock, no socket, ``now`` is an argument.

What differs from stock aioquic:

* A server asks for the client's certificate; a certificate is judged by its key alone, before ours is sent.
* Credit is granted when bytes are consumed, not when they arrive, and credit that nobody will consume is given back.
* A stream of the peer counts against its limit until somebody was told of it and consumed its bytes.
* No session tickets, so no resumption and no early data; QUIC version 1 only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import aioquic
from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it does not list what it re-exports
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    Limit,
    QuicConnection,
    QuicConnectionId,
    QuicConnectionState,
)
from aioquic.quic.crypto import CryptoContext
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
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
    pull_quic_transport_parameters,
)
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicSentPacket
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from cryptography import x509

from ..core import encode_uint_var
from ..errors import EngineUnavailable, LocalProtocolError
from ..limits import DATAGRAM_MIN
from .handover import (
    ConnectionId,
    HandOver,
    ReceivingState,
    SendingState,
    SentPacket,
    SentPiece,
    StreamState,
)
from .interface import ALPN, CloseReason, HandshakeConfig, TransportOptions

__all__ = [
    "CID_SIZE",
    "NO_COMMON_PROTOCOL",
    "VERSION",
    "ConnectionIdIssued",
    "ConnectionIdRetired",
    "Engine",
    "HandshakeCompleted",
    "QuicEvent",
    "RetryTokens",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
    "behind_long_headers",
    "client_engine",
    "initial_token",
    "server_engine",
    "version_negotiation",
]

CID_SIZE = 8
"""Bytes of the connection IDs that we choose; a short header does not say their length."""

VERSION = int(QuicProtocolVersion.VERSION_1)

NO_COMMON_PROTOCOL = frozenset(int(QuicErrorCode.CRYPTO_ERROR) + alert for alert in (40, 120))
"""The TLS alerts for "no application protocol in common" as QUIC's error codes (RFC 9001, section 4.8); aioquic 1.3
sends the more general one."""

OLD_SERIES = tuple(map(int, aioquic.__version__.split(".")[:2])) < (1, 7)
"""aioquic 1.3, the last for Python 3.10: other signatures, and limits that are not raised as streams end."""

_OLD_DATAGRAM_MAX = 1_500
"""Bytes of a packet that aioquic 1.3 can seal."""

_ENDING = (QuicConnectionState.CLOSING, QuicConnectionState.DRAINING, QuicConnectionState.TERMINATED)
_VARINT_SIZE = 8  # at most
_TWO_BYTES_MAX = 0x3FFF
_LONG_HEADERS_MAX = 4  # of one datagram: an Initial, an early and a Handshake packet, and one more
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
        self._local_max_stream_data_uni = options.stream_window
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

    def hand_over(self) -> HandOver:
        """Retire, and give everything that another engine needs to go on with the connection.

        Call it once, when :attr:`confirmed` and no event is left.
        """
        crypto = self._cryptos[tls.Epoch.ONE_RTT]
        space = self._spaces[tls.Epoch.ONE_RTT]
        loss = self._loss
        suite, send_secret, receive_secret = crypto.send.cipher_suite, crypto.send.secret, crypto.recv.secret
        assert suite is not None, "a confirmed handshake has keys"
        assert send_secret is not None
        assert receive_secret is not None
        path = self._network_paths[0]
        for network_path in self._network_paths:
            if (reserved := getattr(network_path, "peer_cid", None)) is not None:
                self._retire_peer_cid(reserved)  # it has been used on a path that nobody goes on with
        rtt = (loss._rtt_smoothed, loss._rtt_variance, loss._rtt_min, loss._rtt_latest)
        state = HandOver(
            is_client=self._is_client,
            peer_certificate=self.peer_certificate,
            peer_address=path.addr,
            path_room=None if path.is_validated else max(0, 3 * path.bytes_received - path.bytes_sent),
            validated_address=next((other.addr for other in self._network_paths if other.is_validated), None),
            suite=suite.name,
            send_secret=send_secret,
            receive_secret=receive_secret,
            key_phase=crypto.recv.key_phase,
            first_send_secret=self._first_secrets[tls.Direction.ENCRYPT],
            first_receive_secret=self._first_secrets[tls.Direction.DECRYPT],
            next_packet_number=self._packet_number,
            sent=[self._sent_packet(packet) for packet in space.sent_packets.values() if packet.is_ack_eliciting],
            unsent_frames=self._unsent_frames(),
            received=_received(space),
            ack_due=space.ack_at is not None,
            largest_received_time=space.largest_received_time or 0.0,
            local_ids=[_connection_id(known) for known in self._host_cids],
            used_cid=self.host_cid,
            peer_id=_connection_id(self._peer_cid),
            spare_peer_ids=[_connection_id(known) for known in self._peer_cid_available],
            peer_ids_known=frozenset(self._peer_cid_sequence_numbers),
            peer_ids_retired_below=self._peer_retire_prior_to,
            rtt=rtt if loss._rtt_initialized else None,
            ack_delay_exponent=self._remote_ack_delay_exponent,
            max_ack_delay=loss.max_ack_delay,
            idle_timeout=min(self._configuration.idle_timeout, self._remote_max_idle_timeout or 3600.0),
            datagram_max=self._datagram_max,
            max_data=self._remote_max_data,
            data_sent=self._remote_max_data_used,
            max_stream_data_bidi_local=self._remote_max_stream_data_bidi_local,
            max_stream_data_bidi_remote=self._remote_max_stream_data_bidi_remote,
            max_stream_data_uni=self._remote_max_stream_data_uni,
            max_streams_bidi=self._remote_max_streams_bidi,
            max_streams_uni=self._remote_max_streams_uni,
            next_stream_bidi=self._local_next_stream_id_bidi,
            next_stream_uni=self._local_next_stream_id_uni,
            local_max_data=self._local_max_data.value,
            data_received=self._local_max_data.used,
            data_consumed=self._consumed,
            local_max_streams_bidi=(self._local_max_streams_bidi.value, self._local_max_streams_bidi.sent),
            local_max_streams_uni=(self._local_max_streams_uni.value, self._local_max_streams_uni.sent),
            streams_bidi_used=self._local_max_streams_bidi.used,
            streams_uni_used=self._local_max_streams_uni.used,
            held_bidi=self._held[False],
            held_uni=self._held[True],
            streams=[
                StreamState(stream_id, _receiving(stream), _sending(stream))
                for stream_id, stream in self._streams.items()
            ],
            abandoned=[
                (stream_id, isinstance(getattr(act.func, "__self__", None), QuicStreamSender), act.args[0])
                for stream_id, acts in self._held_back.items()
                for act in acts
            ],
        )
        self.abort()
        return state

    def abort(self) -> None:
        """Forget the connection without a word to the peer, or without a further one."""
        self._set_state(QuicConnectionState.TERMINATED)

    # Handing over.

    def _sent_packet(self, packet: QuicSentPacket) -> SentPacket:
        frames: list[bytes] = []
        pieces: list[SentPiece] = []
        for handler, arguments in packet.delivery_handlers:
            name = getattr(handler, "__name__", "")
            owner = getattr(handler, "__self__", None)
            if name == "_on_handshake_done_delivery":
                frames.append(bytes([QuicFrameType.HANDSHAKE_DONE]))
            elif name == "_on_new_connection_id_delivery":
                frames.append(_new_connection_id_frame(arguments[0]))
            elif name == "_on_retire_connection_id_delivery":
                frames.append(_frame(QuicFrameType.RETIRE_CONNECTION_ID, arguments[0]))
            elif name == "_on_connection_limit_delivery":
                frames.append(_frame(arguments[0].frame_type, arguments[0].sent))
            elif name == "_on_max_stream_data_delivery":
                stream = arguments[0]
                frames.append(
                    _frame(QuicFrameType.MAX_STREAM_DATA, stream.stream_id, stream.max_stream_data_local_sent)
                )
            elif name == "on_reset_delivery" and isinstance(owner, QuicStreamSender):
                frames.append(_reset_frame(owner))
            elif name == "on_stop_sending_delivery" and isinstance(owner, QuicStreamReceiver):
                frames.append(_stop_frame(owner))
            elif name == "on_data_delivery" and isinstance(owner, QuicStreamSender) and owner._stream_id is not None:
                pieces.append(SentPiece(owner._stream_id, *arguments))
        return SentPacket(
            packet.packet_number, packet.sent_time or 0.0, packet.sent_bytes, tuple(frames), tuple(pieces)
        )

    def _unsent_frames(self) -> list[bytes]:
        frames = [_new_connection_id_frame(known) for known in self._host_cids if not known.was_sent]
        frames += [_frame(QuicFrameType.RETIRE_CONNECTION_ID, sequence) for sequence in self._retire_connection_ids]
        if self._handshake_done_pending:
            frames.append(bytes([QuicFrameType.HANDSHAKE_DONE]))
        for stream in self._streams.values():
            if stream.sender.reset_pending:
                frames.append(_reset_frame(stream.sender))
            if stream.receiver.stop_pending:
                frames.append(_stop_frame(stream.receiver))
            if stream.max_stream_data_local != stream.max_stream_data_local_sent and not stream.receiver.is_finished:
                frames.append(_frame(QuicFrameType.MAX_STREAM_DATA, stream.stream_id, stream.max_stream_data_local))
        if self._local_max_data.value != self._local_max_data.sent:
            frames.append(_frame(QuicFrameType.MAX_DATA, self._local_max_data.value))
        return frames

    # Overrides.

    def handle_timer(self, now: float) -> None:
        if self._close_event is None and self._close_at is not None and now >= self._close_at:
            self.timed_out = True
        super().handle_timer(now)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = not self._is_client
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
        # Two parameters that aioquic reads and does not heed (RFC 9000, section 18.2).
        if parameters.ack_delay_exponent is not None:
            self._remote_ack_delay_exponent = parameters.ack_delay_exponent
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


def _receiving(stream: QuicStream) -> ReceivingState | None:
    receiver = stream.receiver
    if receiver.is_finished:
        return None
    first = receiver._buffer_start
    early = [(span.start, bytes(receiver._buffer[span.start - first : span.stop - first])) for span in receiver._ranges]
    return ReceivingState(
        first, receiver.highest_offset, receiver._final_size, tuple(early), stream.max_stream_data_local
    )


def _sending(stream: QuicStream) -> SendingState | None:
    sender = stream.sender
    if sender.is_finished or sender._reset_error_code is not None:
        return None
    lost = [(span.start, min(span.stop, sender.highest_offset)) for span in sender._pending]
    return SendingState(
        acknowledged=sender._buffer_start,
        data=bytes(sender._buffer),
        sent=sender.highest_offset,
        lost=tuple((start, stop) for start, stop in lost if start < stop),
        acknowledged_beyond=tuple((span.start, span.stop) for span in sender._acked),
        fin_written=sender._buffer_fin is not None,
        fin_pending=sender._pending_eof,
        fin_acknowledged=sender._acked_fin,
        limit=stream.max_stream_data_remote,
        waits_for_limit=stream.is_blocked,
    )


def _received(space: QuicPacketSpace) -> list[tuple[int, int]]:
    largest = space.largest_received_packet
    spans = [(span.start, span.stop) for span in space.ack_queue]
    return spans or ([(largest, largest + 1)] if largest >= 0 else [])


def _connection_id(known: QuicConnectionId) -> ConnectionId:
    return ConnectionId(known.cid, known.sequence_number or 0, known.stateless_reset_token or b"")


def _frame(kind: int, *fields: int | None) -> bytes:
    return bytes([kind]) + b"".join(encode_uint_var(field or 0) for field in fields)


def _reset_frame(sender: QuicStreamSender) -> bytes:
    return _frame(QuicFrameType.RESET_STREAM, sender._stream_id, sender._reset_error_code, sender.highest_offset)


def _stop_frame(receiver: QuicStreamReceiver) -> bytes:
    return _frame(QuicFrameType.STOP_SENDING, receiver._stream_id, receiver._stop_error_code)


def _new_connection_id_frame(known: QuicConnectionId) -> bytes:
    """RFC 9000, section 19.15, with nothing retired."""
    head = _frame(QuicFrameType.NEW_CONNECTION_ID, known.sequence_number, 0)
    return head + bytes([len(known.cid)]) + known.cid + (known.stateless_reset_token or bytes(16))


class RetryTokens:
    """Address validation by Retry (RFC 9000, section 8.1.2): tokens are sealed and kept nowhere."""

    def __init__(self) -> None:
        self._handler = QuicRetryTokenHandler()

    def retry(self, data: bytes, address: Any, now: float) -> bytes:
        """The Retry packet that answers the Initial packet in ``data``."""
        header = pull_quic_header(Buffer(data=data), host_cid_length=CID_SIZE)
        source_cid = os.urandom(CID_SIZE)
        handler: Any = self._handler
        if OLD_SERIES:
            token = handler.create_token(address, header.destination_cid, source_cid)
        else:
            token = handler.create_token(
                address=address,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=source_cid,
                now=now,
            )
        return encode_quic_retry(
            version=VERSION,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )

    def validate(self, token: bytes, destination_cid: bytes, address: Any, now: float) -> bytes | None:
        """The connection ID that the client chose before the Retry, or None for a token that is not ours."""
        handler: Any = self._handler
        try:
            if OLD_SERIES:
                original_cid, retry_cid = handler.validate_token(address, token)
                return original_cid if retry_cid == destination_cid else None
            return handler.validate_token(  # type: ignore[no-any-return]
                address=address, destination_cid=destination_cid, token=token, now=now
            )
        except ValueError:
            return None


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


def initial_token(data: bytes) -> bytes | None:
    """The token of the Initial packet that ``data`` begins with, maybe empty; None if it begins with something else."""
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=CID_SIZE)
    except ValueError:
        return None
    return header.token if header.packet_type == QuicPacketType.INITIAL else None


def behind_long_headers(data: bytes) -> bytes:
    """The packet with a short header behind the others of a datagram, maybe empty (RFC 9000, section 12.2)."""
    buffer = Buffer(data=data)
    start = 0
    try:
        for _ in range(_LONG_HEADERS_MAX):
            if start == len(data) or not data[start] & 0x80:
                return data[start:]
            start += pull_quic_header(buffer, host_cid_length=CID_SIZE).packet_length
            buffer.seek(start)
    except ValueError:
        pass  # what follows cannot be found
    return b""


def version_negotiation(source_cid: bytes, destination_cid: bytes) -> bytes:
    """The packet that tells a client of which version we are (RFC 9000, section 6)."""
    return encode_quic_version_negotiation(
        source_cid=source_cid, destination_cid=destination_cid, supported_versions=[VERSION]
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
        max_stream_data=options.stream_window,
        private_key=handshake.private_key,
        supported_versions=[VERSION],
        verify_mode=0,  # ssl.CERT_NONE: a self-signed certificate has no chain; its key is judged by verify_peer
    )


def _datagram_size(options: TransportOptions) -> int:
    """Bytes of the handshake's datagrams; of all others as well, where it is not handed over."""
    if options.native or options.datagram_size is None:
        return DATAGRAM_MIN
    return min(options.datagram_size, _OLD_DATAGRAM_MAX) if OLD_SERIES else options.datagram_size


_CONNECTION_NAMES = (
    *(
        "_close_at",
        "_close_event",
        "_close_begin",
        "_get_or_create_stream",
        "_host_cids",
        "_is_client",
        "_local_max_data",
        "_local_max_stream_data_bidi_local",
    ),
    *("_local_max_stream_data_bidi_remote", "_local_max_stream_data_uni", "_local_max_streams_bidi"),
    *("_local_max_streams_uni", "_loss", "_max_datagram_size", "_peer_cid", "_ping_pending"),
    *("_network_paths", "_peer_cid_sequence_numbers", "_peer_retire_prior_to", "_retire_peer_cid"),
    *("_remote_ack_delay_exponent", "_replenish_connection_ids"),
    *("_state", "_streams", "_initialize", "_on_connection_limit_delivery", "_on_max_stream_data_delivery"),
    *("_parse_transport_parameters", "_receive_version_negotiation_packet", "_set_state", "_unblock_streams"),
    "_update_traffic_key",
    *("_write_application", "_write_connection_limits", "_write_stream_frame", "_write_stream_limits"),
)


def _check() -> None:
    """Raise :class:`EngineUnavailable` naming what this module uses and this aioquic does not have."""
    connection = QuicConnection(configuration=QuicConfiguration())
    stream = QuicStream()
    objects: tuple[tuple[str, object, tuple[str, ...]], ...] = (
        ("QuicConnection", connection, _CONNECTION_NAMES),
        ("CryptoContext", CryptoContext(), ("cipher_suite", "key_phase", "secret")),
        ("Limit", connection._local_max_data, ("frame_type", "sent", "used", "value")),
        ("QuicPacketRecovery", connection._loss, ("_rtt_initial", "_rtt_initialized", "_rtt_smoothed")),
        ("QuicStream", stream, ("is_blocked", "max_stream_data_local", "max_stream_data_local_sent", "receiver")),
        ("QuicStreamReceiver", stream.receiver, ("highest_offset", "is_finished", "stop")),
        (
            "QuicStreamSender",
            stream.sender,
            ("_buffer_fin", "_buffer_start", "_buffer_stop", "_reset_error_code", "buffer_is_empty", "is_finished"),
        ),
        (
            "tls.Context",
            tls.Context(is_client=True),
            ("_peer_certificate", "_request_client_certificate", "_set_peer_certificate"),
        ),
    )
    missing = [f"{kind}.{name}" for kind, thing, names in objects for name in names if not hasattr(thing, name)]
    if missing:
        version = getattr(aioquic, "__version__", "of an unknown version")
        raise EngineUnavailable(
            f"aioquic {version} lacks {', '.join(missing)}; install a version from 1.7.2 up to and without 1.8 "
            "(1.3 for Python 3.10)"
        )


_check()
