# Invariant: two honest engines never find a fault in each other, whatever becomes of the datagrams and whatever their
# programs do: open, write, end, reset, stop, hold, ping, close. What arrives is what was written, once and in order;
# what neither side gave up arrives whole once the path is good again; nothing is left unfinished.
"""Two connections of the native engine on a path that an input makes bad."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from .choices import Choices, piece
from .native_sides import OPTIONS, Side, beginning
from .paths import Path
from .steady import steady

STEPS_MAX = 30_000
WRITTEN_MAX = 40_000
STREAMS_MAX = 12
PATIENCE = 10
"""Datagrams lost in a row after which a connection may give up, in this test's count of all that were lost."""
CONTENT = bytes((i * 31 + i // 256) % 256 for i in range(WRITTEN_MAX))


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    with steady():
        talk = _Talk(choices)
        while choices and not talk.is_over:
            talk.act()
        return talk.finish()


def seeds() -> dict[str, bytes]:
    def act(number: int, side: int, *fields: int) -> bytes:
        return bytes([number, side, *fields])

    def doom(*fates: int) -> bytes:
        return act(9, 0) + piece(bytes(fates))

    wait = act(10, 0, 60)
    stream = act(0, 0) + act(2, 0, 0, 0x20, 0)
    other = act(1, 1) + act(2, 1, 0, 0x10, 0)
    return {
        "one-stream": stream + wait + act(3, 0, 0),
        "both-ways": stream + other + wait + act(3, 0, 0) + act(3, 1, 0),
        "more-streams-than-allowed": stream * 6 + wait + b"".join(act(3, 0, i) for i in range(6)),
        "resets": stream + other + act(10, 0, 3) + act(4, 0, 0) + wait + act(5, 0, 0) + wait,
        "stops": stream + other + act(10, 0, 3) + act(5, 1, 0) + wait + act(5, 0, 0),
        "losses": doom(*[1, 0] * 20) + stream * 3 + wait + doom(*[1] * 12) + act(4, 0, 0) + act(3, 0, 1) + wait,
        "reordering": doom(3, 9, 15, 2, 21, 8) + stream * 3 + other + wait,
        "changes": doom(4, 5, 10, 11, 16, 17) + stream + wait,
        "pings": act(6, 0) + wait + act(6, 1) + doom(1) + act(6, 1) + stream + wait,
        "held": act(7, 0, 0) + act(7, 0, 0) + stream * 4 + wait + act(7, 0, 1),
        "close": stream + act(10, 0, 4) + act(8, 1) + wait,
    }


class _Talk:
    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.sides = (Side(is_client=True), Side(is_client=False))
        self.path: Path[Side] = Path(beginning().now, 0.01)
        self.written: dict[int, int] = {}
        self.ended: set[int] = set()
        self.given_up: set[int] = set()
        self.held = {(side.name, kind): 0 for side in self.sides for kind in (True, False)}
        self.is_over = False

    def act(self) -> None:
        choices = self.choices
        number = choices.below(11)
        side = self.sides[choices.below(2)]
        acts: list[Callable[[Side], None]] = [
            lambda side: self._open(side, unidirectional=True),
            lambda side: self._open(side, unidirectional=False),
            self._write,
            self._end,
            lambda side: self._give_up(side, side.native.abandon_sending),
            lambda side: self._give_up(side, side.native.abandon_receiving),
            lambda side: side.native.ping(),
            self._hold,
            self._close,
            lambda side: self.path.doom(choices.piece()[:64]),
            lambda side: self._wait(),
        ]
        acts[number](side)

    def finish(self) -> Hashable:
        self.path.doom(b"")
        if not self.is_over:
            for side in self.sides:
                for kind in (True, False):
                    for _ in range(self.held[side.name, kind]):
                        side.native.release_stream(kind)
            self._come_to_rest()
            # Streams end and make way for others, until all that were opened are done.
            for _ in range(STREAMS_MAX):
                self._end_all()
                self._come_to_rest()
            self._check_streams()
        return self.is_over, min(len(self.written), 4), min(len(self.given_up), 3), min(len(self.ended), 3)

    def go_on(self, steps: int) -> bool:
        """Let so many things happen; False when only the idle time-out is left to wait for."""
        path = self.path
        for _ in range(steps):
            for side, other in (self.sides, self.sides[::-1]):
                for datagram in side.send(path.now):
                    path.carry(other, datagram)
            timers = [timer for side in self.sides if (timer := side.native.get_timer()) is not None]
            at = min([*timers, *([path.due] if path.due is not None else [])], default=None)
            if at is None or (path.due is None and at > path.now + OPTIONS.idle_timeout / 2 and not self.is_over):
                return False
            path.now = max(path.now + 1e-6, at)
            arrived = path.arrive()
            if arrived is not None:
                side, datagram = arrived
                side.take(datagram, path.now)
            for side in self.sides:
                timer = side.native.get_timer()
                if timer is not None and timer <= path.now:
                    side.native.handle_timer(path.now)
                    side.take_events()
            self._check()
            for side in self.sides:
                for key in self.written:
                    side.native.sender_finished(key >> 1)
        return True

    def _check(self) -> None:
        for side in self.sides:
            reason = side.native.ended()
            if reason is not None and reason.timed_out and self.path.lost > PATIENCE:
                self.is_over = True  # each loss doubled the time to the next try
            if not self.is_over:
                assert reason is None, f"the {side.name}: {reason}"
            for data in side.received.values():
                # Both directions of a stream have the same content.
                assert CONTENT.startswith(data)

    def _come_to_rest(self) -> None:
        assert self.is_over or not self.go_on(STEPS_MAX), "the connection does not come to rest"

    def _end_all(self) -> None:
        for side in self.sides:
            theirs = {*side.received, *side.resets, *side.stops}
            for stream_id in theirs:
                if stream_id & 2 == 0:
                    self.written.setdefault(self._key(side, stream_id), 0)
            for key in [key for key in self.written if self._of(key)[0] is side]:
                stream_id = key >> 1
                if stream_id in self.given_up:
                    side.native.abandon_sending(stream_id, 7)
                    side.native.abandon_receiving(stream_id, 7)
                elif key not in self.ended:
                    side.native.send_stream_data(stream_id, b"", True)
                    self.ended.add(key)

    def _check_streams(self) -> None:
        if self.is_over:
            return
        for key, size in self.written.items():
            side, stream_id = self._of(key)
            other = self.sides[side is self.sides[0]]
            if stream_id in self.given_up:
                continue
            assert side.native.backlog(stream_id) == 0
            assert other.received.get(stream_id, b"") == CONTENT[:size]
            assert (stream_id in other.ended) == (key in self.ended)
            assert side.native.sender_finished(stream_id)
            assert other.native.highest_offset(stream_id) is None

    def _open(self, side: Side, *, unidirectional: bool) -> None:
        if len(self.written) < STREAMS_MAX:
            self.written[self._key(side, side.native.open_stream(unidirectional))] = 0

    def _write(self, side: Side) -> None:
        stream_id = self._pick(side)
        size = self.choices.number(2) % 20_000
        if stream_id is not None:
            key = self._key(side, stream_id)
            known = self.written[key]
            if known + size <= WRITTEN_MAX:
                side.native.send_stream_data(stream_id, CONTENT[known : known + size])
                self.written[key] += size

    def _end(self, side: Side) -> None:
        stream_id = self._pick(side)
        if stream_id is not None:
            side.native.send_stream_data(stream_id, b"", True)
            self.ended.add(self._key(side, stream_id))

    def _give_up(self, side: Side, act: Callable[[int, int], None]) -> None:
        known = sorted({key >> 1 for key in self.written})
        if known:
            stream_id = known[self.choices.byte() % len(known)]
            self.given_up.add(stream_id)
            act(stream_id, 7)

    def _hold(self, side: Side) -> None:
        kind = bool(self.choices.byte() & 1)
        if self.held[side.name, kind]:
            self.held[side.name, kind] -= 1
            side.native.release_stream(kind)
        else:
            self.held[side.name, kind] += 1
            side.native.hold_stream(kind)

    def _close(self, side: Side) -> None:
        if not self.is_over:
            self.is_over = True
            side.native.close(6, None, "enough")
            self.go_on(STEPS_MAX)
            assert all(side.native.terminated for side in self.sides)

    def _wait(self) -> None:
        self.go_on(1 + self.choices.byte())

    def _pick(self, side: Side) -> int | None:
        """A stream on which the side may still write."""
        known = [
            key >> 1
            for key in self.written
            if self._of(key)[0] is side and key not in self.ended and key >> 1 not in self.given_up
        ]
        return known[self.choices.byte() % len(known)] if known else None

    def _key(self, side: Side, stream_id: int) -> int:
        """One number for a stream and the side that writes to it."""
        return stream_id << 1 | (side is self.sides[1])

    def _of(self, key: int) -> tuple[Side, int]:
        return self.sides[key & 1], key >> 1
