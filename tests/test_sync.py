"""Sending and receiving from programs without an event loop."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import spaceblock
from spaceblock.names import STAGING_PREFIX

PATIENCE = 60.0
"""Seconds after which the other side counts as hanging."""

RECEIVER = """
import sys
import spaceblock

try:
    spaceblock.sync.receive(sys.argv[1], on_ticket=lambda ticket: print(ticket, flush=True), host="127.0.0.1")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def other() -> spaceblock.Options:
    """A second identity, for the side that connects."""
    return spaceblock.Options(identity=spaceblock.Identity.ephemeral())


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that receives into the test's folder; it heeds Ctrl-C also where this one was started to ignore it."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([sys.executable, "-c", RECEIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        yield process
        process.kill()


def beside(call: Callable[[], spaceblock.Receipt]) -> Future[spaceblock.Receipt]:
    """Run the other side of a transfer in a thread of its own."""
    outcome: Future[spaceblock.Receipt] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return outcome


def test_the_receiver_listens(tmp_path: Path, other: spaceblock.Options) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(2_000_000))
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    tickets: Future[str] = Future()
    seen: list[spaceblock.Progress] = []
    receiving = beside(lambda: spaceblock.sync.receive(inbox, on_ticket=tickets.set_result, host="127.0.0.1"))
    ticket = tickets.result(PATIENCE)
    sent = spaceblock.sync.send(ticket, source, options=other, progress=seen.append)
    received = receiving.result(PATIENCE)
    assert (inbox / "a.bin").read_bytes() == source.read_bytes()
    assert sent.items == received.items
    assert sent.items[0].digest == blake3(source.read_bytes()).hexdigest()
    assert seen[-1].phase is spaceblock.Phase.DONE


def test_the_sender_listens(other: spaceblock.Options) -> None:
    data, target = os.urandom(100_000), bytearray(100_000)
    tickets: Future[str] = Future()
    sending = beside(lambda: spaceblock.sync.send(None, data, on_ticket=tickets.set_result, host="127.0.0.1"))
    received = spaceblock.sync.receive(into=[target], ticket=tickets.result(PATIENCE), options=other)
    assert target == data
    assert sending.result(PATIENCE).items == received.items


def test_the_contract_takes_its_arguments_by_position(tmp_path: Path) -> None:
    def refuse(ticket: str) -> None:
        raise LookupError(ticket[:3])

    with pytest.raises(LookupError, match="sb2"):
        spaceblock.sync.receive(tmp_path, None, refuse)


def test_errors_are_those_of_the_library(tmp_path: Path) -> None:
    with pytest.raises(spaceblock.TicketMalformed):
        spaceblock.sync.send("no ticket", tmp_path)
    tickets: Future[str] = Future()
    receiving = beside(
        lambda: spaceblock.sync.receive(tmp_path / "missing", on_ticket=tickets.set_result, host="127.0.0.1")
    )
    with pytest.raises(spaceblock.TargetMissing):
        spaceblock.sync.send(tickets.result(PATIENCE), b"data")
    with pytest.raises(spaceblock.TargetMissing):
        receiving.result(PATIENCE)


@pytest.mark.parametrize(
    ("source", "choices", "error", "words"),
    [
        ("missing", {}, spaceblock.SourceError, "missing"),
        (spaceblock.Item("", name="a"), {}, spaceblock.LocalProtocolError, "empty"),
        (spaceblock.Item(".", range=(0, 1)), {}, spaceblock.LocalProtocolError, "is a folder"),
        (5, {}, spaceblock.LocalProtocolError, "cannot send"),
        (memoryview(b"abcd")[::2], {}, spaceblock.BufferUnfit, "not C-contiguous"),
        (b"x", {"links": "follow"}, spaceblock.LocalProtocolError, "links="),
        (b"x", {"rename": 5}, spaceblock.LocalProtocolError, "rename is 5"),
    ],
)
def test_what_cannot_be_sent_is_told_before_a_ticket_is_shown_or_used(
    source: object, choices: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        spaceblock.sync.send(None, source, on_ticket=pytest.fail, host="127.0.0.1", **choices)
    with pytest.raises(error, match=words):
        spaceblock.sync.send("no ticket", source, **choices)


def test_a_first_look_takes_nothing_from_what_is_read_once(other: spaceblock.Options) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    file = io.BytesIO()
    tickets: Future[str] = Future()
    sources = [b"bytes", spaceblock.Item(pieces(), name="pieces")]
    sending = beside(lambda: spaceblock.sync.send(None, *sources, on_ticket=tickets.set_result, host="127.0.0.1"))
    spaceblock.sync.receive(into=[bytearray(5), file], ticket=tickets.result(PATIENCE), options=other)
    assert sending.result(PATIENCE).bytes == 10
    assert file.getvalue() == b"piece"


def test_what_a_callback_raises_cancels_the_transfer(tmp_path: Path, other: spaceblock.Options) -> None:
    def stop(progress: spaceblock.Progress) -> None:
        if progress.bytes_done:
            raise LookupError("enough")

    tickets: Future[str] = Future()
    receiving = beside(lambda: spaceblock.sync.receive(tmp_path, on_ticket=tickets.set_result, host="127.0.0.1"))
    slow = dataclasses.replace(other, engine="aioquic")
    with pytest.raises(LookupError, match="enough"):
        spaceblock.sync.send(tickets.result(PATIENCE), bytes(50_000_000), options=slow, progress=stop)
    with pytest.raises(spaceblock.TransferCancelled) as caught:
        receiving.result(PATIENCE)
    assert caught.value.remote


def test_a_sender_without_an_offer(tmp_path: Path, other: spaceblock.Options) -> None:
    tickets: Future[str] = Future()
    source = tmp_path / "gone soon"
    source.touch()

    def remove_and_show(ticket: str) -> None:
        source.unlink()
        tickets.set_result(ticket)

    sending = beside(lambda: spaceblock.sync.send(None, source, on_ticket=remove_and_show, host="127.0.0.1"))
    with pytest.raises(spaceblock.ConnectionLost, match="without an offer"):
        spaceblock.sync.receive(tmp_path, tickets.result(PATIENCE), options=other)
    with pytest.raises(spaceblock.SourceMissing):
        sending.result(PATIENCE)


async def test_inside_a_running_loop_it_says_what_to_use(tmp_path: Path) -> None:
    with pytest.raises(spaceblock.LocalProtocolError, match=r"use spaceblock\.connect"):
        spaceblock.sync.send("ticket", tmp_path)
    with pytest.raises(spaceblock.LocalProtocolError, match="event loop is running"):
        spaceblock.sync.receive(tmp_path, on_ticket=print)


def test_somebody_must_learn_the_ticket(tmp_path: Path) -> None:
    with pytest.raises(spaceblock.LocalProtocolError, match="on_ticket=print"):
        spaceblock.sync.receive(tmp_path)
    with pytest.raises(spaceblock.LocalProtocolError, match="on_ticket=print"):
        spaceblock.sync.send(None, tmp_path)


async def test_ctrl_c_tells_the_other_side(receiver: subprocess.Popen[str], tmp_path: Path) -> None:
    assert receiver.stdout is not None
    ticket = receiver.stdout.readline().strip()
    slow = spaceblock.Options(bandwidth=20_000_000)
    async with spaceblock.connect(ticket, options=slow) as peer:
        transfer = peer.send(spaceblock.Item(bytes(200_000_000), name="long"))
        async for progress in transfer:
            if progress.bytes_done:
                receiver.send_signal(signal.SIGINT)
                break
        with pytest.raises(spaceblock.TransferCancelled) as caught:
            await transfer
    assert caught.value.remote
    assert receiver.communicate(timeout=PATIENCE)[0] == "interrupted\n"
    assert receiver.returncode == 0
    assert all(name.startswith(STAGING_PREFIX) for name in os.listdir(tmp_path))


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_either_side_can_be_asked_for_another_name(tmp_path: Path, other: spaceblock.Options, who: str) -> None:
    tickets: Future[str] = Future()
    asked = []

    def ask(item: spaceblock.OfferItem, problem: spaceblock.BadName) -> str:
        asked.append(item.index)
        return problem.proposal

    receiving = beside(
        lambda: spaceblock.sync.receive(
            tmp_path, on_ticket=tickets.set_result, rename=ask if who == "receiver" else None, host="127.0.0.1"
        )
    )
    item = spaceblock.Item(b"data", name="x" * 300 + ".bin")
    sent = spaceblock.sync.send(tickets.result(PATIENCE), item, options=other, rename=ask if who == "sender" else None)
    assert receiving.result(PATIENCE).renamed == sent.renamed == {item.name: "x" * 251 + ".bin"}
    assert asked == [0]
