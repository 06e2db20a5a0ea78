"""How long things live: nothing of a transfer stays when it is over, whenever and however its tasks are cancelled."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spaceblock
from spaceblock.quic import Stream
from spaceblock.quic.endpoint import Endpoint
from spaceblock.storage.feed import Feed
from spaceblock.storage.landing import Landing
from spaceblock.storage.ring import Ring
from spaceblock.transfers.incoming import Incoming
from spaceblock.transfers.outgoing import Outgoing
from spaceblock.trust.tickets import Ticket

from .stages import receiver_writes
from .support import (
    BLOCK,
    Census,
    Pair,
    back_to,
    deliver,
    failure,
    failures,
    file_of,
    pair,
    remove_unfinished,
    resizable,
    tree,
    until,
    visible,
    within,
)

KINDS = (Incoming, Outgoing, Feed, Landing, Ring, spaceblock.Offer, spaceblock.Transfer, spaceblock.Peer)


def objects(*kinds: type) -> list[object]:
    """Everything of these kinds that is alive."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]


def alive(*kinds: type) -> dict[str, int]:
    """How many objects of each kind there are."""
    found = [type(thing).__name__ for thing in objects(*kinds)]
    return {kind.__name__: found.count(kind.__name__) for kind in kinds if kind.__name__ in found}


async def test_nothing_of_a_transfer_stays_on_a_connection_that_goes_on(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "x", 3 * BLOCK)
    async with pair() as peers:
        for _ in range(5):
            await deliver(peers, source, b"buffer", folder=inbox, on_conflict="overwrite")
            refused = peers.here.send(source)
            await (await peers.offer()).decline()
            await failure(refused)
            cancelled = peers.here.send(source)
            offer = await peers.offer()
            cancelled.cancel()
            await failure(cancelled)
            del refused, cancelled, offer
        await until(lambda: not peers.there._incoming and not peers.here._outgoing)
        await until(lambda: alive(*KINDS) == {"Peer": 2})
        await until(lambda: len(objects(Stream)) == 2, "each side's end of the session's stream")


async def test_a_finished_transfer_that_somebody_keeps_holds_no_buffers(inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(bytes(3_000_000))
        receiving = (await peers.offer()).accept(inbox)
        await within(asyncio.gather(sending, receiving))
        outgoing, incoming = sending._job, receiving._job
        assert isinstance(outgoing, Outgoing)
        assert isinstance(incoming, Incoming)
        for ring in (outgoing._carrier._ring, incoming.ring):
            assert not ring._free


async def cancelled_after(peers: Pair, steps: int, side: str) -> bool:
    """Cancel one side's task after so many rounds of the loop; whether it was over by then."""
    source, target = bytearray(300_000), bytearray(300_000)

    async def send() -> None:
        await peers.here.send(source)

    async def receive() -> None:
        offer = await anext(peers.there.offers())
        await offer.accept(into=[target])

    tasks = {"sender": asyncio.create_task(send()), "receiver": asyncio.create_task(receive())}
    for _ in range(steps):
        await asyncio.sleep(0)
    over = tasks[side].done()
    tasks[side].cancel()
    _, waiting = await asyncio.wait(tasks.values(), timeout=0.3)
    for task in waiting:  # it waits for an offer that never came, or for an answer that never will
        task.cancel()
    await asyncio.wait(tasks.values())
    await until(lambda: not peers.there._incoming and not peers.here._outgoing)
    assert resizable(source)
    assert resizable(target)
    for task in tasks.values():
        if not task.cancelled():
            error = task.exception()
            assert error is None or isinstance(error, spaceblock.TransferCancelled)
    return over


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_task_that_is_cancelled_at_any_moment_leaves_nothing_locked(side: str) -> None:
    async with pair() as peers:
        before = Census.take()
        steps = 0
        while not await cancelled_after(peers, steps, side):
            steps = steps * 5 // 4 + 1
            await back_to(before)
        await deliver(peers, b"and the connection goes on", into=[bytearray(26)])


ENTERED: dict[str, Callable[[str], AbstractAsyncContextManager[Any]]] = {
    "connect": lambda ticket: spaceblock.connect(ticket),
    "listen": lambda ticket: spaceblock.listen("127.0.0.1"),
}


async def rounds(count: int) -> None:
    """Let the loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("what", ENTERED)
async def test_a_cancel_while_something_is_left_is_not_lost(what: str) -> None:
    async def enter_and_leave() -> None:
        async with ENTERED[what](listener.ticket):
            pass
        is_over.set()
        await asyncio.sleep(0)

    async with spaceblock.listen("127.0.0.1") as listener:
        is_over = asyncio.Event()
        steps = 0
        while not is_over.is_set():
            task = asyncio.create_task(enter_and_leave())
            await rounds(steps)
            if not is_over.is_set():
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert not is_over.is_set()
            steps = steps * 9 // 8 + 1
        await task


@pytest.mark.parametrize("what", ENTERED)
async def test_a_second_cancel_leaves_nothing_behind_either(what: str) -> None:
    async def enter() -> None:
        async with ENTERED[what](listener.ticket):
            entered.set()
            await asyncio.Event().wait()

    async with spaceblock.listen("127.0.0.1") as listener:
        entered = asyncio.Event()
        before = Census.take()
        steps = 0
        while not entered.is_set():
            task = asyncio.create_task(enter())
            await rounds(steps)
            task.cancel()
            await rounds(1)
            task.cancel()
            await asyncio.wait([task])
            await back_to(before)
            steps = steps * 9 // 8 + 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
async def test_a_timeout_around_everything_ends_everything(tmp_path: Path, inbox: Path) -> None:
    async def everything() -> None:
        async with pair(spaceblock.Options(bandwidth=50_000_000)) as peers:  # so that it takes a second at least
            sending = peers.here.send(bytes(50_000_000))
            receiving = (await anext(peers.there.offers())).accept(inbox)
            await asyncio.gather(sending, receiving)

    if sys.version_info >= (3, 11):
        for seconds in (0.0, 0.001, 0.01, 0.03, 0.1):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await everything()
            assert tree(inbox) == {}


async def test_a_claimed_peer_is_a_context_of_its_own(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        async with await anext(listener.peers()) as there:
            sending = there.send(spaceblock.Item(b"data", name="x"))
            receiving = (await within(anext(peer.offers()))).accept(inbox)
        assert sending.done
        await within(receiving)
    assert tree(inbox) == {"x": b"data"}


async def test_who_waits_with_a_time_limit_may_go_on_waiting() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        peers, everything = listener.peers(), aiter(listener)
        for iteration in (peers, everything):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(iteration), 0.01)
        async with spaceblock.connect(listener.ticket) as peer:
            sending = peer.send(b"data")
            offer = await within(anext(everything))
            offers = (await within(anext(peers))).offers()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(offers), 0.01)
            await within(asyncio.gather(sending, offer.accept(into=[bytearray(4)])))
            sending = peer.send(b"data")
            await within(asyncio.gather(sending, (await anext(offers)).accept(into=[bytearray(4)])))


class Own(Exception):
    """An exception of the program itself."""


async def test_leaving_a_claimed_peer_by_an_exception_cancels_without_masking_it() -> None:
    async def leave(there: spaceblock.Peer) -> spaceblock.Transfer:
        async with there:
            leave.sending = there.send(b"data")  # type: ignore[attr-defined]
            raise Own

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket):
        there = await anext(listener.peers())
        with pytest.raises(Own):
            await leave(there)
        assert isinstance(await failure(leave.sending), spaceblock.TransferCancelled)  # type: ignore[attr-defined]


async def test_closing_that_is_cancelled_cancels_what_it_waited_for(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        context = spaceblock.connect(listener.ticket)
        peer = await context.__aenter__()
        buffer = bytearray(10)
        sending = peer.send(buffer)
        offer = await within(anext(aiter(listener)))
        leaving = asyncio.ensure_future(context.__aexit__(None, None, None))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(leaving)
        assert resizable(buffer)
        assert isinstance(await failure(sending), spaceblock.TransferCancelled)
        assert isinstance(await failure(offer.accept(inbox)), spaceblock.TransferCancelled)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_transfer_whose_task_is_cancelled_again_and_again_ends_all_the_same(side: str) -> None:
    """As by a program that cancels every task of its event loop, its own and others', before asyncio does."""
    options = spaceblock.Options(bandwidth=10_000_000)
    async with pair(options) as peers:
        transfers = {"sender": peers.here.send(bytes(10_000_000))}
        transfers["receiver"] = (await peers.offer()).accept(into=[bytearray(10_000_000)])
        await until(lambda: transfers["receiver"].progress.bytes_done)
        task = transfers[side]._job._task
        assert task is not None
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert isinstance(await failure(transfers[side]), spaceblock.TransferCancelled)
        for transfer in transfers.values():
            transfer.cancel()
        await failures(*transfers.values())


@pytest.mark.parametrize("side", ["connect", "listen"])
async def test_whoever_is_cancelled_while_a_socket_is_closed_goes_no_further(
    monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """On a long way closing takes a while, and a time-out that is over in it is over for what comes next, too."""
    closing = asyncio.Event()

    async def close_slowly(endpoint: Endpoint) -> None:
        closing.set()
        await asyncio.sleep(0.1)
        await close(endpoint)

    async def work() -> None:
        if side == "listen":
            with suppress(Own):
                async with spaceblock.listen("127.0.0.1"):
                    raise Own
        else:
            async with spaceblock.listen("127.0.0.1") as listener:
                async with spaceblock.connect(listener.ticket):
                    pass
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    close = Endpoint.close
    monkeypatch.setattr(Endpoint, "close", close_slowly)
    working = asyncio.create_task(work())
    await within(closing.wait())
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(working)


async def test_a_connection_that_nobody_waits_for_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address did not answer, the second did, and the attempt at the first is just being given up."""
    opened: list[Endpoint] = []
    closing = asyncio.Event()

    async def close_slowly(endpoint: Endpoint) -> None:
        if endpoint not in opened:
            opened.append(endpoint)
            closing.set()
            await asyncio.sleep(0.1)
        await close(endpoint)

    async with spaceblock.listen("127.0.0.1") as listener:
        close = Endpoint.close
        monkeypatch.setattr(Endpoint, "close", close_slowly)
        ticket = Ticket.parse(listener.ticket)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            two = replace(ticket, addresses=(silent.getsockname(), *ticket.addresses))
            connecting = asyncio.ensure_future(spaceblock.connect(two).__aenter__())
            await within(closing.wait())
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(connecting)
        await until(lambda: not listener._peers, "the listener to hear that the peer has gone")
        assert len(opened) == 2


async def test_transfers_that_end_with_their_connection_have_errors_of_their_own() -> None:
    async with pair() as peers:
        sendings = [peers.here.send(b"data") for _ in range(3)]
        for _ in sendings:
            await peers.offer()
        await peers.there.abort()
        errors = await failures(*sendings)
        assert len(set(map(id, errors))) == 3
        assert all(error.__cause__ is not error for error in errors)


async def test_several_may_await_one_transfer(inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        receiving = (await peers.offer()).accept(inbox)

        async def wait(transfer: spaceblock.Transfer) -> spaceblock.Receipt:
            return await transfer

        receipts = await within(asyncio.gather(*(wait(sending) for _ in range(3)), wait(receiving), wait(receiving)))
        assert len({receipt.items for receipt in receipts}) == 1
        assert await sending is receipts[0]


async def test_what_arrived_before_a_cancel_is_listed_in_the_receivers_error(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [file_of(tmp_path, name, 100) for name in ("a", "b")]
    are_done = asyncio.Event()

    async def large() -> AsyncIterator[bytes]:
        await are_done.wait()
        for _ in range(40):
            yield bytes(BLOCK)

    async with pair() as peers:
        with receiver_writes(monkeypatch) as gate:
            sending = peers.here.send(*small, spaceblock.Item(large(), name="large"))
            receiving = (await peers.offer()).accept(inbox)
            await until(lambda: receiving.progress.items_done == 2)
            are_done.set()
            await within(gate.reached.wait())
            receiving.cancel()
            gate.open()
            ours, theirs = await failures(sending, receiving)
    assert isinstance(ours, spaceblock.TransferCancelled)
    assert isinstance(theirs, spaceblock.TransferCancelled)
    assert theirs.receipt is not None
    assert [item.path for item in theirs.receipt.items] == ["a", "b"]
    assert visible(inbox) == {path.name: path.read_bytes() for path in small}
    remove_unfinished(inbox)


# Kinds of buffers.


async def test_a_memory_map_can_be_sent_and_filled_and_closed_afterwards(tmp_path: Path) -> None:
    source, target = file_of(tmp_path, "source", 200_000), file_of(tmp_path, "target", 200_000)
    with source.open("rb") as file, target.open("r+b") as other:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        place = mmap.mmap(other.fileno(), 0)
        async with pair() as peers:
            await deliver(peers, data, into=[place])
        data.close()
        place.close()
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("shape", [(), (0,), (5, 0, 2), (3, 4, 5)])
async def test_arrays_of_any_shape_and_type_travel(shape: tuple[int, ...]) -> None:
    kinds = (np.float64, np.int16, np.complex64, np.bool_)
    arrays, targets = [np.ones(shape, kind) for kind in kinds], [np.zeros(shape, kind) for kind in kinds]
    async with pair() as peers:
        await deliver(peers, *arrays, into=targets)
    assert all(map(np.array_equal, arrays, targets))


async def test_an_array_in_another_order_is_refused() -> None:
    array = np.asfortranarray(np.ones((3, 4)))
    async with pair() as peers:
        with pytest.raises(spaceblock.BufferUnfit, match="ascontiguousarray"):
            peers.here.send(array)
        sending = peers.here.send(bytes(array.nbytes))
        errors = await failures(sending, (await peers.offer()).accept(into=[array]))
        assert all(isinstance(error, spaceblock.BufferUnfit) for error in errors)


# Kinds of names.


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"folder": ""}, "the folder is '': name one, \".\" for the current one"),
        ({"folder": 3}, "the folder is 3: name one"),
        ({"into": bytearray(4)}, "into is a bytearray: give a list with a target for each item"),
        ({"into": (target for target in [bytearray(4)])}, "into is a generator: give a list"),
        ({"folder": ".", "rename": "other"}, "rename is 'other': give a function"),
    ],
)
async def test_what_cannot_be_received_into_is_refused_at_once_and_the_offer_stays(
    how: dict[str, Any], message: str
) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        with pytest.raises(spaceblock.LocalProtocolError, match="rename is 3: give a function"):
            peer.send(b"data", rename=3)  # type: ignore[arg-type]
        sending = peer.send(b"data")
        offer = await anext(aiter(listener))
        with pytest.raises(spaceblock.LocalProtocolError) as refused:
            offer.accept(**how)
        assert refused.value.message.startswith(message)
        target = bytearray(4)
        await asyncio.gather(offer.accept(into=[target]), sending)
        assert target == b"data"


async def test_an_empty_folder_is_a_transfer_too(tmp_path: Path, inbox: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    async with pair() as peers:
        sent, received = await deliver(peers, tmp_path / "empty", folder=inbox)
    assert sent.items == received.items == ()
    assert tree(inbox) == {"empty": None, "empty/inner": None}


async def test_two_sources_of_one_name_are_refused_before_they_are_offered(tmp_path: Path) -> None:
    sources = [file_of(tmp_path, f"{folder}/x", 10) for folder in "ab"]
    async with pair() as peers:
        error = await failure(peers.here.send(*sources))
    assert isinstance(error, spaceblock.LocalProtocolError)
    assert "'x'" in str(error)
    assert "another name" in str(error)


async def test_a_file_whose_name_is_no_text_is_refused_before_it_is_offered(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / os.fsdecode(b"\xff")).touch()
    async with pair() as peers:
        error = await failure(peers.here.send(tmp_path / "tree"))
    assert isinstance(error, spaceblock.NameRejected)
    str(error).encode()


async def test_folders_nested_too_deep_are_refused_before_they_are_offered(tmp_path: Path) -> None:
    top = Path(tempfile.mkdtemp())  # not below tmp_path, in which everything is looked through afterwards
    deepest = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=deepest)
        inner = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = inner
    os.close(deepest)
    async with pair() as peers:
        error = await failure(peers.here.send(top / "d"))
    assert isinstance(error, (spaceblock.NameRejected, spaceblock.SourceError))
    await (await asyncio.create_subprocess_exec("rm", "-r", top)).wait()


async def test_an_unnamed_item_beside_a_file_of_its_usual_name(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path, "unnamed-1", 0).write_bytes(b"named")
    async with pair() as peers:
        sent, _ = await deliver(peers, tmp_path / "unnamed-1", b"unnamed", folder=inbox)
    assert (inbox / "unnamed-1").read_bytes() == b"named"
    assert sent.items[1].path is not None
    assert (inbox / sent.items[1].path).read_bytes() == b"unnamed"


async def test_links_in_a_folder_are_left_out_and_never_followed(tmp_path: Path, inbox: Path) -> None:
    secret = file_of(tmp_path, "secret", 10)
    file_of(tmp_path, "tree/file", 10)
    (tmp_path / "tree" / "link").symlink_to(secret)
    (tmp_path / "tree" / "folder").symlink_to(tmp_path)
    async with pair() as peers:
        await deliver(peers, tmp_path / "tree", folder=inbox)
    assert sorted(tree(inbox)) == ["tree", "tree/file"]
