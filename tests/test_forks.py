"""Forked processes and other event loops: what they may do, and what they are told to leave to its maker."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import spaceblock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # of Python 3.12, where threads run
]

SIZE = 1_000_000


async def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child, which ends right behind it; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status)


def first_step(work: Awaitable[Any]) -> None:
    """Begin to wait for ``work`` as an event loop would."""
    next(work.__await__())


def calls_of(
    listener: spaceblock.Listener, peer: spaceblock.Peer, sending: spaceblock.Transfer, offer: spaceblock.Offer
) -> list[Callable[[], object]]:
    """What these are asked to do by the program that made them, and may not be by another."""
    return [
        lambda: peer.send(b"data"),
        lambda: first_step(anext(peer.offers())),
        lambda: first_step(anext(aiter(listener))),
        lambda: first_step(anext(listener.peers())),
        lambda: offer.accept(into=[bytearray(SIZE)]),
        lambda: first_step(offer.decline()),
        lambda: first_step(sending),
        lambda: first_step(anext(aiter(sending))),
        sending.cancel,
    ]


async def test_a_child_is_told_what_stayed_with_its_parent_and_harms_nothing() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(bytes(SIZE))
        offer = await anext(aiter(listener))
        calls: list[Callable[[], object]] = [*calls_of(listener, peer, sending, offer), lambda: listener.invite(1)]

        def child() -> None:
            for call in calls:
                with pytest.raises(spaceblock.LocalProtocolError, match="anew after the fork"):
                    call()
            for leave in (peer.close, peer.abort, listener.close, listener.abort):
                with pytest.raises(StopIteration):
                    first_step(leave())

        assert await in_child(child) == 0
        target = bytearray(b"?" * SIZE)
        await asyncio.gather(sending, offer.accept(into=[target]))
        assert target == bytes(SIZE), "the parent's transfer went on"


async def test_another_event_loop_is_told_where_things_belong_instead_of_waiting_for_ever() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(bytes(SIZE))
        offer = await anext(aiter(listener))
        calls = calls_of(listener, peer, sending, offer)

        async def elsewhere() -> None:
            for call in calls:
                with pytest.raises(spaceblock.LocalProtocolError, match="belongs to another event loop"):
                    call()

        await asyncio.to_thread(asyncio.run, elsewhere())
        for call in calls:
            with pytest.raises(spaceblock.LocalProtocolError, match="belongs to another event loop"):
                await asyncio.to_thread(call)
        await asyncio.to_thread(listener.invite, 1)
        target = bytearray(b"?" * SIZE)
        receipt, _ = await asyncio.gather(sending, offer.accept(into=[target]))
        assert target == bytes(SIZE), "this loop's transfer went on"

        async def later() -> spaceblock.Receipt:
            return await sending

        assert await asyncio.to_thread(asyncio.run, later()) is receipt, "what is over says so anywhere"


async def test_leaving_by_an_exception_in_a_child_does_not_end_its_parents_connection() -> None:
    async def both() -> None:
        async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
            sending = peer.send(bytes(SIZE))
            child = os.fork()
            if child == 0:
                raise SystemExit
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            offer = await anext(aiter(listener))
            await asyncio.gather(sending, offer.accept(into=[bytearray(SIZE)]))

    parent = os.getpid()
    try:
        await both()
    except BaseException as error:
        if os.getpid() != parent:
            os._exit(0 if isinstance(error, SystemExit) else 1)
        raise


def send_from_child(ticket: str) -> None:
    receipt = spaceblock.sync.send(
        ticket, bytes(SIZE), options=spaceblock.Options(identity=spaceblock.Identity.ephemeral())
    )
    assert receipt.bytes == SIZE


async def test_a_child_connects_for_itself_after_its_parent_did() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        tickets = [listener.ticket, *listener.invite(1)]
        offers = aiter(listener)
        async with spaceblock.connect(tickets[0]) as peer:
            sending = peer.send(bytes(SIZE))
            await asyncio.gather(sending, (await anext(offers)).accept(into=[bytearray(SIZE)]))

            child = multiprocessing.get_context("fork").Process(target=send_from_child, args=(tickets[1],))
            child.start()
            target = bytearray(b"?" * SIZE)
            await (await anext(offers)).accept(into=[target])
            await asyncio.to_thread(child.join)
            assert child.exitcode == 0
            assert target == bytes(SIZE)
