"""Send to whoever connects: the listening side can offer something to each peer that comes."""

from __future__ import annotations

import asyncio

import spaceblock

NEWS = b"all is well"


async def publish(listener: spaceblock.Listener, readers: int) -> None:
    """The listening side: every peer that comes gets the news."""
    peers = listener.peers()
    for _ in range(readers):
        peer = await anext(peers)
        await peer.send(NEWS)


async def read(ticket: str) -> bytes:
    """The connecting side: take the first offer."""
    target = bytearray(len(NEWS))
    async with spaceblock.connect(ticket) as peer:
        offer = await anext(peer.offers())
        await offer.accept(into=[target])
    return bytes(target)


async def test_send_to_whoever_connects() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        publishing = asyncio.create_task(publish(listener, readers=3))
        assert await asyncio.gather(*map(read, listener.invite(3))) == [NEWS] * 3
        await publishing
