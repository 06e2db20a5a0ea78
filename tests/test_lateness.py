"""What a transfer's time limit counts: time in which nothing moved, and none in which this program did not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from spaceblock.errors import SpaceblockError, Stalled, TransferCancelled
from spaceblock.events import Receipt
from spaceblock.limits import HEARTBEAT
from spaceblock.transfers import transfer
from spaceblock.transfers.transfer import Current, Job

LIMIT = 45.0


class Quiet(Job):
    """A transfer of which nothing is heard."""

    def __init__(self) -> None:
        super().__init__(30.0)
        self.stall: Stalled | None = None
        self.over = asyncio.get_running_loop().create_future()

    async def run(self) -> Receipt:
        await self.over
        raise TransferCancelled("the test is over")

    def limit(self) -> float:
        return LIMIT

    def figures(self) -> tuple[int, int | None, int, int, int, int, Current | None]:
        return 0, None, 0, 0, 0, 0, None

    @property
    def resumed(self) -> int:
        return 0

    def stalled(self, error: Stalled) -> None:
        self.stall = error

    def fail(self, error: SpaceblockError) -> None:
        raise AssertionError("nothing fails beside it")

    def cancel_attempt(self) -> None:
        raise AssertionError("nobody cancels it")

    def connection_lost(self, error: SpaceblockError) -> None:
        raise AssertionError("it has no connection to lose")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(transfer, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@asynccontextmanager
async def quiet() -> AsyncIterator[Quiet]:
    job = Quiet()
    job.start()
    assert job._ticker is not None
    job._ticker.cancel()  # the clock says when to look
    try:
        yield job
    finally:
        job.over.set_result(None)
        await job.finished.wait()


def pass_time(job: Quiet, clock: Clock, seconds: float) -> None:
    """Let time pass while this program runs."""
    for _ in range(round(seconds / HEARTBEAT)):
        look(job, clock, HEARTBEAT)


def look(job: Quiet, clock: Clock, later: float) -> None:
    clock.now += later
    job._tick()
    assert job._ticker is not None
    job._ticker.cancel()


async def test_a_quiet_transfer_is_given_up_after_its_limit(clock: Clock) -> None:
    async with quiet() as job:
        pass_time(job, clock, LIMIT)
        assert job.stall is None
        pass_time(job, clock, 1)
        assert job.stall is not None


async def test_time_in_which_the_program_was_stopped_does_not_count(clock: Clock) -> None:
    async with quiet() as job:
        pass_time(job, clock, LIMIT - 1)
        for _ in range(3):
            look(job, clock, 10 * LIMIT)
        assert job.stall is None
        pass_time(job, clock, 3)
        assert job.stall is not None


async def test_a_program_that_is_stopped_again_and_again_still_gives_up(clock: Clock) -> None:
    async with quiet() as job:
        for _ in range(round(LIMIT / HEARTBEAT) + 1):
            look(job, clock, 100)
        assert job.stall is not None


async def test_a_little_lateness_counts(clock: Clock) -> None:
    async with quiet() as job:
        for _ in range(round(LIMIT)):
            look(job, clock, 1.1)
        assert job.stall is not None
