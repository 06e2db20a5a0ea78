"""Follow a transfer: iterate over it on either side, or let a bar do so. Stop when you like; only awaiting raises."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tqdm import tqdm

import spaceblock


async def follow(transfer: spaceblock.Transfer) -> list[spaceblock.Progress]:
    seen = []
    async for progress in transfer:
        # progress.rate is in bytes a second, progress.eta in seconds; both sides count what the receiver has.
        seen.append(progress)
    return seen


async def test_follow_progress_on_both_sides(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(bytes(3_000_000), b"and a small one")
        offer = await anext(aiter(listener))
        receiving = offer.accept(downloads)

        at_the_sender, at_the_receiver = await asyncio.gather(follow(sending), follow(receiving))
        await asyncio.gather(sending, receiving)

    for seen in (at_the_sender, at_the_receiver):
        last = seen[-1]
        assert last.phase is spaceblock.Phase.DONE
        assert last.bytes_done == last.bytes_total == 3_000_015
        assert last.items_done == last.items_total == 2
        counts = [progress.bytes_done for progress in seen]
        assert counts == sorted(counts)


async def test_let_bars_follow_it(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        with tqdm(unit="B", unit_scale=True) as bar:
            sending = peer.send(bytes(3_000_000), progress=bar)
            offer = await anext(aiter(listener))
            await offer.accept(downloads, progress=lambda progress: print(progress.bytes_done, "bytes are here"))
            await sending
    assert bar.n == bar.total == 3_000_000


async def test_follow_the_item_that_moves(downloads: Path) -> None:
    slow = spaceblock.Options(bandwidth=4_000_000)  # bytes a second
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket, options=slow) as peer:
        sending = peer.send(spaceblock.Item(bytes(3_000_000), name="video.mp4"))
        offer = await anext(aiter(listener))
        receiving = offer.accept(downloads)
        for seen in await asyncio.gather(follow(sending), follow(receiving)):
            items = [progress.item for progress in seen if progress.item is not None]
            assert {(item.name, item.bytes_total) for item in items} == {("video.mp4", 3_000_000)}
            assert all(0 <= item.bytes_done <= 3_000_000 for item in items)
        await asyncio.gather(sending, receiving)
