"""Trust a peer: whoever is named by its peer ID comes and goes as it likes, with any ticket of this listener.

A ticket then only says where the listener is and which key to expect there; it may have been used by others.
"""

from __future__ import annotations

from pathlib import Path

import spaceblock


async def test_a_trusted_peer_needs_no_ticket_of_its_own(tmp_path: Path) -> None:
    laptop = spaceblock.Identity.load(tmp_path / "laptop")
    stranger = spaceblock.Identity.load(tmp_path / "stranger")

    async with spaceblock.listen("127.0.0.1", options=spaceblock.Options(trust=[laptop.peer_id])) as listener:
        async with spaceblock.connect(listener.ticket, options=spaceblock.Options(identity=stranger)):
            pass  # the ticket is used up now
        async with spaceblock.connect(listener.ticket, options=spaceblock.Options(identity=laptop)) as peer:
            sending = peer.send(b"it is me again")
            offer = await anext(aiter(listener))
            assert offer.peer == laptop.peer_id
            await offer.accept(into=[bytearray(14)])
            await sending
