"""Trust a peer: whoever is named by its peer ID comes and goes as it likes, with any ticket of this listener or none.

A ticket then only says where the listener is and which key to expect there, which a contact says too.
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


async def test_a_contact_will_do_where_the_listener_trusts(tmp_path: Path) -> None:
    laptop = spaceblock.Identity.load(tmp_path / "laptop")

    async with spaceblock.listen("127.0.0.1", options=spaceblock.Options(trust=[laptop.peer_id])) as listener:
        host, port = listener.addresses[0]
        desk = spaceblock.Contact(listener.peer_id, [f"{host}:{port}"])
        async with spaceblock.connect(desk, options=spaceblock.Options(identity=laptop)) as peer:
            sending = peer.send(b"no ticket at all")
            offer = await anext(aiter(listener))
            await offer.accept(into=[bytearray(16)])
            await sending
