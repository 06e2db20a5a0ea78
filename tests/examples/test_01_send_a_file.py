"""Send a file.

One side listens and shows its ticket; the other connects with it. Either may then send. In real life the two are
programs on two computers, and the ticket gets from one to the other by mail or chat; here they are two tasks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from blake3 import blake3

import spaceblock


async def receive(listener: spaceblock.Listener, folder: Path) -> spaceblock.Receipt:
    """The listening side: wait for an offer, look at it, accept it."""
    offer = await anext(aiter(listener))
    assert [item.name for item in offer.items] == ["report.pdf"]
    assert offer.total_size == 300_000
    return await offer.accept(folder)


async def send(ticket: str, path: Path) -> spaceblock.Receipt:
    """The connecting side: offer a file and wait until the receiver has it, verified and on its disk."""
    async with spaceblock.connect(ticket) as peer:
        return await peer.send(path)


async def test_send_a_file(tmp_path: Path, downloads: Path) -> None:
    report = tmp_path / "report.pdf"
    report.write_bytes(bytes(range(100)) * 3000)

    async with spaceblock.listen("127.0.0.1") as listener:
        receiving = asyncio.create_task(receive(listener, downloads))
        sent = await send(listener.ticket, report)
        received = await receiving

    assert (downloads / "report.pdf").read_bytes() == report.read_bytes()
    assert sent.items == received.items, "both sides agree on what arrived"
    assert sent.items[0].digest == blake3(report.read_bytes()).hexdigest(), "the digest that b3sum prints"
