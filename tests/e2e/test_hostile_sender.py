"""Senders that lie: in the offer, in the blocks, in the digests, by their silence. Nothing of it reaches the disk."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import spaceblock
from spaceblock.blocks import SpaceblockRequest
from spaceblock.core import encode_uint_var
from spaceblock.errors import ErrorCode
from spaceblock.limits import DATA_STREAMS_MAX
from spaceblock.storage import sinks
from spaceblock.storage.landing import Landing
from spaceblock.transfers.incoming import Incoming
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import (
    AnswerPage,
    Done,
    Error,
    HaveReply,
    Hello,
    Hole,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    ManifestPage,
    OutcomeKind,
    Progress,
    ReceiverState,
    RequestsPage,
    StreamType,
    VerdictKind,
    VerifiedPage,
)

from .disks import small_disk
from .hostile import RawOffer, RawPeer, RawStream, block, client_of, digest, frame, item_bytes
from .stages import Gate
from .support import BLOCK, assert_helpful, failure, resizable, tree, until, within

pytestmark = pytest.mark.usefixtures("connections_live_on")

SIZE = 2 * BLOCK + 1000
DATA = bytes(range(256)) * (SIZE // 256 + 1)
DATA = DATA[:SIZE]
OTHER = b"an honest transfer beside it"

HURRIED = spaceblock.Options(
    timeouts=spaceblock.Timeouts(connect=5.0, offer=5.0, idle=0.6, sink=0.6, verify=0.6, close=0.5)
)


@dataclass
class Attack:
    """A raw sender with an offer of two items that was accepted, and an honest transfer beside it."""

    raw: RawPeer
    offer: RawOffer
    control: RawStream
    data: RawStream
    receiving: spaceblock.Transfer
    incoming: Incoming


@asynccontextmanager
async def attack(
    inbox: Path | None, options: spaceblock.Options | None = None, into: list[bytearray] | None = None
) -> AsyncIterator[Attack]:
    async with spaceblock.listen("127.0.0.1", options=options) as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(SIZE), SpaceblockRequest(SIZE), names=("first", "second"))
        incoming = await within(anext(aiter(listener)))
        receiving = incoming.accept(inbox, into=into)
        answer = await offer.control.read(AnswerPage)
        assert [verdict.kind for verdict in answer.verdicts] == [VerdictKind.ALL] * 2
        (job,) = next(iter(listener._peers))._incoming
        yield Attack(raw, offer, offer.control, offer.data(), receiving, job)
        await honest_transfer(raw, listener)


async def honest_transfer(raw: RawPeer, listener: spaceblock.Listener) -> None:
    """The same connection still carries a transfer to its end."""
    target = bytearray(len(OTHER))
    offer = raw.offer(SpaceblockRequest(len(OTHER)))
    receiving = (await within(anext(aiter(listener)))).accept(into=[target])
    await offer.control.read(AnswerPage)
    offer.data().write(item_bytes(0, OTHER), fin=True)
    offer.control.send(ItemDigest(0, len(OTHER), digest(OTHER)))
    verified = await offer.control.read(VerifiedPage)
    assert verified.outcomes[0].digest == digest(OTHER)
    offer.control.send(Done(), fin=True)
    await within(receiving)
    await within(offer.control.ended.wait())
    assert target == OTHER


def whole(item: int) -> bytes:
    return item_bytes(item, DATA)


LIES_ON_DATA_STREAMS: dict[str, bytes] = {
    "a block of an item that does not exist": block(2, 0, b"x"),
    "a block of the largest item there could be": block(2**62 - 1, 0, b"x"),
    "a block behind a gap": block(0, 1, b"x"),
    "a first block in the middle": block(0, BLOCK, b"x"),
    "a block twice": block(0, 0, b"x" * 100) * 2,
    "overlapping blocks": block(0, 0, b"x" * 100) + block(0, 99, b"x"),
    "an offset that wraps": block(0, 2**62 - 1, b"x" * 5),
    "a block over the grid": block(0, 0, b"x" * (BLOCK + 1)),
    "a block longer than any may be": block(0, 0, b"", announced=1_048_577),
    "a block longer than the world": b"\x20" + encode_uint_var(2**62 - 1) + b"\0\0",
    "a block without data": block(0, 0, b""),
    "a block shorter than its own header": b"\x20\x01\0\0",
    "more than was announced": whole(0)[: -len(ItemEnd(0, SIZE).encode())] + block(0, SIZE, b"x"),
    "an end before the beginning": ItemEnd(0, SIZE).encode(),
    "an end too early": block(0, 0, b"x") + ItemEnd(0, 1).encode(),
    "an end that lies about the size": whole(0)[: -len(ItemEnd(0, SIZE).encode())] + ItemEnd(0, SIZE + 1).encode(),
    "an end twice": whole(0) + ItemEnd(0, SIZE).encode(),
    "an end of an item that does not exist": ItemEnd(9, 0).encode(),
    "a block after the end": whole(0) + block(0, 0, b"x"),
    "a beginning anew after the end": whole(0) * 2,
    "an abort after the end": whole(0) + ItemAbort(0, ErrorCode.SOURCE, 0, "", "").encode(),
    "an abort of an item that does not exist": ItemAbort(9, ErrorCode.SOURCE, 0, "", "").encode(),
    "an abort for no reason": frame(0x26, b"\0\0\0\0\0"),
    "a hole over the grid": Hole(0, 0, BLOCK).encode() + Hole(0, BLOCK, BLOCK + 1).encode(),
    "a hole behind a gap": Hole(0, 7, 1).encode(),
    "a hole without length": frame(0x22, b"\0\0\0"),
    "an end of the stream within a block": block(0, 0, b"x" * 10, announced=20),
    "an end of the stream within a header": b"\x20\x44",
    "a message of the control stream": ItemDigest(0, SIZE, digest(DATA)).encode(),
    "a greeting": Hello().encode(),
    "a message that nobody knows": frame(0x7E, b""),
    "a message longer than any may be": frame(0x24, b"", announced=65_537),
    "a byte too much in a message": frame(0x24, ItemEnd(0, SIZE).encode()[2:] + b"\0"),
}


@pytest.mark.parametrize("lie", LIES_ON_DATA_STREAMS.values(), ids=LIES_ON_DATA_STREAMS.keys())
async def test_a_lie_on_a_data_stream_ends_its_transfer_alone(lie: bytes, inbox: Path) -> None:
    async with attack(inbox) as at:
        at.data.write(lie, fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert not error.remote
        assert_helpful(error)
        assert (await at.offer.error()).code == ErrorCode.PROTOCOL
    assert tree(inbox) == {}


async def test_two_streams_may_not_share_an_item(inbox: Path) -> None:
    async with attack(inbox) as at:
        at.data.write(block(0, 0, b"x" * 10))
        await at.data.stream.drain(0)
        at.offer.data().write(block(0, 10, b"x"))
        assert isinstance(await failure(at.receiving), spaceblock.RemoteProtocolError)
        assert (await at.offer.error()).code == ErrorCode.PROTOCOL
        await within(at.data.stopped.wait())
    assert tree(inbox) == {}


LIES_ON_CONTROL_STREAMS: dict[str, bytes] = {
    "an offer again": RequestsPage(b"u" * 16, True, False, BLOCK, 0, ()).encode(),
    "names again": ManifestPage(True, 0, ()).encode(),
    "an answer": AnswerPage(True, 0, ()).encode(),
    "a verdict of its own": VerifiedPage(True, 0, ()).encode(),
    "a report of progress": Progress(ReceiverState.MOVING, 0, 0, 0).encode(),
    "a digest of an item that does not exist": ItemDigest(2, 0, bytes(32)).encode(),
    "a digest twice": ItemDigest(0, SIZE, bytes(32)).encode() * 2,
    "a reply to a resume that nobody asked for": HaveReply(0, True).encode(),
    "done before anything was verified": Done().encode(),
    "a block": block(0, 0, b"x"),
    "a digest that is too short": frame(0x0E, bytes(20)),
    "a message that nobody knows": frame(0x7E, b""),
    "a message longer than any may be": frame(0x7F, b"", announced=65_537),
    "an end": b"",
    "an end within a message": b"\x0e",
}


@pytest.mark.parametrize("lie", LIES_ON_CONTROL_STREAMS.values(), ids=LIES_ON_CONTROL_STREAMS.keys())
async def test_a_lie_on_a_control_stream_ends_its_transfer_alone(lie: bytes, inbox: Path) -> None:
    async with attack(inbox) as at:
        at.data.write(whole(0)[:-1])
        at.control.write(lie, fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert_helpful(error)
        assert (await at.offer.error()).code == ErrorCode.PROTOCOL
        await within(at.data.stopped.wait())
    assert tree(inbox) == {}


async def test_resetting_the_control_stream_ends_the_transfer(inbox: Path) -> None:
    async with attack(inbox) as at:
        at.control.stream.reset(0)
        assert_helpful(await failure(at.receiving))
        await at.offer.error()
    assert tree(inbox) == {}


async def test_messages_that_may_be_skipped_are_skipped_everywhere(inbox: Path) -> None:
    skipped = frame(0x41, b"from the future") + frame(0x7F, b"")
    async with attack(inbox) as at:
        at.data.write(skipped + whole(0) + skipped + whole(1) + skipped, fin=True)
        at.control.write(skipped)
        at.control.send(*(ItemDigest(item, SIZE, digest(DATA)) for item in (0, 1)))
        at.control.write(skipped)
        await at.control.read(VerifiedPage)
        at.control.send(Done(), fin=True)
        await within(at.receiving)
    assert tree(inbox) == {"first": DATA, "second": DATA}


async def test_only_so_many_data_streams_are_kept_of_one_transfer(inbox: Path) -> None:
    """Of one that is reset it may still come out why, so that it counts for a while: here, for longer than it takes."""
    async with attack(inbox, spaceblock.Options(timeouts=spaceblock.Timeouts(close=300.0))) as at:

        async def seen(number: int) -> None:
            await until(lambda: at.incoming._arrivals._seen == number)

        for number in range(1, DATA_STREAMS_MAX):
            await seen(number)
            stream = at.raw.open(StreamType.DATA, at.offer.uuid).stream
            await stream.drain(0)
            await seen(number + 1)
            stream.reset(ErrorCode.CANCELLED)
        assert not at.receiving.done
        at.raw.open(StreamType.DATA, at.offer.uuid)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert "more than 64 data streams at once" in str(error)
        assert (await at.offer.error()).code == ErrorCode.PROTOCOL
    assert tree(inbox) == {}


async def test_nothing_is_kept_of_data_streams_that_were_reset(inbox: Path) -> None:
    """They may come and go for as long as something else of the transfer moves."""
    async with attack(inbox, spaceblock.Options(timeouts=spaceblock.Timeouts(close=0.1))) as at:

        async def seen(number: int) -> None:
            await until(lambda: at.incoming._arrivals._seen == number)

        for number in range(1, 21):
            await seen(number)
            stream = at.raw.open(StreamType.DATA, at.offer.uuid).stream
            await stream.drain(0)
            await seen(number + 1)
            stream.reset(ErrorCode.CANCELLED)
        await until(lambda: len(at.incoming._arrivals._landings) == 1)
        gc.collect()
        assert sum(isinstance(each, Landing) for each in gc.get_objects()) == 1
        at.receiving.cancel()
        await failure(at.receiving)


# Digests.


@pytest.mark.parametrize(
    "message", [ItemDigest(1, SIZE, bytes(32)), ItemDigest(1, SIZE - 1, digest(DATA))], ids=["digest", "size"]
)
@pytest.mark.parametrize("early", [True, False])
async def test_a_lie_about_a_digest_fails_the_item_and_never_reaches_its_name(
    message: ItemDigest, early: bool, inbox: Path
) -> None:
    async with attack(inbox) as at:
        good = ItemDigest(0, SIZE, digest(DATA))
        if early:
            at.control.send(message, good)
        at.data.write(whole(0) + whole(1), fin=True)
        if not early:
            at.control.send(good, message)
        verified = await _verified_after_failures(at.control)
        assert [outcome.kind for outcome in verified.outcomes] == [OutcomeKind.VERIFIED, OutcomeKind.FAILED]
        assert verified.outcomes[1].code == ErrorCode.INTEGRITY
        at.control.send(Done(), fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.IntegrityError)
        assert (error.item, error.exit_code) == (1, 5)
        assert_helpful(error)
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["first"]
    assert tree(inbox) == {"first": DATA}


async def _verified_after_failures(control: RawStream) -> VerifiedPage:
    from spaceblock.wire.messages import ItemFailed

    await control.read(ItemFailed)
    return await control.read(VerifiedPage)


async def test_a_sender_that_denies_the_digest_after_verified_fails_the_transfer(inbox: Path) -> None:
    """Only this, of all that a sender may say then, still changes the outcome."""
    async with attack(inbox) as at:
        at.data.write(whole(0) + whole(1), fin=True)
        at.control.send(*(ItemDigest(item, SIZE, digest(DATA)) for item in (0, 1)))
        await at.control.read(VerifiedPage)
        at.control.send(Error(ErrorCode.INTEGRITY, 0, "verify", 0, "not what I sent"), fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.IntegrityError)
        assert error.remote


async def test_any_other_error_after_verified_is_too_late(inbox: Path) -> None:
    async with attack(inbox) as at:
        at.data.write(whole(0) + whole(1), fin=True)
        at.control.send(*(ItemDigest(item, SIZE, digest(DATA)) for item in (0, 1)))
        await at.control.read(VerifiedPage)
        at.control.send(Error(ErrorCode.CANCELLED, None, "", 0, "changed my mind"), fin=True)
        assert (await within(at.receiving)).bytes == 2 * SIZE
    assert tree(inbox) == {"first": DATA, "second": DATA}


# Items that end early.


async def test_a_stream_that_ends_within_an_item_fails_the_item(inbox: Path) -> None:
    async with attack(inbox) as at:
        at.data.write(whole(0) + block(1, 0, b"x" * 100), fin=True)
        at.control.send(ItemDigest(0, SIZE, digest(DATA)))
        verified = await _verified_after_failures(at.control)
        assert [outcome.kind for outcome in verified.outcomes] == [OutcomeKind.VERIFIED, OutcomeKind.FAILED]
        at.control.send(Done(), fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.SourceError)
        assert error.item == 1
        assert_helpful(error)
    assert tree(inbox) == {"first": DATA}


async def test_a_stream_that_is_reset_within_an_item_fails_the_item_unless_the_sender_says_more(inbox: Path) -> None:
    async with attack(inbox, HURRIED) as at:
        other = at.offer.data()
        other.write(whole(0), fin=True)
        at.control.send(ItemDigest(0, SIZE, digest(DATA)))
        at.data.write(block(1, 0, b"x" * 100))
        await at.data.stream.drain(0)
        at.data.stream.reset(ErrorCode.INTERNAL)
        await _verified_after_failures(at.control)
        at.control.send(Done(), fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.SourceError)
    assert tree(inbox) == {"first": DATA}


async def test_a_reset_that_overtakes_the_senders_error_does_not_hide_it(inbox: Path) -> None:
    async with attack(inbox) as at:
        at.data.write(block(0, 0, b"x" * 100))
        await at.data.stream.drain(0)
        at.data.stream.reset(ErrorCode.CANCELLED)
        await until(lambda: at.incoming._arrivals._resets, "the reset arrives alone")
        at.control.send(Error(ErrorCode.CANCELLED, None, "", 0, "cancelled by its user"), fin=True)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.TransferCancelled)
        assert error.remote
    assert tree(inbox) == {}


async def test_words_from_the_sender_are_safe_to_print(inbox: Path) -> None:
    text = "\x1b[2Jcleared\u202e\r\n"
    async with attack(inbox) as at:
        at.data.write(ItemAbort(0, ErrorCode.SOURCE, 5, text, text).encode())
        at.control.send(Error(ErrorCode.INTERNAL, None, text, 0, text), fin=True)
        error = await failure(at.receiving)
        for shown in (str(error), error.phase or ""):
            assert not set(shown) & set("\x1b\u202e\r\n")


async def test_data_that_comes_before_the_answer_is_not_taken(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(3), names=("x",))
        incoming = await within(anext(aiter(listener)))
        early = offer.data()
        early.write(item_bytes(0, b"bad"))
        await within(early.stopped.wait())
        receiving = incoming.accept(inbox)
        await offer.control.read(AnswerPage)
        offer.data().write(item_bytes(0, b"yes"), fin=True)
        offer.control.send(ItemDigest(0, 3, digest(b"yes")))
        await offer.control.read(VerifiedPage)
        offer.control.send(Done(), fin=True)
        await within(receiving)
    assert tree(inbox) == {"x": b"yes"}


async def test_data_of_a_skipped_item_is_a_lie(inbox: Path) -> None:
    (inbox / "x").write_text("old")
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(3), SpaceblockRequest(3), names=("x", "y"))
        receiving = (await within(anext(aiter(listener)))).accept(inbox, on_conflict="skip")
        answer = await offer.control.read(AnswerPage)
        assert [verdict.kind for verdict in answer.verdicts] == [VerdictKind.SKIP, VerdictKind.ALL]
        offer.data().write(item_bytes(0, b"new"), fin=True)
        assert isinstance(await failure(receiving), spaceblock.RemoteProtocolError)
        await offer.error()
    assert tree(inbox) == {"x": b"old"}


# Buffers of the receiver.


@pytest.mark.parametrize("lie", ["a block behind a gap", "more than was announced", "an end too early"])
async def test_buffers_are_free_after_a_lie(lie: str) -> None:
    into = [bytearray(SIZE), bytearray(SIZE)]
    async with attack(None, into=into) as at:
        at.offer.data().write(block(1, 0, b"x" * 1000, announced=2000))
        at.data.write(LIES_ON_DATA_STREAMS[lie], fin=True)
        assert isinstance(await failure(at.receiving), spaceblock.RemoteProtocolError)
        assert all(map(resizable, into))
        await at.offer.error()


# The offer.


def request_page(**changes: object) -> bytes:
    values = {
        "uuid": b"u" * 16,
        "last": True,
        "manifest_follows": False,
        "block_size": BLOCK,
        "first": 0,
        "items": (SpaceblockRequest(1),),
        **changes,
    }
    return RequestsPage(**values).encode()  # type: ignore[arg-type]


def names_page(*names: str, item: int | None = 0, kind: EntryKind = EntryKind.FILE, **changes: object) -> bytes:
    entries = tuple(Entry(kind, name, item=item) for name in names)
    values = {"last": True, "first": 0, "entries": entries, **changes}
    return ManifestPage(**values).encode()  # type: ignore[arg-type]


FOLLOWS = request_page(manifest_follows=True)
LIES_IN_OFFERS: dict[str, bytes] = {
    "a page that begins behind the beginning": request_page(first=1),
    "a page that begins anew": request_page(last=False) * 2,
    "a page that leaves a gap": request_page(last=False) + request_page(first=2),
    "a page of another transfer": request_page(last=False) + request_page(first=1, uuid=b"v" * 16),
    "a page with another grid": request_page(last=False) + request_page(first=1, block_size=2 * BLOCK),
    "names before the items": names_page("x"),
    "items after the last": request_page(manifest_follows=True) + request_page(first=1),
    "a name of an item that does not exist": FOLLOWS + names_page("x", item=1),
    "two names of one item": FOLLOWS + names_page("x", "y"),
    "one name twice": FOLLOWS
    + names_page("x", last=False)
    + names_page("x", item=None, first=1, kind=EntryKind.FOLDER),
    "names that begin behind the beginning": FOLLOWS + names_page("x", first=1),
    "a grid of no block size": frame(0x02, b"u" * 16 + b"\x01\x10\0\0"),
    "more items than there are bytes": frame(0x02, b"u" * 16 + b"\x01\x11\0" + encode_uint_var(2**40)),
    "a range behind the item's end": frame(0x02, b"u" * 16 + b"\x01\x11\0\x01\x05\x04\x01\x05"),
    "a range that ends before it begins": frame(0x02, b"u" * 16 + b"\x01\x11\0\x01\x04\x05\x04"),
    "flags that mean nothing": frame(0x02, b"u" * 16 + b"\x3f\x11\0\0"),
    "a name that is no UTF-8": FOLLOWS + frame(0x04, b"\x01\0\x01\0\x01\0\x01\xff"),
    "an empty name": FOLLOWS + frame(0x04, b"\x01\0\x01\0\x01\0\0"),
    "something else": Done().encode(),
    "the end": b"",
}


@pytest.mark.parametrize("lie", LIES_IN_OFFERS.values(), ids=LIES_IN_OFFERS.keys())
async def test_a_lie_in_an_offer_is_refused_before_anybody_sees_it(lie: bytes) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        control = raw.open(StreamType.PUSH)
        control.write(lie, fin=True)
        assert (await control.read(Error)).code == ErrorCode.PROTOCOL
        await within(control.ended.wait())
        assert not listener._offers._waiting
        await honest_transfer(raw, listener)


@pytest.mark.parametrize(
    "pages",
    [
        request_page(items=(SpaceblockRequest(2**62 - 1), SpaceblockRequest(1))),
        request_page(items=(SpaceblockRequest(2**62 - 1),) * 500),
        request_page(items=(SpaceblockRequest(0),) * 11),
        request_page(items=(SpaceblockRequest(0),) * 6, last=False)
        + request_page(items=(SpaceblockRequest(0),) * 6, first=6, last=False),
        b"".join(request_page(items=(), last=False) for _ in range(3000)),
        request_page(manifest_follows=True) + names_page(last=False) * 20_000,
    ],
    ids=["size", "sizes", "items", "items over pages", "empty pages", "empty pages of names"],
)
async def test_an_offer_above_a_limit_is_refused_while_it_is_read(pages: bytes) -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(items=10, manifest_bytes=50_000))
    async with spaceblock.listen("127.0.0.1", options=options) as listener, client_of(listener) as raw:
        control = raw.open(StreamType.PUSH)
        control.write(pages)
        error = await control.read(Error)
        assert error.code == ErrorCode.LIMIT
        assert "send" in error.text
        await honest_transfer(raw, listener)


async def test_one_uuid_for_two_transfers_at_once_is_refused() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        first, second = raw.open(StreamType.PUSH), raw.open(StreamType.PUSH)
        first.write(request_page())
        offer = await within(anext(aiter(listener)))
        second.write(request_page())
        assert (await second.read(Error)).code == ErrorCode.PROTOCOL
        await offer.decline()
        assert (await first.read(Error)).code == ErrorCode.REFUSED


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "a/../../outside",
        "/outside",
        "//outside",
        "a//b",
        "./a",
        "a/.",
        "..",
        "a\0b",
        ".spaceblock-00/x",
        "x" * 256,
        "/".join("x" * 100),
    ],
)
async def test_a_name_that_leads_elsewhere_is_refused_on_both_sides(name: str, tmp_path: Path, inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(1), names=(name,))
        error = await failure((await within(anext(aiter(listener)))).accept(inbox))
        assert isinstance(error, spaceblock.NameRejected)
        assert_helpful(error)
        assert (await offer.error()).code == ErrorCode.NAME
        await honest_transfer(raw, listener)
    assert tree(tmp_path) == {"inbox": None}


async def test_a_link_in_an_offer_is_refused(tmp_path: Path, inbox: Path) -> None:
    link = ManifestPage(True, 0, (Entry(EntryKind.LINK, "etc", target="/etc"),)).encode()
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        control = raw.open(StreamType.PUSH)
        control.write(request_page(manifest_follows=True) + link)
        error = await failure((await within(anext(aiter(listener)))).accept(inbox))
        assert isinstance(error, spaceblock.NameRejected)
        assert (await control.read(Error)).code == ErrorCode.NAME
    assert tree(tmp_path) == {"inbox": None}


async def test_a_folder_that_is_a_file_too_is_refused(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(1), SpaceblockRequest(1), names=("a", "a/b"))
        error = await failure((await within(anext(aiter(listener)))).accept(inbox))
        assert isinstance(error, spaceblock.NameRejected)
        await offer.error()
    assert tree(inbox) == {}


async def test_an_announced_size_reserves_nothing_and_what_cannot_fit_is_refused(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(2**62 - 1), names=("bomb",))
        error = await failure((await within(anext(aiter(listener)))).accept(inbox))
        assert isinstance(error, spaceblock.NoSpace)
        assert (await offer.error()).code == ErrorCode.NO_SPACE
    assert tree(inbox) == {}


async def test_an_item_of_unknown_size_is_received_to_its_end(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(None), names=("stream",))
        incoming = await within(anext(aiter(listener)))
        assert (incoming.total_size, incoming.items[0].size) == (None, None)
        receiving = incoming.accept(inbox)
        await offer.control.read(AnswerPage)
        offer.data().write(whole(0), fin=True)
        offer.control.send(ItemDigest(0, SIZE, digest(DATA)))
        await offer.control.read(VerifiedPage)
        offer.control.send(Done(), fin=True)
        assert (await within(receiving)).items[0].size == SIZE
    assert tree(inbox) == {"stream": DATA}


async def test_an_item_of_unknown_size_has_no_place_in_a_buffer() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(None))
        error = await failure((await within(anext(aiter(listener)))).accept(into=[bytearray(10)]))
        assert isinstance(error, spaceblock.BufferUnfit)
        assert_helpful(error)
        assert (await offer.error()).code == ErrorCode.BUFFER


async def test_an_item_that_never_ends_meets_the_limit_of_bytes(inbox: Path) -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(total_size=3 * BLOCK))
    async with spaceblock.listen("127.0.0.1", options=options) as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(None), names=("endless",))
        receiving = (await within(anext(aiter(listener)))).accept(inbox)
        await offer.control.read(AnswerPage)
        data = offer.data()
        for number in range(4):
            data.write(block(0, number * BLOCK, bytes(BLOCK)))
        error = await failure(receiving)
        assert isinstance(error, spaceblock.LimitExceeded)
        assert (await offer.error()).code == ErrorCode.LIMIT
    assert tree(inbox) == {}


async def test_an_item_that_never_ends_meets_the_end_of_the_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", options="size=1m") as target:
        async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
            offer = raw.offer(SpaceblockRequest(None), names=("endless",))
            receiving = (await within(anext(aiter(listener)))).accept(target)
            await offer.control.read(AnswerPage)
            data = offer.data()
            for number in range(12):
                data.write(block(0, number * BLOCK, bytes(BLOCK)))
            error = await failure(receiving)
            assert isinstance(error, spaceblock.NoSpace)
            assert_helpful(error)
            assert (await offer.error()).code == ErrorCode.NO_SPACE
        assert tree(target) == {}


async def test_holes_count_against_the_limit_and_are_zeros_on_the_disk(inbox: Path) -> None:
    options = spaceblock.Options(limits=spaceblock.Limits(total_size=3 * BLOCK))
    async with spaceblock.listen("127.0.0.1", options=options) as listener, client_of(listener) as raw:
        for blocks, fits in ((3, True), (4, False)):
            offer = raw.offer(SpaceblockRequest(None), names=("sparse",))
            receiving = (await within(anext(aiter(listener)))).accept(inbox)
            await offer.control.read(AnswerPage)
            holes = [Hole(0, number * BLOCK, BLOCK) for number in range(blocks)]
            offer.data().send(*holes, ItemEnd(0, blocks * BLOCK), fin=True)
            offer.control.send(ItemDigest(0, blocks * BLOCK, digest(bytes(blocks * BLOCK))))
            if fits:
                await offer.control.read(VerifiedPage)
                offer.control.send(Done(), fin=True)
                await within(receiving)
            else:
                assert isinstance(await failure(receiving), spaceblock.LimitExceeded)
                await offer.error()
    assert tree(inbox) == {"sparse": bytes(3 * BLOCK)}


# Silence, and leaving.


async def test_an_offer_that_is_never_finished_is_given_up() -> None:
    async with spaceblock.listen("127.0.0.1", options=HURRIED) as listener, client_of(listener) as raw:
        silent, half = raw.open(StreamType.PUSH), raw.open(StreamType.PUSH)
        half.write(request_page(last=False))
        for control in (silent, half):
            error = await control.read(Error)
            assert error.code == ErrorCode.TIMEOUT
            assert error.phase
        await honest_transfer(raw, listener)


Silent = Callable[[Attack], None]


def says_nothing(at: Attack) -> None:
    pass


def stops_within_a_block(at: Attack) -> None:
    at.data.write(block(0, 0, b"x" * 10, announced=100))


def stops_between_items(at: Attack) -> None:
    at.data.write(whole(0))
    at.control.send(ItemDigest(0, SIZE, digest(DATA)))


def never_tells_a_digest(at: Attack) -> None:
    at.data.write(whole(0) + whole(1), fin=True)


@pytest.mark.parametrize(
    ("silent", "phase"),
    [
        (says_nothing, spaceblock.Phase.MOVING),
        (stops_within_a_block, spaceblock.Phase.MOVING),
        (stops_between_items, spaceblock.Phase.MOVING),
        (never_tells_a_digest, spaceblock.Phase.VERIFYING),
    ],
)
async def test_a_sender_that_falls_silent_stalls_with_the_phase_named(
    silent: Silent, phase: spaceblock.Phase, inbox: Path
) -> None:
    async with attack(inbox, HURRIED) as at:
        silent(at)
        error = await failure(at.receiving)
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == str(phase)
        assert_helpful(error)
        told = await at.offer.error()
        assert (told.code, told.phase) == (ErrorCode.TIMEOUT, str(phase))
    assert set(tree(inbox)) <= {"first"}


async def test_a_sender_that_never_says_done_does_not_hold_up_the_receiver(inbox: Path) -> None:
    async with attack(inbox, HURRIED) as at:
        at.data.write(whole(0) + whole(1), fin=True)
        at.control.send(*(ItemDigest(item, SIZE, digest(DATA)) for item in (0, 1)))
        assert (await within(at.receiving)).bytes == 2 * SIZE
    assert tree(inbox) == {"first": DATA, "second": DATA}


@pytest.mark.parametrize("silent", [says_nothing, stops_within_a_block, stops_between_items, never_tells_a_digest])
async def test_a_sender_that_leaves_ends_the_transfer_at_once(silent: Silent, inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(SIZE), SpaceblockRequest(SIZE), names=("first", "second"))
        receiving = (await within(anext(aiter(listener)))).accept(inbox)
        await offer.control.read(AnswerPage)
        (job,) = next(iter(listener._peers))._incoming
        at = Attack(raw, offer, offer.control, offer.data(), receiving, job)
        silent(at)
        await at.data.stream.drain(0)
        raw.connection.close(ErrorCode.NO_ERROR)
        error = await failure(receiving)
        assert isinstance(error, spaceblock.TransferCancelled)
        assert error.remote
    assert set(tree(inbox)) <= {"first"}


async def test_a_sender_that_leaves_after_verified_has_completed(inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(SIZE), names=("first",))
        receiving = (await within(anext(aiter(listener)))).accept(inbox)
        await offer.control.read(AnswerPage)
        offer.data().write(whole(0), fin=True)
        offer.control.send(ItemDigest(0, SIZE, digest(DATA)))
        await offer.control.read(VerifiedPage)
        raw.connection.close(ErrorCode.INTERNAL)
        assert (await within(receiving)).bytes == SIZE
    assert tree(inbox) == {"first": DATA}


async def test_items_without_bytes_do_not_pile_up_behind_a_slow_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the receiver hangs, no more than a bounded number of items is read from the stream, however small."""
    count = 10_000
    items = (SpaceblockRequest(0),) * count
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        with Gate(monkeypatch, sinks.IntoSink, "begin") as gate:
            offer = raw.offer(*items)
            receiving = (await within(anext(aiter(listener)))).accept(into=[bytearray()] * count)
            while not (await offer.control.read(AnswerPage)).last:
                pass
            offer.data().write(b"".join(ItemEnd(item, 0).encode() for item in range(count)), fin=True)
            await within(gate.reached.wait())
            (incoming,) = next(iter(listener._peers))._incoming
            (landing,) = incoming._arrivals._landings.values()
            await until(lambda: landing.waits_for_disk)
            assert len(landing._steps) < 2_000
            gate.open()
            for item in range(count):
                offer.control.send(ItemDigest(item, 0, digest(b"")))
            while not (await offer.control.read(VerifiedPage)).last:
                pass
            offer.control.send(Done(), fin=True)
            assert len((await within(receiving)).items) == count
