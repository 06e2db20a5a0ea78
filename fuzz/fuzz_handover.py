# Invariant: in whatever state a stream is when its connection is handed over (acknowledged, lost, under way, early,
# ended; in any mixture), both native engines go on with it: what was written arrives, once and whole, and all comes to
# rest.
"""Hand-overs of streams in every state that two sides can be in."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from spaceblock.quic.handover import ReceivingState, SendingState, SentPacket, SentPiece, Span, StreamState
from spaceblock.quic.native.engine_shell import NativeEngine

from .choices import Choices
from .native_sides import OPTIONS, Side, beginning
from .paths import Path
from .steady import steady

PIECE = 100
PIECES_MAX = 40
STREAMS_MAX = 3
STEPS_MAX = 5_000
FATES_MAX = 10
CONTENT = bytes((i * 17 + i // 256) % 256 for i in range(PIECE * PIECES_MAX))
SIZE_MAX = 200

# What became of a piece: the sender's view, and whether the receiver has it.
ACKNOWLEDGED, LOST, LOST_BUT_ARRIVED, UNDER_WAY, ARRIVED, UNSENT = range(6)


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    with steady():
        return _Transfer(choices).run()


def seeds() -> dict[str, bytes]:
    def stream(*fates: int, end: int = 0) -> bytes:
        return bytes([len(fates), *fates, end])

    return {
        "unsent": b"\0" + stream(5, 5, 5),
        "all-acknowledged": b"\0" + stream(0, 0, 0, end=2),
        "in-order": b"\1" + stream(0, 0, 3, 3, 5, 5, end=1),
        "gaps": b"\0" + stream(0, 1, 4, 2, 0, 3, 4, 5, end=3),
        "first-is-lost": b"\2" + stream(1, 4, 4, 4, end=3) + stream(3, 0, 0, end=2) + stream(2, 1, end=4),
        "nothing-but-an-end": b"\2" + stream(end=1) + stream(end=2) + stream(end=3),
        "bad-path": b"\1" + stream(0, 3, 1, 5, 5, end=2) + stream(3, 3, 3) + b"\1\1\0\2\3\4\5\1\1\1",
    }


class _Transfer:
    """Streams of the client, each with a fate for every piece, and what each side hands over of them."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.written: dict[int, int] = {}
        self.ended: set[int] = set()
        begun = beginning()
        self.sent: list[SentPacket] = []
        self._sending: list[StreamState] = []
        self._receiving: list[StreamState] = []
        self._number = begun.client.next_packet_number
        self._used = 0
        self._now = begun.now
        self._taken: dict[int, int] = {}
        count = 1 + choices.below(STREAMS_MAX)
        for at in range(count):
            self._add(4 * at + 2, [choices.below(6) for _ in range(choices.below(PIECES_MAX))], choices.below(5))
        self.client = self._side(True)
        self.server = self._side(False)

    def run(self) -> Hashable:
        path: Path[Side] = Path(self._now, 0.01)
        # Each loss in a row doubles the time to the next try, and after some the connection may give up.
        path.doom(self.choices.rest()[:FATES_MAX])
        for stream_id, taken in self._taken.items():
            self.server.received[stream_id] = CONTENT[:taken]
        for _ in range(STEPS_MAX):
            for side, other in ((self.client, self.server), (self.server, self.client)):
                for datagram in side.send(path.now):
                    path.carry(other, datagram)
            timers = [timer for side in (self.client, self.server) if (timer := side.native.get_timer()) is not None]
            at = min([*timers, *([path.due] if path.due is not None else [])])
            if path.due is None and at > path.now + OPTIONS.idle_timeout / 2:
                return self._check()
            path.now = max(path.now + 1e-6, at)
            arrived = path.arrive()
            if arrived is not None:
                arrived[0].take(arrived[1], path.now)
            for side in (self.client, self.server):
                timer = side.native.get_timer()
                if timer is not None and timer <= path.now:
                    side.native.handle_timer(path.now)
        raise AssertionError("the connection does not come to rest")

    def _check(self) -> Hashable:
        for side in (self.client, self.server):
            reason = side.native.ended()
            assert reason is None, reason
        for stream_id, size in self.written.items():
            assert self.server.received.get(stream_id, b"") == CONTENT[:size]
            assert self.client.native.backlog(stream_id) == 0
            assert self.client.native.sender_finished(stream_id) == (stream_id in self.ended)
            assert (stream_id in self.server.ended) == (stream_id in self.ended - self._ended_before)
        return len(self.written), len(self.ended), min(len(self.sent), 4)

    def _side(self, is_client: bool) -> Side:
        state = beginning().of(is_client=is_client)
        side = Side(is_client=is_client)
        used = 4 * len(self.written) + 2
        if is_client:
            state = replace(
                state,
                sent=[*state.sent, *self.sent],
                next_packet_number=self._number,
                streams=self._sending,
                next_stream_uni=used,
                data_sent=self._used,
            )
        else:
            state = replace(
                state, streams=self._receiving, streams_uni_used=len(self.written), data_received=self._arrived()
            )
            state = replace(state, data_consumed=sum(self._taken.values()))
        side.state = state
        side.engine = NativeEngine(state, OPTIONS, side._transmit)
        return side

    _ended_before: frozenset[int] = frozenset()

    def _arrived(self) -> int:
        return sum(each.receiving.highest for each in self._receiving if each.receiving is not None) + self._over

    _over = 0

    def _add(self, stream_id: int, fates: list[int], end: int) -> None:
        # Nothing is sent behind what was never sent.
        first = next((at for at, fate in enumerate(fates) if fate == UNSENT), len(fates))
        fates[first:] = [UNSENT] * (len(fates) - first)
        size, sent = PIECE * len(fates), PIECE * first
        if self._used + size > OPTIONS.connection_reserve:
            return
        # 0: no end yet; 1: written, not sent; 2: acknowledged; 3: lost; 4: under way.
        end = end if end < 2 or first == len(fates) else 1
        self.written[stream_id] = size
        if end:
            self.ended.add(stream_id)
        self._used += sent
        has = [fate in (ACKNOWLEDGED, LOST_BUT_ARRIVED, ARRIVED) for fate in fates]
        self._add_sender(stream_id, fates, end, size, sent)
        self._add_receiver(stream_id, has, end == 2, size)

    def _add_sender(self, stream_id: int, fates: list[int], end: int, size: int, sent: int) -> None:
        begins = next((at for at, fate in enumerate(fates) if fate != ACKNOWLEDGED), len(fates))
        acknowledged = PIECE * begins
        if end == 2 and acknowledged == size:
            return  # all is done, and forgotten
        for at, fate in enumerate(fates):
            if fate in (UNDER_WAY, ARRIVED):
                is_last = end == 4 and at == len(fates) - 1
                self._put(SentPiece(stream_id, PIECE * at, PIECE * (at + 1), is_last))
        if end == 4 and (not fates or fates[-1] not in (UNDER_WAY, ARRIVED)):
            self._put(SentPiece(stream_id, size, size, True))
        sending = SendingState(
            acknowledged,
            CONTENT[acknowledged:size],
            sent,
            _spans(at for at, fate in enumerate(fates) if fate in (LOST, LOST_BUT_ARRIVED)),
            _spans(at for at, fate in enumerate(fates) if fate == ACKNOWLEDGED and at >= begins),
            end > 0,
            end in (1, 3),
            end == 2,
            OPTIONS.stream_window,
            False,
        )
        self._sending.append(StreamState(stream_id, None, sending))

    def _put(self, piece: SentPiece) -> None:
        self.sent.append(SentPacket(self._number, self._now, PIECE + 40, (), (piece,)))
        self._number += 1

    def _add_receiver(self, stream_id: int, has: list[bool], ended: bool, size: int) -> None:
        arrived = next((at for at, here in enumerate(has) if not here), len(has))
        highest = max((at + 1 for at, here in enumerate(has) if here), default=0)
        self._taken[stream_id] = PIECE * arrived
        if ended and arrived == len(has):
            self._ended_before |= {stream_id}
            self._over += size
            return
        early = tuple(
            (PIECE * at, CONTENT[PIECE * at : PIECE * (at + 1)]) for at in range(arrived + 1, highest) if has[at]
        )
        top = size if ended else PIECE * highest
        receiving = ReceivingState(PIECE * arrived, top, size if ended else None, early, OPTIONS.stream_window)
        self._receiving.append(StreamState(stream_id, receiving, None))


def _spans(places: object) -> tuple[Span, ...]:
    """Ranges of offsets from places of pieces, joined where they touch."""
    spans = list[list[int]]()
    for at in places:  # type: ignore[attr-defined]
        if spans and spans[-1][1] == PIECE * at:
            spans[-1][1] += PIECE
        else:
            spans.append([PIECE * at, PIECE * (at + 1)])
    return tuple((start, stop) for start, stop in spans)
