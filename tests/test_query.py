"""Asking a receiver how a transfer ended, and whatever it may answer."""

from __future__ import annotations

import asyncio

import pytest

from quic_pair import Streams, pair
from spaceblock.errors import RemoteProtocolError
from spaceblock.transfers.query import ask
from spaceblock.wire.messages import (
    Done,
    Outcome,
    OutcomeKind,
    Query,
    StreamType,
    Unknown,
    VerifiedPage,
    encode_stream_header,
)

UUID = bytes(range(16))
ENDS = (Outcome(OutcomeKind.VERIFIED, bytes(32), 5, "a"), Outcome(OutcomeKind.SKIPPED))
FIRST, SECOND = VerifiedPage(False, 0, ENDS).encode(), VerifiedPage(True, 2, ENDS).encode()


async def answered(answer: bytes) -> tuple[Outcome, ...] | None:
    """What :func:`ask` makes of an answer that is all that the peer says."""
    async with pair() as both:
        streams = Streams(both.server)
        asking = asyncio.create_task(ask(both.client, UUID, 4))
        reader = await streams.next()
        assert await reader.read_all() == encode_stream_header(StreamType.QUERY) + Query(UUID).encode()
        reader.stream.write(answer, fin=True)
        return await asyncio.wait_for(asking, 30)


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [
        (VerifiedPage(True, 0, ENDS).encode(), ENDS),
        (FIRST + SECOND, ENDS + ENDS),
        (VerifiedPage(True, 0, ()).encode(), ()),
        (Unknown().encode(), None),
        (FIRST, None),
        (b"", None),
    ],
    ids=["one page", "two pages", "no items", "unknown", "no last page", "nothing"],
)
async def test_an_end_is_known_when_all_of_it_was_told(answer: bytes, outcomes: tuple[Outcome, ...] | None) -> None:
    assert await answered(answer) == outcomes


async def test_of_more_ends_than_there_were_items_no_more_are_taken() -> None:
    """A receiver that says a byte for each of them could fill the sender's memory."""
    skipped = (Outcome(OutcomeKind.SKIPPED),) * 60_000
    async with pair() as both:
        streams = Streams(both.server)
        asking = asyncio.create_task(ask(both.client, UUID, len(ENDS)))
        reader = await streams.next()
        reader.stream.write(b"".join(VerifiedPage(False, 60_000 * page, skipped).encode() for page in range(3)))
        found = await asyncio.wait_for(asking, 30)
    assert found is not None
    assert len(ENDS) < len(found) <= 60_000, "and the rest is not waited for"


@pytest.mark.parametrize(
    "answer",
    [
        Done().encode(),
        SECOND,
        FIRST + FIRST,
        FIRST + Unknown().encode(),
        Unknown().encode() + VerifiedPage(True, 0, ENDS).encode(),
        VerifiedPage(True, 0, ENDS).encode()[:-1],
    ],
    ids=["another message", "no first page", "a page twice", "known and unknown", "unknown and known", "torn"],
)
async def test_an_answer_that_makes_no_sense_is_the_peers_fault(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        await answered(answer)
