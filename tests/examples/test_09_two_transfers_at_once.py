"""Run several transfers at once on one connection. Each has its own outcome, progress and end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import spaceblock


async def test_two_transfers_at_once(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        first = peer.send(spaceblock.Item(bytes(400_000), name="first.bin"))
        second = peer.send(spaceblock.Item(bytes(500_000), name="second.bin"))

        offers = aiter(listener)
        receiving = [(await anext(offers)).accept(downloads) for _ in range(2)]
        await asyncio.gather(first, second, *receiving)

    assert (downloads / "first.bin").stat().st_size == 400_000
    assert (downloads / "second.bin").stat().st_size == 500_000


async def test_one_fails_and_the_other_does_not_notice(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        good = peer.send(spaceblock.Item(b"here I am", name="good.txt"))
        bad = peer.send(downloads / "there is no such file")

        with pytest.raises(spaceblock.SourceMissing):
            await bad
        await (await anext(aiter(listener))).accept(downloads)
        await good

    assert (downloads / "good.txt").read_bytes() == b"here I am"
