"""Messages as bytes: whole, in pieces, cut short, too long, and wrong on purpose."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.core import decode_uint_var
from spaceblock.errors import LocalProtocolError, RemoteProtocolError
from spaceblock.limits import MESSAGE_PAYLOAD_MAX, PHASE_MAX, TEXT_MAX
from spaceblock.wire import ERRNO_MAX, NAME_MAX
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import (
    Amend,
    Amendment,
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
    Message,
    MessageType,
    NameProblem,
    NameProblems,
    NameUnit,
    Outcome,
    OutcomeKind,
    Progress,
    Query,
    ReceiverState,
    RequestsPage,
    Resend,
    StreamType,
    System,
    Unknown,
    Verdict,
    VerdictKind,
    VerifiedPage,
    Waiting,
    decode_message,
    encode_stream_header,
    pages_of_answer,
    pages_of_manifest,
    pages_of_requests,
    pages_of_verified,
)
from spaceblock.wire.pages import MODE_MAX
from test_vectors import MESSAGES

UUID = bytes(range(16))
DIGEST = bytes(range(32))
LARGEST = 2**62 - 1


def payload_of(message: Message) -> bytes:
    """What follows type and length."""
    data = message.encode()
    _, pos = decode_uint_var(data)
    length, pos = decode_uint_var(data, pos)
    assert length == len(data) - pos <= MESSAGE_PAYLOAD_MAX
    return data[pos:]


def decode(message_type: MessageType, payload: str) -> Message | None:
    return decode_message(message_type, bytes.fromhex(payload))


every_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


# Each message of the specification, in every state of repair.


@every_message
def test_cut_short_anywhere(message: Message) -> None:
    payload = payload_of(message)
    for size in range(len(payload)):
        with pytest.raises(RemoteProtocolError, match=f"{message.TYPE.wire_name} message is malformed"):
            decode_message(message.TYPE, payload[:size])


@every_message
def test_trailing_byte(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="1 bytes follow its end"):
        decode_message(message.TYPE, payload_of(message) + b"\0")


@every_message
@pytest.mark.parametrize("step", [1, 7, 1_000])
def test_through_the_parser_of_streams(message: Message, step: int, core: ModuleType) -> None:
    data = message.encode() + ItemEnd(1, 2).encode()
    deframer = core.Deframer(MESSAGE_PAYLOAD_MAX, core.MESSAGE_DATA_MAX)
    seen = []
    for start in range(0, len(data), step):
        piece, pos = data[start : start + step], 0
        while pos < len(piece) or deframer.event != deframer.NEED_DATA:
            pos = deframer.feed(piece, pos)
            if deframer.event == deframer.MESSAGE:
                seen.append(decode_message(deframer.message_type, deframer.payload))
    assert seen == [message, ItemEnd(1, 2)]
    assert deframer.at_boundary


@every_message
def test_changed_byte_is_another_message_or_none(message: Message) -> None:
    payload = payload_of(message)
    for pos in range(len(payload)):
        for value in (0x00, 0x3F, 0x40, 0x80, 0xFF):
            changed = payload[:pos] + bytes([value]) + payload[pos + 1 :]
            try:
                other = decode_message(message.TYPE, changed)
            except RemoteProtocolError:
                continue
            assert isinstance(other, type(message))


# Any message survives the way there and back.

numbers = st.integers(0, LARGEST)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
uuids = st.binary(min_size=16, max_size=16)
digests = st.binary(min_size=32, max_size=32)
codes = st.integers(1, LARGEST)
errnos = st.integers(0, ERRNO_MAX)
items = st.integers(0, LARGEST - 1)
firsts = st.integers(0, LARGEST - 100)


def lists(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(elements, max_size=5).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> SpaceblockRequest:
    start, stop, size = sorted(draw(st.tuples(numbers, numbers, numbers)))
    known = draw(st.booleans())
    if draw(st.booleans()):
        data = draw(st.none() | st.integers(0, stop - start))
        return SpaceblockRequest(size if known else None, Partial(start, stop), draw(st.booleans()), data)
    data = draw(st.none() | st.integers(0, size if known else 0))
    return SpaceblockRequest(size if known else None, rereadable=draw(st.booleans()), data=data)


modes = st.none() | st.integers(0, MODE_MAX)
times = st.none() | st.integers(-(2**61) * 10**9, 2**61 * 10**9 - 1)
entries = (
    st.builds(Entry, st.just(EntryKind.FILE), names, numbers, modes, times)
    | st.builds(Entry, st.just(EntryKind.FOLDER), names, st.none(), modes, times)
    | st.builds(Entry, st.just(EntryKind.LINK), names, st.none(), modes, times, names)
)
verdicts = st.sampled_from([Verdict(VerdictKind.ALL), Verdict(VerdictKind.SKIP)]) | st.builds(
    lambda offset, digest, ahead: Verdict(VerdictKind.HAVE, offset, digest, min(ahead, offset)),
    numbers,
    digests,
    numbers,
)
outcomes = (
    st.builds(Outcome, st.just(OutcomeKind.VERIFIED), digests, numbers, words)
    | st.just(Outcome(OutcomeKind.SKIPPED))
    | st.builds(lambda code: Outcome(OutcomeKind.FAILED, code=code), codes)
)
ranges = st.lists(numbers, min_size=2, max_size=8, unique=True).map(
    lambda edges: tuple(Partial(*pair) for pair in zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False))
)
holes = st.tuples(numbers, numbers, numbers).filter(lambda hole: 0 < hole[2] <= LARGEST - hole[1])

MADE: dict[type[Message], st.SearchStrategy[Message]] = {
    Hello: st.builds(
        Hello,
        st.just(2),
        numbers.map(Feature),
        words,
        st.sampled_from(System),
        numbers,
        st.sampled_from(NameUnit),
        numbers,
    ),
    RequestsPage: st.tuples(st.booleans(), st.booleans()).flatmap(
        lambda flags: st.builds(
            RequestsPage,
            uuids,
            st.just(flags[0]),
            st.just(flags[0] and flags[1]),
            st.integers(17, 24).map(lambda exponent: 1 << exponent),
            firsts,
            lists(requests()),
        )
    ),
    ManifestPage: st.builds(ManifestPage, st.booleans(), firsts, lists(entries)),
    AnswerPage: st.builds(AnswerPage, st.booleans(), firsts, lists(verdicts)),
    NameProblems: st.builds(
        NameProblems,
        numbers,
        st.sampled_from(NameUnit),
        numbers,
        numbers,
        st.booleans(),
        lists(st.builds(NameProblem, numbers, numbers, words)),
    ),
    Amend: st.builds(Amend, st.booleans(), lists(st.builds(Amendment, numbers, names))),
    HaveReply: st.builds(HaveReply, numbers, st.booleans()),
    ItemDigest: st.builds(ItemDigest, numbers, numbers, digests),
    Progress: st.builds(Progress, st.sampled_from(ReceiverState), numbers, numbers, numbers),
    ItemFailed: st.builds(ItemFailed, numbers, codes, errnos, words, words),
    BlockDigests: st.builds(BlockDigests, numbers, firsts, lists(digests)),
    Resend: st.builds(Resend, numbers, ranges),
    VerifiedPage: st.builds(VerifiedPage, st.booleans(), firsts, lists(outcomes)),
    Done: st.just(Done()),
    Waiting: st.just(Waiting()),
    Hashed: st.builds(Hashed, numbers),
    Error: st.builds(Error, codes, st.none() | items, words, errnos, words),
    Query: st.builds(Query, uuids),
    Unknown: st.just(Unknown()),
    Hole: holes.map(lambda hole: Hole(*hole)),
    ItemEnd: st.builds(ItemEnd, numbers, numbers),
    ItemAbort: st.builds(ItemAbort, numbers, codes, errnos, words, words),
}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_there_and_back(kind: type[Message]) -> None:
    @settings(deadline=None, derandomize=True)
    @given(MADE[kind])
    def check(message: Message) -> None:
        assert decode_message(kind.TYPE, payload_of(message)) == message

    check()


def test_every_message_is_made_here() -> None:
    assert {kind.TYPE for kind in MADE} == set(MessageType) - {MessageType.BLOCK}


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.sampled_from(MessageType) | st.integers(0, 300), st.binary(max_size=120))
def test_noise_is_a_message_or_the_peers_fault(message_type: int, payload: bytes) -> None:
    try:
        message = decode_message(message_type, payload)
    except RemoteProtocolError:
        return
    if message is None:
        assert message_type & 1
    else:
        assert decode_message(message_type, payload_of(message)) == message


# What a peer may do.


def test_longer_integers_than_needed_are_accepted() -> None:
    assert decode(MessageType.ITEM_END, "4001 80000002") == ItemEnd(1, 2)


def test_unknown_messages() -> None:
    assert decode_message(0x3B, b"anything") is None
    with pytest.raises(RemoteProtocolError, match="unknown type 0x3c"):
        decode_message(0x3C, b"")
    with pytest.raises(RemoteProtocolError, match="outside of a data stream"):
        decode_message(MessageType.BLOCK, b"")


def test_hello_of_another_version_is_read_as_far_as_its_version() -> None:
    assert decode(MessageType.HELLO, "03 de ad be ef") == Hello(3)


def test_features_from_the_future_are_kept() -> None:
    hello = decode(MessageType.HELLO, "02 4101 00 00 00 00 00")
    assert isinstance(hello, Hello)
    assert hello.features == 0x101
    assert Feature.RESUME in hello.features


def test_codes_from_the_future_are_kept() -> None:
    error = decode(MessageType.ERROR, "7fff 00 00 00 00")
    assert error == Error(0x3FFF, None, "", 0, "")


@pytest.mark.parametrize(
    ("message_type", "payload", "reason"),
    [
        (MessageType.HELLO, "02 00 00 09 00 00 00", "9 is not a valid System"),
        (MessageType.HELLO, "02 00 00 00 00 03 00", "3 is not a valid NameUnit"),
        (MessageType.HELLO, "02 00 02 c3 28 00 00 00 00", "codec can't decode"),
        (MessageType.HELLO, "02 00 4401" + "61" * 1025 + "00 00 00 00", "string of 1025 bytes"),
        (MessageType.REQUESTS, UUID.hex() + "04 11 00 00", "flags 0x4"),
        (MessageType.REQUESTS, UUID.hex() + "02 11 00 00", "not the last one announces"),
        (MessageType.REQUESTS, UUID.hex() + "01 10 00 00", "2\\^16 is not between"),
        (MessageType.REQUESTS, UUID.hex() + "01 19 00 00", "2\\^25 is not between"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 00 02 00", "announces 2 elements in 1 bytes"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 00 ffffffffffffffff 00", "elements in 1 bytes"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 ffffffffffffffff 01 00", "passes the largest number"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 00 01 10", "item's flags 0x10"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 00 01 09 05 06", "6 bytes of data do not fit"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 00 01 04 05 04", "5 to 4 is no range"),
        (MessageType.REQUESTS, UUID.hex() + "01 11 00 01 05 03 02 04", "behind the item's 3 bytes"),
        (MessageType.MANIFEST, "01 00 01 03 00 00", "unknown kind 3"),
        (MessageType.MANIFEST, "01 00 01 01 10 01 61", "flags 0x10, which do not fit"),
        (MessageType.MANIFEST, "01 00 01 00 00 01 61", "FILE has the flags 0x0"),
        (MessageType.MANIFEST, "01 00 01 01 01 00 01 61", "FOLDER has the flags 0x1"),
        (MessageType.MANIFEST, "01 00 01 02 00 01 61", "LINK has the flags 0x0"),
        (MessageType.MANIFEST, "01 00 01 01 00 00", "name is empty"),
        (MessageType.MANIFEST, "01 00 01 02 08 01 61 00", "name is empty"),
        (MessageType.MANIFEST, "01 00 01 01 00 80005000 61", "string of 20480 bytes"),
        (MessageType.MANIFEST, "01 00 01 01 02 01 61 5000", "more than permission bits"),
        (MessageType.MANIFEST, "01 00 01 01 04 01 61 00 bb9aca00", "a second or more"),
        (MessageType.MANIFEST, "01 00 01 01 00 01 ff", "codec can't decode"),
        (MessageType.ANSWER, "01 00 01 04" + "00" * 40, "4 is not a valid VerdictKind"),
        (MessageType.NAME_PROBLEMS, "00 00 00 00 01 02 00 00 00", "announces 2 elements"),
        (MessageType.AMEND, "01 01 00 00 00", "name is empty"),
        (MessageType.HAVE_REPLY, "00 02", "flags 0x2"),
        (MessageType.PROGRESS, "05 00 00 00", "5 is not a valid ReceiverState"),
        (MessageType.ITEM_FAILED, "00 00 00 00 00", "code 0"),
        (MessageType.ITEM_FAILED, "00 01 5000 00 00", "errno 4096"),
        (MessageType.ITEM_FAILED, "00 01 00 4041" + "61" * 65 + "00", "string of 65 bytes"),
        (MessageType.BLOCK_DIGESTS, "00 00 02" + "00" * 63, "announces 2 elements"),
        (MessageType.RESEND, "00 00", "asks for no range"),
        (MessageType.RESEND, "00 01 05 00", "empty or not in ascending order"),
        (MessageType.RESEND, "00 02 05 05 09 01", "empty or not in ascending order"),
        (MessageType.RESEND, "00 01 ffffffffffffffff 01", "is no range"),
        (MessageType.VERIFIED, "01 00 01 03", "3 is not a valid OutcomeKind"),
        (MessageType.VERIFIED, "01 00 01 02 00", "code 0"),
        (MessageType.ERROR, "00 00 00 00 00", "code 0"),
        (MessageType.HOLE, "00 00 00", "no length"),
        (MessageType.HOLE, "00 ffffffffffffffff 01", "passes the largest number"),
    ],
)
def test_malformed(message_type: MessageType, payload: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        decode(message_type, payload)


def test_payload_above_the_limit() -> None:
    with pytest.raises(RemoteProtocolError, match="pass the limit of 65536"):
        decode_message(MessageType.QUERY, bytes(MESSAGE_PAYLOAD_MAX + 1))


# What this side may not do.


@pytest.mark.parametrize(
    "message",
    [
        ItemEnd(-1, 0),
        ItemEnd(0, LARGEST + 1),
        Hello(name_limit=-1),
        RequestsPage(b"short", True, False, 1 << 17, 0, ()),
        RequestsPage(UUID, False, True, 1 << 17, 0, ()),
        RequestsPage(UUID, True, False, (1 << 17) + 1, 0, ()),
        RequestsPage(UUID, True, False, 1 << 25, 0, ()),
        RequestsPage(UUID, True, False, 0, 0, ()),
        RequestsPage(UUID, True, False, 1 << 17, LARGEST, (SpaceblockRequest(1),)),
        ManifestPage(True, 0, (Entry(EntryKind.FILE, "a"),)),
        ManifestPage(True, 0, (Entry(EntryKind.FOLDER, "a", 1),)),
        ManifestPage(True, 0, (Entry(EntryKind.LINK, "a"),)),
        ManifestPage(True, 0, (Entry(EntryKind.FILE, "a", 0, target="b"),)),
        ManifestPage(True, 0, (Entry(EntryKind.FOLDER, ""),)),
        ManifestPage(True, 0, (Entry(EntryKind.FOLDER, "\udcff"),)),
        ManifestPage(True, 0, (Entry(EntryKind.FOLDER, "a" * (NAME_MAX + 1)),)),
        ManifestPage(True, 0, (Entry(EntryKind.FOLDER, "a", mode=0o40755),)),
        ManifestPage(True, 0, (Entry(EntryKind.FOLDER, "a", mtime_ns=2**61 * 10**9),)),
        AnswerPage(True, 0, (Verdict(VerdictKind.ALL, 5),)),
        AnswerPage(True, 0, (Verdict(VerdictKind.HAVE, 5),)),
        AnswerPage(True, 0, (Verdict(VerdictKind.HAVE, 5, DIGEST, 6),)),
        AnswerPage(True, 0, (Verdict(VerdictKind.ALL),) * 70_000),
        ItemDigest(0, 0, b"short"),
        ItemFailed(0, 0, 0, "", ""),
        ItemAbort(0, 1, ERRNO_MAX + 1, "", ""),
        Resend(0, ()),
        Resend(0, (Partial(5, 5),)),
        VerifiedPage(True, 0, (Outcome(OutcomeKind.VERIFIED),)),
        VerifiedPage(True, 0, (Outcome(OutcomeKind.FAILED),)),
        VerifiedPage(True, 0, (Outcome(OutcomeKind.SKIPPED, code=1),)),
        VerifiedPage(True, 0, (Outcome(OutcomeKind.FAILED, name="a", code=1),)),
        Error(0, None, "", 0, ""),
        Error(1, LARGEST, "", 0, ""),
        Hole(0, 0, 0),
        Hole(0, LARGEST, 1),
        Hole(0, 0, -1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_illegal_message_is_not_sent(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent because"):
        message.encode()


def test_text_is_cut_between_characters_and_always_unicode() -> None:
    sent = Error(1, None, "p" * (PHASE_MAX + 1), 0, "x" + "ü" * TEXT_MAX)
    read = decode_message(Error.TYPE, payload_of(sent))
    assert read == Error(1, None, "p" * PHASE_MAX, 0, "x" + "ü" * (TEXT_MAX // 2 - 1))
    read = decode_message(Error.TYPE, payload_of(Error(1, None, "", 0, "no \udcff here")))
    assert read == Error(1, None, "", 0, "no \\udcff here")


def test_stream_header_of_data_needs_a_uuid() -> None:
    assert encode_stream_header(StreamType.SESSION) == b"\0"
    with pytest.raises(LocalProtocolError):
        encode_stream_header(StreamType.DATA)
    with pytest.raises(LocalProtocolError):
        encode_stream_header(StreamType.PUSH, UUID)


# Lists of any length become pages, and pages the list.


def rejoin(pages: list[Any], field: str) -> tuple[Any, ...]:
    """Send all pages and put together what arrives, as a session does."""
    read = [decode_message(page.TYPE, payload_of(page)) for page in pages]
    assert read == pages
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    joined: tuple[Any, ...] = ()
    for page in pages:
        assert page.first == len(joined)
        joined += getattr(page, field)
    return joined


PAGE_OF_REQUESTS = 2_620
PAGE_OF_VERDICTS = 1_336


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (PAGE_OF_REQUESTS, 1), (PAGE_OF_REQUESTS + 1, 2)])
@pytest.mark.parametrize("manifest_follows", [False, True])
def test_pages_of_requests(count: int, pages: int, manifest_follows: bool) -> None:
    largest = SpaceblockRequest(LARGEST, Partial(LARGEST, LARGEST))
    made = list(pages_of_requests(SpaceblockRequests(UUID, 1 << 20, (largest,) * count), manifest_follows))
    assert len(made) == pages
    assert rejoin(made, "items") == (largest,) * count
    assert {(page.uuid, page.block_size) for page in made} == {(UUID, 1 << 20)}
    assert [page.manifest_follows for page in made] == [False] * (pages - 1) + [manifest_follows]


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (PAGE_OF_VERDICTS, 1), (PAGE_OF_VERDICTS + 1, 2)])
def test_pages_of_answer(count: int, pages: int) -> None:
    largest = Verdict(VerdictKind.HAVE, LARGEST, DIGEST)
    made = list(pages_of_answer([largest] * count))
    assert len(made) == pages
    assert rejoin(made, "verdicts") == (largest,) * count


@pytest.mark.parametrize("name", ["n", "ü" * 100, "\N{GRINNING FACE}" * (NAME_MAX // 4), "n" * NAME_MAX])
@pytest.mark.parametrize("count", [0, 1, 10, 3_000])
def test_pages_of_names(name: str, count: int) -> None:
    if len(name) > 1_000:
        count = min(count, 10)
    entries = [Entry(EntryKind.LINK, name, None, MODE_MAX, -1, name)] * count
    assert rejoin(list(pages_of_manifest(entries)), "entries") == tuple(entries)
    outcomes = [Outcome(OutcomeKind.VERIFIED, DIGEST, LARGEST, name), Outcome(OutcomeKind.FAILED, code=LARGEST)] * count
    assert rejoin(list(pages_of_verified(outcomes)), "outcomes") == tuple(outcomes)


def test_pages_are_filled() -> None:
    entries = [Entry(EntryKind.FILE, f"folder/{i:06}", i, 0o644, 1_700_000_000_123_456_789) for i in range(20_000)]
    pages = list(pages_of_manifest(entries))
    assert rejoin(pages, "entries") == tuple(entries)
    assert all(len(payload_of(page)) > MESSAGE_PAYLOAD_MAX // 2 for page in pages[:-1])
