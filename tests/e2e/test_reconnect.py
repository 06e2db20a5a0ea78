"""A transfer whose connection is lost goes on by itself over another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock.errors import ConnectionLost
from spaceblock.limits import Limits
from spaceblock.storage.folder import FolderSink
from spaceblock.transfers.incoming import Incoming
from spaceblock.transfers.outgoing import Outgoing
from spaceblock.trust.memory import Memory

from .stages import Gate
from .support import Pair, digest_of, failure, failures, file_of, remove_unfinished, tree, until, within

MIB = 1024 * 1024
SIZE = 24 * MIB
SPEED = 16 * MIB
"""Bytes a second, so that what is to be interrupted is not over before."""
LIMITS = Limits(not_durable=4 * MIB)
TIMES = spaceblock.Timeouts(connect=5.0, offer=60.0, idle=4.0, retry=50.0, close=1.0)


class Network(asyncio.DatagramProtocol):
    """A way to a listener that can be cut; whoever comes by it has a port of its own there."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[Any, asyncio.DatagramTransport] = {}
        self._early: dict[Any, list[bytes]] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self.is_cut = False

    def connection_made(self, transport: Any) -> None:
        self._front = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.is_cut:
            return
        if addr in self._backs:
            self._backs[addr].sendto(data)
        elif addr in self._early:
            self._early[addr].append(data)
        else:
            self._early[addr] = [data]
            self._opening.add(asyncio.create_task(self._open(addr)))

    async def _open(self, addr: Any) -> None:
        network = self

        class Back(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _: Any) -> None:
                if not network.is_cut and network._front is not None:
                    network._front.sendto(data, addr)

        loop = asyncio.get_running_loop()
        back, _ = await loop.create_datagram_endpoint(Back, remote_addr=self._target)
        self._backs[addr] = back
        for data in self._early.pop(addr):
            back.sendto(data)

    async def close(self) -> None:
        for task in self._opening:
            await task
        for transport in (self._front, *self._backs.values()):
            if transport is not None:
                transport.close()


@asynccontextmanager
async def network(
    times: spaceblock.Timeouts = TIMES, here: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Pair, Network]]:
    """A pair of peers and the way between them."""
    loop = asyncio.get_running_loop()
    front, way = await loop.create_datagram_endpoint(lambda: Network(("127.0.0.1", 0)), local_addr=("127.0.0.1", 0))
    host, port = front.get_extra_info("sockname")
    options = spaceblock.Options(limits=LIMITS, timeouts=times, bandwidth=SPEED, advertise=[f"{host}:{port}"])
    ours = spaceblock.Options(limits=LIMITS, timeouts=times, bandwidth=SPEED, **(here or {}))
    try:
        async with spaceblock.listen("127.0.0.1", options=options) as listener:
            assert listener._endpoint is not None
            way._target = ("127.0.0.1", listener._endpoint.local_addresses[0][1])
            async with spaceblock.connect(listener.ticket, options=ours) as peer:
                yield Pair(listener, peer, await anext(listener.peers())), way
    finally:
        await way.close()


async def begin(peers: Pair, inbox: Path, *sources: Any) -> tuple[spaceblock.Transfer, spaceblock.Transfer]:
    sending = peers.here.send(*sources)
    return sending, (await peers.offer()).accept(inbox)


async def lose(way: Network, *transfers: spaceblock.Transfer) -> None:
    """Cut the way until both sides have noticed."""
    way.is_cut = True
    for transfer in transfers:
        await until(lambda transfer=transfer: is_reconnecting(transfer), "both sides to notice")  # type: ignore[misc]
    way.is_cut = False


def is_reconnecting(transfer: spaceblock.Transfer) -> bool:
    return transfer.done or transfer.progress.phase is spaceblock.Phase.RECONNECTING


async def test_a_lost_connection_is_made_again_and_the_transfer_goes_on(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "large", SIZE)
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > SIZE // 4)
        await lose(way, sending, receiving)
        ours, theirs = await within(asyncio.gather(sending, receiving))
        assert ours.items == theirs.items
        assert ours.items[0].digest == digest_of(source.read_bytes())
        assert ours.resumed > SIZE // 8
        again = peers.here.send(b"the peer can still be used")
        await within(asyncio.gather(again, (await peers.offer()).accept(into=[bytearray(26)])))
    assert tree(inbox) == {"large": source.read_bytes()}


async def test_what_is_durable_stays_done_while_the_connection_is_made_again(tmp_path: Path, inbox: Path) -> None:
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, file_of(tmp_path, "large", SIZE))
        figures = asyncio.create_task(figures_of(sending))
        await until(lambda: sending.progress.durable > SIZE // 4)
        await lose(way, sending, receiving)
        await within(asyncio.gather(sending, receiving))
        for before, after in pairwise(await figures):
            assert before.durable <= after.bytes_done
            assert after.resumed <= after.bytes_done


async def test_what_is_verified_and_durable_stays_so_while_the_connection_is_made_again(
    tmp_path: Path, inbox: Path
) -> None:
    sources = [file_of(tmp_path, "a first one", SIZE // 4), file_of(tmp_path, "large", SIZE)]
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, *sources)
        seen = [asyncio.create_task(figures_of(transfer)) for transfer in (sending, receiving)]
        await until(lambda: sending.done or (sending.progress.durable > SIZE // 2 and sending.progress.verified > 0))
        await lose(way, sending, receiving)
        await within(asyncio.gather(sending, receiving))
    for figures in seen:
        for before, after in pairwise(await figures):
            assert before.verified <= after.verified
            assert before.durable <= after.durable
            assert max(after.verified, after.durable) <= after.bytes_done
        assert after.verified == after.bytes_done == sum(source.stat().st_size for source in sources)
        assert after.durable <= after.bytes_done


async def figures_of(transfer: spaceblock.Transfer) -> list[spaceblock.Progress]:
    """All that is told, to the end."""
    return [progress async for progress in transfer]


async def test_what_is_sent_while_a_connection_is_made_again_waits_for_it(tmp_path: Path, inbox: Path) -> None:
    large, small = file_of(tmp_path, "large", SIZE), file_of(tmp_path, "small", 100)
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, large)
        await until(lambda: receiving.progress.durable > SIZE // 4)
        way.is_cut = True
        await until(lambda: is_reconnecting(sending))
        assert not peers.here.closed
        beside = peers.here.send(small)
        await until(lambda: is_reconnecting(beside) and is_reconnecting(receiving))
        way.is_cut = False
        await within(asyncio.gather(sending, receiving, beside, (await peers.offer()).accept(inbox)))
    assert tree(inbox) == {"large": large.read_bytes(), "small": small.read_bytes()}


async def test_the_listening_side_sends_on_to_who_comes_back(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "large", SIZE)
    async with network() as (peers, way):
        sending = peers.there.send(source)
        receiving = (await within(anext(peers.here.offers()))).accept(inbox)
        await until(lambda: receiving.progress.durable > SIZE // 4)
        await lose(way, sending, receiving)
        ours, _ = await within(asyncio.gather(sending, receiving))
        assert ours.resumed > SIZE // 8
    assert tree(inbox) == {"large": source.read_bytes()}


async def test_buffers_are_sent_again_into_the_same_buffers() -> None:
    data, target = bytes(range(256)) * (SIZE // 256), bytearray(SIZE)
    async with network() as (peers, way):
        sending = peers.here.send(data)
        receiving = (await peers.offer()).accept(into=[target])
        await until(lambda: receiving.progress.bytes_done > 0)
        await lose(way, sending, receiving)
        await within(asyncio.gather(sending, receiving))
    assert target == data


async def test_several_losses_are_outlived(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "large", SIZE)
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        for part in (1, 2):
            wanted = part * SIZE // 4
            await until(lambda wanted=wanted: receiving.progress.durable > wanted)  # type: ignore[misc]
            await lose(way, sending, receiving)
        receipt, _ = await within(asyncio.gather(sending, receiving))
        assert receipt.resumed > 0
    assert tree(inbox) == {"large": source.read_bytes()}


@pytest.mark.parametrize("patience", [0.0, 1.0])
async def test_a_peer_that_does_not_come_back_is_given_up(patience: float, tmp_path: Path, inbox: Path) -> None:
    """Without patience a lost connection is an error at once."""

    async def phases(transfer: spaceblock.Transfer) -> set[spaceblock.Phase]:
        return {progress.phase async for progress in transfer}

    times = spaceblock.Timeouts(connect=0.5, idle=6.0, retry=patience, close=1.0)
    source = file_of(tmp_path, "file", 4 * SIZE)
    async with network(times) as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > 0)
        seen = asyncio.gather(phases(sending), phases(receiving))
        way.is_cut = True
        for error in await failures(sending, receiving):
            assert isinstance(error, ConnectionLost)
        for found in await seen:
            assert (spaceblock.Phase.RECONNECTING in found) == (patience > 0)
        assert peers.here.closed
    remove_unfinished(inbox)


async def test_a_transfer_that_waits_for_a_connection_can_be_cancelled(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "file", 4 * SIZE)
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > 0)
        way.is_cut = True
        await until(lambda: is_reconnecting(sending) and is_reconnecting(receiving))
        sending.cancel()
        receiving.cancel()
        for error in await failures(sending, receiving):
            assert isinstance(error, spaceblock.TransferCancelled)
    remove_unfinished(inbox)


async def test_what_is_cancelled_before_the_new_connection_greets_is_not_sent_after_all(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "file", 4 * SIZE)
    connected, go_on = asyncio.Event(), asyncio.Event()
    async with network() as (peers, way):
        greet = peers.here.greet

        async def greet_late() -> None:
            connected.set()
            await go_on.wait()
            await greet()

        monkeypatch.setattr(peers.here, "greet", greet_late)
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > 0)
        await lose(way, sending, receiving)
        await within(connected.wait())
        sending.cancel()
        assert isinstance(await failure(sending), spaceblock.TransferCancelled)
        assert not peers.here._outgoing
        go_on.set()
        again = peers.here.send(b"the peer can still be used")
        await within(asyncio.gather(again, (await peers.offer()).accept(into=[bytearray(26)])))
        receiving.cancel()
        assert isinstance(await failure(receiving), spaceblock.TransferCancelled)
    remove_unfinished(inbox)


async def test_what_is_cancelled_in_the_moment_in_which_it_goes_on_is_not_sent_after_all(
    tmp_path: Path, inbox: Path
) -> None:
    source = file_of(tmp_path, "file", 4 * SIZE)
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > 0)
        outgoing = next(iter(peers.here._outgoing))
        send_again = outgoing.send_again

        async def send_again_in_vain(lost: Outgoing) -> Outgoing | None:
            later = await send_again(lost)
            sending.cancel()
            return later

        outgoing.send_again = send_again_in_vain
        await lose(way, sending, receiving)
        assert isinstance(await failure(sending), spaceblock.TransferCancelled)
        assert not peers.here._outgoing
        receiving.cancel()
        assert isinstance(await failure(receiving), spaceblock.TransferCancelled)
    remove_unfinished(inbox)


async def test_a_sender_that_comes_back_while_the_end_is_recorded_hears_of_it(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "file", MIB)
    async with network() as (peers, way):
        with Gate(monkeypatch, Memory, "finish") as gate:
            sending, receiving = await begin(peers, inbox, source)
            await within(gate.reached.wait())
            way.is_cut = True
            await until(lambda: is_reconnecting(sending))
            way.is_cut = False
            await until(lambda: peers.there._queries or sending.progress.phase is spaceblock.Phase.USER)
        ours, theirs = await within(asyncio.gather(sending, receiving))
        assert ours.items == theirs.items
    assert tree(inbox) == {"file": source.read_bytes()}


async def test_a_sender_that_is_lost_again_while_its_receiver_lets_go_is_waited_for(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver's disk is not ready for its second attempt before the third."""
    source = file_of(tmp_path, "large", SIZE)
    async with network(replace(TIMES, close=50.0)) as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > SIZE // 4)
        came = incoming_of(peers, monkeypatch)
        with Gate(monkeypatch, FolderSink, "close") as gate:
            await lose(way, sending)
            await until(lambda: len(came) == 1)
            way.is_cut = True
            await until(came[0].finished.is_set)
            way.is_cut = False
            await until(lambda: len(came) == 2)
            await within(gate.reached.wait())
        ours, theirs = await within(asyncio.gather(sending, receiving))
        assert ours.items == theirs.items
    assert tree(inbox) == {"large": source.read_bytes()}


def incoming_of(peers: Pair, monkeypatch: pytest.MonkeyPatch) -> list[Incoming]:
    """What is offered from now on."""
    came: list[Incoming] = []
    offer_read = peers.there._offer_read

    def note(incoming: Incoming, offer: spaceblock.Offer) -> None:
        came.append(incoming)
        offer_read(incoming, offer)

    monkeypatch.setattr(peers.there, "_offer_read", note)
    return came


async def test_who_comes_back_to_a_receiver_that_cancels_in_that_moment_is_offered_anew(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "file", SIZE)
    async with network() as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > 0)
        offer_read = peers.there._offer_read

        def cancel_first(incoming: Incoming, offer: spaceblock.Offer) -> None:
            receiving.cancel()
            offer_read(incoming, offer)

        monkeypatch.setattr(peers.there, "_offer_read", cancel_first)
        await lose(way, sending, receiving)
        assert isinstance(await failure(receiving), spaceblock.TransferCancelled)
        await (await peers.offer()).accept(inbox)
        await within(sending._wait())
    assert tree(inbox) == {"file": source.read_bytes()}


async def test_a_connection_that_is_lost_before_the_offer_is_answered_is_made_again(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The offer has arrived and its receiver has said nothing: that nothing moves is noticed later than the loss."""
    source = file_of(tmp_path, "file", MIB)
    arrived = asyncio.Event()

    def say_nothing(incoming: Incoming, event: object) -> None:
        arrived.set()

    async with network(replace(TIMES, idle=3.0)) as (peers, way):
        with monkeypatch.context() as patch:
            patch.setattr(Incoming, "_offered", say_nothing)
            sending = peers.here.send(source)
            await within(arrived.wait())
        await asyncio.sleep(0.1)  # so that what was heard last is later than the offer
        await lose(way, sending)
        await (await within(anext(aiter(peers.listener)))).accept(inbox)
        await within(sending._wait())
    assert tree(inbox) == {"file": source.read_bytes()}


async def test_a_sender_that_was_started_anew_takes_its_transfer_over(tmp_path: Path, inbox: Path) -> None:
    """The listener does not know yet that the first connection is dead."""
    source = file_of(tmp_path, "large", SIZE)
    times = spaceblock.Timeouts(connect=5.0, idle=5.0, retry=0.0, close=0.1)
    options = spaceblock.Options(identity=tmp_path / "sender", limits=LIMITS, timeouts=times)
    async with network(here={"identity": tmp_path / "sender"}) as (peers, way):
        sending, receiving = await begin(peers, inbox, source)
        await until(lambda: receiving.progress.durable > SIZE // 4)
        way.is_cut = True
        await until(lambda: is_reconnecting(sending))
        sending.cancel()
        assert isinstance(await failure(sending), spaceblock.TransferCancelled)
        way.is_cut = False
        ticket = spaceblock.trust.tickets.Ticket.parse(peers.listener.ticket)
        async with spaceblock.connect(ticket, options=options) as second:
            receipt, theirs = await within(asyncio.gather(second.send(source), receiving))
        assert receipt.items == theirs.items
        assert receipt.resumed > SIZE // 8
    assert tree(inbox) == {"large": source.read_bytes()}
