"""Send a part of a file or buffer: a half-open range of bytes, as in slices."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

import spaceblock


async def test_send_a_part_of_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(bytes(range(256)) * 100)
    target = bytearray(1000)

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(spaceblock.Item(log, range=(5000, 6000)))
        offer = await anext(aiter(listener))
        assert offer.items[0].range == spaceblock.Partial(5000, 6000)
        await offer.accept(into=[target])
        receipt = await sending

    assert target == log.read_bytes()[5000:6000], "byte 0 of the buffer is the range's start"
    assert receipt.items[0].digest == blake3(target).hexdigest(), "the digest is that of the part"
