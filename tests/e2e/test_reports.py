"""How often a receiver reports, as its options say: what the sender can know of it on the way."""

from __future__ import annotations

import pytest

from spaceblock import Options, Phase, Reports, Transfer

from .support import BLOCK, Pair, pair, within

ITEMS = 6
SIZE = 16 * BLOCK
"""Large enough for a data stream of its own."""


async def figures_of(transfer: Transfer) -> set[int]:
    """What the sender was told on the way, byte counts between nothing and everything."""
    figures = {progress.bytes_done async for progress in transfer if progress.phase is not Phase.DONE}
    return figures - {0, ITEMS * SIZE}


async def told(peers: Pair) -> set[int]:
    sending = peers.here.send(*[bytes(SIZE) for _ in range(ITEMS)])
    offer = await peers.offer()
    receiving = offer.accept(into=[bytearray(SIZE) for _ in range(ITEMS)])
    figures: set[int] = await within(figures_of(sending))
    await within(receiving)
    return figures


@pytest.mark.parametrize("blocks", [1, 4])
async def test_reports_by_blocks_come_from_the_first_stream_to_the_last(blocks: int) -> None:
    # Slow enough that it does not all come at once.
    async with pair(Options(reports=Reports(interval=None, blocks=blocks), bandwidth=20_000_000)) as peers:
        figures = await told(peers)
    assert min(figures) < 2 * SIZE
    assert max(figures) > (ITEMS - 2) * SIZE, "all but the last two streams at least"


async def test_without_reports_the_sender_knows_nothing_until_the_end() -> None:
    async with pair(Options(reports=Reports(interval=None, blocks=None))) as peers:
        assert await told(peers) == set()


async def test_at_the_end_both_sides_figures_are_whole_and_an_accepted_offer_waits_for_nobody() -> None:
    async with pair() as peers:
        sending = peers.here.send(bytes(SIZE))
        offer = await peers.offer()
        receiving = offer.accept(into=[bytearray(SIZE)])
        assert receiving.progress.phase is Phase.PREPARING, "its user has answered"
        await within(sending)
        await within(receiving)
        for transfer in (sending, receiving):
            assert (transfer.progress.bytes_done, transfer.progress.verified) == (SIZE, SIZE)
