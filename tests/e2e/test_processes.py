"""Two processes: one is killed without warning in every phase, or both move more than they hold in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import engines
import spaceblock
from spaceblock.trust.tickets import Ticket

from .stages import receiver_places
from .support import BLOCK, PATIENCE, QUICK, assert_helpful, failure, file_of, tree, until, visible, within
from .test_transfers import b3sum

PROGRAM = Path(__file__).with_name("program.py")
OPTIONS = spaceblock.Options(timeouts=QUICK)
MIB = 1024 * 1024

LOST = (spaceblock.ConnectionLost, spaceblock.Stalled)
"""How a side that was killed looks: the connection and the transfer notice the silence at about the same time."""


class Child:
    """The other side, in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self, begins: str, seconds: float = PATIENCE) -> list[str]:
        """The words behind ``begins`` on the next line, which must begin so."""
        assert self.process.stdout is not None
        line = (await within(self.process.stdout.readline(), seconds)).decode()
        assert line.startswith(begins), f"{line!r}, and on standard error: {await self.errors()}"
        return line.split()[1:]

    async def errors(self) -> str:
        if self.process.returncode is None:
            self.process.kill()
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def child(*arguments: str | Path, home: Path, **settings: object) -> AsyncIterator[Child]:
    """Run the program on the engine of its side; whatever happens, it does not outlive the test."""
    engine = engines.in_use.client if arguments[0] == "send" else engines.in_use.server
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        *map(str, arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={
            **os.environ,
            **{name: str(value) for name, value in settings.items()},
            "SPACEBLOCK_HOME": str(home),
            "SPACEBLOCK_ENGINE": engine,
        },
    )
    other = Child(process)
    try:
        yield other
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


# The sender is killed.


async def assert_still_works(listener: spaceblock.Listener, inbox: Path) -> None:
    async with spaceblock.connect(listener.invite(1)[0]) as peer:
        sending = peer.send(spaceblock.Item(b"and on", name="next"))
        await within((await within(anext(aiter(listener)))).accept(inbox))
        await within(sending)
    assert (inbox / "next").read_bytes() == b"and on"
    (inbox / "next").unlink()


async def test_a_client_killed_while_connecting_is_forgotten(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "x", 10)
    async with (
        spaceblock.listen("127.0.0.1", options=OPTIONS) as listener,
        child("send", listener.ticket, source, "greeting", home=tmp_path / "home") as sender,
    ):
        await sender.line("hangs")
        await sender.kill()
        await until(lambda: len(listener._peers) == 1, "it was admitted")
        await until(lambda: not listener._peers, "and is gone")
        await assert_still_works(listener, inbox)
    assert tree(inbox) == {}


@pytest.mark.parametrize("answered", [False, True])
async def test_a_sender_killed_while_its_offer_waits(answered: bool, tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "x", 80 * BLOCK)
    async with (
        spaceblock.listen("127.0.0.1", options=OPTIONS) as listener,
        child("send", listener.ticket, source, home=tmp_path / "home") as sender,
    ):
        offer = await within(anext(aiter(listener)))
        await sender.kill()
        if not answered:
            await until(lambda: not listener._peers)
        error = await failure(offer.accept(inbox))
        assert isinstance(error, LOST)
        assert isinstance(error, ConnectionError)
        assert error.exit_code == 4
        assert_helpful(error)
        await assert_still_works(listener, inbox)
    assert tree(inbox) == {}


async def test_a_sender_killed_while_bytes_move(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "x", 80 * BLOCK)
    async with (
        spaceblock.listen("127.0.0.1", options=OPTIONS) as listener,
        child("send", listener.ticket, source, "reading", home=tmp_path / "home") as sender,
    ):
        receiving = (await within(anext(aiter(listener)))).accept(inbox)
        await sender.line("hangs")
        await sender.kill()
        error = await failure(receiving)
        assert isinstance(error, LOST)
        assert error.exit_code == 4
        assert_helpful(error)
        await assert_still_works(listener, inbox)
    assert tree(inbox) == {}


async def test_a_sender_killed_while_the_receiver_verifies(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "x", 2 * BLOCK)
    async with (
        spaceblock.listen("127.0.0.1", options=OPTIONS) as listener,
        child("send", listener.ticket, source, home=tmp_path / "home") as sender,
    ):
        with receiver_places(monkeypatch) as gate:
            receiving = (await within(anext(aiter(listener)))).accept(inbox)
            await within(gate.reached.wait())
            await sender.kill()
            assert isinstance(await failure(receiving), LOST)
        assert visible(inbox) in ({}, {"x": source.read_bytes()}), "a whole file or none"
        await assert_still_works(listener, inbox)
        async with child("send", listener.ticket, source, home=tmp_path / "home"):
            await within((await within(anext(aiter(listener)))).accept(inbox))
        assert tree(inbox) == {"x": source.read_bytes()}, "and no second one when the same is sent again"


# The receiver is killed.


async def test_a_listener_killed_while_admitting_fails_the_connection(tmp_path: Path, inbox: Path) -> None:
    async def connect(ticket: str) -> None:
        async with spaceblock.connect(ticket, options=OPTIONS):
            pass

    async with child("receive", inbox, "admitting", home=tmp_path / "home") as receiver:
        (ticket,) = await receiver.line("ticket")
        connecting = asyncio.create_task(failure(connect(ticket)))
        await receiver.line("hangs")
        await receiver.kill()
        error = await connecting
        assert isinstance(error, (spaceblock.ConnectionFailed, spaceblock.Stalled))
        assert error.exit_code == 4
        assert_helpful(error)


async def test_a_receiver_that_was_started_again_says_that_it_forgot(tmp_path: Path, inbox: Path) -> None:
    """Long before the sender would notice the silence."""
    home = tmp_path / "home"
    async with child("receive", inbox, "writing", home=home, IDLE=60) as receiver:
        (ticket,) = await receiver.line("ticket")
        port = Ticket.parse(ticket).addresses[0][1]
        options = spaceblock.Options(timeouts=spaceblock.Timeouts(idle=60.0))
        async with spaceblock.connect(ticket, options=options) as there:
            sending = asyncio.create_task(failure(there.send(file_of(tmp_path, "x", 80 * BLOCK))))
            await receiver.line("hangs")
            await receiver.kill()
            async with child("receive", inbox, home=home, IDLE=60, PORT=port) as again:
                await again.line("ticket")
                error = await within(sending)
    assert isinstance(error, spaceblock.ConnectionLost)
    assert "does not know the connection any more" in str(error)
    assert_helpful(error)
    shutil.rmtree(inbox)  # what the first one left, from which a second transfer would go on


@pytest.mark.parametrize("phase", ["waiting", "writing", "placing"])
async def test_a_receiver_killed_in_any_phase_loses_the_connection_and_leaves_no_half_a_file(
    phase: str, tmp_path: Path, inbox: Path
) -> None:
    source = file_of(tmp_path, "x", 80 * BLOCK)
    async with child("receive", inbox, phase, home=tmp_path / "home") as receiver:
        (ticket,) = await receiver.line("ticket")
        async with spaceblock.connect(ticket, options=OPTIONS) as peer:
            sending = peer.send(source)
            await receiver.line("hangs")
            await receiver.kill()
            error = await failure(sending)
            assert isinstance(error, LOST)
            assert error.exit_code == 4
            assert_helpful(error)
            await until(lambda: peer.closed)
    assert "x" not in tree(inbox)
    shutil.rmtree(inbox)  # what a killed receiver leaves is hidden, and no half a file under its own name


# Memory.


@pytest.mark.slow
async def test_a_large_file_passes_through_little_memory(tmp_path: Path, inbox: Path) -> None:
    source = tmp_path / "huge.bin"
    noise = os.urandom(MIB)
    with source.open("wb") as file:
        for number in range(160):
            file.write(number.to_bytes(4, "big") + noise[4:])
    async with child("receive", inbox, home=tmp_path / "there") as receiver:
        (ticket,) = await receiver.line("ticket")
        async with child("send", ticket, source, home=tmp_path / "here") as sender:
            sent, received = await asyncio.gather(sender.line("done", 100), receiver.line("done", 100))
    assert sent[0] == received[0] == b3sum(source) == b3sum(inbox / "huge.bin")
    assert int(sent[1]) < 64 * MIB
    assert int(received[1]) < 64 * MIB


async def test_a_transfer_between_two_processes(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "x", 3 * MIB)
    async with child("receive", inbox, home=tmp_path / "there") as receiver:
        (ticket,) = await receiver.line("ticket")
        async with child("send", ticket, source, home=tmp_path / "here") as sender:
            sent, received = await asyncio.gather(sender.line("done"), receiver.line("done"))
    assert sent[0] == received[0] == b3sum(source)
    assert tree(inbox) == {"x": source.read_bytes()}
