"""Choose other names where the receiver's disk cannot hold yours: by a callback, on either side."""

from __future__ import annotations

from pathlib import Path

import spaceblock


async def test_the_sender_chooses_another_name(downloads: Path) -> None:
    async def ask(item: spaceblock.OfferItem, problem: spaceblock.BadName) -> str:
        print(problem)  # 'xxx…xxx.csv' has a part longer than 255 bytes
        return problem.proposal  # or whatever a person types; it is checked before anything moves

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(spaceblock.Item(b"1;2;3", name="x" * 300 + ".csv"), rename=ask)
        offer = await anext(aiter(listener))
        await offer.accept(downloads)
        receipt = await sending

    (old, new), *_ = receipt.renamed.items()
    assert old == "x" * 300 + ".csv"
    assert new.endswith(".csv"), "a proposal keeps the extension"
    assert (downloads / new).read_bytes() == b"1;2;3"


async def test_the_receiver_chooses_where_the_sender_cannot(downloads: Path) -> None:
    def ask(item: spaceblock.OfferItem, problem: spaceblock.BadName) -> str:
        return f"item-{item.index}"  # a plain function runs in a thread, and may take its time

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(spaceblock.Item(b"1;2;3", name="x" * 300))
        offer = await anext(aiter(listener))
        receipt = await offer.accept(downloads, rename=ask)
        await sending

    assert receipt.renamed == {"x" * 300: "item-0"}


async def test_a_repeated_send_costs_nothing(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        for expected in (5, 0):
            sending = peer.send(spaceblock.Item(b"1;2;3", name="table.csv"))
            offer = await anext(aiter(listener))
            await offer.accept(downloads, on_conflict="skip")
            receipt = await sending
            assert receipt.bytes == expected

    assert receipt.items[0].skipped
    assert receipt.items[0].digest, "both sides hashed it: it is there, byte for byte"
