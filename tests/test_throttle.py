"""The limit to what is sent a second, on a clock that only the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest

import spaceblock
from spaceblock.limits import RATE_MIN
from spaceblock.transfers.throttle import Throttle


def moved(throttle: Throttle, seconds: float, portion: int, late: float = 0.0) -> int:
    """The bytes that go out in ``seconds`` by who wants to send all the time and wakes ``late`` seconds too late."""
    now, count = 100.0, 0
    stop = now + seconds
    while now < stop:
        delay = throttle.delay(now)
        if delay:
            now += delay + late
        else:
            throttle.spend(portion, now)
            count += portion
    return count


@pytest.mark.parametrize("rate", [50_000, 1_000_000, 40_000_000, 3_000_000_000])
@pytest.mark.parametrize("late", [0.0, 0.005])
def test_the_rate_holds_over_seconds(rate: int, late: float) -> None:
    throttle = Throttle(rate)
    portion = min(throttle.portion, 1_048_576)
    assert moved(throttle, 5.0, portion, late) == pytest.approx(5 * rate, rel=0.1)


def test_a_portion_is_short_enough_for_a_second_to_be_kept() -> None:
    for rate in (1_000_000, 1_000_000_000):
        assert Throttle(rate).portion <= rate / 10


def test_two_that_share_a_limit_have_it_together() -> None:
    throttle = Throttle(1_000_000)
    throttle.spend(250_000, 10.0)
    throttle.spend(250_000, 10.0)
    assert throttle.delay(10.0) == pytest.approx(0.4, abs=0.01)
    assert throttle.delay(10.5) == 0


def test_what_was_not_sent_for_a_while_is_not_saved_up() -> None:
    throttle = Throttle(1_000_000)
    throttle.spend(100_000, 10.0)
    throttle.spend(500_000, 60.0)
    assert throttle.delay(60.0) == pytest.approx(0.4, abs=0.01)


def test_a_limit_that_could_not_be_kept_is_refused() -> None:
    for bandwidth in (0, RATE_MIN - 1, float("nan")):
        with pytest.raises(spaceblock.LocalProtocolError, match="bytes a second or more"):
            spaceblock.Options(bandwidth=bandwidth)


async def test_a_limited_side_sends_in_small_portions_and_completely(inbox: Path) -> None:
    """All that is checked is that it arrives: how long it takes is the clock's affair, above."""
    data = bytes(range(256)) * 4_000
    limited = spaceblock.Options(bandwidth=20_000_000)
    async with (
        spaceblock.listen("127.0.0.1") as listener,
        spaceblock.connect(listener.ticket, options=limited) as peer,
    ):
        transfer = peer.send(spaceblock.Item(data, name="data"))
        async for offer in listener:
            await offer.accept(inbox)
            break
        receipt = await transfer
    assert receipt.bytes == len(data)
    assert (inbox / "data").read_bytes() == data
