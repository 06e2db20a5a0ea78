"""Each field of each message, with a value that it may not have, from a peer that is otherwise as it should be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock.blocks import Partial
from spaceblock.core import encode_uint_var
from spaceblock.errors import ErrorCode
from spaceblock.wire import messages as wire
from spaceblock.wire.messages import (
    Amend,
    Amendment,
    AnswerPage,
    BlockDigests,
    Error,
    Feature,
    Hashed,
    HaveReply,
    Hello,
    Hole,
    ItemDigest,
    ItemEnd,
    ItemFailed,
    MessageType,
    NameProblem,
    NameProblems,
    NameUnit,
    Outcome,
    OutcomeKind,
    Progress,
    Query,
    ReceiverState,
    Resend,
    StreamType,
    System,
    Unknown,
    Verdict,
    VerdictKind,
    VerifiedPage,
)

from .conversations import SIZE, hostile_receiving, hostile_sender, until_due
from .hostile import block, client_of, frame
from .support import BLOCK, assert_helpful, failure, pair, visible, within

pytestmark = [pytest.mark.any_engine, pytest.mark.usefixtures("unfinished_files_removed")]

LARGEST = 2**62 - 1
UUID = b"u" * 16
DIGEST = bytes(range(32))

Lie = tuple[MessageType, str, bytes]
"""The message that is due, the field, and what is said in its place."""


def requests(
    *, uuid: bytes = UUID, flags: int = 3, exponent: int = 17, first: int = 0, items: bytes = b"\1\3\5"
) -> bytes:
    """A Requests page whose ``items`` begin with their count."""
    return frame(0x02, uuid + bytes([flags, exponent]) + encode_uint_var(first) + items)


def manifest(*, last: int = 1, first: int = 0, entries: bytes = b"\1\0\1\0\1x") -> bytes:
    return frame(0x04, bytes([last]) + encode_uint_var(first) + entries)


def failed(
    kind: int, item: int = 2, code: int = 0x30, errno: int = 5, phase: bytes = b"\0", text: bytes = b"\0"
) -> bytes:
    """ItemAbort or ItemFailed."""
    return frame(kind, b"".join(map(encode_uint_var, (item, code, errno))) + phase + text)


def error(code: int = 1, item: int = 0, phase: bytes = b"\0", errno: int = 0, text: bytes = b"\0") -> bytes:
    numbers = encode_uint_var(code) + encode_uint_var(item)
    return frame(0x1C, numbers + phase + encode_uint_var(errno) + text)


def string(size: int) -> bytes:
    return encode_uint_var(size) + b"x" * size


NO_UTF_8 = b"\2\xff\xfe"

FAILURES: list[tuple[str, dict[str, Any]]] = [
    ("code", {"code": 0}),
    ("errno", {"errno": 4_096}),
    ("phase", {"phase": string(65)}),
    ("phase", {"phase": NO_UTF_8}),
    ("text", {"text": string(1_025)}),
    ("text", {"text": NO_UTF_8}),
]

LIES_OF_SENDERS: list[Lie] = [
    (MessageType.REQUESTS, "uuid", requests(flags=0) + requests(uuid=b"v" * 16, first=1)),
    (MessageType.REQUESTS, "last", requests(flags=3) + requests(first=1)),
    (MessageType.REQUESTS, "last", requests(flags=4)),
    (MessageType.REQUESTS, "manifest_follows", requests(flags=2)),
    (MessageType.REQUESTS, "block_size", requests(exponent=16)),
    (MessageType.REQUESTS, "block_size", requests(exponent=25)),
    (MessageType.REQUESTS, "first", requests(first=1)),
    (MessageType.REQUESTS, "first", requests(first=LARGEST)),
    (MessageType.REQUESTS, "items", requests(items=b"\2\3\5")),
    (MessageType.REQUESTS, "items", requests(items=encode_uint_var(LARGEST) + b"\3\5")),
    (MessageType.REQUESTS, "items", requests(items=b"\1\x10\5")),
    (MessageType.REQUESTS, "items", requests(items=b"\1\5\5\0\6")),
    (MessageType.REQUESTS, "items", requests(items=b"\1\5\5\3\2")),
    (MessageType.REQUESTS, "items", requests(items=b"\1\x09\5\6")),
    (MessageType.MANIFEST, "last", manifest(last=2)),
    (MessageType.MANIFEST, "last", manifest() + manifest(first=1)),
    (MessageType.MANIFEST, "first", manifest(first=1)),
    (MessageType.MANIFEST, "entries", manifest(entries=b"\1\0\1\3\1x")),
    (MessageType.MANIFEST, "entries", manifest(entries=b"\1\3\1\0\1x")),
    (MessageType.MANIFEST, "entries", manifest(entries=b"\1\1\1\0\1x")),
    (MessageType.MANIFEST, "entries", manifest(entries=b"\1\0\3\0\1x\x50\0")),
    (MessageType.MANIFEST, "entries", manifest(entries=b"\1\0\5\0\1x\0\xbb\x9a\xca\0")),
    (MessageType.MANIFEST, "entries", manifest(entries=encode_uint_var(2**40))),
    (MessageType.AMEND, "last", frame(0x0A, b"\2\0")),
    (MessageType.AMEND, "last", Amend(True, ()).encode() + Amend(True, ()).encode()),
    (MessageType.AMEND, "amendments", Amend(True, (Amendment(3, "x"),)).encode()),
    (MessageType.AMEND, "amendments", Amend(True, (Amendment(LARGEST, "x"),)).encode()),
    (MessageType.AMEND, "amendments", Amend(True, (Amendment(2, "x"), Amendment(2, "y"))).encode()),
    (MessageType.AMEND, "amendments", Amend(True, (Amendment(2, "sparse"),)).encode()),
    (MessageType.AMEND, "amendments", frame(0x0A, b"\1\1\2\0")),
    (MessageType.HAVE_REPLY, "item", HaveReply(1, True).encode()),
    (MessageType.HAVE_REPLY, "item", HaveReply(LARGEST, True).encode()),
    (MessageType.HAVE_REPLY, "confirmed", HaveReply(0, False).encode() + HaveReply(0, True).encode()),
    (MessageType.HAVE_REPLY, "confirmed", frame(0x0C, b"\0\2")),
    (MessageType.HASHED, "size", Hashed(LARGEST).encode()),
    (MessageType.HASHED, "size", Hashed(0).encode()),
    (MessageType.HASHED, "size", Hashed(9).encode() + Hashed(8).encode()),
    (MessageType.BLOCK, "item", block(9, 0, b"x")),
    (MessageType.BLOCK, "offset", block(0, 1, b"x")),
    (MessageType.BLOCK, "data", block(0, 0, bytes(BLOCK + 1))),
    (MessageType.ITEM_END, "item", ItemEnd(9, 0).encode()),
    (MessageType.ITEM_END, "size", ItemEnd(0, SIZE - 1).encode()),
    (MessageType.HOLE, "item", Hole(9, 0, 1).encode()),
    (MessageType.HOLE, "offset", Hole(1, 1, 1).encode()),
    (MessageType.HOLE, "length", Hole(1, 0, BLOCK + 1).encode()),
    (MessageType.HOLE, "length", frame(0x22, b"\1\0\0")),
    (MessageType.HOLE, "length", frame(0x22, b"\1" + encode_uint_var(1) + encode_uint_var(LARGEST))),
    (MessageType.ITEM_ABORT, "item", failed(0x26, item=9)),
    *[(MessageType.ITEM_ABORT, field, failed(0x26, **values)) for field, values in FAILURES],
    (MessageType.ITEM_DIGEST, "item", ItemDigest(9, SIZE, DIGEST).encode()),
    (MessageType.ITEM_DIGEST, "digest", frame(0x0E, b"\0\0" + bytes(31))),
    (MessageType.BLOCK_DIGESTS, "item", BlockDigests(1, 0, (DIGEST,)).encode()),
    (MessageType.BLOCK_DIGESTS, "item", BlockDigests(9, 0, (DIGEST,)).encode()),
    (MessageType.BLOCK_DIGESTS, "first", BlockDigests(0, 1, (DIGEST,)).encode()),
    (MessageType.BLOCK_DIGESTS, "digests", BlockDigests(0, 0, (DIGEST,) * 4).encode()),
    (MessageType.BLOCK_DIGESTS, "digests", frame(0x14, b"\0\0" + encode_uint_var(LARGEST) + DIGEST)),
    *[(MessageType.ERROR, field, error(**values)) for field, values in FAILURES],
]

LIES_OF_RECEIVERS: list[Lie] = [
    (MessageType.NAME_PROBLEMS, "name_unit", frame(0x08, b"\0\3\0\0\1\0")),
    (MessageType.NAME_PROBLEMS, "last", frame(0x08, b"\0\0\0\0\2\0")),
    (
        MessageType.NAME_PROBLEMS,
        "problems",
        NameProblems(0, NameUnit.BYTES, 0, 0, True, (NameProblem(3, 1, ""),)).encode(),
    ),
    (
        MessageType.NAME_PROBLEMS,
        "problems",
        NameProblems(0, NameUnit.BYTES, 0, 0, True, (NameProblem(1, 1, ""),) * 2).encode(),
    ),
    (MessageType.NAME_PROBLEMS, "problems", frame(0x08, b"\0\0\0\0\1" + encode_uint_var(LARGEST))),
    (MessageType.PROGRESS, "state", frame(0x11, b"\5\0\0\0")),
    (MessageType.ANSWER, "last", frame(0x06, b"\2\0\0")),
    (MessageType.ANSWER, "last", AnswerPage(True, 0, (Verdict(VerdictKind.ALL),)).encode()),
    (MessageType.ANSWER, "first", AnswerPage(True, 1, (Verdict(VerdictKind.ALL),) * 2).encode()),
    (MessageType.ANSWER, "verdicts", AnswerPage(True, 0, (Verdict(VerdictKind.ALL),) * 4).encode()),
    (MessageType.ANSWER, "verdicts", frame(0x06, b"\1\0\3\4\0\0")),
    (MessageType.ANSWER, "verdicts", AnswerPage(False, 0, (Verdict(VerdictKind.HAVE, SIZE + 1, DIGEST),)).encode()),
    (MessageType.ANSWER, "verdicts", frame(0x06, b"\0\0\1\2\1\2" + DIGEST)),
    (MessageType.HASHED, "size", Hashed(LARGEST).encode()),
    (MessageType.HASHED, "size", Hashed(9).encode() + Hashed(9).encode()),
    (MessageType.ITEM_FAILED, "item", failed(0x12, item=3)),
    *[(MessageType.ITEM_FAILED, field, failed(0x12, **values)) for field, values in FAILURES],
    (MessageType.BLOCK_DIGESTS, "item", BlockDigests(3, 0, (DIGEST,)).encode()),
    (MessageType.BLOCK_DIGESTS, "first", BlockDigests(1, 1, (DIGEST,)).encode()),
    (MessageType.BLOCK_DIGESTS, "digests", BlockDigests(1, 0, (DIGEST,) * 4).encode()),
    (MessageType.RESEND, "item", Resend(0, (Partial(0, 1),)).encode()),
    (MessageType.RESEND, "item", Resend(3, (Partial(0, 1),)).encode()),
    (MessageType.RESEND, "ranges", Resend(1, (Partial(0, SIZE + 1),)).encode()),
    (MessageType.RESEND, "ranges", Resend(1, (Partial(LARGEST - 1, LARGEST),)).encode()),
    (MessageType.RESEND, "ranges", frame(0x16, b"\1\0")),
    (MessageType.RESEND, "ranges", frame(0x16, b"\1\1\0\0")),
    (MessageType.RESEND, "ranges", frame(0x16, b"\1\2\5\5\6\5")),
    (MessageType.RESEND, "ranges", frame(0x16, b"\1\1" + encode_uint_var(LARGEST) * 2)),
    (MessageType.VERIFIED, "last", frame(0x18, b"\2\0\0")),
    (MessageType.VERIFIED, "first", VerifiedPage(True, 1, (Outcome(OutcomeKind.FAILED, code=1),)).encode()),
    (MessageType.VERIFIED, "outcomes", VerifiedPage(True, 0, (Outcome(OutcomeKind.SKIPPED),) * 3).encode()),
    (MessageType.VERIFIED, "outcomes", frame(0x18, b"\1\0\1\2\0")),
    (MessageType.VERIFIED, "outcomes", frame(0x18, b"\1\0\1\3")),
    *[(MessageType.ERROR, field, error(**values)) for field, values in FAILURES],
]

BORNE_OF_RECEIVERS: list[Lie] = [
    # Any value is one that there could be, and none of it is relied upon.
    *[
        (MessageType.NAME_PROBLEMS, field, frame(0x08, limits + b"\1\0"))
        for field, limits in (
            ("name_limit", encode_uint_var(LARGEST) + b"\0\0\0"),
            ("path_limit", b"\1\0" + encode_uint_var(LARGEST) + b"\0"),
            ("suffix_limit", b"\1\0\1" + encode_uint_var(LARGEST)),
        )
    ],
    *[
        (MessageType.PROGRESS, field, Progress(ReceiverState.MOVING, *figures).encode())
        for field, figures in (
            ("received", (LARGEST, 0, 0)),
            ("verified", (0, LARGEST, 0)),
            ("durable", (0, 0, LARGEST)),
        )
    ],
]

BORNE_OF_SENDERS: list[Lie] = [(MessageType.ITEM_DIGEST, "size", ItemDigest(1, 0, DIGEST).encode())]

ELSEWHERE = {
    (MessageType.HELLO, field): "test_a_lie_in_a_greeting"
    for field in ("version", "software", "system", "name_limit", "name_unit", "path_limit", "features")
} | {
    (MessageType.QUERY, "uuid"): "test_a_query_for_what_is_not_ones_own",
    (MessageType.ERROR, "item"): "test_an_error_of_an_item_that_does_not_exist",
}


def test_every_field_of_every_message_is_lied_about() -> None:
    tried = {(kind, field) for kind, field, _ in (*LIES_OF_SENDERS, *LIES_OF_RECEIVERS, *BORNE_OF_RECEIVERS)}
    tried |= {(kind, field) for kind, field, _ in BORNE_OF_SENDERS} | set(ELSEWHERE)
    classes = [found for found in vars(wire).values() if isinstance(found, type) and issubclass(found, wire.Message)]
    there = {
        (kind.TYPE, field.name)
        for kind in classes
        if kind not in (wire.Message, wire.ItemDigests)  # these are many ItemDigest in a row
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    }
    there |= {(MessageType.BLOCK, field) for field in ("item", "offset", "data")}
    assert there - tried == set()
    assert tried - there == set()


def named(lies: list[Lie]) -> list[object]:
    return [pytest.param(*lie, id=f"{number}-{lie[0].wire_name}.{lie[1]}") for number, lie in enumerate(lies)]


ON_DATA_STREAMS = {MessageType.BLOCK, MessageType.HOLE, MessageType.ITEM_END, MessageType.ITEM_ABORT}


@pytest.mark.parametrize(("kind", "field", "lie"), named(LIES_OF_SENDERS))
async def test_a_lie_of_a_sender_is_a_violation(kind: MessageType, field: str, lie: bytes, inbox: Path) -> None:
    async with hostile_sender(inbox, resumes=kind is MessageType.HAVE_REPLY) as peer:
        await until_due(peer.turns(), MessageType.BLOCK if kind is MessageType.ERROR else kind)
        (peer.data if kind in ON_DATA_STREAMS else peer.control).write(lie)
        assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL
        if peer.receiving is not None:
            found = await failure(peer.receiving)
            assert isinstance(found, spaceblock.RemoteProtocolError)
            assert_helpful(found)
    assert visible(inbox) == {}


@pytest.mark.parametrize(("kind", "field", "lie"), named(LIES_OF_RECEIVERS))
async def test_a_lie_of_a_receiver_is_a_violation(kind: MessageType, field: str, lie: bytes, tmp_path: Path) -> None:
    async with hostile_receiving(tmp_path) as (_, peer):
        await until_due(peer.turns(), MessageType.ANSWER if kind is MessageType.ERROR else kind)
        peer.control.write(lie)
        found = await failure(peer.sending)
        assert isinstance(found, spaceblock.RemoteProtocolError)
        assert_helpful(found)
        assert (await peer.control.hear(Error)).code == ErrorCode.PROTOCOL


@pytest.mark.parametrize(("kind", "field", "lie"), named(BORNE_OF_RECEIVERS))
async def test_a_lie_of_a_receiver_that_changes_nothing(
    kind: MessageType, field: str, lie: bytes, tmp_path: Path
) -> None:
    async with hostile_receiving(tmp_path) as (_, peer):
        turns = peer.turns()
        await until_due(turns, kind)
        peer.control.write(lie)
        async for _, say in turns:
            say()


async def test_a_digest_of_another_size_fails_its_item(inbox: Path) -> None:
    (kind, _, lie), *_ = BORNE_OF_SENDERS
    async with hostile_sender(inbox) as peer:
        await until_due(peer.turns(), kind, 2)
        peer.control.write(lie)
        told = await peer.control.hear(ItemFailed)
        assert (told.item, told.code) == (1, ErrorCode.INTEGRITY)
        await failure(peer.received)


@pytest.mark.parametrize("item", [3, LARGEST - 1])
async def test_an_error_of_an_item_that_does_not_exist(item: int, inbox: Path) -> None:
    async with hostile_sender(inbox) as peer:
        await until_due(peer.turns(), MessageType.BLOCK)
        peer.control.send(Error(ErrorCode.SOURCE, item, "", 0, ""), fin=True)
        found = await failure(peer.received)
        assert isinstance(found, spaceblock.SourceError)
        assert found.remote
    assert visible(inbox) == {}


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (frame(0x00, b"\2\0" + string(1_025) + b"\1\0\0\0"), ErrorCode.PROTOCOL),
        (frame(0x00, b"\2\0" + NO_UTF_8 + b"\1\0\0\0"), ErrorCode.PROTOCOL),
        (frame(0x00, b"\2\0\0\4\0\0\0"), ErrorCode.PROTOCOL),
        (frame(0x00, b"\2\0\0\1\0\3\0"), ErrorCode.PROTOCOL),
        (frame(0x00, b"\0"), ErrorCode.VERSION),
        (frame(0x00, encode_uint_var(LARGEST)), ErrorCode.VERSION),
        (Hello(name_limit=LARGEST, path_limit=LARGEST, features=Feature(LARGEST)).encode(), None),
        (Hello(name_limit=1, path_limit=1, software="\x1b[2J\u202e", system=System.WINDOWS).encode(), None),
    ],
    ids=["software", "software-utf-8", "system", "name_unit", "version", "largest-version", "limits", "words"],
)
async def test_a_lie_in_a_greeting(hello: bytes, code: ErrorCode | None) -> None:
    async with pair() as peers, client_of(peers.listener, greets=False) as raw:
        session = raw.open(StreamType.SESSION)
        session.write(hello)
        if code is None:
            await session.hear(Hello)
        else:
            assert (await raw.closed()).code == code


async def test_a_query_for_what_is_not_ones_own(inbox: Path) -> None:
    async with pair() as peers, client_of(peers.listener, features=Feature.QUERY) as raw:
        sending = peers.here.send(b"data")
        receipt = await within((await peers.offer()).accept(inbox)._wait())
        await within(sending._wait())
        query = raw.open(StreamType.QUERY)
        query.send(Query(bytes.fromhex(receipt.uuid)), fin=True)
        await query.read(Unknown)
