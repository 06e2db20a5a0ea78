# Invariant: lists of any length and content are cut into pages that all fit into a message, follow one another without
# a gap, and read as the same list; a receiver that is given the pages of an offer, in order, has the offer, and out of
# order, twice or with one left out it never has another one.
"""Lists that travel in pages: requests, manifests, answers, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from spaceblock.blocks import Full, Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.core import UINT_VAR_MAX, decode_uint_var
from spaceblock.errors import LocalProtocolError, RemoteProtocolError
from spaceblock.limits import MESSAGE_PAYLOAD_MAX, Limits
from spaceblock.protocol.receiver import Receiver
from spaceblock.protocol.receiver_events import Offered
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import (
    Message,
    Outcome,
    OutcomeKind,
    Verdict,
    VerdictKind,
    decode_message,
    pages_of_answer,
    pages_of_manifest,
    pages_of_requests,
    pages_of_verified,
)

from .choices import Choices

BLOCK = 1 << 17
UUID = bytes(range(16))
DIGEST = bytes(range(32))
LIST_MAX = 2_600
LETTERS = "ab\u00e9\u20ac\U0001f600./"
SIZE_MAX = 400


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    kind = choices.below(5)
    if kind == 4:
        return _offer(choices)
    make, cut, part = _KINDS[kind]
    values = _many(choices, make)
    try:
        pages = list(cut(values))
    except ValueError:
        return kind, "no list that could be sent"
    found: list[Any] = []
    for page in pages:
        again = _over_the_wire(page)
        assert again.first == len(found)  # type: ignore[attr-defined]
        assert again.last == (page is pages[-1])  # type: ignore[attr-defined]
        found += getattr(again, part)
    assert found == values
    return kind, min(len(pages), 3), bool(values)


def seeds() -> dict[str, bytes]:
    many = (0xF000 + 860).to_bytes(2, "big")
    few = (3).to_bytes(2, "big")
    found = {}
    for kind, name in enumerate(("requests", "manifest", "answer", "outcomes")):
        found[f"few-{name}"] = bytes([kind]) + few + bytes([3, 5, 1, 9, 2, 7, 4, 200, 3, 1, 0, 6, 2, 2, 9, 9])
        found[f"many-{name}"] = bytes([kind]) + many + bytes(range(3, 60))
        found[f"no-{name}"] = bytes([kind]) + bytes(2)
    found["offer"] = b"\4" + many + bytes([1, 2, 3, 0, 0])
    found["offer-out-of-order"] = b"\4" + many + bytes([1, 2, 3, 1, 1, 2])
    found["offer-twice"] = b"\4" + many + bytes([1, 2, 3, 1, 2, 0])
    return found


def _over_the_wire(page: Message) -> Message:
    written = page.encode()
    kind, pos = decode_uint_var(written)
    size, pos = decode_uint_var(written, pos)
    assert size == len(written) - pos <= MESSAGE_PAYLOAD_MAX
    again = decode_message(kind, written[pos:])
    assert again == page
    return page


def _many(choices: Choices, make: Callable[[Choices, int], Any]) -> list[Any]:
    """A list of a few different values, over and over."""
    count = _count(choices)
    some = list[bytes]()
    while choices and len(some) < 5:
        some.append(choices.take(12))
    return [make(Choices(some[at % len(some)] if some else b""), at) for at in range(count)]


def _count(choices: Choices) -> int:
    """Mostly few, since many take their time."""
    number = choices.number(2)
    return number % LIST_MAX if number >= 0xF000 else number % 30


def _request(choices: Choices, _: int) -> SpaceblockRequest:
    size = None if choices.byte() & 1 else choices.large() % (UINT_VAR_MAX + 1)
    if not choices.byte() & 1:
        return SpaceblockRequest(size, Full(), bool(choices.byte() & 1))
    start, stop = sorted(choices.large() % ((UINT_VAR_MAX if size is None else size) + 1) for _ in range(2))
    return SpaceblockRequest(size, Partial(start, stop), bool(choices.byte() & 1))


def _entry(choices: Choices, at: int) -> Entry:
    kind = EntryKind(choices.below(3))
    text = "".join(LETTERS[choices.below(len(LETTERS))] for _ in range(choices.below(200)))
    return Entry(
        kind,
        f"{text}{at}",
        at if kind is EntryKind.FILE else None,
        choices.number(2) % 0o10000 if choices.byte() & 1 else None,
        choices.number(3) * 1_000 if choices.byte() & 1 else None,
        f"{text}-" if kind is EntryKind.LINK else None,
    )


def _verdict(choices: Choices, _: int) -> Verdict:
    kind = list(VerdictKind)[choices.below(len(VerdictKind))]
    if kind is not VerdictKind.HAVE:
        return Verdict(kind)
    return Verdict(kind, choices.large() % (UINT_VAR_MAX + 1), DIGEST)


def _outcome(choices: Choices, at: int) -> Outcome:
    kind = list(OutcomeKind)[choices.below(len(OutcomeKind))]
    if kind is OutcomeKind.VERIFIED:
        return Outcome(kind, DIGEST, choices.large() % (UINT_VAR_MAX + 1), "n" * choices.below(250) + str(at))
    if kind is OutcomeKind.FAILED:
        return Outcome(kind, code=1 + choices.large() % UINT_VAR_MAX)
    return Outcome(kind)


def _requests_of(values: list[SpaceblockRequest]) -> Iterable[Message]:
    return pages_of_requests(SpaceblockRequests(UUID, BLOCK, tuple(values)), False)


_KINDS: tuple[tuple[Callable[[Choices, int], Any], Callable[[list[Any]], Iterable[Message]], str], ...] = (
    (_request, _requests_of, "items"),
    (_entry, pages_of_manifest, "entries"),
    (_verdict, pages_of_answer, "verdicts"),
    (_outcome, pages_of_verified, "outcomes"),
)


def _offer(choices: Choices) -> Hashable:
    """The pages of one offer, as they are or with one moved, repeated or left out."""
    count = _count(choices)
    items = tuple(SpaceblockRequest(choices.byte() if at < 3 else at) for at in range(count))
    entries = [Entry(EntryKind.FILE, f"name-{'x' * 20}-{at}", at) for at in range(count)]
    requests, manifest = SpaceblockRequests(UUID, BLOCK, items), Manifest(tuple(entries), count)
    pages: list[Message] = [*pages_of_requests(requests, True), *pages_of_manifest(entries)]
    fault, which = choices.below(4), choices.below(len(pages))
    given = list(pages)
    if fault == 1:
        given.insert(choices.below(len(given)), given.pop(which))
    elif fault == 2:
        given.insert(which, given[which])
    elif fault == 3:
        del given[which]
    receiver = Receiver(Limits())
    offered = None
    try:
        for page in given:
            for event in receiver.receive_message(_over_the_wire(page)):
                if isinstance(event, Offered):
                    offered = event
    except (RemoteProtocolError, LocalProtocolError) as error:
        assert given != pages
        return "refused", type(error).__name__
    if given == pages:
        assert offered is not None
        assert offered.requests == requests
        assert offered.manifest == manifest
    return "offered" if offered else "unfinished", fault, min(len(pages), 4)
