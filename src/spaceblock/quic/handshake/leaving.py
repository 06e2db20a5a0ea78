"""How a connection leaves aioquic: all of its state, as the native engine takes it over."""

from __future__ import annotations

from aioquic import tls
from aioquic.quic.connection import QuicConnectionId
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from ...core import encode_uint_var
from ..handover import (
    ConnectionId,
    HandOver,
    ReceivingState,
    SendingState,
    SentPacket,
    SentPiece,
    StreamState,
)
from .engine import Engine


def hand_over(engine: Engine) -> HandOver:
    """Retire ``engine``, and give everything that another one needs to go on with the connection.

    Call it once, when it is :attr:`~Engine.confirmed` and no event is left.
    """
    crypto = engine._cryptos[tls.Epoch.ONE_RTT]
    space = engine._spaces[tls.Epoch.ONE_RTT]
    loss = engine._loss
    suite, send_secret, receive_secret = crypto.send.cipher_suite, crypto.send.secret, crypto.recv.secret
    assert suite is not None, "a confirmed handshake has keys"
    assert send_secret is not None
    assert receive_secret is not None
    path = engine._network_paths[0]
    for network_path in engine._network_paths:
        if (reserved := getattr(network_path, "peer_cid", None)) is not None:
            engine._retire_peer_cid(reserved)  # it has been used on a path that nobody goes on with
    rtt = (loss._rtt_smoothed, loss._rtt_variance, loss._rtt_min, loss._rtt_latest)
    state = HandOver(
        is_client=engine._is_client,
        peer_certificate=engine.peer_certificate,
        peer_address=path.addr,
        path_room=None if path.is_validated else max(0, 3 * path.bytes_received - path.bytes_sent),
        validated_address=next((other.addr for other in engine._network_paths if other.is_validated), None),
        suite=suite.name,
        send_secret=send_secret,
        receive_secret=receive_secret,
        key_phase=crypto.recv.key_phase,
        first_send_secret=engine._first_secrets[tls.Direction.ENCRYPT],
        first_receive_secret=engine._first_secrets[tls.Direction.DECRYPT],
        next_packet_number=engine._packet_number,
        sent=[_sent_packet(packet) for packet in space.sent_packets.values() if packet.is_ack_eliciting],
        unsent_frames=_unsent_frames(engine),
        received=_received(space),
        ack_due=space.ack_at is not None,
        largest_received_time=space.largest_received_time or 0.0,
        local_ids=[_connection_id(known) for known in engine._host_cids],
        used_cid=engine.host_cid,
        peer_id=_connection_id(engine._peer_cid),
        spare_peer_ids=[_connection_id(known) for known in engine._peer_cid_available],
        peer_ids_known=frozenset(engine._peer_cid_sequence_numbers),
        peer_ids_retired_below=engine._peer_retire_prior_to,
        rtt=rtt if loss._rtt_initialized else None,
        ack_delay_exponent=engine._remote_ack_delay_exponent,
        max_ack_delay=loss.max_ack_delay,
        idle_timeout=min(engine._configuration.idle_timeout, engine._remote_max_idle_timeout or 3600.0),
        datagram_max=engine._datagram_max,
        may_move=engine._may_move,
        max_data=engine._remote_max_data,
        data_sent=engine._remote_max_data_used,
        max_stream_data_bidi_local=engine._remote_max_stream_data_bidi_local,
        max_stream_data_bidi_remote=engine._remote_max_stream_data_bidi_remote,
        max_stream_data_uni=engine._remote_max_stream_data_uni,
        max_streams_bidi=engine._remote_max_streams_bidi,
        max_streams_uni=engine._remote_max_streams_uni,
        next_stream_bidi=engine._local_next_stream_id_bidi,
        next_stream_uni=engine._local_next_stream_id_uni,
        local_max_data=engine._local_max_data.value,
        data_received=engine._local_max_data.used,
        data_consumed=engine._consumed,
        local_max_streams_bidi=(engine._local_max_streams_bidi.value, engine._local_max_streams_bidi.sent),
        local_max_streams_uni=(engine._local_max_streams_uni.value, engine._local_max_streams_uni.sent),
        streams_bidi_used=engine._local_max_streams_bidi.used,
        streams_uni_used=engine._local_max_streams_uni.used,
        held_bidi=engine._held[False],
        held_uni=engine._held[True],
        streams=[
            StreamState(stream_id, _receiving(stream), _sending(stream))
            for stream_id, stream in engine._streams.items()
        ],
        abandoned=[
            (stream_id, isinstance(getattr(act.func, "__self__", None), QuicStreamSender), act.args[0])
            for stream_id, acts in engine._held_back.items()
            for act in acts
        ],
    )
    engine.abort()
    return state


def _sent_packet(packet: QuicSentPacket) -> SentPacket:
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
            frames.append(_frame(QuicFrameType.MAX_STREAM_DATA, stream.stream_id, stream.max_stream_data_local_sent))
        elif name == "on_reset_delivery" and isinstance(owner, QuicStreamSender):
            frames.append(_reset_frame(owner))
        elif name == "on_stop_sending_delivery" and isinstance(owner, QuicStreamReceiver):
            frames.append(_stop_frame(owner))
        elif name == "on_data_delivery" and isinstance(owner, QuicStreamSender) and owner._stream_id is not None:
            pieces.append(SentPiece(owner._stream_id, *arguments))
    return SentPacket(packet.packet_number, packet.sent_time or 0.0, packet.sent_bytes, tuple(frames), tuple(pieces))


def _unsent_frames(engine: Engine) -> list[bytes]:
    frames = [_new_connection_id_frame(known) for known in engine._host_cids if not known.was_sent]
    frames += [_frame(QuicFrameType.RETIRE_CONNECTION_ID, sequence) for sequence in engine._retire_connection_ids]
    if engine._handshake_done_pending:
        frames.append(bytes([QuicFrameType.HANDSHAKE_DONE]))
    for stream in engine._streams.values():
        if stream.sender.reset_pending:
            frames.append(_reset_frame(stream.sender))
        if stream.receiver.stop_pending:
            frames.append(_stop_frame(stream.receiver))
        if stream.max_stream_data_local != stream.max_stream_data_local_sent and not stream.receiver.is_finished:
            frames.append(_frame(QuicFrameType.MAX_STREAM_DATA, stream.stream_id, stream.max_stream_data_local))
    if engine._local_max_data.value != engine._local_max_data.sent:
        frames.append(_frame(QuicFrameType.MAX_DATA, engine._local_max_data.value))
    return frames


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
