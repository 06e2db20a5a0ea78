"""Decline an offer: the sender learns that it was refused, and why."""

from __future__ import annotations

import pytest

import spaceblock


async def test_decline_an_offer() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(b"something unwanted")
        offer = await anext(aiter(listener))
        await offer.decline("no thanks")

        with pytest.raises(spaceblock.TransferRefused, match="no thanks"):
            await sending
