"""Send any buffer: bytes, bytearray, memoryview, array, mmap. It needs no name, and is held until the transfer ends."""

from __future__ import annotations

from pathlib import Path

import spaceblock


async def test_send_an_unnamed_buffer() -> None:
    message = b"no file was made for this"
    target = bytearray(len(message))

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(message)
        offer = await anext(aiter(listener))
        assert offer.items[0].name is None
        await offer.accept(into=[target])
        await sending

    assert target == message


async def test_a_buffer_with_a_name_arrives_as_a_file(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(spaceblock.Item(b"a,b\n1,2\n", name="tables/small.csv"))
        offer = await anext(aiter(listener))
        await offer.accept(downloads)
        await sending

    assert (downloads / "tables" / "small.csv").read_bytes() == b"a,b\n1,2\n"
