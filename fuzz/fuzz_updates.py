# Invariant: whatever key a packet was sealed with and whatever number it has, the engine opens what its phase allows,
# ignores what does not open, or ends with KEY_UPDATE_ERROR; its own packets open with the keys of the phase whose bit
# they show, no key seals more than it may, and it never moves on twice before the peer followed.
"""Key updates, with a peer that has all keys and heeds no order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable

from link import MS, Pair, Side, keys, unseal, varint

from spaceblock.quic.native.engine import KEY_UPDATE_ERROR
from spaceblock.quic.native.protection import HeaderKey

from .choices import Choices

INTERVALS = (1, 2, 5, 40, 1_000)
PHASES_MAX = 6
STEPS_MAX = 150
SIZE_MAX = 400


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    talk = _Talk(choices)
    steps = 0
    while choices and steps < STEPS_MAX and not talk.is_over:
        steps += 1
        talk.act()
    return talk.result()


def seeds() -> dict[str, bytes]:
    write, build, answer = b"\0", b"\1", b"\2"
    following = (write + build + answer) * 12
    return {
        "its-own-updates": b"\1" + following,
        "one-packet-a-key": b"\0" + following,
        "the-peers-update": b"\4" + following[:9] + b"\3\1\0" + following,
        "two-at-once": b"\4" + b"\3\1\0" + b"\3\2\0",
        "old-keys": b"\4" + following[:6] + b"\3\1\0" + b"\4\0\3" + following[:6] + b"\4\0\1",
        "forged": b"\2" + b"\5\1\5\2\5\7" + following + b"\5\3",
        "late": b"\2" + following + b"\6\xff" + b"\4\0\1" + following + b"\6\x20",
        "acknowledged-with-an-old-key": b"\0" + following + b"\7\0" + following,
    }


class _Talk:
    def __init__(self, choices: Choices) -> None:
        interval = INTERVALS[choices.below(len(INTERVALS))]
        self.choices = choices
        self.pair = Pair(updates=interval)
        self.side: Side = self.pair.b
        self.stream = self.side.open(3)
        self.limit = 2 * interval
        self.now = self.pair.now
        self.pn = 0
        self.phase = 0  # in which the peer seals
        self.seen: list[tuple[int, int]] = []  # number and phase of what the engine sent
        self.answered = 0  # of these, how many the peer has acknowledged
        self.sealed: dict[int, int] = {}
        self.happened: set[str] = set()

    @property
    def is_over(self) -> bool:
        return self.side.engine.violation is not None or self.phase >= PHASES_MAX

    def act(self) -> None:
        acts: list[Callable[[], None]] = [
            lambda: self.side.write(self.stream, b"some data"),
            self._build,
            self._answer,
            self._packet,
            self._old_packet,
            self._forge,
            self._wait,
            self._answer_with_old_key,
        ]
        acts[self.choices.below(len(acts))]()
        self._check()

    def result(self) -> Hashable:
        violation = self.side.engine.violation
        return violation and violation[0], int(self.side.engine.phases.count), frozenset(self.happened)

    def _check(self) -> None:
        violation = self.side.engine.violation
        # A peer that numbers its packets as it likes may acknowledge what was not sent, but here it does not.
        assert violation is None or violation[0] == KEY_UPDATE_ERROR, violation

    def _build(self) -> None:
        if self.side.engine.recovery.next_number() >= self.side.engine.packets_max:
            self.happened.add("used up")
            return
        size = self.side.engine.build(self.now)
        batch = bytes(self.side.engine.batch[:size])
        for at in range(0, size, self.side.engine.datagram_size):
            self._read(batch[at : at + self.side.engine.datagram_size])

    def _read(self, datagram: bytes) -> None:
        """As an honest peer does it: in the phase of the last packet, or in the next one."""
        mask = HeaderKey(self.pair.suite, keys(b"b", 0, self.pair.suite).header).mask(datagram[13:29])
        bit = (datagram[0] ^ mask[0]) >> 2 & 1
        before = self.seen[-1][1] if self.seen else 0
        phase = before + ((before ^ bit) & 1)
        pn, _ = unseal(datagram, b"b", phase, self.pair.suite)
        assert not self.seen or pn > self.seen[-1][0]
        self.seen.append((pn, phase))
        self.sealed[phase] = self.sealed.get(phase, 0) + 1
        assert self.sealed[phase] <= self.limit + 64  # one batch is built before anybody looks
        if phase > self.phase:
            self.happened.add("moved on")

    def _answer(self) -> None:
        """Acknowledge all that came, in its phase."""
        if not self.seen:
            return
        self.phase = max(self.phase, self.seen[-1][1])
        self.answered = len(self.seen)
        self._send(self._ack(self.answered), self.phase)

    def _answer_with_old_key(self) -> None:
        if self.seen and self.phase:
            self._send(self._ack(len(self.seen)), self.phase - 1)

    def _ack(self, count: int) -> bytes:
        numbers = [pn for pn, _ in self.seen[:count]]
        spans = list[list[int]]()
        for pn in reversed(numbers):
            if spans and spans[-1][0] == pn + 1:
                spans[-1][0] = pn
            else:
                spans.append([pn, pn])
        spans = spans[:40]
        frame = b"\x02" + varint(spans[0][1]) + b"\0" + varint(len(spans) - 1) + varint(spans[0][1] - spans[0][0])
        for newer, older in itertools.pairwise(spans):
            frame += varint(newer[0] - older[1] - 2) + varint(older[1] - older[0])
        return frame

    def _packet(self) -> None:
        """A packet of this phase or one further on."""
        self.phase += self.choices.below(3)
        self._send(b"\x01", min(self.phase, PHASES_MAX), self.choices.below(3))

    def _old_packet(self) -> None:
        behind, back = self.choices.below(4), self.choices.below(8)
        pn = max(0, self.pn - 1 - back)
        self._receive(self.pair.seal(b"\x01", pn, generation=max(0, self.phase - behind)))

    def _forge(self) -> None:
        """A packet with some phase bit that nobody sealed."""
        number = self.choices.byte()
        honest = bytearray(self.pair.seal(bytes(40), self.pn + number % 5, generation=number % 4))
        honest[-1 - number % 16] ^= 1 + number % 255
        failed = int(self.side.engine.failed)
        self._receive(bytes(honest))
        assert self.side.engine.failed == failed + 1
        assert self.side.engine.violation is None

    def _send(self, payload: bytes, phase: int, ahead: int = 0) -> None:
        self.pn += ahead
        self._receive(self.pair.seal(payload, self.pn, generation=phase))
        self.pn += 1

    def _receive(self, datagram: bytes) -> None:
        count = self.side.receive(datagram, self.now)
        self.happened.add("opened" if count else "not opened")

    def _wait(self) -> None:
        self.now += self.choices.byte() * 5 * MS
        if self.side.engine.recovery.timeout() <= self.now:
            self.side.engine.on_timer(self.now)
