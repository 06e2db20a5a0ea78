"""Peers that were admitted and then break the rules of the connection: greeting, streams and their types."""

from __future__ import annotations

import asyncio
import os

import pytest

import engines
import spaceblock
from spaceblock.blocks import SpaceblockRequest
from spaceblock.errors import ErrorCode
from spaceblock.quic.endpoint import Endpoint
from spaceblock.wire.messages import (
    AnswerPage,
    Done,
    Error,
    Feature,
    HaveReply,
    Hello,
    RequestsPage,
    StreamType,
    Verdict,
    VerdictKind,
)

from .hostile import client_of, digest, frame, hostile_receiver, raw_connection, raw_listener, transport
from .support import assert_helpful, deliver, failure, failures, pair, until, within

HURRIED = spaceblock.Options(timeouts=spaceblock.Timeouts(connect=1.5))
"""Long enough for a handshake beside much else."""


async def connect(ticket: str, options: spaceblock.Options | None = None) -> None:
    async with spaceblock.connect(ticket, options=options):
        raise AssertionError("connected")


# What a listener meets.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Done().encode(), ErrorCode.PROTOCOL),
        (frame(0x00, b""), ErrorCode.PROTOCOL),
        (frame(0x00, Hello().encode()[2:] + b"\0"), ErrorCode.PROTOCOL),
        (frame(0x00, b"\x03rest of an unknown version"), ErrorCode.VERSION),
        (frame(0x40 + 0x02, b"an unknown type that may not be skipped"), ErrorCode.PROTOCOL),
        (frame(0x00, b"", announced=70_000), ErrorCode.PROTOCOL),
        (frame(0x00, b"", announced=2**62 - 1), ErrorCode.PROTOCOL),
        (Hello().encode() * 2, ErrorCode.PROTOCOL),
        (b"\xff", None),
        (b"", None),
    ],
    ids=[
        "another message",
        "an empty Hello",
        "a Hello with a byte too much",
        "another version",
        "an unknown message",
        "an oversize message",
        "the largest message",
        "two Hellos",
        "half a type and the end",
        "nothing and the end",
    ],
)
async def test_a_client_that_does_not_greet_as_it_should_is_closed_and_nobody_else(
    data: bytes, code: ErrorCode | None
) -> None:
    async with pair() as peers, client_of(peers.listener, greets=False) as raw:
        session = raw.open(StreamType.SESSION)
        session.write(data, fin=True)
        reason = await raw.closed()
        assert reason.by_peer
        assert reason.code == (ErrorCode.PROTOCOL if code is None else code)
        assert reason.reason
        await deliver(peers, b"unharmed", into=[bytearray(8)])


async def test_messages_that_may_be_skipped_are_skipped_before_and_after_the_greeting() -> None:
    async with pair() as peers, client_of(peers.listener, greets=False) as raw:
        session = raw.open(StreamType.SESSION)
        session.write(frame(0x41 * 2 + 1, b"skip me") + Hello().encode() + frame(0x7F, b"and me"))
        await session.read(Hello)


async def test_features_from_the_future_are_no_error() -> None:
    async with pair() as peers, client_of(peers.listener, greets=False) as raw:
        session = raw.open(StreamType.SESSION)
        session.send(Hello(features=Feature(2**40 + 1)))
        await session.read(Hello)


async def test_a_client_that_never_greets_is_closed_with_the_phase_named() -> None:
    async with spaceblock.listen("127.0.0.1", options=HURRIED) as listener, client_of(listener, greets=False) as raw:
        reason = await raw.closed()
        assert reason.by_peer
        assert reason.code == ErrorCode.TIMEOUT
        assert "greet" in reason.reason


async def test_a_client_that_greets_byte_by_byte_is_welcome() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, greets=False) as raw:
        session = raw.raw(unidirectional=False)
        for byte in bytes([StreamType.SESSION]) + Hello().encode():
            session.write(bytes([byte]))
            await session.stream.drain(0)
        await session.read(Hello)


@pytest.mark.parametrize(
    ("stream_type", "unidirectional"),
    [(0x00, True), (0x01, True), (0x10, False), (0x04, False), (0x11, True), (0x3FFF_FFFF, False)],
)
async def test_a_stream_of_an_unknown_type_or_direction_closes_the_connection(
    stream_type: int, unidirectional: bool
) -> None:
    from spaceblock.core import encode_uint_var

    async with pair() as peers, client_of(peers.listener) as raw:
        stream = raw.raw(unidirectional=unidirectional)
        stream.write(encode_uint_var(stream_type) + bytes(16))
        reason = await raw.closed()
        assert (reason.by_peer, reason.code) == (True, ErrorCode.PROTOCOL)
        await deliver(peers, b"unharmed", into=[bytearray(8)])


async def test_a_second_session_closes_the_connection() -> None:
    async with pair() as peers, client_of(peers.listener) as raw:
        raw.open(StreamType.SESSION).send(Hello())
        reason = await raw.closed()
        assert (reason.by_peer, reason.code) == (True, ErrorCode.PROTOCOL)
        await deliver(peers, b"unharmed", into=[bytearray(8)])


@pytest.mark.parametrize("kind", [StreamType.QUERY, StreamType.FETCH])
async def test_streams_of_features_that_were_not_announced_are_refused_alone(kind: StreamType) -> None:
    async with pair() as peers, client_of(peers.listener) as raw:
        stream = raw.open(kind)
        await within(stream.stopped.wait())
        assert stream.stop_code == ErrorCode.PROTOCOL
        await within(stream.reset.wait())
        offer = raw.offer(SpaceblockRequest(0))
        await (await anext(aiter(peers.listener))).decline()
        assert (await offer.error()).code == ErrorCode.REFUSED


async def test_streams_that_come_before_the_greeting_wait_for_it() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, greets=False) as raw:
        offer = raw.offer(SpaceblockRequest(0))
        await offer.control.stream.drain(0)
        there = await anext(listener.peers())
        assert not there._incoming
        await raw.greet()
        incoming = await within(anext(there.offers()))
        await incoming.decline()
        await offer.error()


async def test_nothing_is_sent_to_who_has_not_greeted_and_what_was_agreed_on_counts() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, greets=False) as raw:
        sending = (await anext(listener.peers())).send(b"data")
        await raw.greet(Feature.RESUME)
        control = await raw.opened()
        await control.read(RequestsPage)
        control.send(AnswerPage(True, 0, (Verdict(VerdictKind.HAVE, 2, digest(b"da")),)))
        await control.read(HaveReply)
        sending.cancel()
        await failure(sending)


async def test_too_many_streams_before_the_greeting_close_the_connection() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, greets=False) as raw:
        for _ in range(100):
            raw.open(StreamType.PUSH)
        reason = await raw.closed()
        assert (reason.by_peer, reason.code) == (True, ErrorCode.LIMIT)


async def test_streams_that_say_nothing_stop_nobody() -> None:
    """Within the limits of QUIC a peer may open streams and leave them; the connection's own work goes on."""
    async with pair() as peers, client_of(peers.listener) as raw:
        for _ in range(60):
            raw.raw(unidirectional=False).write(b"\xc0")
            raw.raw(unidirectional=True).write(bytes([StreamType.DATA]) + b"half a uuid")
        offer = raw.offer(SpaceblockRequest(0))
        await (await anext(aiter(peers.listener))).decline()
        await offer.error()


async def test_more_transfers_than_the_limit_are_refused_with_the_limit_named() -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(transfers=3))
    async with pair(options) as peers, client_of(peers.listener) as raw:
        offers = [raw.offer(SpaceblockRequest(0)) for _ in range(10)]
        refused = await asyncio.gather(*(offer.error() for offer in offers[3:]))
        assert {error.code for error in refused} == {ErrorCode.LIMIT}
        assert "3 transfers" in refused[0].text
        for _ in range(3):
            await (await anext(aiter(peers.listener))).decline()
        await deliver(peers, b"unharmed", into=[bytearray(8)])


async def test_this_side_refuses_its_own_transfers_above_the_limit() -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(transfers=2))
    async with pair(options) as peers:
        sendings = [peers.here.send(b"data") for _ in range(2)]
        with pytest.raises(spaceblock.LimitExceeded, match="wait until one is done"):
            peers.here.send(b"one too many")
        for _ in sendings:
            await (await peers.offer()).decline()
        await failures(*sendings)
        await deliver(peers, b"again", into=[bytearray(5)])


async def test_offers_that_come_and_go_leave_nothing_behind() -> None:
    """Whoever does not look at offers must not have to remember them all."""
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        there = await anext(listener.peers())
        for _ in range(30):
            offer = raw.offer(SpaceblockRequest(0))
            offer.control.send(Error(ErrorCode.CANCELLED, None, "", 0, "never mind"), fin=True)
            await within(offer.control.ended.wait())
        await until(lambda: not there._incoming)
        assert not there._own_offers._waiting
        last = raw.offer(SpaceblockRequest(7))
        offer_there = await within(anext(there.offers()))
        assert offer_there.total_size == 7
        await offer_there.decline()
        await last.error()


async def test_peers_that_come_and_go_leave_nothing_behind() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        for _ in range(5):
            async with client_of(listener):
                pass
        await until(lambda: not listener._peers)
        assert not listener._unclaimed._waiting
        async with client_of(listener):
            assert not (await within(anext(listener.peers()))).closed


async def test_a_listener_takes_as_many_peers_as_its_limit_says() -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(peers=1))
    async with pair(options) as peers:
        error = await failure(connect(peers.listener.invite(1)[0]))
        assert isinstance(error, spaceblock.LimitExceeded)
        assert error.remote
        assert_helpful(error)
        await deliver(peers, b"unharmed", into=[bytearray(8)])


@pytest.mark.parametrize("code", [0, ErrorCode.PROTOCOL, ErrorCode.INTERNAL, 0x7777])
async def test_a_client_that_closes_while_its_offer_waits_ends_the_offer(code: int) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        raw.offer(SpaceblockRequest(4))
        offer = await within(anext(aiter(listener)))
        raw.connection.close(code, "\x1b[31mred\u202e words")
        await until(lambda: not listener._peers)
        error = await failure(offer.accept(into=[bytearray(4)]))
        assert error.remote
        assert "\x1b" not in str(error)
        assert "\u202e" not in str(error)


async def test_a_violation_fails_this_sides_own_transfers_as_the_peers_fault() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        there = await anext(listener.peers())
        sending = there.send(b"data")
        await raw.opened()
        raw.open(StreamType.SESSION)
        error = await failure(sending)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert_helpful(error)


# What a connecting side meets.


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (Done().encode(), spaceblock.RemoteProtocolError),
        (frame(0x00, b"\x03"), spaceblock.VersionMismatch),
        (frame(0x00, b"", announced=70_000), spaceblock.RemoteProtocolError),
        (b"", spaceblock.RemoteProtocolError),
    ],
    ids=["another message", "another version", "an oversize message", "the end"],
)
async def test_a_listener_that_does_not_greet_as_it_should(data: bytes, kind: type[spaceblock.SpaceblockError]) -> None:
    async with raw_listener() as listener:
        connecting = asyncio.create_task(failure(connect(listener.ticket)))
        raw = await listener.peer()
        session = await raw.opened()
        await session.read(Hello)
        session.write(data, fin=True)
        error = await connecting
        assert isinstance(error, kind)
        assert_helpful(error)
        assert (await raw.closed()).by_peer


async def test_a_listener_that_never_greets_is_a_stall_with_the_phase_named() -> None:
    async with raw_listener() as listener:
        error = await failure(connect(listener.ticket, HURRIED))
        assert isinstance(error, spaceblock.Stalled)
        assert isinstance(error, TimeoutError)
        assert error.phase == str(spaceblock.Phase.CONNECTING)
        assert_helpful(error)


@pytest.mark.parametrize("code", [0, ErrorCode.CANCELLED])
async def test_a_listener_that_closes_instead_of_greeting_is_a_failed_connection(code: int) -> None:
    async with raw_listener() as listener:
        connecting = asyncio.create_task(failure(connect(listener.ticket)))
        raw = await listener.peer()
        await raw.opened()
        raw.connection.close(code, "go away")
        error = await connecting
        assert isinstance(error, spaceblock.ConnectionFailed)
        assert_helpful(error)


async def test_a_listener_that_opens_a_session_of_its_own_is_closed() -> None:
    async with hostile_receiver() as (peer, raw):
        raw.open(StreamType.SESSION).send(Hello())
        reason = await raw.closed()
        assert (reason.by_peer, reason.code) == (True, ErrorCode.PROTOCOL)
        await until(lambda: peer.closed)


async def test_data_for_a_transfer_that_nobody_knows_is_stopped_and_credited() -> None:
    """More streams pass than may be open at once, so nothing is kept of any.

    They have no end: of a stream that has arrived as a whole there is nothing left to stop.
    """
    async with pair() as peers, client_of(peers.listener) as raw:
        for _ in range(200):
            stream = raw.open(StreamType.DATA, os.urandom(16))
            stream.write(bytes(200_000))
            await within(stream.stopped.wait())
        await deliver(peers, b"unharmed", into=[bytearray(8)])


async def test_a_client_without_a_certificate_is_told_so() -> None:
    async with pair() as peers:
        endpoint = await Endpoint.bind("127.0.0.1", 0, transport(engines.in_use.client))
        try:
            connection = await raw_connection(endpoint, peers.listener.ticket, certificate=False)
            reason = await within(connection.wait_closed())
            assert reason.by_peer
            assert reason.code == ErrorCode.NO_CERTIFICATE
            assert "connect with a ticket" in reason.reason
        finally:
            await endpoint.close()
        await deliver(peers, b"unharmed", into=[bytearray(8)])
