"""Key updates in both roles (RFC 9001, section 6): followed, begun, kept apart, and refused where a rule is broken."""

from __future__ import annotations

import random
from typing import Any

import pytest
from link import SIZE, Link, Pair, unseal

from spaceblock.quic.native.keys import Suite
from spaceblock.quic.native.protection import backends

KEY_UPDATE_ERROR = 0x0E
AEAD_LIMIT_REACHED = 0x0F
PING = b"\x01\x00\x00\x00"
FAR = 1 << 30

CIPHERS = [(suite, backend) for suite in Suite for backend in backends()]
ciphers = pytest.mark.parametrize(("suite", "backend"), CIPHERS, ids=lambda value: str(getattr(value, "name", value)))


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def take(pair: Pair, pn: int, generation: int, payload: bytes = PING, now: int = 0, **options: Any) -> int:
    """One packet of ``a`` for ``b``; returns how many were taken."""
    return pair.b.receive(pair.seal(payload, pn, generation=generation, **options), pair.now + now)


def code_of(pair: Pair) -> int | None:
    violation = pair.b.engine.violation
    return None if violation is None else violation[0]


def old_keys_last(pair: Pair) -> int:
    return 3 * pair.b.engine.recovery.pto()


# ---- Transfers ----


@pytest.mark.parametrize(
    "faults",
    [{}, {"loss": 0.05}, {"reordering": 0.3}, {"loss": 0.05, "duplication": 0.1, "reordering": 0.3}],
    ids=lambda faults: "+".join(faults) or "clean",
)
def test_thousands_of_updates(faults: dict[str, float]) -> None:
    """Credit for a few packets makes for many round trips, and each has its update."""
    pair = Pair(Link(seed=7, **faults), window=4 * SIZE, updates=2)  # type: ignore[arg-type]
    sent: list[dict[int, bytes]] = [{}, {}]
    for which, side in enumerate((pair.a, pair.b)):
        stream_id = 2 + which
        sent[which][stream_id] = data_of(5_000_000, stream_id)
        side.write(side.open(stream_id), sent[which][stream_id], fin=True)
    pair.run()
    assert (pair.b.received, pair.a.received) == tuple(sent)
    for side in (pair.a, pair.b):
        assert side.engine.violation is None
        assert side.engine.phases.count > 1_000
    assert abs(pair.a.engine.phases.count - pair.b.engine.phases.count) <= 1


@ciphers
def test_every_cipher(suite: Suite, backend: str) -> None:
    pair = Pair(Link(seed=3, loss=0.02, reordering=0.1), updates=20, suite=suite, backend=backend)
    data = data_of(500_000)
    pair.a.write(pair.a.open(2), data, fin=True)
    pair.run()
    assert pair.b.received == {2: data}
    assert pair.b.engine.phases.count == pair.a.engine.phases.count > 5


def test_without_faults_every_packet_opens() -> None:
    pair = Pair(updates=10)
    for side, stream_id in ((pair.a, 2), (pair.b, 3)):
        side.write(side.open(stream_id), data_of(1_000_000), fin=True)
    pair.run()
    assert pair.a.engine.phases.count > 5
    assert (pair.a.engine.failed, pair.b.engine.failed) == (0, 0)
    assert (pair.a.engine.recovery.lost_total, pair.b.engine.recovery.lost_total) == (0, 0)


def test_the_interval_that_is_asked_for() -> None:
    pair = Pair(updates=1_000, window=20 * SIZE)
    pair.a.write(pair.a.open(2), data_of(6_000_000), fin=True)
    pair.run()
    assert pair.b.received == {2: data_of(6_000_000)}
    packets = pair.a.engine.recovery.next_number()
    assert packets // 1_100 <= pair.a.engine.phases.count <= packets // 1_000


# ---- The peer's update ----


@ciphers
def test_an_update_is_followed_in_both_directions(suite: Suite, backend: str) -> None:
    pair = Pair(suite=suite, backend=backend)
    assert take(pair, 0, 0) == 1
    assert unseal(pair.b.build(pair.now)[0], b"b", 0, suite)
    for generation in range(1, 9):
        assert take(pair, generation, generation) == 1
        assert pair.b.engine.phases.count == generation
        assert unseal(pair.b.build(pair.now)[0], b"b", generation, suite)
    assert pair.b.engine.failed == 0


def test_a_forged_phase_bit_changes_nothing() -> None:
    pair = Pair()
    assert take(pair, 0, 0) == 1
    made = pair.b.keys_made
    for pn in range(1, 500):
        assert take(pair, pn, 0, first=0x44) == 0
    assert (pair.b.keys_made, pair.b.engine.phases.count, pair.b.engine.violation) == (made, 0, None)
    assert pair.b.engine.failed == 499
    assert take(pair, 1, 0) == 1
    assert take(pair, 2, 1) == 1


def test_forged_phase_bits_after_an_update() -> None:
    pair = Pair()
    assert take(pair, 10, 0) == 1
    assert take(pair, 20, 1) == 1
    pair.b.build(pair.now)
    made = pair.b.keys_made
    for pn in range(100):
        assert take(pair, pn, 1, first=0x44) == 0
        assert take(pair, pn, 0, first=0x44) == 0
    assert (pair.b.keys_made, pair.b.engine.phases.count, pair.b.engine.violation) == (made, 1, None)
    assert pair.b.engine.failed == 200
    assert take(pair, 100, 2) == 1


def test_packets_that_were_held_up_open_with_the_old_key() -> None:
    pair = Pair()
    assert take(pair, 0, 0) == 1
    assert take(pair, 9, 1) == 1
    assert [take(pair, pn, 0) for pn in range(1, 9)] == [1] * 8
    assert (pair.b.engine.phases.count, pair.b.engine.violation) == (1, None)


def test_the_old_key_goes_after_three_probe_time_outs() -> None:
    pair = Pair()
    assert take(pair, 9, 1) == 1
    last = old_keys_last(pair)
    assert take(pair, 1, 0, now=last - 1) == 1
    assert take(pair, 2, 0, now=last) == 0
    assert take(pair, 10, 1, now=last) == 1
    assert (pair.b.engine.failed, pair.b.engine.violation) == (1, None)


def test_later_packets_do_not_make_the_old_key_last() -> None:
    pair = Pair()
    assert take(pair, 9, 1) == 1
    last = old_keys_last(pair)
    assert take(pair, 10, 1, now=last - 1) == 1
    assert take(pair, 8, 1, now=last - 1) == 1
    assert take(pair, 2, 0, now=last) == 0


def test_many_updates_within_the_time_of_an_old_key() -> None:
    """The phase before is kept, the one before that is not."""
    pair = Pair()
    for generation in range(1, 6):
        assert take(pair, 10 * generation, generation) == 1
        pair.b.build(pair.now)
    assert take(pair, 49, 4) == 1
    assert take(pair, 39, 3) == 0
    assert take(pair, 29, 2) == 0
    assert (pair.b.engine.phases.count, pair.b.engine.violation, pair.b.engine.failed) == (5, None, 2)


def test_an_update_in_the_midst_of_one_buffer() -> None:
    pair = Pair()
    packets = [pair.seal(PING, pn, generation=int(pn >= 30)) for pn in range(100)]
    assert pair.b.receive(b"".join(packets), pair.now, segment=len(packets[0])) == 100
    assert (pair.b.engine.phases.count, pair.b.engine.failed) == (1, 0)


@pytest.mark.parametrize("pn", [21, 25, 31, FAR])
def test_an_old_key_behind_a_newer_one(pn: int) -> None:
    pair = Pair()
    for number, generation in ((0, 0), (20, 1), (30, 1)):
        assert take(pair, number, generation) == 1
    pair.b.build(pair.now)
    take(pair, pn, 0)
    assert code_of(pair) == KEY_UPDATE_ERROR
    assert take(pair, 32, 1) == 0


def test_the_lowest_number_of_a_phase_counts() -> None:
    pair = Pair()
    for number, generation in ((0, 0), (20, 1), (10, 1)):
        assert take(pair, number, generation) == 1
    assert take(pair, 9, 0) == 1
    assert code_of(pair) is None
    take(pair, 11, 0)
    assert code_of(pair) == KEY_UPDATE_ERROR


def test_a_new_key_before_an_older_one() -> None:
    pair = Pair()
    assert take(pair, 10, 0) == 1
    take(pair, 9, 1)
    assert code_of(pair) == KEY_UPDATE_ERROR
    assert pair.b.engine.phases.count == 0


def test_a_second_update_before_the_first_was_acknowledged() -> None:
    pair = Pair()
    assert take(pair, 0, 0) == 1
    assert take(pair, 1, 1) == 1
    take(pair, 2, 2)
    assert code_of(pair) == KEY_UPDATE_ERROR


def test_an_acknowledgement_of_the_phase_before_is_none_of_this_one() -> None:
    pair = Pair()
    assert take(pair, 0, 0) == 1
    pair.b.engine.send_control(b"\x01")
    pair.b.build(pair.now)
    assert take(pair, 1, 1, b"\x00" * 4) == 1  # it asks for no acknowledgement
    pair.b.engine.send_control(b"\x01")
    assert unseal(pair.b.build(pair.now)[0], b"b", 1)[1] == b"\x01"
    take(pair, 2, 2)
    assert code_of(pair) == KEY_UPDATE_ERROR


def test_the_next_data_acknowledges_an_update_that_asks_for_nothing() -> None:
    pair = Pair()
    pair.b.write(pair.b.open(3), data_of(1_000_000))
    last = unseal(pair.b.build(pair.now)[-1], b"b")[0]
    acknowledgement = b"\x02" + bytes([last, 0, 0, last])
    assert take(pair, 1, 1, acknowledgement) == 1
    sent = [unseal(datagram, b"b", 1)[1] for datagram in pair.b.build(pair.now)]
    assert [payload[0] == 0x02 for payload in sent] == [True] + [False] * (len(sent) - 1)
    assert len(sent[0]) == len(sent[1])
    assert take(pair, 2, 2) == 1
    assert code_of(pair) is None


def test_a_new_key_acknowledged_with_an_old_one() -> None:
    pair = Pair()
    pair.b.engine.send_control(b"\x01")
    pair.b.build(pair.now)
    assert take(pair, 5, 1) == 1
    pair.b.engine.send_control(b"\x01")
    pn, _ = unseal(pair.b.build(pair.now)[0], b"b", 1)
    assert take(pair, 1, 0, b"\x02\x00\x00\x00\x00") == 1
    assert code_of(pair) is None
    take(pair, 2, 0, b"\x02" + bytes([pn]) + b"\x00\x00\x00")
    assert code_of(pair) == KEY_UPDATE_ERROR


def test_a_violation_is_told_though_no_packet_was_taken() -> None:
    pair = Pair()
    assert take(pair, 10, 0) == 1
    taken = pair.b.engine.opened
    assert take(pair, 9, 1) == 1
    assert code_of(pair) == KEY_UPDATE_ERROR
    assert pair.b.engine.opened == taken
    assert take(pair, 11, 1) == 0


# ---- Our own ----


def ping(pair: Pair) -> bytes:
    pair.b.engine.send_control(b"\x01")
    (datagram,) = pair.b.build(pair.now)
    return datagram


def acknowledge(pair: Pair, datagram: bytes, generation: int, pn: int, with_generation: int | None = None) -> None:
    number, _ = unseal(datagram, b"b", generation)
    frame = b"\x02" + (number | 0x4000).to_bytes(2, "big") + b"\x00\x00\x00"
    assert take(pair, pn, generation if with_generation is None else with_generation, frame) == 1
    assert code_of(pair) is None


def test_no_update_before_a_packet_of_the_present_phase_was_acknowledged() -> None:
    pair = Pair(updates=5)
    first = [ping(pair) for _ in range(20)]
    assert pair.b.engine.phases.count == 0
    acknowledge(pair, first[-1], 0, pn=0)
    second = [ping(pair) for _ in range(20)]
    assert pair.b.engine.phases.count == 1
    # What is acknowledged late is of the phase before.
    acknowledge(pair, first[-2], 0, pn=1)
    third = [ping(pair) for _ in range(20)]
    assert pair.b.engine.phases.count == 1
    acknowledge(pair, third[0], 1, pn=2)
    ping(pair)
    assert pair.b.engine.phases.count == 2
    assert unseal(second[0], b"b", 1)


def test_until_the_peer_follows_its_packets_are_of_the_old_phase() -> None:
    pair = Pair(updates=1)
    acknowledge(pair, ping(pair), 0, pn=0)
    update = ping(pair)
    assert pair.b.engine.phases.count == 1
    later = 100 * old_keys_last(pair)
    assert take(pair, 1, 0, now=later) == 1
    assert take(pair, 2, 0, now=later) == 1
    assert take(pair, 4, 1, now=later) == 1
    assert take(pair, 3, 0, now=later + old_keys_last(pair) - 1) == 1
    assert unseal(update, b"b", 1)
    assert pair.b.engine.failed == 0


def test_both_update_at_once() -> None:
    pair = Pair(updates=4)
    for side in (pair.a, pair.b):
        side.engine.send_control(b"\x01")
    pair.run()
    while pair.a.engine.phases.count == 0:
        for side in (pair.a, pair.b):
            side.engine.send_control(b"\x01")
        pair.run()
    assert (pair.a.engine.phases.count, pair.b.engine.phases.count) == (1, 1)
    assert (pair.a.engine.failed, pair.b.engine.failed) == (0, 0)


# ---- Limits ----


def test_the_last_number_of_a_key_moves_with_each_update() -> None:
    pair = Pair(updates=100)
    limit = 200
    assert pair.b.engine.packets_max == limit
    assert take(pair, 0, 1) == 1
    assert pair.b.engine.packets_max == limit + pair.b.engine.recovery.next_number()


def test_too_many_packets_that_do_not_open() -> None:
    pair = Pair()
    pair.b.engine.set_key_updates(pair.b.make_keys, False, 1 << 22, 1 << 23, 5)
    for pn in range(4):
        assert take(pair, pn, 0) == 1
        broken = bytearray(pair.seal(PING, pn))
        broken[-1] ^= 1
        assert pair.b.receive(bytes(broken), pair.now) == 0
        # An update does not begin the count anew.
    assert take(pair, 10, 0) == 1
    assert code_of(pair) is None
    # A packet that breaks the connection is told of, though it is none.
    assert take(pair, 11, 0, first=0x44) == 1
    assert code_of(pair) == AEAD_LIMIT_REACHED
    assert take(pair, 12, 0) == 0
