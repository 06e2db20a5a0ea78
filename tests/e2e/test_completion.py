"""A last message that gets lost makes neither a second copy nor a failure."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock.errors import ConnectionLost
from spaceblock.transfers.control import MessageStream
from spaceblock.trust import memory
from spaceblock.wire.messages import Message, VerifiedPage

from .support import Pair, deliver, digest_of, failure, file_of, names_below, pair, tree, within


@pytest.fixture
def sender(tmp_path: Path) -> spaceblock.Options:
    return spaceblock.Options(identity=tmp_path / "sender")


@pytest.fixture
def receiver(tmp_path: Path) -> spaceblock.Options:
    return spaceblock.Options(identity=tmp_path / "receiver")


async def lose_verified(peers: Pair, monkeypatch: pytest.MonkeyPatch, inbox: Path, *sources: Path) -> None:
    """Send, and let the sender lose the connection when everything is in place and Verified is under way."""
    honest = MessageStream._receive
    lost = asyncio.Event()

    def deaf(stream: MessageStream, data: bytes, fin: bool) -> None:
        if not any(isinstance(message, VerifiedPage) for message in said):
            honest(stream, data, fin)

    said: list[Message] = []
    send = MessageStream.send

    def listen(stream: MessageStream, messages: object, fin: bool = False) -> None:
        found = list(messages)  # type: ignore[call-overload]
        said.extend(found)
        if any(isinstance(message, VerifiedPage) for message in found):
            lost.set()
        send(stream, found, fin)

    with monkeypatch.context() as patch:
        patch.setattr(MessageStream, "_receive", deaf)
        patch.setattr(MessageStream, "send", listen)
        sending = peers.here.send(*sources)
        receiving = (await peers.offer()).accept(inbox)
        await within(lost.wait())
        (outgoing,) = peers.here._outgoing
        outgoing.connection_lost(ConnectionLost("the connection broke: connect again"))
        assert isinstance(await failure(sending), ConnectionLost)
        receiving._job.connection_lost(ConnectionLost("the connection broke: connect again"))
        await within(receiving._wait())


async def test_a_lost_last_message_makes_no_second_copy(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [file_of(tmp_path, "a", 100_000), file_of(tmp_path, "b", 0)]
    async with pair(receiver, here=sender) as peers:
        await lose_verified(peers, monkeypatch, inbox, *sources)
    async with pair(receiver, here=sender) as peers:
        receipt = await within(peers.here.send(*sources)._wait())
    assert [item.digest for item in receipt.items] == [digest_of(path.read_bytes()) for path in sources]
    assert receipt.resumed == receipt.bytes == 100_000
    assert tree(inbox) == {path.name: path.read_bytes() for path in sources}


async def test_nothing_unfinished_is_left_when_the_sender_hears_that_all_is_there(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a receiver that is killed then leaves nothing behind, as nobody comes back."""
    folder = file_of(tmp_path, "folder/a", 100_000).parent
    (folder / "link").symlink_to("a")
    send = MessageStream.send
    found: list[set[str]] = []

    def look(stream: MessageStream, messages: Iterable[Message], fin: bool = False) -> None:
        kept = list(messages)
        if any(isinstance(message, VerifiedPage) for message in kept):
            found.append(set(names_below(inbox)))
        send(stream, kept, fin)

    monkeypatch.setattr(MessageStream, "send", look)
    async with pair(receiver, here=sender) as peers:
        await deliver(peers, folder, folder=inbox, sending={"links": "copy"})
    assert found == [{"folder", "folder/a", "folder/link"}]


async def test_a_sender_killed_before_it_told_anybody_makes_no_second_copy(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = file_of(tmp_path, "a", 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(memory.Memory, "told", lambda _: None)  # what a program does last that is not killed
        async with pair(receiver, here=sender) as peers:
            await deliver(peers, source, folder=inbox)
    monkeypatch.setattr(memory, "_over", set())  # another program
    async with pair(receiver, here=sender) as peers:
        receipt = await within(peers.here.send(source)._wait())
        assert receipt.resumed == receipt.bytes == 100_000
        assert tree(inbox) == {"a": source.read_bytes()}
        await deliver(peers, source, folder=inbox)
    assert sorted(tree(inbox)) == ["a", "a (1)"]


async def test_what_was_told_once_is_sent_anew_the_next_time(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = file_of(tmp_path, "a", 1000)
    async with pair(receiver, here=sender) as peers:
        await lose_verified(peers, monkeypatch, inbox, source)
        await within(peers.here.send(source)._wait())
        await deliver(peers, source, folder=inbox)
    assert sorted(tree(inbox)) == ["a", "a (1)"]


async def test_a_source_that_changed_since_is_not_taken_for_what_arrived(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = file_of(tmp_path, "a", 1000)
    before = source.read_bytes()
    async with pair(receiver, here=sender) as peers:
        await lose_verified(peers, monkeypatch, inbox, source)
        file_of(tmp_path, "a", 1000)
        await deliver(peers, source, folder=inbox)
    assert tree(inbox) == {"a": before, "a (1)": source.read_bytes()}


async def test_what_is_found_to_be_changed_is_not_left_half_read_to_the_garbage_collector(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [file_of(tmp_path, "a", 5_000_000), file_of(tmp_path, "b", 5_000_000)]
    left: list[AsyncGenerator[Any, Any]] = []
    async with pair(receiver, here=sender) as peers:
        await lose_verified(peers, monkeypatch, inbox, *sources)
        file_of(tmp_path, "a", 5_000_000)
        before = sys.get_asyncgen_hooks().finalizer
        sys.set_asyncgen_hooks(finalizer=left.append)
        try:
            await deliver(peers, *sources, folder=inbox)
        finally:
            sys.set_asyncgen_hooks(finalizer=before)
    assert left == []


async def test_only_who_sent_it_hears_how_it_ended(
    tmp_path: Path,
    inbox: Path,
    sender: spaceblock.Options,
    receiver: spaceblock.Options,
) -> None:
    from spaceblock.transfers.query import ask

    source = file_of(tmp_path, "a", 1000)
    async with pair(receiver, here=sender) as peers:
        receipt, _ = await deliver(peers, source, folder=inbox)
        uuid = bytes.fromhex(receipt.uuid)
        told = await within(ask(peers.here._connection, uuid, 1))
        assert told is not None
        assert [outcome.name for outcome in told] == ["a"]
        assert await within(ask(peers.here._connection, bytes(16), 1)) is None
    stranger = spaceblock.Options(identity=tmp_path / "stranger")
    async with pair(receiver, here=stranger) as peers:
        assert await within(ask(peers.here._connection, uuid, 1)) is None
