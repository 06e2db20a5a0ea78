"""The native engine's Python half: streams, credit, timers and the end of a connection.

It stands where aioquic's engine stood before the hand-over, with the same methods (see ``Engine`` in ``handshake``),
so that nothing above notices. Nothing here is done for each packet; a handful of calls is for each receive buffer and
each GSO batch. ``now`` is in seconds on the event loop's clock; the packet engine counts microseconds.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core import encode_uint_var
from ...limits import DATAGRAM_MAX, DATAGRAM_MIN
from ..handover import HandOver, SentPacket, StreamDataTaken
from ..handshake.engine import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from ..handshake.first_packets import behind_long_headers
from ..interface import REASON_MAX, CloseReason, Intake, TransportOptions
from .engine import (
    AEAD_LIMIT_REACHED,
    FINAL_SIZE_ERROR,
    FLOW_CONTROL_ERROR,
    NO_VIABLE_PATH,
    PROTOCOL_VIOLATION,
    STREAM_LIMIT_ERROR,
    STREAM_STATE_ERROR,
    PacketEngine,
)
from .ids import ConnectionIds
from .keys import CONFIDENTIALITY_LIMIT, INTEGRITY_LIMIT, SUITES, derive, later_keys
from .paths import MICROSECONDS, Paths
from .protection import HeaderKey, PacketKey
from .pump import Pump
from .ranges import PacketRanges
from .rare import RareFrames
from .recovery import Recovery
from .streams import ReceiveStream, SendStream

if TYPE_CHECKING:
    from cryptography import x509

BATCHES = 16
"""GSO batches sent before the event loop gets its turn: about a MiB."""

BATCH_SIZE = 65_507
"""Bytes of one GSO batch at most: the payload of a UDP datagram over IPv4."""

WAITING_MAX = 4_096
"""Control frames that wait for the peer to acknowledge others: more means that it only asks, to cost us memory."""

_ALSO_CLOSED = b"\x1c\x00\x00\x00"
"""CONNECTION_CLOSE with NO_ERROR: the answer to the peer's."""

Transmit = Callable[[Any, int, Any], bool]


class NativeEngine:
    """One connection after its hand-over.

    ``transmit(batch, segment, address)`` writes a train of datagrams of ``segment`` bytes, the last one maybe shorter,
    and returns whether the socket took it. ``pump()``, where there is one, sends what is due without building it here,
    and says so as :meth:`Pump.send <spaceblock.quic.native.pump.Pump.send>` does; None leaves it to ``transmit``.
    ``token_of`` makes the stateless reset token of a connection ID; without it tokens are random, and of no use.
    ``add_route`` is told of a connection ID before the peer is, who may use it at once.
    """

    verify_error: Exception | None = None
    version_mismatch = False
    started = True

    has_more: bool = False
    """Sending stopped only to give others their turn."""

    def __init__(
        self,
        state: HandOver,
        options: TransportOptions,
        transmit: Transmit,
        pump: Callable[[], int | None] | None = None,
        receive_buffer: int = 4 * 1024 * 1024,
        token_of: Callable[[bytes], bytes] | None = None,
        add_route: Callable[[bytes], None] | None = None,
    ) -> None:
        self.peer_certificate: x509.Certificate | None = state.peer_certificate
        self.is_client: bool = state.is_client
        self.packets: PacketEngine = _packet_engine(state, options.datagram_size, self._accept)
        self.terminated: bool = False
        self.timed_out: bool = False
        self.host_cid: bytes = state.local_ids[0].cid
        self._options = options
        self._transmit = transmit
        self._pump = pump
        self._add_route = add_route
        self.packets.credit.set_windows(
            options.connection_window, options.stream_window, options.control_window, receive_buffer
        )
        self._events: deque[Any] = deque()
        self._ids = ConnectionIds(self, state, token_of)
        self._paths = Paths(self, self._ids, state, state.largest_received_time)
        self._may_move = state.is_client and state.may_move
        self._renew_later(state.largest_received_time)
        self._rare = RareFrames(self, self._ids, self._paths)
        self._idle_timeout = state.idle_timeout
        self.packets.idle_since = int(state.largest_received_time * MICROSECONDS)
        self._unsent = 0
        self._unsent_to: Any = None
        self._close_reason: CloseReason | None = None
        self._close_at: float | None = None
        self._farewell: bytes | None = None
        self._is_draining = False
        self._has_said_it = False
        self._left: dict[int, int] | None = None  # what streams still had to send when the connection ended
        self._next_id = {False: state.next_stream_bidi, True: state.next_stream_uni}
        self._allowed = {False: state.max_streams_bidi, True: state.max_streams_uni}
        self._windows = {True: state.max_stream_data_uni, False: state.max_stream_data_bidi_remote}
        self._peer_window_for_theirs = state.max_stream_data_bidi_local
        self._waiting: deque[tuple[int, list[Callable[[], None]]]] = deque()
        self._final_sizes: dict[int, int] = {}  # of streams that the peer reset, until the connection has seen it
        self._resets: dict[int, bytes] = {}  # by stream: RESET_STREAM frames without an acknowledgement
        self._theirs_used = {False: state.streams_bidi_used, True: state.streams_uni_used}
        self._theirs_allowed = {False: state.local_max_streams_bidi[0], True: state.local_max_streams_uni[0]}
        self._theirs_told = {False: state.local_max_streams_bidi[1], True: state.local_max_streams_uni[1]}
        self._held = {False: state.held_bidi, True: state.held_uni}
        self._adopt(state)
        _update_keys(self.packets, state, options.key_update_packets)

    # What is going on.

    @property
    def smoothed_rtt(self) -> float:
        return float(self.packets.recovery.smoothed_rtt) / MICROSECONDS

    @property
    def congestion_window(self) -> int:
        return int(self.packets.recovery.congestion.window)

    @property
    def path_is_valid(self) -> bool:
        """The peer is known to be where packets are sent (RFC 9000, section 8)."""
        return not self.packets.is_confined

    @property
    def closing(self) -> bool:
        return self._farewell is not None and not self._is_draining and not self.terminated

    def ended(self) -> CloseReason | None:
        return self._close_reason

    @property
    def reset_tokens(self) -> tuple[bytes, ...]:
        """What the peer's stateless resets may end with now (section 10.3.1)."""
        return self._ids.tokens

    def get_peer_address(self) -> Any:
        return self._paths.address

    def next_event(self) -> Any:
        return self._events.popleft() if self._events else None

    def backlog(self, stream_id: int) -> int:
        if self._left is not None:
            return self._left.get(stream_id, 0)
        stream = self.packets.send_streams.get(stream_id)
        return 0 if stream is None else int(stream.backlog)

    def await_backlog(self, stream_id: int, limit: int) -> None:
        """Somebody waits until no more than ``limit`` bytes are unacknowledged; nobody does if it is negative."""
        stream = self.packets.send_streams.get(stream_id)
        if stream is not None:
            stream.awaited = limit

    def sender_finished(self, stream_id: int) -> bool:
        stream = self.packets.send_streams.get(stream_id)
        if stream is None:
            return True
        if stream.finished:
            self._forget_sender(stream)
            return True
        return False

    def highest_offset(self, stream_id: int) -> int | None:
        """One behind the highest byte that arrived; of a stream that was reset, its final size, once."""
        stream = self.packets.receive_streams.get(stream_id)
        return self._final_sizes.pop(stream_id, None) if stream is None else int(stream.highest)

    @property
    def may_move(self) -> bool:
        """:meth:`move` is possible now: a client's peer allows it, and has left an ID for the new path."""
        return self._may_move and self._ids.has_spare

    # Streams.

    def open_stream(self, unidirectional: bool) -> int:
        stream_id = self._next_id[unidirectional]
        self._next_id[unidirectional] += 4
        stream = SendStream(stream_id, self._windows[unidirectional])
        self.packets.add_send_stream(stream)
        if not unidirectional:
            self.packets.add_receive_stream(ReceiveStream(stream_id, self._options.control_window))
        if stream_id // 4 >= self._allowed[unidirectional]:
            stream.held = True
            self._waiting.append((stream_id, []))
        return stream_id

    def send_stream_data(
        self, stream_id: int, data: Any, end_stream: bool = False, release: Callable[[], None] | None = None
    ) -> bool:
        """Whether nothing of the stream waited to be sent: what waits already will be followed by this."""
        stream = self.packets.send_streams[stream_id]
        is_next = bool(stream.sent == stream.written)
        stream.write(bytes(data) if release is None else data, end_stream, release)
        self.packets.wake(stream)
        return is_next

    def abandon_sending(self, stream_id: int, code: int) -> None:
        stream = self.packets.send_streams.get(stream_id)
        if stream is None or stream.stopped or stream.finished:
            return
        fields = encode_uint_var(stream_id) + encode_uint_var(code) + encode_uint_var(stream.sent)
        stream.give_up()
        self._resets[stream_id] = b"\x04" + fields
        self._when_allowed(stream_id, lambda: self._send_reset(stream_id))

    def abandon_receiving(self, stream_id: int, code: int) -> None:
        stream = self.packets.receive_streams.get(stream_id)
        if stream is None or stream.finished:
            return
        self._tell_taken(stream)
        stream.clear_intake()
        arrived, fin = stream.take()
        if arrived or fin:
            self._events.append(StreamDataReceived(data=arrived, end_stream=fin, stream_id=stream_id))
        if fin:
            self._forget_receiver(stream)
            return
        frame = b"\x05" + encode_uint_var(stream_id) + encode_uint_var(code)
        self._when_allowed(stream_id, lambda: self.packets.send_control(frame))

    def set_intake(self, stream_id: int, intake: Intake) -> None:
        """From now on a stream's bytes go to ``intake``, which is told of by :class:`StreamDataTaken`."""
        stream = self.packets.receive_streams.get(stream_id)
        if stream is not None and not stream.finished:
            stream.set_intake(intake)

    def pull(self, stream_id: int) -> tuple[int, bool]:
        """Give an intake what it held back: the bytes that it took, and whether they are the last."""
        stream = self.packets.receive_streams.get(stream_id)
        if stream is None or stream.intake is None or stream.finished:
            return 0, False
        count, fin = self.packets.pull(stream)
        if fin:
            self._forget_receiver(stream)
        return count, fin

    def allow_streams(self, unidirectional: bool, count: int) -> None:
        """The peer allows more streams: let those that wait begin."""
        self._allowed[unidirectional] = max(count, self._allowed[unidirectional])
        still: deque[tuple[int, list[Callable[[], None]]]] = deque()
        for stream_id, acts in self._waiting:
            if bool(stream_id & 2) is not unidirectional or stream_id // 4 >= self._allowed[unidirectional]:
                still.append((stream_id, acts))
                continue
            for act in acts:
                act()
            stream = self.packets.send_streams.get(stream_id)
            if stream is not None:
                stream.held = False
                self.packets.wake(stream)
        self._waiting = still

    # Credit.

    def grant_stream(self, stream_id: int, consumed: int) -> bool:
        stream = self.packets.receive_streams.get(stream_id)
        return stream is not None and not stream.finished and bool(self.packets.grant_stream(stream, consumed))

    def grant_connection(self, count: int) -> bool:
        return bool(self.packets.grant_connection(count))

    def hold_stream(self, unidirectional: bool) -> None:
        self._held[unidirectional] += 1

    def release_stream(self, unidirectional: bool) -> bool:
        self._held[unidirectional] -= 1
        self._tell_stream_count(unidirectional)
        return True

    # Work.

    def ping(self) -> None:
        self.packets.send_control(b"\x01")

    def receive_datagram(self, data: bytes, address: Any, now: float) -> None:
        if data and data[0] & 0x80:
            # A client that does not know that the handshake is confirmed says all behind it (RFC 9000, section 12.2).
            data = behind_long_headers(data)
        if data:
            self.receive_buffer(bytearray(data), len(data), address, now)

    def receive_buffer(self, data: Any, segment: int, address: Any, now: float) -> None:
        """Take in datagrams of ``segment`` bytes each from one peer; ``data`` is opened in place."""
        elsewhere = None if self._paths.is_known(address) else address
        if self._close_reason is not None or (elsewhere is not None and self.is_client):
            return  # a client knows one address of its server (RFC 9000, section 9)
        if self.packets.receive(data, segment, int(now * MICROSECONDS), elsewhere=elsewhere):
            self.take_news(now)

    def take_news(self, now: float) -> None:
        """Do what the packets that were taken in have left to do."""
        packets = self.packets
        if self._close_reason is not None:
            packets.news.clear()
            self.terminated |= self.closing and packets.heard_close
            return
        for stream in packets.news:
            if stream.intake is not None:
                count, fin = stream.collect()
                self._events.append(StreamDataTaken(stream.stream_id, count, fin))
            else:
                arrived, fin = stream.take()
                self._events.append(StreamDataReceived(data=arrived, end_stream=fin, stream_id=stream.stream_id))
            if fin:
                self._forget_receiver(stream)
        packets.news.clear()
        if packets.rare:
            for frame in packets.rare:
                if self._close_reason is None and packets.violation is None:
                    self._rare.handle(frame, now)
            packets.rare.clear()
            packets.awaits_python = False
            if packets.waiting > WAITING_MAX:
                packets.violate(PROTOCOL_VIOLATION, 0, "more to answer than is acknowledged")
        if packets.delivered:
            self._take_delivered()
        if packets.lost:
            self._tell_again()
        if packets.violation is not None:
            code, kind, reason = packets.violation
            self.close(code, kind, reason)
        elif now >= self._renew_at and self.path_is_valid:
            self._renew_later(now)
            self._ids.replace()

    def move(self, is_far: bool, now: float) -> None:
        """What is sent from now on leaves from another address of this client (RFC 9000, section 9.2).

        Nobody who sees both shall know them for one, so the peer's connection ID is another one too. ``is_far``: it is
        another host, so that round trips and windows begin anew (section 9.4).
        """
        if self._close_reason is not None:
            return
        self._ids.replace()
        self._renew_later(now)
        if is_far:
            self.forget_path()
        self._paths.moved(now)
        self.packets.probe()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Send what is due; what closes the connection is returned, to be sent and kept by the caller."""
        if self._close_reason is not None:
            return self._last_words(now)
        return (self._paths.to_send(now) if self._paths.has_work else []) + self._send(now)

    def _send(self, now: float) -> list[tuple[bytes, Any]]:
        self.has_more = False
        packets = self.packets
        batch = packets.batch
        if self._unsent and not self._transmit(batch[: self._unsent], packets.segment, self._unsent_to):
            return []
        self._unsent = 0
        pumped = self._pump() if self._pump is not None else None
        if pumped == Pump.LIMIT:
            return self._at_key_limit(now)
        if pumped is not None:
            self.has_more = pumped == Pump.MORE
            return []
        microseconds = int(now * MICROSECONDS)
        for _ in range(BATCHES):
            if packets.recovery.next_number() >= packets.packets_max:
                return self._at_key_limit(now)
            size = packets.build(microseconds)
            if not size:
                return []
            if not self._transmit(batch[:size], packets.segment, self._paths.address):
                self._unsent, self._unsent_to = size, self._paths.address
                return []
        self.has_more = True
        return []

    def get_timer(self) -> float | None:
        if self.terminated:
            return None
        if self._close_at is not None:
            return self._close_at
        at = self.packets.next_timer(int(self._idle_timeout * MICROSECONDS)) / MICROSECONDS
        asks_at = self._paths.timer()
        return at if asks_at is None else min(at, asks_at)

    def set_timer(self, at: float) -> None:
        """There will be a look at what is due then, whatever comes."""
        self.packets.timer_set = int(at * MICROSECONDS)

    def handle_timer(self, now: float) -> None:
        if self._close_at is not None:
            if now >= self._close_at:
                self.terminated = True
            return
        if now >= self._idle_at():
            self.timed_out = True
            self._close_reason = CloseReason(0, "", is_application=False, timed_out=True)
            self.abort()
            return
        self._paths.on_timer(now)
        # The loop's clock may be a little behind the time that it was asked for.
        self.packets.on_timer(int(now * MICROSECONDS) + 1)
        if self.packets.lost:
            self._tell_again()

    def _idle_at(self) -> float:
        return self.packets.idle_since / MICROSECONDS + max(self._idle_timeout, 3 * self.pto)

    def _at_key_limit(self, now: float) -> list[tuple[bytes, Any]]:
        self.close(AEAD_LIMIT_REACHED, 0, "a key has sealed as many packets as it may (RFC 9001, section 6.6)")
        return self._last_words(now)

    # The end.

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """Send CONNECTION_CLOSE; with a ``frame_type`` it is QUIC's own error, else the application's."""
        if self._close_reason is not None:
            return
        self._close_reason = CloseReason(error_code, reason_phrase, is_application=frame_type is None)
        self.packets.is_closing = True
        reason = reason_phrase.encode()[:REASON_MAX].decode("utf-8", "ignore").encode()
        if frame_type is None:
            frame = b"\x1d" + encode_uint_var(error_code)
        else:
            frame = b"\x1c" + encode_uint_var(error_code) + encode_uint_var(frame_type)
        self._farewell = frame + encode_uint_var(len(reason)) + reason
        self._give_up_streams()

    def closed_by_peer(self, code: int, reason: str, is_application: bool, now: float) -> None:
        """The peer closed: close too, so that it need not wait for anything late, send nothing any more, and forget the
        connection soon (RFC 9000, section 10.2.2)."""
        self._farewell = _ALSO_CLOSED
        self._enter_draining(CloseReason(code, reason, by_peer=True, is_application=is_application), now)

    def _enter_draining(self, reason: CloseReason, now: float) -> None:
        self._close_reason = reason
        self._is_draining = True
        self.packets.is_closing = True
        self._close_at = now + 3 * self.pto
        self._give_up_streams()

    def reset_by_peer(self, now: float) -> None:
        """A stateless reset came: as after a close of the peer (section 10.3.1)."""
        if self._close_reason is None:
            self._enter_draining(CloseReason(0, "", by_peer=True, is_application=False, was_reset=True), now)

    def abort(self) -> None:
        self.terminated = True
        self.packets.is_closing = True
        if self._close_reason is None:
            self._close_reason = CloseReason(0, "", is_application=False)
        self._give_up_streams()

    # For rare frames.

    def emit(self, event: Any) -> None:
        """Put an event behind the others."""
        self._events.append(event)

    def peer_reset(self, stream_id: int, code: int, final_size: int) -> None:
        """RESET_STREAM (section 19.4)."""
        stream = self.packets.receive_streams.get(stream_id) or self._accept(stream_id)
        if stream is None or stream.finished:
            return
        if not self.packets.count_reset(stream, final_size):
            self.packets.violate(FLOW_CONTROL_ERROR, 0x04, "a stream reset beyond what this side allowed")
        elif not stream.end(final_size):
            self.packets.violate(FINAL_SIZE_ERROR, 0x04, "a stream's final size changed")
        else:
            self._tell_taken(stream)
            self._events.append(StreamReset(error_code=code, stream_id=stream_id))
            self._final_sizes[stream_id] = final_size
            self._forget_receiver(stream)

    def peer_stopped(self, stream_id: int, code: int) -> None:
        """STOP_SENDING (section 19.5): the answer is a reset with the same code."""
        if self._find_sender(stream_id, 0x05) is not None:
            self._events.append(StopSendingReceived(error_code=code, stream_id=stream_id))
            self.abandon_sending(stream_id, code)

    def peer_allows(self, stream_id: int, limit: int) -> None:
        """MAX_STREAM_DATA (section 19.10) for a stream that was not known, or is not any more."""
        stream = self._find_sender(stream_id, 0x11)
        if stream is not None:
            stream.limit = max(limit, stream.limit)

    def peer_blocked(self, stream_id: int) -> None:
        """STREAM_DATA_BLOCKED (section 19.13): it opens a stream, as any other frame of its sender does."""
        if stream_id not in self.packets.receive_streams:
            self._accept(stream_id)

    @property
    def pto(self) -> float:
        """One probe time-out (RFC 9002, section 6.2.1)."""
        return float(self.packets.recovery.pto()) / MICROSECONDS

    def forget_path(self) -> None:
        """Round trips and windows of another path mean nothing on this one (section 9.4)."""
        self.packets.reset_path()

    def lose_path(self) -> None:
        """The peer was never where its packets seemed to come from: end without a word (section 9.3.2)."""
        self._close_reason = CloseReason(NO_VIABLE_PATH, "no address of the peer is known", is_application=False)
        self.abort()

    def issue_route(self, cid: bytes) -> None:
        """Packets may come for another connection ID, as soon as the peer knows it."""
        if self._add_route is not None:
            self._add_route(cid)
        self._events.append(ConnectionIdIssued(connection_id=cid))

    def retire_route(self, cid: bytes) -> None:
        """No packets come for this connection ID any more."""
        self._events.append(ConnectionIdRetired(connection_id=cid))

    # Helpers.

    def _renew_later(self, now: float) -> None:
        self._renew_at = now + self._options.id_lifetime
        self.packets.look_at = int(self._renew_at * MICROSECONDS)

    def _accept(self, stream_id: int) -> ReceiveStream | None:
        """A stream of the peer that is not known: new, forgotten, or not to be."""
        unidirectional = bool(stream_id & 2)
        if self._is_ours(stream_id):
            if unidirectional or stream_id >= self._next_id[False]:
                self.packets.violate(STREAM_STATE_ERROR, 0x08, "a stream that this side would have to open")
            return None
        number = stream_id // 4
        if number >= self._theirs_told[unidirectional]:
            self.packets.violate(STREAM_LIMIT_ERROR, 0x08, "more streams than this side allowed")
            return None
        if number < self._theirs_used[unidirectional]:
            return None
        # Opening a stream opens all of its kind with lower numbers (section 2.1).
        for lower in range(self._theirs_used[unidirectional], number + 1):
            self._add_theirs(lower * 4 + (stream_id & 3))
        self._theirs_used[unidirectional] = number + 1
        return self.packets.receive_streams[stream_id]

    def _find_sender(self, stream_id: int, kind: int) -> SendStream | None:
        """The stream that a frame for its sender names, if it is not forgotten."""
        known = self.packets.send_streams
        if stream_id in known:
            return known[stream_id]
        if self._is_ours(stream_id):
            if stream_id >= self._next_id[bool(stream_id & 2)]:
                self.packets.violate(STREAM_STATE_ERROR, kind, "a stream that does not exist")
        elif stream_id & 2:
            self.packets.violate(STREAM_STATE_ERROR, kind, "a stream on which this side does not send")
        else:
            self._accept(stream_id)
        return known.get(stream_id)

    def _add_theirs(self, stream_id: int) -> None:
        window = self._options.first_window if stream_id & 2 else self._options.control_window
        self.packets.add_receive_stream(ReceiveStream(stream_id, window))
        if not stream_id & 2:
            self.packets.add_send_stream(SendStream(stream_id, self._peer_window_for_theirs))

    def _forget_sender(self, stream: SendStream) -> None:
        self.packets.remove_send_stream(stream)
        self._count_finished(stream.stream_id)

    def _tell_taken(self, stream: ReceiveStream) -> None:
        """An intake's stream ends early: what it took, which is credited already, and nobody was told of."""
        if stream.intake is not None:
            self._events.append(StreamDataTaken(stream.stream_id, stream.collect()[0], False))

    def _forget_receiver(self, stream: ReceiveStream) -> None:
        self.packets.remove_receive_stream(stream)
        self._count_finished(stream.stream_id)

    def _count_finished(self, stream_id: int) -> None:
        """Once both directions of a peer's stream are done, the peer may open another one."""
        gone = stream_id not in self.packets.send_streams and stream_id not in self.packets.receive_streams
        if gone and not self._is_ours(stream_id):
            self._theirs_allowed[bool(stream_id & 2)] += 1
            self._tell_stream_count(bool(stream_id & 2))

    def _tell_stream_count(self, unidirectional: bool) -> None:
        value = self._theirs_allowed[unidirectional] - self._held[unidirectional]
        told = self._theirs_told[unidirectional]
        # Saved up until the peer has fewer streams left to open than the update grants.
        if value > told and told - self._theirs_used[unidirectional] < value - told:
            self._theirs_told[unidirectional] = value
            self._send_stream_count(unidirectional)

    def _send_stream_count(self, unidirectional: bool) -> None:
        kind = b"\x13" if unidirectional else b"\x12"
        frame = kind + encode_uint_var(self._theirs_told[unidirectional])
        self.packets.send_control(frame, ("streams", unidirectional))

    def _tell_again(self) -> None:
        """What was lost is told again, as it is now; each kind once."""
        lost = dict.fromkeys(self.packets.lost)
        self.packets.lost.clear()
        for what, which in lost:
            if what == "streams":
                self._send_stream_count(which)
            elif what == "retire":
                self._ids.retire_lost(which)
            else:
                self._send_reset(which)

    def _take_delivered(self) -> None:
        """A sender that was reset is done when the peer knows."""
        for what, which in self.packets.delivered:
            if what == "reset" and self._resets.pop(which, None) is not None:
                self._forget_sender(self.packets.send_streams[which])
            elif what == "retire":
                self._ids.retire_arrived(which)
        self.packets.delivered.clear()

    def _send_reset(self, stream_id: int) -> None:
        if stream_id in self._resets:
            self.packets.send_control(self._resets[stream_id], ("reset", stream_id))

    def _is_ours(self, stream_id: int) -> bool:
        return (stream_id & 1 == 0) is self.is_client

    def _when_allowed(self, stream_id: int, act: Callable[[], None]) -> None:
        for waiting, acts in self._waiting:
            if waiting == stream_id:
                acts.append(act)
                return
        act()

    def _give_up_streams(self) -> None:
        if self._left is None:
            self._left = {stream_id: stream.backlog for stream_id, stream in self.packets.send_streams.items()}
        for stream in self.packets.send_streams.values():
            stream.give_up()

    def _last_words(self, now: float) -> list[tuple[bytes, Any]]:
        if self._farewell is None or self._has_said_it:
            return []
        self._has_said_it = True
        if self._close_at is None:
            self._close_at = now + 3 * self.pto
        packets = self.packets
        packet = packets.close_packet(self._farewell, int(now * MICROSECONDS))
        if not packet or (packets.is_confined and len(packet) > packets.path_room):
            return []
        return [(packet, self._paths.address)]

    def _adopt(self, state: HandOver) -> None:
        """Take over what was under way: streams, packets without an acknowledgement, frames not yet sent."""
        packets = self.packets
        for known in state.streams:
            if known.receiving is not None:
                receiving = known.receiving
                stream = ReceiveStream(known.stream_id, receiving.limit)
                stream.adopt(receiving.highest, receiving.final_size, receiving.arrived, receiving.early)
                packets.add_receive_stream(stream)
            if known.sending is not None:
                sending = known.sending
                sender = SendStream(known.stream_id, sending.limit)
                sender.adopt(
                    sending.acknowledged,
                    sending.data,
                    sending.sent,
                    sending.lost,
                    sending.acknowledged_beyond,
                    sending.fin_written,
                    sending.fin_pending,
                    sending.fin_acknowledged,
                )
                sender.held = sending.waits_for_limit
                packets.add_send_stream(sender)
                if sending.waits_for_limit:
                    self._waiting.append((known.stream_id, []))
            self._count_finished(known.stream_id)
        for packet in state.sent:
            self._adopt_packet(packet)
        packets.recovery.start_at(state.next_packet_number)
        for frame in state.unsent_frames:
            packets.send_control(frame)
        for stream_id, is_sending, code in state.abandoned:
            abandon = self.abandon_sending if is_sending else self.abandon_receiving
            abandon(stream_id, code)
        for sender in packets.send_streams.values():
            packets.wake(sender)

    def _adopt_packet(self, packet: SentPacket) -> None:
        """One record holds one piece of a stream; further ones are simply sent again."""
        streams = self.packets.send_streams
        pieces = [piece for piece in packet.pieces if piece.stream_id in streams]
        for piece in pieces[1:]:
            streams[piece.stream_id].lose(piece.start, piece.stop, piece.fin)
        frames = [(frame, None) for frame in packet.frames]
        time = int(packet.time * MICROSECONDS)
        if pieces:
            piece = pieces[0]
            stream = streams[piece.stream_id]
            self.packets.adopt(
                packet.number, time, packet.size, frames, stream, piece.start, piece.stop - piece.start, piece.fin
            )
        else:
            self.packets.adopt(packet.number, time, packet.size, frames, None, 0, 0, False)


def _packet_engine(state: HandOver, wanted: int | None, accept: Callable[[int], ReceiveStream | None]) -> PacketEngine:
    limit = min(wanted or DATAGRAM_MAX, state.datagram_max)
    size = limit if wanted else DATAGRAM_MIN
    suite = SUITES[state.suite]
    sealing, opening = derive(suite, state.send_secret), derive(suite, state.receive_secret)
    first_sealing, first_opening = sealing, opening
    if state.send_secret != state.first_send_secret or state.receive_secret != state.first_receive_secret:
        # Keys were updated before the hand-over; those of the headers stay (RFC 9001, section 6.1).
        first_sealing, first_opening = derive(suite, state.first_send_secret), derive(suite, state.first_receive_secret)
    recovery = Recovery(
        os.urandom(16),
        state.sent[0].number if state.sent else state.next_packet_number,
        size,
        BATCH_SIZE // size * size,
        int(state.max_ack_delay * MICROSECONDS),
        state.ack_delay_exponent,
    )
    received = PacketRanges()
    arrived = int(state.largest_received_time * MICROSECONDS)
    for start, stop in state.received:
        received.add_span(start, stop, arrived)
    if state.received:
        # Of what lies below, nobody knows any more whether it was received.
        received.forget_below(state.received[0][0])
    if state.rtt is not None:
        smoothed, variation, minimum, latest = (int(value * MICROSECONDS) for value in state.rtt)
        recovery.seed_rtt(latest, smoothed, variation, minimum, arrived)
    engine = PacketEngine(
        recovery,
        received,
        PacketKey(suite, sealing.key, sealing.iv),
        HeaderKey(suite, first_sealing.header),
        PacketKey(suite, opening.key, opening.iv),
        HeaderKey(suite, first_opening.header),
        size,
        accept,
        limit,
    )
    engine.set_peer_cid(state.peer_id.cid)
    engine.set_local_cids([local.cid for local in state.local_ids])
    engine.ack_due = state.ack_due
    engine.set_credit(state.max_data, state.data_sent, state.local_max_data, state.data_received, state.data_consumed)
    return engine


def _update_keys(packets: PacketEngine, state: HandOver, interval: int) -> None:
    suite = SUITES[state.suite]
    sealing, opening = later_keys(suite, state.send_secret), later_keys(suite, state.receive_secret)

    def make_keys() -> tuple[PacketKey, PacketKey]:
        return PacketKey(suite, *next(sealing)), PacketKey(suite, *next(opening))

    limit = CONFIDENTIALITY_LIMIT[suite] - _PACKETS_SPARE
    packets.set_key_updates(make_keys, bool(state.key_phase), interval, limit, INTEGRITY_LIMIT[suite])


_PACKETS_SPARE = 1_000
"""Packets kept back from a key's limit: those of one batch, the probes, and the close."""
