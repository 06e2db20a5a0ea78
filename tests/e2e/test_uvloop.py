"""The same on uvloop's event loop, where there is one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import engines
import spaceblock
from spaceblock.blocks import SpaceblockRequest
from spaceblock.errors import ErrorCode
from spaceblock.quic.endpoint import Endpoint

from .hostile import RawPeer, leave, raw_connection, transport
from .support import Census, back_to, deliver, failure, file_of, pair, tree, within

uvloop = pytest.importorskip("uvloop")

MIB = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def libuv_has_its_pipe() -> None:
    """It makes one for signals, once, and keeps it as long as the process lives."""
    uvloop.run(asyncio.sleep(0))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Do the work on uvloop, which says nothing of an exception that nobody saw, and has nothing left to do."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, uvloop.Loop)
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        before = Census.take()
        await work
        await back_to(before)

    uvloop.run(watched())
    assert complaints == []


def test_files_and_buffers_travel_both_ways(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "x", 3 * MIB)
    data = os.urandom(2 * MIB)
    target = bytearray(len(data))

    async def both_ways() -> None:
        async with pair() as peers:
            sent, received = await deliver(peers, source, data, folder=inbox)
            assert sent.items == received.items
            back = peers.there.send(data)
            offer = await within(anext(peers.here.offers()))
            await within(asyncio.gather(back, offer.accept(into=[target])))

    run(both_ways())
    assert tree(inbox) == {"x": source.read_bytes(), "unnamed-1": data}
    assert target == data


def test_a_transfer_is_cancelled(inbox: Path) -> None:
    async def cancel() -> None:
        async with pair() as peers:
            sending = peers.here.send(bytes(50 * MIB))
            receiving = (await peers.offer()).accept(inbox)
            sending.cancel()
            assert isinstance(await failure(receiving), spaceblock.TransferCancelled)
            assert isinstance(await failure(sending), spaceblock.TransferCancelled)
            await deliver(peers, b"goes on", into=[bytearray(7)])

    run(cancel())
    assert tree(inbox) == {}


def test_where_nobody_listens_any_more_is_said_at_once() -> None:
    async def connect_too_late() -> None:
        async with spaceblock.listen("127.0.0.1") as listener:
            ticket = listener.ticket

        async def connect() -> None:
            async with spaceblock.connect(ticket):
                pass

        error = await failure(connect())
        assert isinstance(error, spaceblock.Unreachable)
        assert "refused" in str(error)

    run(connect_too_late())


def test_a_connection_outlives_what_the_network_reports_of_another_address() -> None:
    """Such as that nobody listens there any more, where an earlier datagram went."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()

    async def hear_of_it() -> None:
        async with spaceblock.listen("127.0.0.1") as listener:
            endpoint = await Endpoint.bind("127.0.0.1", 0, transport(engines.in_use.client))
            raw = RawPeer(await raw_connection(endpoint, listener.ticket))
            await raw.greet()
            endpoint.send([(b"to nobody", nobody)])
            offer = raw.offer(SpaceblockRequest(4))
            await (await within(anext(aiter(listener)))).decline()
            assert (await offer.error()).code == ErrorCode.REFUSED
            await leave(endpoint)

    run(hear_of_it())
