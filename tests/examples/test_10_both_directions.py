"""Send both ways on one connection: who connected and who listened makes no difference any more."""

from __future__ import annotations

import asyncio

import spaceblock


async def exchange(peer: spaceblock.Peer, mine: bytes, theirs: bytearray) -> None:
    """What each side does: offer its own bytes, and take those of the other side into place."""
    sending = peer.send(mine)
    offer = await anext(peer.offers())
    await asyncio.gather(sending, offer.accept(into=[theirs]))


async def test_both_sides_send_at_once() -> None:
    here, there = bytearray(5), bytearray(4)

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as client:
        server = await anext(listener.peers())
        await asyncio.gather(exchange(client, b"ping", here), exchange(server, b"pong!", there))

    assert here == b"pong!"
    assert there == b"ping"
