"""RFC 9002, written to be read: what ``test_recovery_model.py`` holds loss detection against."""

from __future__ import annotations

from dataclasses import dataclass

from spaceblock.quic.native.congestion import Congestion
from spaceblock.quic.native.recovery import (
    ACK_ELICITING,
    ACKED,
    IN_FLIGHT,
    LATE,
    LOST,
    MTU_PROBE,
    NEVER,
    PACKET_THRESHOLD_MAX,
    TIMER_EARLY,
    TIMER_LOSS,
    TIMER_PROBE,
)

SIZE = 1_200


@dataclass
class Packet:
    pn: int
    time: int
    size: int
    flags: int

    @property
    def in_flight(self) -> bool:
        return bool(self.flags & IN_FLIGHT)

    @property
    def eliciting(self) -> bool:
        return bool(self.flags & ACK_ELICITING)


class Model:
    """RFC 9002, appendix A, with dictionaries; slow, and without a thought for the machine."""

    def __init__(self, max_ack_delay: int, exponent: int) -> None:
        self.max_ack_delay, self.exponent = max_ack_delay, exponent
        self.congestion = Congestion(SIZE)
        self.next_pn = 0
        self.waiting: dict[int, Packet] = {}
        self.acked_ever: set[int] = set()
        self.late: dict[int, tuple[int, Packet, bool]] = {}
        self.run: list[Packet] = []
        self.largest_acked = -1
        self.latest = self.least = 0
        self.smoothed, self.variation = 333_000.0, 166_500.0
        self.first_sample: int | None = None
        self.fresh_least = False
        self.pto_count = 0
        self.loss_time = NEVER
        self.packet_threshold, self.time_threshold = 3, 9
        self.calm_since = 0
        self.last_eliciting = 0
        self.acked: list[tuple[int, int, int]] = []
        self.lost: list[tuple[int, int, int]] = []

    def pto(self) -> int:
        return int(self.smoothed + max(4 * self.variation, 1_000)) + self.max_ack_delay

    def timeout(self) -> int:
        if self.loss_time != NEVER:
            return self.loss_time
        if not any(packet.eliciting for packet in self.waiting.values()):
            return NEVER
        return int(self.last_eliciting + self.pto() * 2 ** min(self.pto_count, 20))

    def pass_by(self) -> None:
        """Packets that need no acknowledgement wait for none once everything before them is settled."""
        needed = [pn for pn, packet in self.waiting.items() if packet.in_flight]
        self.waiting = {pn: packet for pn, packet in self.waiting.items() if needed and pn >= min(needed)}

    def send(self, pn: int, time: int, size: int, flags: int) -> None:
        self.pass_by()
        self.waiting[pn] = Packet(pn, time, size, flags)
        self.next_pn = pn + 1
        if flags & ACK_ELICITING:
            self.last_eliciting = time

    def acknowledge(self, numbers: set[int], now: int, delay: int) -> None:
        largest, next_pn, until = max(numbers), self.next_pn, self.congestion.recovery_until
        new = [packet for pn, packet in sorted(self.waiting.items()) if pn in numbers]
        for packet in new:
            del self.waiting[packet.pn]
            self.acked_ever.add(packet.pn)
        self.late = {pn: each for pn, each in self.late.items() if each[0] > now - self.pto()}
        late = [packet for pn, (_, packet, _) in sorted(self.late.items()) if pn in numbers]
        self.acked = [(packet.pn, packet.flags, LATE) for packet in late]
        self.acked += [(packet.pn, packet.flags, ACKED) for packet in new]
        for packet in reversed(late):
            _, _, by_time = self.late.pop(packet.pn)
            self.run = []
            self.calm_since = self.congestion.reductions
            distance = self.largest_acked - packet.pn
            if by_time:
                taken = int(8 * (now - packet.time) / max(self.smoothed, self.latest, 1_000)) + 1
                self.time_threshold = max(self.time_threshold, min(taken, 16))
            elif distance >= self.packet_threshold:
                self.packet_threshold = min(distance + 1, PACKET_THRESHOLD_MAX)
            if not packet.flags & MTU_PROBE:
                self.congestion.on_spurious(packet.pn)
        eliciting = any(packet.eliciting for packet in new)
        if eliciting and new[-1].pn == largest:
            self.congestion.on_rtt(self.sample(now - new[-1].time, delay, now))
        self.largest_acked = max(self.largest_acked, largest)
        reductions = self.congestion.reductions
        self.detect(now)
        if self.acked:
            self.pto_count = 0
            growth = sum(packet.size for packet in new if packet.in_flight and packet.pn >= until)
            if self.congestion.reductions != reductions:
                growth = 0
            self.congestion.on_acked(growth, self.largest_acked, next_pn, int(self.smoothed), now)

    def sample(self, sample: int, delay: int, now: int) -> int:
        waited = min(delay << self.exponent, self.max_ack_delay)
        self.latest = sample
        if self.first_sample is None:
            self.first_sample = now
            self.least, self.smoothed, self.variation = sample, float(sample), sample / 2
            return sample
        self.least = sample if self.fresh_least else min(self.least, sample)
        self.fresh_least = False
        adjusted = sample - waited if sample >= self.least + waited else sample
        self.variation = 3 / 4 * self.variation + 1 / 4 * abs(self.smoothed - adjusted)
        self.smoothed = 7 / 8 * self.smoothed + 1 / 8 * adjusted
        return adjusted

    def detect(self, now: int) -> None:
        self.lost = []
        self.loss_time = NEVER
        delay = max(int(max(self.smoothed, self.latest) * self.time_threshold / 8), 1_000)
        persistent = False
        for pn, packet in sorted(self.waiting.items()):
            if pn > self.largest_acked or not packet.in_flight:
                continue
            by_time = self.largest_acked - pn < self.packet_threshold
            if not by_time or packet.time <= now - delay:
                del self.waiting[pn]
                self.lost.append((pn, packet.flags, LOST))
                self.late[pn] = (now, packet, by_time)
                persistent |= self.lose(packet)
            else:
                self.loss_time = min(self.loss_time, packet.time + delay)
        self.pass_by()
        if persistent:
            self.fresh_least = True
            self.run = []
            self.congestion.on_persistent()
        if self.congestion.reductions - self.calm_since >= 16:
            self.packet_threshold, self.time_threshold, self.calm_since = 3, 9, self.congestion.reductions

    def lose(self, packet: Packet) -> bool:
        if packet.flags & MTU_PROBE:
            return False
        self.congestion.on_lost(packet.pn, self.next_pn)
        if not packet.eliciting or self.first_sample is None or packet.time <= self.first_sample:
            return False
        self.run = [p for p in self.run if not any(p.pn < pn < packet.pn for pn in self.acked_ever)] + [packet]
        return packet.time - self.run[0].time > 3 * self.pto()

    def on_timer(self, now: int) -> int:
        self.acked, self.lost = [], []
        if now < self.timeout():
            return TIMER_EARLY
        if self.loss_time != NEVER:
            self.detect(now)
            return TIMER_LOSS
        self.pto_count += 1
        return TIMER_PROBE
