"""Cancel one transfer, from either side. The other side knows at once, and other transfers go on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import spaceblock


async def test_the_sender_cancels(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(bytes(50_000_000))
        offer = await anext(aiter(listener))
        receiving = offer.accept(downloads)
        await anext(aiter(receiving))

        sending.cancel()

        with pytest.raises(spaceblock.TransferCancelled) as here:
            await sending
        with pytest.raises(spaceblock.TransferCancelled) as there:
            await receiving

    assert (here.value.remote, there.value.remote) == (False, True), "who cancelled"
    assert os.listdir(downloads) == [], "half a file is no file"


async def test_the_receiver_cancels(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(bytes(50_000_000))
        offer = await anext(aiter(listener))
        receiving = offer.accept(downloads)
        await anext(aiter(receiving))

        receiving.cancel()

        for transfer in (sending, receiving):
            with pytest.raises(spaceblock.TransferCancelled):
                await transfer


async def test_a_time_limit_is_a_cancel_too() -> None:
    """Cancelling the task that awaits a transfer cancels the transfer, so asyncio's own tools work."""
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        buffer = bytearray(1000)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(peer.send(buffer), timeout=0.1)  # nobody answers this offer
        buffer += b"the buffer is ours again"
