"""Each message of the wire, from a peer that leaves behind it, falls silent before it, repeats it, or says it out of
turn. What becomes of lies in its fields is in :mod:`.test_hostile_fields`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import spaceblock
from spaceblock.blocks import Partial
from spaceblock.errors import ErrorCode
from spaceblock.wire.messages import (
    Amend,
    AnswerPage,
    BlockDigests,
    Done,
    Error,
    Feature,
    Hashed,
    HaveReply,
    Hello,
    Hole,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    ItemFailed,
    ManifestPage,
    MessageType,
    NameProblems,
    NameUnit,
    Progress,
    Query,
    ReceiverState,
    RequestsPage,
    Resend,
    StreamType,
    Unknown,
    VerifiedPage,
    Waiting,
)

from .conversations import HURRIED, hostile_receiving, hostile_sender, until_due
from .hostile import block, client_of, frame
from .support import BLOCK, assert_helpful, failure, pair, until, visible, within

pytestmark = [pytest.mark.any_engine, pytest.mark.usefixtures("connections_live_on", "unfinished_files_removed")]

MOVING, VERIFYING = str(spaceblock.Phase.MOVING), str(spaceblock.Phase.VERIFYING)

OF_SENDERS: dict[MessageType, str] = {
    MessageType.REQUESTS: str(spaceblock.Phase.PREPARING),
    MessageType.MANIFEST: str(spaceblock.Phase.PREPARING),
    MessageType.AMEND: str(spaceblock.Phase.NAMES),
    MessageType.HAVE_REPLY: MOVING,
    MessageType.WAITING: MOVING,
    MessageType.HASHED: MOVING,
    MessageType.BLOCK: MOVING,
    MessageType.ITEM_END: MOVING,
    MessageType.HOLE: MOVING,
    MessageType.ITEM_ABORT: MOVING,
    MessageType.ITEM_DIGEST: VERIFYING,
    MessageType.BLOCK_DIGESTS: VERIFYING,
    MessageType.DONE: "",
}
"""What a sender says in a transfer, and the phase in which its silence before that is a stall; Done may be missing."""

OF_RECEIVERS: dict[MessageType, str] = {
    MessageType.NAME_PROBLEMS: str(spaceblock.Phase.OFFERING),
    MessageType.PROGRESS: str(spaceblock.Phase.OFFERING),
    MessageType.ANSWER: str(spaceblock.Phase.USER),
    MessageType.HASHED: MOVING,
    MessageType.ITEM_FAILED: MOVING,
    MessageType.BLOCK_DIGESTS: VERIFYING,
    MessageType.RESEND: VERIFYING,
    MessageType.VERIFIED: VERIFYING,
}
"""What a receiver says in a transfer, likewise."""

ELSEWHERE = {
    MessageType.HELLO: "test_hostile_session",
    MessageType.ERROR: "test_an_error_is_the_last_word_however_often_it_is_said",
    MessageType.QUERY: "test_a_query_that_is_never_asked_ends_with_its_stream",
    MessageType.UNKNOWN: "test_an_answer_to_a_query",
}

messages_of_senders = pytest.mark.parametrize("message", OF_SENDERS, ids=lambda message: message.wire_name)
messages_of_receivers = pytest.mark.parametrize("message", OF_RECEIVERS, ids=lambda message: message.wire_name)


def test_every_message_is_tried() -> None:
    assert {*OF_SENDERS, *OF_RECEIVERS, *ELSEWHERE} == set(MessageType)


# The whole, without a lie.


@pytest.mark.parametrize("resumes", [False, True])
async def test_the_conversation_of_a_sender_is_accepted(resumes: bool, inbox: Path) -> None:
    async with hostile_sender(inbox, resumes=resumes) as peer:
        async for _, say in peer.turns():
            say()


async def test_the_conversation_of_a_receiver_is_accepted(tmp_path: Path) -> None:
    async with hostile_receiving(tmp_path) as (_, peer):
        async for _, say in peer.turns():
            say()


# Gone.


@messages_of_senders
async def test_a_sender_that_leaves_right_after_a_message(message: MessageType, inbox: Path) -> None:
    async with hostile_sender(inbox, resumes=message is MessageType.HAVE_REPLY) as peer:
        say = await until_due(peer.turns(), message)
        say()
        await peer.control.stream.drain(0)
        peer.raw.connection.close(0)
        if peer.receiving is not None:
            error = await failure(peer.receiving)
            assert error.remote
            assert isinstance(error, spaceblock.SourceError if message is MessageType.DONE else EOFError)
        await until(lambda: not peer.listener._peers)
        assert not peer.listener._offers._waiting
        await others_are_served(peer.listener)
    done = {"repaired", "sparse"} if message is MessageType.DONE else set()
    assert set(visible(inbox)) == done


@messages_of_receivers
async def test_a_receiver_that_leaves_right_after_a_message(message: MessageType, tmp_path: Path) -> None:
    async with hostile_receiving(tmp_path) as (here, peer):
        say = await until_due(peer.turns(), message)
        say()
        await peer.control.stream.drain(0)
        peer.raw.connection.close(0)
        error = await failure(peer.sending)
        assert error.remote
        assert isinstance(error, spaceblock.NoSpace if message is MessageType.VERIFIED else EOFError)
        await until(lambda: here.closed)


async def others_are_served(listener: spaceblock.Listener) -> None:
    """Somebody else's transfer goes through."""
    target = bytearray(4)
    async with spaceblock.connect(listener.invite(1)[0]) as peer:
        sending = peer.send(b"data")
        await within((await within(anext(aiter(listener)))).accept(into=[target])._wait())
        await within(sending._wait())
    assert target == b"data"


# Silent.


@messages_of_senders
async def test_a_sender_that_falls_silent_before_a_message(message: MessageType, inbox: Path) -> None:
    async with hostile_sender(inbox, resumes=message is MessageType.HAVE_REPLY, options=HURRIED) as peer:
        await until_due(peer.turns(), message)
        if message is MessageType.DONE:
            assert isinstance(await failure(peer.received), spaceblock.SourceError)
            return
        told = await peer.control.hear(Error)
        assert (told.code, told.phase) == (ErrorCode.TIMEOUT, OF_SENDERS[message])
        if peer.receiving is not None:
            error = await failure(peer.receiving)
            assert isinstance(error, spaceblock.Stalled)
            assert error.phase == OF_SENDERS[message]
            assert_helpful(error)
    assert visible(inbox) == {}


async def test_a_sender_that_only_says_that_it_waits(inbox: Path) -> None:
    async with hostile_sender(inbox, options=HURRIED) as peer:
        say = await until_due(peer.turns(), MessageType.WAITING)

        async def wait() -> None:
            while True:
                say()
                await asyncio.sleep(0.1)

        waiting = asyncio.create_task(wait())
        told = await peer.control.hear(Error)
        waiting.cancel()
        assert (told.code, told.phase) == (ErrorCode.TIMEOUT, str(spaceblock.Phase.SOURCE))
        assert isinstance(await failure(peer.received), spaceblock.Stalled)


@pytest.mark.parametrize("kind", [MessageType.HAVE_REPLY, MessageType.BLOCK_DIGESTS], ids=lambda kind: kind.wire_name)
async def test_a_sender_that_only_says_what_is_no_news(kind: MessageType, inbox: Path) -> None:
    async with hostile_sender(inbox, resumes=kind is MessageType.HAVE_REPLY, options=HURRIED) as peer:
        await until_due(peer.turns(), kind)
        idle = HaveReply(0, True) if kind is MessageType.HAVE_REPLY else BlockDigests(0, 0, ())

        async def go_on() -> None:
            while True:
                peer.control.send(idle)
                await asyncio.sleep(0.1)

        going_on = asyncio.create_task(go_on())
        assert (await peer.control.hear(Error)).code == ErrorCode.TIMEOUT
        going_on.cancel()
        assert isinstance(await failure(peer.received), spaceblock.Stalled)


@messages_of_receivers
async def test_a_receiver_that_falls_silent_before_a_message(message: MessageType, tmp_path: Path) -> None:
    async with hostile_receiving(tmp_path, HURRIED) as (_, peer):
        await until_due(peer.turns(), message)
        error = await failure(peer.sending)
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == OF_RECEIVERS[message]
        assert_helpful(error)
        told = await peer.control.hear(Error)
        assert (told.code, told.phase) == (ErrorCode.TIMEOUT, OF_RECEIVERS[message])


# Again and again.

OFTEN = 1_000

HARMLESS = {MessageType.HAVE_REPLY, MessageType.WAITING, MessageType.ITEM_ABORT, MessageType.DONE}
HARMLESS |= {MessageType.PROGRESS, MessageType.ITEM_FAILED, MessageType.VERIFIED}
"""Said again they say nothing new, and nothing is kept of them."""


@messages_of_senders
async def test_a_sender_that_repeats_a_message(message: MessageType, inbox: Path) -> None:
    async with hostile_sender(inbox, resumes=message is MessageType.HAVE_REPLY) as peer:
        turns = peer.turns()
        say = await until_due(turns, message)
        for _ in range(OFTEN):
            say()
        if message in HARMLESS:
            async for _, say in turns:
                say()
        else:
            assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL
            if peer.receiving is not None:
                error = await failure(peer.receiving)
                assert isinstance(error, spaceblock.RemoteProtocolError)
                assert_helpful(error)
            assert visible(inbox) == {}
        await others_are_served(peer.listener)


@messages_of_receivers
async def test_a_receiver_that_repeats_a_message(message: MessageType, tmp_path: Path) -> None:
    async with hostile_receiving(tmp_path) as (_, peer):
        turns = peer.turns()
        say = await until_due(turns, message)
        for _ in range(OFTEN):
            say()
        if message in HARMLESS:
            async for _, say in turns:
                say()
            return
        error = await failure(peer.sending)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert_helpful(error)
        assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL


async def test_an_error_is_the_last_word_however_often_it_is_said(inbox: Path) -> None:
    async with hostile_sender(inbox) as peer:
        await until_due(peer.turns(), MessageType.BLOCK)
        for _ in range(OFTEN):
            peer.control.send(Error(ErrorCode.INTERNAL, None, "", 0, "again"))
        assert isinstance(await failure(peer.received), spaceblock.InternalError)
        await others_are_served(peer.listener)
    assert visible(inbox) == {}


# Out of turn.

PAYLOADS = {
    MessageType.HELLO: Hello().encode(),
    MessageType.REQUESTS: RequestsPage(b"u" * 16, True, False, BLOCK, 0, ()).encode(),
    MessageType.MANIFEST: ManifestPage(True, 0, ()).encode(),
    MessageType.ANSWER: AnswerPage(True, 0, ()).encode(),
    MessageType.NAME_PROBLEMS: NameProblems(0, NameUnit.BYTES, 0, 0, True, ()).encode(),
    MessageType.AMEND: Amend(True, ()).encode(),
    MessageType.HAVE_REPLY: HaveReply(0, True).encode(),
    MessageType.ITEM_DIGEST: ItemDigest(0, 0, bytes(32)).encode(),
    MessageType.PROGRESS: Progress(ReceiverState.MOVING, 0, 0, 0).encode(),
    MessageType.ITEM_FAILED: ItemFailed(0, 0x21, 28, "", "").encode(),
    MessageType.WAITING: Waiting().encode(),
    MessageType.BLOCK_DIGESTS: BlockDigests(0, 0, (bytes(32),)).encode(),
    MessageType.HASHED: Hashed(1).encode(),
    MessageType.RESEND: Resend(0, (Partial(0, 1),)).encode(),
    MessageType.VERIFIED: VerifiedPage(True, 0, ()).encode(),
    MessageType.DONE: Done().encode(),
    MessageType.QUERY: Query(bytes(16)).encode(),
    MessageType.BLOCK: block(0, 0, b"x"),
    MessageType.HOLE: Hole(0, 0, 1).encode(),
    MessageType.ITEM_END: ItemEnd(0, 0).encode(),
    MessageType.ITEM_ABORT: ItemAbort(0, 0x30, 5, "", "").encode(),
    MessageType.UNKNOWN: Unknown().encode(),
}
"""One of each, but Error, which may come at any time."""

STATES_OF_SENDERS = {
    # What it is to say next, by what is taken from it on its control stream then.
    MessageType.REQUESTS: {MessageType.REQUESTS},
    MessageType.MANIFEST: {MessageType.MANIFEST},
    MessageType.AMEND: {MessageType.AMEND},
    MessageType.WAITING: {MessageType.WAITING, MessageType.HASHED, MessageType.ITEM_DIGEST},
    MessageType.BLOCK_DIGESTS: {
        MessageType.WAITING,
        MessageType.ITEM_DIGEST,
        MessageType.BLOCK_DIGESTS,
    },
}

STATES_OF_RECEIVERS = {
    MessageType.NAME_PROBLEMS: {
        MessageType.NAME_PROBLEMS,
        MessageType.PROGRESS,
        MessageType.HASHED,
    },
    MessageType.HASHED: {
        MessageType.PROGRESS,
        MessageType.HASHED,
        MessageType.ITEM_FAILED,
        MessageType.BLOCK_DIGESTS,  # of the first item, where its digest was sent before
    },
    MessageType.RESEND: {
        MessageType.PROGRESS,
        MessageType.HASHED,
        MessageType.ITEM_FAILED,
        MessageType.BLOCK_DIGESTS,  # of the first item, which may differ too
        MessageType.RESEND,
    },
}


def out_of_turn(states: dict[MessageType, set[MessageType]]) -> list[object]:
    return [
        pytest.param(due, said, id=f"{said.wire_name} where {due.wire_name} is due")
        for due, taken in states.items()
        for said in PAYLOADS
        if said not in taken
    ]


def test_every_message_is_tried_out_of_turn() -> None:
    assert {*PAYLOADS, MessageType.ERROR} == set(MessageType)


@pytest.mark.parametrize(("due", "said"), out_of_turn(STATES_OF_SENDERS))
async def test_a_sender_that_speaks_out_of_turn(due: MessageType, said: MessageType, inbox: Path) -> None:
    async with hostile_sender(inbox) as peer:
        await until_due(peer.turns(), due)
        peer.control.write(PAYLOADS[said])
        assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL
        if peer.receiving is not None:
            assert isinstance(await failure(peer.receiving), spaceblock.RemoteProtocolError)
    assert visible(inbox) == {}


@pytest.mark.parametrize(("due", "said"), out_of_turn(STATES_OF_RECEIVERS))
async def test_a_receiver_that_speaks_out_of_turn(due: MessageType, said: MessageType, tmp_path: Path) -> None:
    async with hostile_receiving(tmp_path) as (_, peer):
        await until_due(peer.turns(), due)
        peer.control.write(PAYLOADS[said])
        assert isinstance(await failure(peer.sending), spaceblock.RemoteProtocolError)
        assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL


ON_DATA_STREAMS = {MessageType.BLOCK, MessageType.HOLE, MessageType.ITEM_END, MessageType.ITEM_ABORT}


@pytest.mark.parametrize("said", sorted({*PAYLOADS} - ON_DATA_STREAMS), ids=lambda said: said.wire_name)
async def test_a_message_of_another_stream_on_a_data_stream(said: MessageType, inbox: Path) -> None:
    async with hostile_sender(inbox) as peer:
        await until_due(peer.turns(), MessageType.BLOCK)
        peer.data.write(PAYLOADS[said])
        if said & 1:  # whoever does not know it on a data stream may skip it
            peer.data.write(frame(0x7E, b""))
        assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL
        assert isinstance(await failure(peer.received), spaceblock.RemoteProtocolError)
    assert visible(inbox) == {}


# Queries.


@pytest.mark.parametrize("said", sorted({*PAYLOADS} - {MessageType.QUERY}), ids=lambda said: said.wire_name)
async def test_anything_else_where_a_query_is_due_closes_the_connection(said: MessageType) -> None:
    async with pair() as peers, client_of(peers.listener, features=Feature.QUERY) as raw:
        raw.open(StreamType.QUERY).write(PAYLOADS[said], fin=True)
        reason = await raw.closed()
        assert (reason.by_peer, reason.code) == (True, ErrorCode.PROTOCOL)
        await others_are_served(peers.listener)


@pytest.mark.parametrize("said", [b"", Query(bytes(16)).encode()], ids=["nothing", "no end"])
async def test_a_query_that_is_never_asked_ends_with_its_stream(said: bytes) -> None:
    async with (
        spaceblock.listen("127.0.0.1", options=HURRIED) as listener,
        client_of(listener, features=Feature.QUERY) as raw,
    ):
        stream = raw.open(StreamType.QUERY)
        stream.write(said)
        await within(stream.reset.wait())
        await within(stream.stopped.wait())
        assert stream.stop_code == ErrorCode.TIMEOUT
        (there,) = listener._peers
        assert not there._queries
        await others_are_served(listener)


async def test_a_query_stream_that_asks_nothing_is_ended_by_both() -> None:
    async with pair() as peers, client_of(peers.listener, features=Feature.QUERY) as raw:
        stream = raw.open(StreamType.QUERY)
        stream.write(b"", fin=True)
        await within(stream.ended.wait())
        assert not stream.reset.is_set()
        await others_are_served(peers.listener)


async def test_a_stream_that_never_says_what_it_is_for_is_given_up() -> None:
    async with spaceblock.listen("127.0.0.1", options=HURRIED) as listener, client_of(listener) as raw:
        streams = [raw.raw(unidirectional=False), raw.raw(unidirectional=True)]
        streams[0].write(b"\xc0")
        streams[1].write(bytes([StreamType.DATA]) + b"half a uuid")
        for stream in streams:
            await within(stream.stopped.wait())
            assert stream.stop_code == ErrorCode.TIMEOUT
        await others_are_served(listener)


async def test_more_queries_than_the_limit_are_refused() -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(transfers=3))
    async with pair(options) as peers, client_of(peers.listener, features=Feature.QUERY) as raw:
        streams = [raw.open(StreamType.QUERY) for _ in range(5)]
        for stream in streams[3:]:
            await within(stream.reset.wait())
            assert stream.stop_code == ErrorCode.LIMIT
        streams[0].send(Query(bytes(16)), fin=True)
        await streams[0].read(Unknown)
