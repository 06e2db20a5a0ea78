"""Progress shown where a program wants it: functions, bars of tqdm and of rich, the real ones."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress
from tqdm import tqdm

import spaceblock
from spaceblock.transfers.following import follow, follower

SIZE = 3_000_000


@asynccontextmanager
async def offered(progress: Any = None) -> AsyncIterator[tuple[spaceblock.Transfer, spaceblock.Offer]]:
    """A transfer under way that shows its progress, and the offer that it is on the other side."""
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(spaceblock.Item(bytes(SIZE), name="zeros.bin"), progress=progress)
        yield sending, await anext(aiter(listener))


async def figures(phase: spaceblock.Phase, *done: int, name: str = "zeros.bin") -> AsyncIterator[spaceblock.Progress]:
    """Looks at one transfer of 100 bytes, the last when it is over."""
    for count in done[:-1]:
        yield spaceblock.Progress(phase, count, 100, 0.0, None, 0, 0, 0, 1, name)
    yield spaceblock.Progress(spaceblock.Phase.DONE, done[-1], 100, 0.0, None, 0, 0, 1, 1, None)


async def test_a_function_is_called_on_the_loop_and_sees_the_end_before_the_receipt() -> None:
    loop = asyncio.get_running_loop()
    sent: list[spaceblock.Progress] = []
    received: list[spaceblock.Progress] = []

    def note(seen: list[spaceblock.Progress], progress: spaceblock.Progress) -> None:
        assert asyncio.get_running_loop() is loop
        seen.append(progress)

    async with offered(partial(note, sent)) as (sending, offer):
        await offer.accept(into=[bytearray(SIZE)], progress=partial(note, received))
        assert received[-1].phase is spaceblock.Phase.DONE
        await sending
    for seen in (sent, received):
        assert [progress.phase for progress in seen].count(spaceblock.Phase.DONE) == 1
        assert seen[-1].bytes_done == seen[-1].bytes_total == SIZE


async def test_a_coroutine_function_is_awaited() -> None:
    seen = []

    async def note(progress: spaceblock.Progress) -> None:
        await asyncio.sleep(0)
        seen.append(progress.phase)

    async with offered(note) as (sending, offer):
        await asyncio.gather(sending, offer.accept(into=[bytearray(SIZE)]))
    assert seen[-1] is spaceblock.Phase.DONE


async def test_a_coroutine_function_that_takes_its_time_sees_the_end_too() -> None:
    seen = []
    is_over = asyncio.Event()

    async def note(progress: spaceblock.Progress) -> None:
        seen.append(progress.phase)
        await is_over.wait()

    async with offered(note) as (sending, offer):
        await offer.accept(into=[bytearray(SIZE)])
        await sending._job.finished.wait()
        is_over.set()
        await sending
    assert seen[0] is not spaceblock.Phase.DONE
    assert seen[-1] is spaceblock.Phase.DONE


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_what_a_function_raises_cancels_the_transfer_and_is_raised_by_awaiting_it(side: str) -> None:
    def stop(progress: spaceblock.Progress) -> None:
        raise LookupError("enough")

    async with offered(stop if side == "sender" else None) as (sending, offer):
        receiving = offer.accept(into=[bytearray(SIZE)], progress=stop if side == "receiver" else None)
        mine, theirs = (sending, receiving) if side == "sender" else (receiving, sending)
        with pytest.raises(LookupError, match="enough"):
            await mine
        with pytest.raises(spaceblock.TransferCancelled) as caught:
            await theirs
        assert caught.value.remote
        with pytest.raises(LookupError, match="enough"):
            await mine


async def test_a_function_that_waits_for_something_cancelled_cancels_the_transfer_and_nobody_else() -> None:
    async def stop(progress: spaceblock.Progress) -> None:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    async with offered(stop) as (sending, offer):
        receiving = offer.accept(into=[bytearray(SIZE)])
        for end in (sending, receiving, sending):
            with pytest.raises(spaceblock.TransferCancelled) as caught:
                await end
            assert caught.value.remote is (end is receiving)


async def test_a_bar_made_with_tqdm_counts_and_stays_open() -> None:
    screen = io.StringIO()
    with tqdm(unit="B", unit_scale=True, file=screen) as bar:
        async with offered(bar) as (sending, offer):
            await asyncio.gather(sending, offer.accept(into=[bytearray(SIZE)]))
        assert (bar.n, bar.total) == (SIZE, SIZE)
        assert not bar.disable
    assert "100%" in screen.getvalue()


async def test_one_bar_counts_several_transfers_against_a_total_of_its_own() -> None:
    with tqdm(total=300, file=io.StringIO()) as bar:
        for _ in range(2):
            await follow(figures(spaceblock.Phase.MOVING, 40, 100), follower(bar))
        assert (bar.n, bar.total) == (200, 300)


async def test_tqdm_itself_makes_a_bar_that_ends_with_the_transfer(capsys: pytest.CaptureFixture[str]) -> None:
    async with offered(tqdm) as (sending, offer):
        await asyncio.gather(sending, offer.accept(into=[bytearray(SIZE)]))
    drawn = capsys.readouterr().err
    assert re.search(r"100%\S* 3\.00M/3\.00M", drawn)
    assert drawn.endswith("\n"), "the bar is closed"


async def test_a_count_that_falls_is_followed_too() -> None:
    with tqdm(total=100, file=io.StringIO()) as bar:
        await follow(figures(spaceblock.Phase.MOVING, 60, 10), follower(bar))
        assert bar.n == 10


async def test_bars_of_rich_get_a_task_for_each_transfer() -> None:
    console = Console(file=io.StringIO(), width=80)
    with RichProgress(console=console) as bars:
        async with offered(bars) as (sending, offer):
            await asyncio.gather(sending, offer.accept(into=[bytearray(SIZE)], progress=bars))
        assert [(task.completed, task.total, task.finished) for task in bars.tasks] == [(SIZE, SIZE, True)] * 2
        assert bars.live.is_started, "who started them stops them"


async def test_rich_itself_makes_bars_that_end_with_the_transfer(capsys: pytest.CaptureFixture[str]) -> None:
    async with offered(RichProgress) as (sending, offer):
        await asyncio.gather(sending, offer.accept(into=[bytearray(SIZE)]))
    assert "100%" in capsys.readouterr().out


async def test_names_from_the_peer_are_neither_markup_nor_commands_to_the_terminal() -> None:
    bars = RichProgress(console=Console(file=io.StringIO(), width=200))
    await follow(figures(spaceblock.Phase.MOVING, 1, 100, name="[red]\x1b[2J.bin"), follower(bars))
    name = bars.tasks[0].description
    assert name == "done"
    shown = follower(bars)
    async for progress in figures(spaceblock.Phase.MOVING, 1, 100, name="[red]\x1b[2J.bin"):
        shown.show(progress)
        break
    text = bars.console.render_str(bars.tasks[1].description).plain
    assert text.startswith("[red]")
    assert "\x1b" not in text


@pytest.mark.parametrize("wrong", ["bar", 7, object()])
async def test_what_is_none_of_these_is_refused_before_anything_is_offered(wrong: Any) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        with pytest.raises(spaceblock.LocalProtocolError, match="give a function, tqdm"):
            peer.send(b"data", progress=wrong)
        sending = peer.send(b"data")
        offer = await anext(aiter(listener))
        with pytest.raises(spaceblock.LocalProtocolError, match="give a function, tqdm"):
            offer.accept(into=[bytearray(4)], progress=wrong)
        await asyncio.gather(sending, offer.accept(into=[bytearray(4)]))
