"""The size of datagrams: found by probes, and given up when large ones vanish (RFC 8899; RFC 9000, section 14)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link import MS, Link, Pair

from spaceblock.quic.native.mtu import DATAGRAM_BASE, DATAGRAM_TOP, PathMtu

SECOND = 1_000_000
WIDE = 1 << 20
DATA = random.Random(1).randbytes(900_000)
LONG = DATA * 20
"""Some sixty round trips: as many as the longest search takes."""

ETHERNET = 1_472
JUMBO = 8_972


def search(mtu: PathMtu, carries: int, now: int = 0, window: int = WIDE) -> list[int]:
    """Send every probe that is due over a path that carries so much; returns their sizes."""
    sizes = []
    while size := mtu.due(window, now):
        sizes.append(size)
        assert mtu.size < size <= min(mtu.limit, window // 2)
        assert size < mtu.failed
        mtu.on_probe_sent(size)
        assert mtu.due(window, now) == 0, "one at a time"
        if size <= carries:
            assert mtu.on_probe_acked(size)
        else:
            mtu.on_probe_lost(size)
        assert len(sizes) < 100
    return sizes


def pair_of(link: Link, limit: int = DATAGRAM_TOP, size: int = DATAGRAM_BASE, window: int = 300_000) -> Pair:
    """Two engines whose datagrams may grow up to ``limit``."""
    return Pair(link, size=size, window=window, limit=limit)


def move(pair: Pair, data: bytes = DATA) -> None:
    stream = pair.a.open(2)
    for at in range(0, len(data), 60_000):
        stream.write(data[at : at + 60_000])
    pair.a.write(stream, b"", fin=True)
    pair.run()
    assert pair.b.received == {2: data}
    assert pair.b.ended == {2}


# ---- The search ----


@pytest.mark.parametrize(("size", "limit"), [(1_199, 1_500), (1_200, 1_199), (1_200, 65_508), (1_500, 1_400)])
def test_sizes_that_are_not_possible(size: int, limit: int) -> None:
    with pytest.raises(ValueError, match="pass 1200 to 65507"):
        PathMtu(size, limit)


def test_the_local_network_is_tried_first_and_is_enough() -> None:
    mtu = PathMtu(DATAGRAM_BASE, ETHERNET)
    assert search(mtu, ETHERNET) == [ETHERNET]
    assert mtu.size == ETHERNET
    assert mtu.due(WIDE, 10_000 * SECOND) == 0


@pytest.mark.parametrize("carries", [1_200, 1_232, 1_372, 1_444, 1_452, 1_472, 2_000, 4_304, 8_952, 16_336, 65_488])
def test_sizes_that_networks_have_are_found(carries: int) -> None:
    mtu = PathMtu(DATAGRAM_BASE, DATAGRAM_TOP)
    search(mtu, carries)
    assert mtu.size == carries


@given(st.integers(DATAGRAM_BASE, DATAGRAM_TOP), st.integers(DATAGRAM_BASE, DATAGRAM_TOP))
def test_any_size_is_found(limit: int, carries: int) -> None:
    mtu = PathMtu(DATAGRAM_BASE, limit)
    sizes = search(mtu, carries)
    best = min(carries, limit)
    assert best - 16 <= mtu.size <= best
    assert len(sizes) <= 60


def test_a_size_fails_when_three_probes_were_lost() -> None:
    mtu = PathMtu(DATAGRAM_BASE, JUMBO)
    for _ in range(2):
        mtu.on_probe_sent(mtu.due(WIDE, 0))
        mtu.on_probe_lost(JUMBO)
        assert mtu.failed == JUMBO + 1
    assert search(mtu, JUMBO) == [JUMBO]


def test_a_small_window_takes_small_probes() -> None:
    mtu = PathMtu(DATAGRAM_BASE, DATAGRAM_TOP)
    assert mtu.due(2_000, 0) == 0
    assert mtu.due(12_000, 0) <= 6_000
    search(mtu, DATAGRAM_TOP, window=12_000)
    assert 4_304 <= mtu.size <= 6_000
    assert search(mtu, DATAGRAM_TOP, window=150_000) == [DATAGRAM_TOP]


def test_a_path_may_change_for_the_better_later() -> None:
    mtu = PathMtu(DATAGRAM_BASE, JUMBO)
    search(mtu, ETHERNET)
    assert mtu.size == ETHERNET
    assert mtu.due(WIDE, 599 * SECOND) == 0
    assert search(mtu, JUMBO, 601 * SECOND) == [JUMBO]
    assert mtu.size == JUMBO


def test_a_probe_that_arrives_late_counts() -> None:
    mtu = PathMtu(DATAGRAM_BASE, ETHERNET)
    for _ in range(3):
        mtu.on_probe_sent(mtu.due(WIDE, 0))
        mtu.on_probe_lost(ETHERNET)
    assert mtu.failed == ETHERNET
    assert mtu.on_probe_acked(ETHERNET)
    assert (mtu.size, mtu.failed) == (ETHERNET, ETHERNET + 1)


def test_what_the_system_refuses_is_not_tried_again() -> None:
    mtu = PathMtu(DATAGRAM_BASE, DATAGRAM_TOP)
    size = mtu.due(WIDE, 0)
    mtu.on_probe_sent(size)
    assert not mtu.on_refused(size, 0)
    mtu.on_probe_lost(size)
    assert mtu.failed == size
    assert DATAGRAM_BASE < mtu.due(WIDE, 0) < size


# ---- Black holes ----


def test_lost_datagrams_of_the_present_size_are_a_black_hole_only_where_none_arrives() -> None:
    mtu = PathMtu(ETHERNET, ETHERNET)
    for _ in range(10):
        assert not mtu.on_outcome(False, True, 0)
        assert not mtu.on_outcome(False, True, 0)
        assert not mtu.on_outcome(True, True, 0)
    assert not mtu.on_outcome(False, True, 0)
    assert not mtu.on_outcome(False, False, 0)
    assert not mtu.on_outcome(False, True, 0)
    assert mtu.on_outcome(False, True, 0)
    assert (mtu.size, mtu.black_holes) == (DATAGRAM_BASE, 1)


def test_after_an_outage_the_former_size_is_back_at_once() -> None:
    mtu = PathMtu(JUMBO, DATAGRAM_TOP)
    assert mtu.fall_back(0)
    assert mtu.size == DATAGRAM_BASE
    assert search(mtu, JUMBO)[0] == JUMBO
    assert mtu.size == JUMBO


def test_a_path_that_shrank_is_measured_anew() -> None:
    mtu = PathMtu(JUMBO, JUMBO)
    mtu.fall_back(0)
    assert search(mtu, 1_372)[:3] == [JUMBO] * 3
    assert mtu.size == 1_372


def test_black_holes_in_a_row_are_left_alone_for_a_while() -> None:
    """A path that carries single probes, and no trains of that size."""
    mtu = PathMtu(DATAGRAM_BASE, ETHERNET)
    search(mtu, ETHERNET)
    assert mtu.fall_back(SECOND)
    assert search(mtu, ETHERNET, SECOND) == [ETHERNET]
    assert mtu.fall_back(2 * SECOND)
    assert search(mtu, ETHERNET, 61 * SECOND) == []
    assert search(mtu, ETHERNET, 63 * SECOND) == [ETHERNET]


def test_there_is_nothing_below_the_base() -> None:
    mtu = PathMtu(DATAGRAM_BASE, ETHERNET)
    assert not mtu.fall_back(0)
    assert not mtu.on_refused(DATAGRAM_BASE, 0)
    assert (mtu.size, mtu.black_holes) == (DATAGRAM_BASE, 0)


# ---- Whole transfers ----


@pytest.mark.parametrize("carries", [1_200, 1_300, 1_372, 1_452, ETHERNET, JUMBO, DATAGRAM_TOP])
@pytest.mark.parametrize("limit", [ETHERNET, JUMBO, DATAGRAM_TOP])
def test_a_transfer_finds_what_its_path_carries(carries: int, limit: int) -> None:
    pair = pair_of(Link(drop=lambda datagram: len(datagram) > carries), limit)
    move(pair, LONG)
    best = min(carries, limit)
    assert best - 16 <= pair.a.engine.datagram_size <= best
    assert pair.a.engine.recovery.congestion.reductions == 0, "a lost probe is no congestion"
    assert pair.a.engine.mtu.black_holes == 0


def test_a_fixed_size_is_never_probed() -> None:
    link = Link(drop=lambda datagram: len(datagram) > 1_452)
    pair = pair_of(link, limit=1_452, size=1_452)
    move(pair)
    assert pair.a.engine.datagram_size == 1_452
    assert pair.a.engine.recovery.lost_total == 0


def test_a_few_bytes_are_not_worth_a_probe() -> None:
    pair = pair_of(Link(drop=lambda datagram: len(datagram) > DATAGRAM_BASE))
    move(pair, b"hello")
    assert (pair.a.engine.mtu.probing, pair.a.engine.recovery.lost_total) == (0, 0)


@pytest.mark.parametrize("faults", [{"loss": 0.03}, {"reordering": 0.3}, {"duplication": 0.3}])
def test_a_bad_path_is_measured_all_the_same(faults: dict[str, float]) -> None:
    link = Link(seed=5, drop=lambda datagram: len(datagram) > ETHERNET, **faults)  # type: ignore[arg-type]
    pair = pair_of(link, JUMBO)
    move(pair, LONG)
    assert ETHERNET - 16 <= pair.a.engine.datagram_size <= ETHERNET


@pytest.mark.parametrize("carries", [1_200, 1_300, 1_472])
@pytest.mark.parametrize("size", [1_500, JUMBO, DATAGRAM_TOP])
def test_a_path_that_shrinks_is_followed(carries: int, size: int) -> None:
    link = Link()
    link.drop = lambda datagram: link.sent > 60 and len(datagram) > carries
    pair = pair_of(link, size, size)
    move(pair, LONG)
    assert carries - 16 <= pair.a.engine.datagram_size <= carries
    assert pair.a.engine.mtu.black_holes > 0


def test_a_path_that_shrinks_while_small_packets_pass_is_followed() -> None:
    """Acknowledgements come all the time, so that no probe time-out tells."""
    link = Link()
    link.drop = lambda datagram: link.sent > 60 and len(datagram) > 1_300
    pair = pair_of(link, 1_452, 1_452)
    pings = iter(range(3_000))

    def ping() -> None:
        if pair.a.engine.waiting < 2 and next(pings, None) is not None:
            pair.a.engine.send_control(b"\x01")

    pair.after = ping
    move(pair)
    assert pair.a.engine.datagram_size in range(1_284, 1_301)


def test_an_outage_costs_no_size() -> None:
    link = Link()
    since: list[int] = []

    def drop(datagram: bytes) -> bool:
        if link.sent == 300:
            since.append(pair.now)
        return bool(since) and pair.now < since[0] + 3 * SECOND

    link.drop = drop
    pair = pair_of(link, ETHERNET)
    move(pair)
    assert since
    assert pair.a.engine.mtu.black_holes == 1
    assert pair.a.engine.datagram_size == ETHERNET


def test_another_path_is_measured_anew() -> None:
    link = Link()
    pair = pair_of(link, JUMBO)
    move(pair)
    assert pair.a.engine.datagram_size == JUMBO
    pair.a.engine.reset_path()
    assert pair.a.engine.datagram_size == DATAGRAM_BASE
    pair.a.engine.limit_datagrams(ETHERNET)
    stream = pair.a.open(6)
    pair.a.write(stream, DATA, fin=True)
    pair.run()
    assert pair.b.received[6] == DATA
    assert pair.a.engine.datagram_size == ETHERNET
    assert pair.a.engine.recovery.congestion.datagram_size == ETHERNET


@pytest.mark.parametrize("limit", [0, 900, 1_200])
def test_the_limit_is_never_below_what_every_path_carries(limit: int) -> None:
    engine = pair_of(Link(), JUMBO).a.engine
    engine.limit_datagrams(limit)
    assert (engine.datagram_size, engine.mtu.limit) == (DATAGRAM_BASE, DATAGRAM_BASE)


def test_a_limit_bounds_a_fixed_size() -> None:
    engine = pair_of(Link(), JUMBO, JUMBO).a.engine
    engine.limit_datagrams(ETHERNET)
    assert (engine.datagram_size, engine.mtu.limit) == (ETHERNET, ETHERNET)
    engine.limit_datagrams(DATAGRAM_TOP)
    assert (engine.datagram_size, engine.mtu.limit) == (JUMBO, JUMBO)


def test_probes_wait_for_room_in_the_window() -> None:
    """Nothing ever goes beyond the window but what a probe time-out sends."""
    pair = pair_of(Link(drop=lambda datagram: len(datagram) > ETHERNET), DATAGRAM_TOP)
    recovery = pair.a.engine.recovery

    def check() -> None:
        assert recovery.probes or recovery.bytes_in_flight <= recovery.congestion.window

    pair.after = check
    move(pair)
    assert pair.now > 10 * MS
