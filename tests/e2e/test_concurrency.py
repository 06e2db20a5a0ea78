"""Many things at once: what stalls holds up nothing else, and what is said last is not lost with a packet."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spaceblock
from spaceblock.limits import RING_SLOTS, SLOT_SIZE
from spaceblock.names import STAGING_PREFIX
from spaceblock.storage import folder
from spaceblock.transfers import transfer

from .stages import Gate, sender_reads
from .support import BLOCK, Pair, assert_helpful, deliver, failure, failures, file_of, pair, tree, until, within

MIB = 1024 * 1024


class StalledSink(Gate):
    """A disk that hangs for the files of one target folder only, and serves all others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
        self._target = str(target / STAGING_PREFIX)
        super().__init__(monkeypatch, folder, "write_all")

    def _holds(self, arguments: tuple[object, ...]) -> bool:
        return os.readlink(f"/proc/self/fd/{arguments[0]}").startswith(self._target)


async def stalled(peers: Pair, source: Path, target: Path) -> tuple[spaceblock.Transfer, spaceblock.Transfer]:
    """A transfer into a sink that hangs, when as much of it is on the way as will be."""
    sending = peers.here.send(source)
    receiving = (await peers.offer()).accept(target)
    await until(lambda: sending.progress.phase is spaceblock.Phase.DISK, "the sender hears of the disk")
    return sending, receiving


async def test_a_stalled_sink_stops_no_other_transfer_and_no_control_stream(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "stuck", 40 * MIB)
    dam = tmp_path / "dam"
    dam.mkdir()
    async with pair() as peers:
        with StalledSink(monkeypatch, dam) as gate:
            sending, receiving = await stalled(peers, source, dam)
            await deliver(peers, file_of(tmp_path, "large", 4 * MIB), folder=inbox)
            await deliver(peers, b"buffer", into=[bytearray(6)])
            back = peers.there.send(bytes(MIB))
            await within(asyncio.gather(back, (await anext(peers.here.offers())).accept(inbox)))
            refused = peers.here.send(b"no")
            await (await peers.offer()).decline()
            await failure(refused)

            assert not sending.done
            assert not receiving.done
            held = RING_SLOTS * SLOT_SIZE + 4 * 4 * MIB
            assert receiving.progress.bytes_done < held, "the ring and a window, and no more"
            gate.open()
        await within(asyncio.gather(sending, receiving))
    assert tree(dam) == {"stuck": source.read_bytes()}


async def test_what_is_in_memory_takes_no_worker_threads(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Noted(ThreadPoolExecutor):
        def __init__(self, most: int, thread_name_prefix: str) -> None:
            made.append(thread_name_prefix)
            super().__init__(most, thread_name_prefix)

    monkeypatch.setattr(transfer, "ThreadPoolExecutor", Noted)
    data = os.urandom(3 * MIB)
    async with pair() as peers:
        await deliver(peers, data, into=[room := bytearray(len(data))])
        await deliver(peers, data, into=[spaceblock.DISCARD])
        assert made == []
        await deliver(peers, data, folder=inbox)
        assert made, "a folder's disk may be slow"
    assert room == data


async def test_several_stalled_sinks_stop_no_other_transfer(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "stuck", 40 * MIB)
    dam = tmp_path / "dam"
    dam.mkdir()
    async with pair() as peers:
        with StalledSink(monkeypatch, dam):
            transfers = [await stalled(peers, source, dam) for _ in range(3)]
            await deliver(peers, file_of(tmp_path, "large", 2 * MIB), folder=inbox)
            for sending, _ in transfers:
                sending.cancel()
            errors = await failures(*(sending for sending, _ in transfers))
        errors += await failures(*(receiving for _, receiving in transfers))
        assert all(isinstance(error, spaceblock.TransferCancelled) for error in errors)
        await deliver(peers, b"and on", folder=inbox)
    assert tree(dam) == {}


async def test_a_stalled_source_stops_no_other_transfer(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "stuck", 24 * BLOCK)
    async with pair() as peers:
        with sender_reads(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            await deliver(peers, bytes(MIB), into=[bytearray(MIB)])
            gate.open()
            await within(asyncio.gather(sending, receiving))
    assert tree(inbox) == {"stuck": source.read_bytes()}


async def test_an_offer_that_waits_stops_no_other(inbox: Path) -> None:
    async with pair() as peers:
        waiting = peers.here.send(b"waits")
        offer = await peers.offer()
        await deliver(peers, b"goes on", into=[bytearray(7)])
        await offer.decline()
        await failure(waiting)


async def test_twenty_transfers_each_way_at_once() -> None:
    count, size = 20, 100_000
    data = os.urandom(size + count)

    async def send(peer: spaceblock.Peer, number: int) -> None:
        await peer.send(spaceblock.Item(data, name=str(number), range=(number, number + size)))

    async def take(peer: spaceblock.Peer) -> None:
        async def one(offer: spaceblock.Offer) -> None:
            number = int(offer.items[0].name or "")
            target = bytearray(size)
            await offer.accept(into=[target])
            assert target == data[number : number + size]

        offers = peer.offers()
        await asyncio.gather(*[one(await anext(offers)) for _ in range(count)])

    async with pair() as peers:
        sides = (peers.here, peers.there)
        work = [send(peer, number) for peer in sides for number in range(count)]
        await within(asyncio.gather(*work, *(take(peer) for peer in sides)))


async def test_many_peers_at_once_and_one_that_fails_harms_none(tmp_path: Path, inbox: Path) -> None:
    async def visit(ticket: str, number: int) -> None:
        options = spaceblock.Options(identity=spaceblock.Identity.ephemeral())
        async with spaceblock.connect(ticket, options=options) as peer:
            if number == 3:
                await failure(peer.send(tmp_path / "missing"))
                return
            await peer.send(spaceblock.Item(os.urandom(50_000), name=f"{number}"))

    async with spaceblock.listen("127.0.0.1") as listener:
        visitors = asyncio.gather(*(visit(ticket, number) for number, ticket in enumerate(listener.invite(8))))
        offers = aiter(listener)
        await within(asyncio.gather(*[(await within(anext(offers))).accept(inbox) for _ in range(7)]))
        await within(visitors)
    assert sorted(tree(inbox)) == ["0", "1", "2", "4", "5", "6", "7"]


# Packets that get lost.


def lose(peers: Pair, count: int) -> None:
    """The listening side's next ``count`` datagrams never arrive."""
    endpoint = peers.listener._endpoint
    assert endpoint is not None
    left = count

    def passes(data: bytes, address: object, outgoing: bool) -> bool:
        nonlocal left
        if outgoing and left:
            left -= 1
            return False
        return True

    endpoint.packet_filter = passes


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_the_reason_of_a_decline_arrives_although_its_packet_is_lost_and_the_receiver_leaves(lost: int) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        lose(peers, lost)
        await offer.decline("the dog ate it")
        await peers.there.close()
        error = await failure(sending)
        assert isinstance(error, spaceblock.TransferRefused)
        assert "the dog ate it" in str(error)


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_the_receivers_real_trouble_arrives_although_its_packet_is_lost_and_it_leaves(
    lost: int, tmp_path: Path
) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        lose(peers, lost)
        await failure(offer.accept(tmp_path / "missing"))
        await peers.there.close()
        error = await failure(sending)
        assert isinstance(error, spaceblock.TargetMissing)
        assert_helpful(error)


async def test_a_transfer_survives_the_loss_of_every_tenth_packet(inbox: Path, tmp_path: Path) -> None:
    source = file_of(tmp_path, "x", 2 * MIB)
    async with pair() as peers:
        endpoint = peers.listener._endpoint
        assert endpoint is not None
        seen = 0

        def passes(data: bytes, address: object, outgoing: bool) -> bool:
            nonlocal seen
            seen += 1
            return seen % 10 != 0

        endpoint.packet_filter = passes
        sent, received = await deliver(peers, source, folder=inbox)
        endpoint.packet_filter = None
    assert sent.items == received.items
    assert tree(inbox) == {"x": source.read_bytes()}
