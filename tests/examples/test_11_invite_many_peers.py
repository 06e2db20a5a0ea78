"""Invite many peers: a ticket lets in one peer, so give each its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import spaceblock


async def hand_in(ticket: str, name: str) -> None:
    options = spaceblock.Options(identity=spaceblock.Identity.ephemeral())  # somebody else each time
    async with spaceblock.connect(ticket, options=options) as peer:
        await peer.send(spaceblock.Item(f"the work of {name}".encode(), name=f"{name}.txt"))


async def test_invite_many_peers(downloads: Path) -> None:
    names = ["ada", "grace", "katherine", "radia"]

    async with spaceblock.listen("127.0.0.1") as listener:
        tickets = listener.invite(len(names), lifetime=3600)
        everybody = asyncio.gather(*map(hand_in, tickets, names))
        offers = aiter(listener)
        for _ in names:
            await (await anext(offers)).accept(downloads)
        await everybody

    assert sorted(os.listdir(downloads)) == [f"{name}.txt" for name in names]


async def test_a_ticket_that_somebody_used_is_of_no_use_to_anybody_else() -> None:
    somebody_else = spaceblock.Options(identity=spaceblock.Identity.ephemeral())

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket):
        with pytest.raises(spaceblock.TicketUsed):
            async with spaceblock.connect(listener.ticket, options=somebody_else):
                pass
