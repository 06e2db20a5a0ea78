"""Transfers that succeed: identical at the other end, with the digest that any other BLAKE3 finds."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import spaceblock

from .support import BLOCK, deliver, digest_of, file_of, needs_ipv6, pair, tree, within

SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * 1024 * 1024 + 17]


def b3sum(path: Path) -> str:
    """The digest that the ``b3sum`` program prints, or the BLAKE3 package where there is no such program."""
    if shutil.which("b3sum") is None:
        return digest_of(path.read_bytes())
    return subprocess.run(["b3sum", "--no-names", path], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_arrives_as_it_is(size: int, tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "data.bin", size)
    async with pair() as peers:
        sent, received = await deliver(peers, source, folder=inbox)
    assert tree(inbox) == {"data.bin": source.read_bytes()}
    assert sent.items == received.items
    (item,) = sent.items
    assert (item.name, item.path, item.size, item.skipped) == ("data.bin", "data.bin", size, False)
    assert item.digest == b3sum(source) == b3sum(inbox / "data.bin")
    assert sent.bytes == received.bytes == size


@pytest.mark.parametrize("size", [*SIZES, 40 * 1024 * 1024 + 1])
async def test_a_file_goes_from_memory_to_memory(size: int, memory_folder: Path) -> None:
    source = file_of(memory_folder, "data.bin", size)
    target = memory_folder / "target"
    target.mkdir()
    async with pair() as peers:
        sent, received = await deliver(peers, source, folder=target)
    assert tree(target) == {"data.bin": source.read_bytes()}
    assert sent.items[0].digest == received.items[0].digest == b3sum(source)


@pytest.mark.parametrize("size", SIZES)
async def test_a_buffer_of_any_size_arrives_in_place(size: int) -> None:
    data = os.urandom(size)
    target = bytearray(size)
    async with pair() as peers:
        sent, received = await deliver(peers, memoryview(data), into=[target])
    assert target == data
    assert sent.items == received.items
    (item,) = received.items
    assert (item.name, item.path, item.size, item.digest) == (None, None, size, digest_of(data))


async def test_a_file_travels_into_a_buffer_and_a_buffer_into_a_folder(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "a.bin", 300_000)
    target = bytearray(300_000)
    named = spaceblock.Item(b"some bytes", name="sub/b.bin")
    async with pair() as peers:
        await deliver(peers, source, into=[target])
        await deliver(peers, named, memoryview(b"unnamed bytes"), folder=inbox)
    assert target == source.read_bytes()
    assert tree(inbox) == {"sub": None, "sub/b.bin": b"some bytes", "unnamed-1": b"unnamed bytes"}


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 0), (0, 1), (BLOCK - 1, BLOCK + 1), (5, 3 * BLOCK), (BLOCK, 4 * BLOCK), (0, 4 * BLOCK)]
)
async def test_a_part_of_an_item_has_the_digest_of_that_part(
    start: int, stop: int, tmp_path: Path, inbox: Path
) -> None:
    source = file_of(tmp_path, "big.bin", 4 * BLOCK)
    data = source.read_bytes()
    parts = [
        spaceblock.Item(source, name="file-part", range=(start, stop)),
        spaceblock.Item(data, name="buffer-part", range=(start, stop)),
    ]
    into = [bytearray(stop - start), bytearray(stop - start)]
    async with pair() as peers:
        sent, _ = await deliver(peers, *parts, folder=inbox)
        in_place, _ = await deliver(peers, *parts, into=into)
    assert tree(inbox) == {"file-part": data[start:stop], "buffer-part": data[start:stop]}
    assert into == [data[start:stop], data[start:stop]]
    digests = {item.digest for receipt in (sent, in_place) for item in receipt.items}
    assert digests == {digest_of(data[start:stop])}


async def test_a_thousand_small_files_in_nested_folders_arrive_with_their_empty_folders(
    tmp_path: Path, inbox: Path
) -> None:
    source = tmp_path / "tree"
    for number in range(1000):
        file_of(source, f"{number % 10}/{number % 7}/{number}.txt", number)
    (source / "empty" / "inner").mkdir(parents=True)
    async with pair() as peers:
        sent, received = await deliver(peers, source, folder=inbox)
    assert tree(inbox / "tree") == tree(source)
    assert sent.items == received.items
    assert len(sent.items) == 1000
    assert sent.bytes == sum(range(1000))
    assert all(item.path is not None and item.digest == b3sum(inbox / item.path) for item in sent.items[:5])
    assert {item.path: item.digest for item in sent.items} == {
        name: digest_of(data) for name, data in tree(inbox).items() if data is not None
    }


async def test_large_and_small_items_of_all_kinds_travel_together(tmp_path: Path, inbox: Path) -> None:
    large = file_of(tmp_path, "large.bin", 5 * 1024 * 1024)
    empty = file_of(tmp_path, "empty.bin", 0)
    folder = file_of(tmp_path, "folder/x", 10).parent
    buffers = [os.urandom(2 * 1024 * 1024), b"", os.urandom(77)]
    async with pair() as peers:
        sent, received = await deliver(peers, large, empty, folder, *buffers, folder=inbox)
    assert sent.items == received.items
    assert [item.size for item in sent.items] == [large.stat().st_size, 0, 10, *map(len, buffers)]
    for item in sent.items:
        assert item.path is not None
        assert digest_of((inbox / item.path).read_bytes()) == item.digest


async def test_several_transfers_run_at_once_in_both_directions(tmp_path: Path) -> None:
    data = [os.urandom(400_000 + number) for number in range(6)]
    into = [bytearray(len(part)) for part in data]

    async def send(peer: spaceblock.Peer, number: int) -> spaceblock.Receipt:
        return await peer.send(spaceblock.Item(data[number], name=str(number)))

    async def take(peer: spaceblock.Peer) -> list[spaceblock.Receipt]:
        offers = [await anext(peer.offers()) for _ in range(3)]
        return await asyncio.gather(*(offer.accept(into=[into[int(offer.items[0].name or "")]]) for offer in offers))

    async with pair() as peers:
        await within(
            asyncio.gather(
                *(send(peers.here, number) for number in (0, 1, 2)),
                *(send(peers.there, number) for number in (3, 4, 5)),
                take(peers.here),
                take(peers.there),
            )
        )
    assert into == data


@needs_ipv6
async def test_ipv6_carries_a_transfer_too() -> None:
    target = bytearray(5)
    async with pair(host="::1") as peers:
        assert peers.listener.addresses[0][0] == "::1"
        await deliver(peers, b"hello", into=[target])
    assert target == b"hello"


@needs_ipv6
async def test_a_listener_on_all_addresses_of_ipv6_takes_ipv4_as_well() -> None:
    async with spaceblock.listen("::") as listener, spaceblock.connect(listener.ticket) as peer:
        assert peer.peer_id == listener.peer_id


async def test_items_may_be_skipped_where_they_exist(tmp_path: Path, inbox: Path) -> None:
    old = file_of(inbox, "a.txt", 10).read_bytes()
    sources = [file_of(tmp_path, "a.txt", 20), file_of(tmp_path, "b.txt", 30)]
    async with pair() as peers:
        sent, received = await deliver(peers, *sources, folder=inbox, on_conflict="skip")
    assert tree(inbox) == {"a.txt": old, "b.txt": sources[1].read_bytes()}
    assert sent.items == received.items
    assert [(item.skipped, item.digest == "") for item in sent.items] == [(True, True), (False, False)]


async def test_a_file_whose_name_is_taken_gets_another_and_both_sides_know_it(tmp_path: Path, inbox: Path) -> None:
    old = file_of(inbox, "a.txt", 10).read_bytes()
    source = file_of(tmp_path, "a.txt", 20)
    async with pair() as peers:
        sent, received = await deliver(peers, source, folder=inbox)
    assert tree(inbox) == {"a.txt": old, "a (1).txt": source.read_bytes()}
    assert sent.items[0].path == received.items[0].path == "a (1).txt"


async def test_overwriting_is_done_only_on_request(tmp_path: Path, inbox: Path) -> None:
    file_of(inbox, "a.txt", 10)
    source = file_of(tmp_path, "a.txt", 20)
    async with pair() as peers:
        await deliver(peers, source, folder=inbox, on_conflict="overwrite")
    assert tree(inbox) == {"a.txt": source.read_bytes()}
