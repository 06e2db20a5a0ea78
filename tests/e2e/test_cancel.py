"""Stopping a transfer: by either side, in every phase, by ``cancel()``, by asyncio and by leaving."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

import spaceblock
from spaceblock import Identity
from spaceblock.storage.sources import description
from spaceblock.transfers import outgoing
from spaceblock.trust.memory import Memory

from .stages import (
    Gate,
    receiver_flushes,
    receiver_places,
    receiver_prepares,
    receiver_writes,
    sender_reads,
    sender_remembers,
)
from .support import (
    BLOCK,
    QUICK,
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

T = TypeVar("T")

SIDES = ["sender", "receiver"]


def assert_cancelled(error: spaceblock.SpaceblockError, *, remote: bool) -> None:
    assert isinstance(error, spaceblock.TransferCancelled)
    assert isinstance(error, EOFError)
    assert error.code == "cancelled"
    assert error.remote is remote


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> spaceblock.Options:
    """With limits beyond which no test waits: who ends has been told, and not given up."""
    monkeypatch.setattr(outgoing, "_VERDICT_WAIT", 300.0)
    return spaceblock.Options(timeouts=spaceblock.Timeouts(idle=300.0, close=300.0))


async def test_what_a_disk_says_after_a_cancel_bothers_nobody(tmp_path: Path) -> None:
    async with pair() as peers:
        for steps in range(5):
            sending = peers.here.send(tmp_path / "missing")
            sent = peers.here.send(b"data")
            offer = await peers.offer()
            receiving = offer.accept(tmp_path / "missing")
            for _ in range(steps):
                await asyncio.sleep(0)
            for transfer in (sending, receiving):
                transfer.cancel()
            await failures(sending, sent, receiving)


async def test_a_cancel_while_an_earlier_attempt_is_looked_for_lets_go_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "x", 10)
    async with pair() as peers:
        with sender_remembers(monkeypatch) as gate:
            sending = peers.here.send(source)
            await within(gate.reached.wait())
            sending.cancel()
        await failure(sending)
        claim = Memory(Identity.load()).claim(peers.here.peer_id, description([spaceblock.Item(source)], "skip"))
        assert claim.lock >= 0, "it is free"
        claim.release(forget=True)


@pytest.mark.parametrize("again", range(2))
async def test_cancelled_before_anything_happened_the_other_side_never_hears_of_it(again: int, tmp_path: Path) -> None:
    source = file_of(tmp_path, "x", 10)
    buffer = bytearray(10)
    async with pair() as peers:
        sending = peers.here.send(source, buffer)
        for _ in range(again):
            await asyncio.sleep(0)
        sending.cancel()
        assert_cancelled(await failure(sending), remote=False)
        assert resizable(buffer)
        assert not peers.there._incoming


async def test_cancelled_by_the_sender_while_the_receiver_thinks(inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        withdrawn = asyncio.ensure_future(offer.withdrawn())
        await asyncio.sleep(0)
        assert not withdrawn.done()
        sending.cancel()
        await within(withdrawn)
        assert_cancelled(await failure(sending), remote=False)
        await until(lambda: not peers.there._incoming)
        assert_cancelled(await failure(offer.accept(inbox)), remote=True)
    assert tree(inbox) == {}


async def test_declining_an_offer_that_is_gone_does_no_harm() -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        sending.cancel()
        await failure(sending)
        await until(lambda: not peers.there._incoming)
        await offer.decline("too late")


@pytest.mark.parametrize("side", SIDES)
async def test_cancelled_while_the_receiver_prepares(
    side: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch, patient: spaceblock.Options
) -> None:
    source = file_of(tmp_path, "x", 10)
    async with pair(patient) as peers:
        with receiver_prepares(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            if side == "sender":
                sending.cancel()
                assert_cancelled(await failure(sending), remote=False)
            else:
                receiving.cancel()
                assert_cancelled(await failure(sending), remote=True)
        assert_cancelled(await failure(receiving), remote=side == "sender")
    assert tree(inbox) == {}


@pytest.mark.parametrize("side", SIDES)
async def test_cancelled_while_bytes_move(
    side: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch, patient: spaceblock.Options
) -> None:
    source = file_of(tmp_path, "x", 64 * BLOCK)
    async with pair(patient) as peers:
        with sender_reads(monkeypatch, first=3) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            ours, theirs = (sending, receiving) if side == "sender" else (receiving, sending)
            ours.cancel()
            if side == "sender":
                assert_cancelled(await failure(theirs), remote=True)
            gate.open()
            assert_cancelled(await failure(theirs), remote=True)
            assert_cancelled(await failure(ours), remote=False)
    assert tree(inbox) == {}


@pytest.mark.parametrize("side", SIDES)
async def test_cancelled_while_the_receivers_disk_hangs(
    side: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch, patient: spaceblock.Options
) -> None:
    source = file_of(tmp_path, "x", 64 * BLOCK)
    async with pair(patient) as peers:
        with receiver_writes(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            (sending if side == "sender" else receiving).cancel()
            assert_cancelled(await failure(sending), remote=side == "receiver")
        assert_cancelled(await failure(receiving), remote=side == "sender")
    await until(lambda: not tree(inbox), "the end of cleaning up, which no outcome waits for")


@pytest.mark.parametrize("side", SIDES)
async def test_cancelled_while_verifying(
    side: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "x", 1000)
    async with pair() as peers:
        with receiver_places(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            (sending if side == "sender" else receiving).cancel()
            assert_cancelled(await failure(sending), remote=side == "receiver")
        assert_cancelled(await failure(receiving), remote=side == "sender")
    assert visible(inbox) in ({}, {"x": source.read_bytes()}), "a whole file or none"
    async with pair() as peers:
        await deliver(peers, source, folder=inbox)
    assert tree(inbox) == {"x": source.read_bytes()}, "and no second one when the same is sent again"


@pytest.mark.parametrize("side", SIDES)
async def test_cancelling_when_all_is_done_changes_nothing(side: str, inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        receiving = (await peers.offer()).accept(inbox)
        await within(asyncio.gather(sending, receiving))
        (sending if side == "sender" else receiving).cancel()
        assert (await sending).items == (await receiving).items


async def test_a_cancel_that_crosses_verified_is_a_success_on_both_sides() -> None:
    """The receiver had everything before it heard of the cancel, so both must say that it is complete."""
    target = bytearray(4)
    async with pair() as peers:
        sending = peers.here.send(b"data")
        receiving = (await peers.offer()).accept(into=[target])
        incoming = next(iter(peers.there._incoming))
        await until(lambda: incoming.receiver.state.name in ("VERIFIED", "DONE"))
        sending.cancel()
        sent, received = await within(asyncio.gather(sending, receiving))
    assert sent.items == received.items
    assert target == b"data"


@pytest.mark.parametrize("side", SIDES)
async def test_another_transfer_of_the_same_connection_completes(
    side: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch, patient: spaceblock.Options
) -> None:
    source = file_of(tmp_path, "doomed", 64 * BLOCK)
    target = bytearray(300_000)
    data = bytes(range(256)) * 1200
    async with pair(patient) as peers:
        with receiver_writes(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            other = peers.here.send(data[:300_000])
            other_receiving = (await peers.offer()).accept(into=[target])
            (sending if side == "sender" else receiving).cancel()
            assert_cancelled(await failure(sending), remote=side == "receiver")
            await within(asyncio.gather(other, other_receiving))
        await failure(receiving)
        await deliver(peers, b"and the connection goes on", into=[bytearray(26)])
    assert target == data[:300_000]
    assert visible(inbox) == {}
    if tree(inbox):  # what was durable by then is kept
        remove_unfinished(inbox)


async def test_cancelling_again_and_again_and_after_the_end_is_harmless(tmp_path: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        await peers.offer()
        for _ in range(3):
            sending.cancel()
        first = await failure(sending)
        sending.cancel()
        assert await failure(sending) is first


# asyncio's own ways.


async def cancel(work: Awaitable[object]) -> None:
    """Cancel a task that awaits ``work``."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("side", SIDES)
async def test_cancelling_who_awaits_a_transfer_cancels_the_transfer(
    side: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch, patient: spaceblock.Options
) -> None:
    source = file_of(tmp_path, "x", 64 * BLOCK)

    async def wait(transfer: spaceblock.Transfer) -> None:
        await transfer

    async with pair(patient) as peers:
        with sender_reads(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            task = asyncio.create_task(wait(sending if side == "sender" else receiving))
            await asyncio.sleep(0)
            task.cancel()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        theirs = receiving if side == "sender" else sending
        assert_cancelled(await failure(theirs), remote=True)
    assert tree(inbox) == {}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
async def test_a_timeout_around_a_transfer_cancels_it_and_frees_its_buffers() -> None:
    if sys.version_info >= (3, 11):
        buffer = bytearray(3_000_000)
        async with pair() as peers:
            sending = peers.here.send(buffer)
            offer = await peers.offer()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sending
            assert resizable(buffer)
            error = await failure(offer.accept(into=[bytearray(3_000_000)]))
            assert_cancelled(error, remote=True)


async def test_leaving_an_iteration_changes_nothing(inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        receiving = (await peers.offer()).accept(inbox)
        async for _ in sending:
            break
        async for _ in receiving:
            break
        await within(asyncio.gather(sending, receiving))


async def test_cancelling_who_watches_changes_nothing(inbox: Path) -> None:
    async def watch(transfer: spaceblock.Transfer) -> None:
        async for _ in transfer:
            pass

    async with pair() as peers:
        sending = peers.here.send(b"data")
        await cancel(watch(sending))
        receiving = (await peers.offer()).accept(inbox)
        await within(asyncio.gather(sending, receiving))


async def test_iterating_ends_silently_and_only_awaiting_raises() -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        watching = asyncio.create_task(_all(sending))
        await (await peers.offer()).decline("no")
        figures = await within(watching)
        assert figures[-1].phase is spaceblock.Phase.DONE
        async for _ in sending:
            raise AssertionError("the transfer is over")
        for _ in range(2):
            assert isinstance(await failure(sending), spaceblock.TransferRefused)


async def test_cancelling_who_waits_for_an_offer_or_a_peer_leaves_both_usable(inbox: Path) -> None:
    async with pair() as peers:
        await cancel(anext(peers.there.offers()))
        await cancel(anext(aiter(peers.listener)))
        await cancel(anext(peers.listener.peers()))
        await deliver(peers, b"data", folder=inbox)


async def test_cancelling_connect_at_any_moment_leaves_nothing() -> None:
    """Whatever step it was in, no socket and no task stays; the ticket is still good for the same peer."""
    target = bytearray(4)
    async with spaceblock.listen("127.0.0.1") as listener:

        async def connect(then: asyncio.Event) -> None:
            async with spaceblock.connect(listener.ticket) as peer:
                then.set()
                await peer.send(b"data")

        for steps in range(0, 60, 3):
            task = asyncio.create_task(connect(asyncio.Event()))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        offers = aiter(listener)
        task = asyncio.create_task(connect(asyncio.Event()))
        while True:
            try:
                await within((await anext(offers)).accept(into=[target]))
                break
            except spaceblock.TransferCancelled:
                continue
        await within(task)
    assert target == b"data"


async def test_cancelling_listen_at_any_moment_leaves_nothing() -> None:
    async def listen() -> None:
        async with spaceblock.listen("127.0.0.1"):
            await asyncio.sleep(60)

    for steps in range(12):
        task = asyncio.create_task(listen())
        for _ in range(steps):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)


# Leaving.


class Own(Exception):
    """An exception of the program itself."""


async def test_leaving_by_an_exception_cancels_without_masking_it(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        buffer = bytearray(2_000_000)
        connecting = spaceblock.connect(listener.ticket)
        peer = await connecting.__aenter__()
        sending = peer.send(buffer)
        receiving = (await anext(aiter(listener))).accept(inbox)
        own = Own()
        assert await connecting.__aexit__(Own, own, None) is False
        assert resizable(buffer)
        assert_cancelled(await failure(sending), remote=False)
        assert_cancelled(await failure(receiving), remote=True)
    assert tree(inbox) == {}


async def test_leaving_the_listener_by_an_exception_cancels_without_masking_it(inbox: Path) -> None:
    listening = spaceblock.listen("127.0.0.1")
    listener = await listening.__aenter__()
    connecting = spaceblock.connect(listener.ticket)
    peer = await connecting.__aenter__()
    sending = peer.send(bytes(2_000_000))
    receiving = (await anext(aiter(listener))).accept(inbox)
    own = Own()
    assert await listening.__aexit__(Own, own, None) is False
    assert_cancelled(await failure(receiving), remote=False)
    assert_cancelled(await failure(sending), remote=True)
    await connecting.__aexit__(None, None, None)
    assert tree(inbox) == {}


async def test_leaving_normally_waits_for_what_runs(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        async with spaceblock.connect(listener.ticket) as peer:
            sending = peer.send(bytes(2_000_000))
            receiving = (await anext(aiter(listener))).accept(inbox)
        assert sending.done
        assert (await sending).bytes == 2_000_000
    assert (await receiving).bytes == 2_000_000


@pytest.mark.parametrize("side", SIDES)
async def test_an_error_that_nobody_retrieved_is_raised_on_leaving(side: str, tmp_path: Path) -> None:
    async def whole() -> None:
        async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
            sending = peer.send(b"data")
            receiving = (await anext(aiter(listener))).accept(tmp_path / "missing")
            if side == "sender":
                await failure(receiving)
                await until(lambda: sending.done)
            else:
                await failure(sending)
                await until(lambda: receiving.done)

    error = await failure(whole())
    assert isinstance(error, spaceblock.TargetMissing)
    assert error.remote is (side == "sender")


async def test_an_error_is_also_raised_when_its_peer_left_long_before(tmp_path: Path) -> None:
    async def whole() -> None:
        async with spaceblock.listen("127.0.0.1") as listener:
            async with spaceblock.connect(listener.ticket) as peer:
                sending = peer.send(b"data")
                (await anext(aiter(listener))).accept(tmp_path / "missing")
                await failure(sending)
            await until(lambda: not listener._peers)

    assert isinstance(await failure(whole()), spaceblock.TargetMissing)


async def test_an_error_that_was_retrieved_late_is_not_raised_again(tmp_path: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(tmp_path / "missing")
        await until(lambda: sending.done)
        for _ in range(5):
            await asyncio.sleep(0)
        assert isinstance(await failure(sending), spaceblock.SourceMissing)


async def test_a_decline_is_the_senders_error_and_not_the_receivers() -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        await (await peers.offer()).decline("not now")
        error = await failure(sending)
        assert isinstance(error, spaceblock.TransferRefused)
        assert error.exit_code == 3
        assert error.remote
        assert "not now" in str(error)


async def test_an_offer_can_be_answered_once(inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        receiving = offer.accept(inbox)
        with pytest.raises(spaceblock.LocalProtocolError):
            offer.accept(inbox)
        with pytest.raises(spaceblock.LocalProtocolError):
            await offer.decline()
        await within(asyncio.gather(sending, receiving))
        with pytest.raises(spaceblock.LocalProtocolError):
            offer.accept(inbox)

        sending = peers.here.send(b"data")
        offer = await peers.offer()
        await offer.decline()
        with pytest.raises(spaceblock.LocalProtocolError):
            offer.accept(inbox)
        with pytest.raises(spaceblock.LocalProtocolError):
            await offer.decline()
        await failure(sending)
    assert tree(inbox) == {"unnamed-0": b"data"}


async def test_offers_that_nobody_answered_are_declined_on_leaving() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        there = await anext(listener.peers())
        sendings = [peer.send(b"data"), peer.send(b"more")]
        offer = await anext(there.offers())
        await until(lambda: len(there._incoming) == 2)
        await there.close()
        for error in await failures(*sendings):
            assert isinstance(error, spaceblock.TransferRefused)
            assert error.remote
        with pytest.raises(spaceblock.LocalProtocolError):
            offer.accept(into=[bytearray(4)])


async def test_an_offer_that_nobody_answers_expires_on_both_sides() -> None:
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(offer=0.5))
    async with pair(options, here=spaceblock.Options()) as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        error = await failure(sending)
        assert isinstance(error, spaceblock.OfferExpired)
        assert error.remote
        assert error.phase == str(spaceblock.Phase.USER)
        await until(lambda: not peers.there._incoming)
        error = await failure(offer.accept(into=[bytearray(4)]))
        assert isinstance(error, spaceblock.OfferExpired)
        assert not error.remote


async def test_a_sender_does_not_wait_for_an_answer_longer_than_its_own_limit() -> None:
    timeouts = spaceblock.Timeouts(offer=0.3, idle=1.5)
    async with pair(here=spaceblock.Options(timeouts=timeouts)) as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        error = await failure(sending)
        assert isinstance(error, spaceblock.Stalled)
        assert isinstance(error, TimeoutError)
        assert error.phase == str(spaceblock.Phase.USER)
        assert not error.remote
        await until(lambda: not peers.there._incoming)
        theirs = await failure(offer.accept(into=[bytearray(4)]))
        assert isinstance(theirs, spaceblock.Stalled)
        assert theirs.remote


async def test_sending_on_a_connection_that_is_over_is_refused_at_once() -> None:
    async with pair() as peers:
        await peers.here.close()
        with pytest.raises(spaceblock.ConnectionLost, match="connect again"):
            peers.here.send(b"data")
        await until(lambda: peers.there.closed)
        with pytest.raises(spaceblock.ConnectionLost, match="connect again"):
            peers.there.send(b"data")
        await peers.here.close()


async def test_iterations_over_offers_and_peers_end_with_what_they_listen_to() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        async with spaceblock.connect(listener.ticket) as peer:
            there = await anext(listener.peers())
            await there.close()
            assert [offer async for offer in there.offers()] == []
            await until(lambda: peer.closed)
            assert [offer async for offer in peer.offers()] == []
        everybody = asyncio.create_task(_all(listener.peers()))
        everything = asyncio.create_task(_all(listener))
        await asyncio.sleep(0)
    assert await within(everybody) == []
    assert await within(everything) == []


async def _all(things: AsyncIterable[T]) -> list[T]:
    return [thing async for thing in things]


async def test_a_disk_that_hangs_stalls_its_transfer_and_both_sides_learn_the_phase(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = spaceblock.Timeouts(sink=0.6, idle=5.0, close=0.2)
    source = file_of(tmp_path, "x", 400 * BLOCK)
    async with pair(spaceblock.Options(timeouts=timeouts)) as peers:
        with receiver_writes(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            ours, theirs = await failures(sending, receiving)
            for error in (ours, theirs):
                assert isinstance(error, spaceblock.Stalled)
                assert error.phase == str(spaceblock.Phase.DISK)
            assert (ours.remote, theirs.remote) == (True, False)
        await until(lambda: tree(inbox) == {}, "the disk answers and the unfinished file goes")


@pytest.mark.parametrize("hangs", [receiver_flushes, receiver_places])
async def test_a_disk_that_hangs_while_it_makes_things_durable_is_waited_for_as_such(
    tmp_path: Path,
    inbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    unfinished_files_removed: None,
    hangs: Callable[[pytest.MonkeyPatch], Gate],
) -> None:
    timeouts = spaceblock.Timeouts(sink=0.6, idle=5.0, close=0.2)
    count = 400 if hangs is receiver_places else 1
    sources = [file_of(tmp_path, f"x{number}", 400 // count * BLOCK) for number in range(count)]
    async with pair(spaceblock.Options(timeouts=timeouts)) as peers:
        with hangs(monkeypatch) as gate:
            sending = peers.here.send(*sources)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            ours = await failure(sending)
        for error in (ours, await failure(receiving)):
            assert isinstance(error, spaceblock.Stalled)
            assert error.phase == str(spaceblock.Phase.DISK)
        sink = receiving._job.sink  # type: ignore[attr-defined]
        await until(lambda: sink._opened_inside is None, "the disk answers and the folder is left")


async def test_a_source_that_hangs_stalls_the_transfer(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "x", 64 * BLOCK)
    async with pair(spaceblock.Options(timeouts=QUICK)) as peers:
        with sender_reads(monkeypatch) as gate:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            theirs = await failure(receiving)
            gate.open()
            ours = await failure(sending)
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == str(spaceblock.Phase.MOVING)
    assert tree(inbox) == {}
