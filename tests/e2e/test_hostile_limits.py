"""Each limit of what one peer can make this side hold, crossed by a peer that is otherwise as it should be."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

import engines
import spaceblock
from spaceblock.blocks import SpaceblockRequest
from spaceblock.errors import ErrorCode
from spaceblock.limits import CONTROL_BACKLOG, MESSAGE_PAYLOAD_MAX, REREADS
from spaceblock.protocol.session import FEATURES
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.handshake.first_packets import RetryTokens
from spaceblock.storage import rereading
from spaceblock.trust import guesses
from spaceblock.trust.identity import Identity
from spaceblock.trust.tickets import Ticket
from spaceblock.wire.messages import (
    AnswerPage,
    BlockDigests,
    Error,
    ItemDigest,
    Outcome,
    OutcomeKind,
    Query,
    RequestsPage,
    StreamType,
    Verdict,
    VerdictKind,
    VerifiedPage,
)

from .conversations import HURRIED
from .hostile import RawOffer, client_of, digest, hostile_receiver, item_bytes, leave, raw_connection, transport
from .support import BLOCK, assert_helpful, deliver, failure, pair, until, within


async def test_one_peer_has_so_many_connections_and_others_have_theirs(tmp_path: Path) -> None:
    mine = spaceblock.Options(identity=tmp_path / "mine")
    options = spaceblock.Options(limits=spaceblock.Limits(connections=2))
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        tickets = listener.invite(4)
        async with spaceblock.connect(tickets[0], options=mine), spaceblock.connect(tickets[1], options=mine) as second:
            error = await failure(connect(tickets[2], mine))
            assert isinstance(error, spaceblock.LimitExceeded)
            assert error.remote
            assert_helpful(error)
            await connect(tickets[3], spaceblock.Options(identity=tmp_path / "other"))
            await second.close()
            await until(lambda: len(listener._peers) == 1)
            await connect(tickets[2], mine)
        await until(lambda: not listener._shares, "nothing is kept of who left")


async def connect(ticket: str, options: spaceblock.Options) -> None:
    async with spaceblock.connect(ticket, options=options):
        pass


async def test_one_peer_has_so_many_offers_waiting_over_all_its_connections() -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(offers=3))
    identity = Identity.ephemeral()
    async with (
        spaceblock.listen("127.0.0.1", options=options) as listener,
        client_of(listener, identity) as one,
        client_of(listener, identity) as other,
        client_of(listener) as third,
    ):
        first = [raw.offer(SpaceblockRequest(1)) for raw in (one, one, other)]
        await until(lambda: len(listener._offers._waiting) == 3)
        error = await other.offer(SpaceblockRequest(1)).error()
        assert (error.code, "3 offers" in error.text) == (ErrorCode.LIMIT, True)
        third.offer(SpaceblockRequest(1))
        await until(lambda: len(listener._offers._waiting) == 4)
        assert await declined(listener, *first)
        other.offer(SpaceblockRequest(1))
        await until(lambda: len(listener._offers._waiting) == 4)


async def declined(listener: spaceblock.Listener, *offers: RawOffer) -> bool:
    """Decline the next offer, which is one of these; whether its sender hears that."""
    offer = await within(anext(aiter(listener)))
    await offer.decline()
    (raw,) = [raw for raw in offers if raw.uuid.hex() == offer.uuid]
    return (await raw.error()).code == ErrorCode.REFUSED


async def test_the_lists_of_one_peers_offers_are_bounded_together() -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(offered_bytes=3_000))
    identity = Identity.ephemeral()
    items = [SpaceblockRequest(1)] * 500
    async with (
        spaceblock.listen("127.0.0.1", options=options) as listener,
        client_of(listener, identity) as one,
        client_of(listener, identity) as other,
    ):
        kept = [raw.offer(*items) for raw in (one, other)]
        await until(lambda: len(listener._offers._waiting) == 2)
        assert (await other.offer(*items).error()).code == ErrorCode.LIMIT
        assert await declined(listener, *kept)
        one.offer(*items)
        await until(lambda: len(listener._offers._waiting) == 2)


async def test_an_offer_that_comes_a_little_at_a_time_ends_in_time() -> None:
    """Each page is news, but all of them together have a limit too."""
    async with spaceblock.listen("127.0.0.1", options=HURRIED) as listener, client_of(listener) as raw:
        control = raw.open(StreamType.PUSH)

        async def drip() -> None:
            first = 0
            while True:
                control.send(RequestsPage(bytes(16), False, False, BLOCK, first, (SpaceblockRequest(1),)))
                first += 1
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        error = await control.read(Error)
        dripping.cancel()
        assert (error.code, error.phase) == (ErrorCode.TIMEOUT, str(spaceblock.Phase.PREPARING))


@pytest.fixture
def open_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were open to be read again, each time another one was."""
    counts, closed = [0], rereading.FileBytes.close
    now = 0

    def opening(source: rereading.FileBytes, fd: int, base: int = 0) -> None:
        nonlocal now
        source._fd, source._base = fd, base
        now += 1
        counts.append(now)

    def closing(source: rereading.FileBytes) -> None:
        nonlocal now
        now -= 1
        closed(source)

    monkeypatch.setattr(rereading.FileBytes, "__init__", opening)
    monkeypatch.setattr(rereading.FileBytes, "close", closing)
    return counts


async def test_a_sender_of_nothing_but_wrong_digests_has_few_files_opened_at_once(
    inbox: Path, open_at_once: list[int]
) -> None:
    count = 100
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, features=FEATURES) as raw:
        items = [SpaceblockRequest(5, rereadable=True)] * count
        offer = raw.offer(*items, names=tuple(str(item) for item in range(count)))
        receiving = (await within(anext(aiter(listener)))).accept(inbox)
        await offer.control.hear(AnswerPage)
        offer.data().write(b"".join(item_bytes(item, b"wrong") for item in range(count)), fin=True)
        offer.control.send(*(ItemDigest(item, 5, digest(b"right")) for item in range(count)))
        for _ in range(count):
            await offer.control.hear(BlockDigests)
        receiving.cancel()
        await failure(receiving)
    assert len(open_at_once) > count
    assert max(open_at_once) <= REREADS


async def test_a_receiver_that_finds_fault_with_everything_has_few_files_opened_at_once(
    tmp_path: Path, open_at_once: list[int]
) -> None:
    count = 100
    for item in range(count):
        (tmp_path / str(item)).write_bytes(b"right")
    async with hostile_receiver(None, FEATURES) as (peer, raw):
        sending = peer.send(tmp_path)
        control = await raw.opened()
        await control.hear(RequestsPage)
        control.send(AnswerPage(True, 0, (Verdict(VerdictKind.ALL),) * count))
        for _ in range(count):
            await control.hear(ItemDigest)
        control.send(*(BlockDigests(item, 0, (bytes(32),)) for item in range(count)))
        for _ in range(count):
            await control.hear(BlockDigests)
        sending.cancel()
        await failure(sending)
    assert len(open_at_once) > count
    assert max(open_at_once) <= REREADS


async def test_a_long_answer_about_a_transfer_is_told_whole() -> None:
    identity, count = Identity.ephemeral(), 20_000
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, identity, features=FEATURES) as raw:
        listener._memory.finish(bytes(16), identity.peer_id, outcomes_of(count))
        stream = raw.open(StreamType.QUERY)
        stream.send(Query(bytes(16)), fin=True)
        outcomes: list[Outcome] = []
        while len(outcomes) < count:
            outcomes += (await stream.read(VerifiedPage)).outcomes
        assert outcomes == outcomes_of(count)
        await within(stream.ended.wait())


def outcomes_of(count: int) -> list[Outcome]:
    return [Outcome(OutcomeKind.VERIFIED, bytes(32), 5, f"a name of an item {item}") for item in range(count)]


async def test_answers_about_transfers_are_made_as_they_are_read_and_one_at_a_time() -> None:
    """How a transfer of a million names ended takes as much memory as the names, for each time that it is asked."""
    identity, count = Identity.ephemeral(), 40_000
    async with spaceblock.listen("127.0.0.1") as listener:
        listener._memory.finish(bytes(16), identity.peer_id, outcomes_of(count))
        async with (
            client_of(listener, identity, features=FEATURES) as one,
            client_of(listener, identity, features=FEATURES) as other,
        ):
            asked = [raw.open(StreamType.QUERY) for raw in (one, one, one, other, other)]
            for stream in asked:
                stream.stream.set_handlers(on_data=lambda data, fin: None)  # and nothing credited
                stream.send(Query(bytes(16)), fin=True)
            queries = [peer._queries for peer in listener._peers]
            await until(lambda: sum(map(len, queries)) == len(asked))
            for _ in range(100):
                waiting = sum(each.stream.backlog for of_peer in queries for each in of_peer)
                assert waiting <= CONTROL_BACKLOG + MESSAGE_PAYLOAD_MAX + 100
                await asyncio.sleep(0.005)
            assert waiting > 0


async def test_who_tries_wrong_tickets_is_not_listened_to_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "WRONG_TICKETS", 3)
    async with pair() as peers:
        for _ in range(3):
            assert await refused_code(peers.listener.invite(1)[0]) == ErrorCode.TICKET_UNKNOWN
        error = await failure(connect(peers.listener.invite(1)[0], HURRIED))
        assert isinstance(error, spaceblock.Unreachable)
        await deliver(peers, b"unharmed", into=[bytearray(8)])
        peers.listener._guesses._by_network.clear()  # as time would
        await connect(peers.listener.invite(1)[0], HURRIED)


async def test_after_many_wrong_tickets_everybody_proves_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "WRONG_TICKETS_ALL", 2)
    asked = []
    honest = RetryTokens.retry

    def ask(tokens: RetryTokens, *arguments: Any) -> bytes:
        asked.append(arguments)
        return honest(tokens, *arguments)

    monkeypatch.setattr(RetryTokens, "retry", ask)
    async with pair() as peers:
        for _ in range(2):
            assert await refused_code(peers.listener.invite(1)[0]) == ErrorCode.TICKET_UNKNOWN
        assert asked == []
        await connect(peers.listener.invite(1)[0], HURRIED)
        assert len(asked) == 1


async def refused_code(ticket: str) -> int:
    """With what code a listener refuses who does not know its ticket's secret."""
    forged = dataclasses.replace(Ticket.parse(ticket), secret=bytes(32))
    endpoint = await Endpoint.bind("127.0.0.1", 0, transport(engines.in_use.client))
    try:
        connection = await raw_connection(endpoint, forged.encode())
        return (await within(connection.wait_closed())).code
    finally:
        await leave(endpoint)
