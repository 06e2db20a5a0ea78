"""The messages that come in pages: a list with no limit of its own, cut into messages of bounded size.

Each page says where it begins and whether it is the last; an empty list is one empty page. That pages join up is for
the session to check. Decoding a page's elements is the one place where speed counts, as a transfer may have a million
of them: those loops use the core's decoder on plain variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol, TypeVar

from .blocks import Full, Partial, Range, SpaceblockRequest, SpaceblockRequests
from .core import decode_uint_var, encode_uint_var, make_records
from .limits import MESSAGE_PAYLOAD_MAX
from .manifest import Entry, EntryKind
from .wire import (
    DIGEST_SIZE,
    NAME_MAX,
    UUID_SIZE,
    Message,
    MessageType,
    Reader,
    Writer,
    check_code,
    check_name,
    check_span,
    take,
    take_string,
    unzigzag,
    zigzag,
)

MODE_MAX = 0o7777
"""Permission bits of an entry's mode; the file's kind is not among them."""

_T = TypeVar("_T")


class VerdictKind(IntEnum):
    """What the receiver wants of an item."""

    ALL = 0
    SKIP = 1
    HAVE = 2
    COMPARE = 3


class OutcomeKind(IntEnum):
    """How an item ended."""

    VERIFIED = 0
    SKIPPED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class RequestsPage(Message):
    """Some of the items that the sender offers, beginning with item ``first``.

    ``block_size`` is in bytes, a power of two from 2^17 to 2^24, and the same on every page. ``manifest_follows`` is
    said on the last page only.
    """

    TYPE: ClassVar[MessageType] = MessageType.REQUESTS
    uuid: bytes
    last: bool
    manifest_follows: bool
    block_size: int
    first: int
    items: tuple[SpaceblockRequest, ...]

    def _write(self, out: Writer) -> None:
        out.fixed(self.uuid, UUID_SIZE)
        out.uint(_page_flags(self.last, self.manifest_follows))
        exponent = _check_exponent(self.block_size.bit_length() - 1)
        if self.block_size != 1 << exponent:
            raise ValueError(f"its block size {self.block_size} is no power of two")
        out.uint(exponent)
        write_page_head(out, self.first, self.items)
        _write_requests(out, self.items)

    @classmethod
    def _read(cls, reader: Reader) -> RequestsPage:
        uuid = reader.take(UUID_SIZE)
        flags = reader.flags(_LAST | _MANIFEST_FOLLOWS)
        _page_flags(bool(flags & _LAST), bool(flags & _MANIFEST_FOLLOWS))
        block_size = 1 << _check_exponent(reader.uint())
        first, count = read_page_head(reader, 1)
        items = _read_requests(reader, count)
        return cls(uuid, bool(flags & _LAST), bool(flags & _MANIFEST_FOLLOWS), block_size, first, items)


@dataclass(frozen=True, slots=True)
class ManifestPage(Message):
    """Some of the names of a transfer, beginning with entry ``first``."""

    TYPE: ClassVar[MessageType] = MessageType.MANIFEST
    last: bool
    first: int
    entries: tuple[Entry, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.last)
        write_page_head(out, self.first, self.entries)
        for entry in self.entries:
            _write_entry(out, entry)

    @classmethod
    def _read(cls, reader: Reader) -> ManifestPage:
        last = bool(reader.flags(_LAST))
        first, count = read_page_head(reader, 3)
        return cls(last, first, _read_entries(reader, count))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the receiver wants of one item: for ``COMPARE`` the sender's digest alone; for ``HAVE``, it has the bytes up
    to ``offset``, and all but the last ``ahead`` of them have ``digest``."""

    kind: VerdictKind
    offset: int = 0
    digest: bytes = b""
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class AnswerPage(Message):
    """Some of the receiver's verdicts, beginning with that of item ``first``."""

    TYPE: ClassVar[MessageType] = MessageType.ANSWER
    last: bool
    first: int
    verdicts: tuple[Verdict, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.last)
        write_page_head(out, self.first, self.verdicts)
        for verdict in self.verdicts:
            out.uint(verdict.kind)
            if verdict.kind is VerdictKind.HAVE:
                out.uint(verdict.offset)
                out.uint(_check_ahead(verdict.ahead, verdict.offset))
                out.fixed(verdict.digest, DIGEST_SIZE)
            elif verdict.offset or verdict.digest or verdict.ahead:
                raise ValueError("only a verdict HAVE has an offset and a digest")

    @classmethod
    def _read(cls, reader: Reader) -> AnswerPage:
        last = bool(reader.flags(_LAST))
        first, count = read_page_head(reader, 1)
        return cls(last, first, _read_verdicts(reader, count))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one item ended.

    When verified: the receiver's digest, the bytes that it covers, and the final name (empty for an unnamed item). When
    failed: the error code.
    """

    kind: OutcomeKind
    digest: bytes = b""
    size: int = 0
    name: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True)
class VerifiedPage(Message):
    """Some outcomes, beginning with that of item ``first``; with the last page the receiver's part is over."""

    TYPE: ClassVar[MessageType] = MessageType.VERIFIED
    last: bool
    first: int
    outcomes: tuple[Outcome, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.last)
        write_page_head(out, self.first, self.outcomes)
        for outcome in self.outcomes:
            _write_outcome(out, outcome)

    @classmethod
    def _read(cls, reader: Reader) -> VerifiedPage:
        last = bool(reader.flags(_LAST))
        first, count = read_page_head(reader, 1)
        return cls(last, first, _read_outcomes(reader, count))


def pages_of_requests(requests: SpaceblockRequests, manifest_follows: bool) -> Iterator[RequestsPage]:
    """Split the items of a transfer into messages; one empty page if there are none."""
    for last, first, items in pages_of(requests.items, lambda _: _REQUEST_ROOM):
        yield RequestsPage(requests.uuid, last, last and manifest_follows, requests.block_size, first, items)


def pages_of_manifest(entries: Sequence[Entry]) -> Iterator[ManifestPage]:
    """Split a manifest's entries into messages; one empty page if there are none."""
    for last, first, page in pages_of(entries, _entry_room):
        yield ManifestPage(last, first, page)


def pages_of_answer(verdicts: Sequence[Verdict]) -> Iterator[AnswerPage]:
    """Split the verdicts of all items into messages; one empty page if there are none."""
    for last, first, page in pages_of(verdicts, lambda _: _VERDICT_ROOM):
        yield AnswerPage(last, first, page)


def pages_of_verified(outcomes: Sequence[Outcome]) -> Iterator[VerifiedPage]:
    """Split the outcomes of all items into messages; one empty page if there are none."""
    for last, first, page in pages_of(outcomes, _outcome_room):
        yield VerifiedPage(last, first, page)


def pages_of(values: Sequence[_T], room: Callable[[_T], int]) -> Iterator[tuple[bool, int, tuple[_T, ...]]]:
    """Cut ``values`` where a page is full; yields whether it is the last one, its first index, and its values."""
    first, used = 0, 0
    for index, value in enumerate(values):
        need = room(value)
        if used + need > _PAGE_ROOM and index > first:
            yield False, first, tuple(values[first:index])
            first, used = index, 0
        used += need
    yield True, first, tuple(values[first:])


def text_room(text: str) -> int:
    """A bound on the bytes of ``text``."""
    return len(text) if text.isascii() else 4 * len(text)


def write_page_head(out: Writer, first: int, values: _Sized) -> None:
    """Write the index of a page's first value and the number of its values."""
    check_span(first, len(values))
    out.uint(first)
    out.uint(len(values))


def read_page_head(reader: Reader, smallest: int) -> tuple[int, int]:
    """Read the index of a page's first value and the number of its values, each of ``smallest`` bytes or more."""
    first = reader.uint()
    count = reader.count(smallest)
    check_span(first, count)
    return first, count


_LAST = 1
_MANIFEST_FOLLOWS = 2

_SIZE_KNOWN = 1
_REREADABLE = 2
_PARTIAL = 4
_HOLES = 8

_HAS_ITEM = 1
_HAS_MODE = 2
_HAS_MTIME = 4
_HAS_TARGET = 8

# Each kind of entry by its number, with the flags that it must have and those that it may have.
_ENTRY_KINDS: dict[int, tuple[EntryKind, int, int]] = {
    0: (EntryKind.FILE, _HAS_ITEM, _HAS_ITEM | _HAS_MODE | _HAS_MTIME),
    1: (EntryKind.FOLDER, 0, _HAS_MODE | _HAS_MTIME),
    2: (EntryKind.LINK, _HAS_TARGET, _HAS_MODE | _HAS_MTIME | _HAS_TARGET),
}

_BILLION = 1_000_000_000

# Bounds on encoded bytes, where a variable-length integer counts 8 and a small one 1. A page's head is at most a UUID,
# flags, an exponent, an index and a count.
_PAGE_ROOM = MESSAGE_PAYLOAD_MAX - (UUID_SIZE + 1 + 1 + 8 + 8)
_REQUEST_ROOM = 1 + 3 * 8
_VERDICT_ROOM = 1 + 2 * 8 + DIGEST_SIZE
_ENTRY_ROOM = 1 + 1 + 8 + 4 + 2 + 8 + 8 + 4
_OUTCOME_ROOM = 1 + DIGEST_SIZE + 8 + 4

_FULL = Full()
_PLAIN_FILE = bytes([0, _HAS_ITEM | _HAS_MODE | _HAS_MTIME])
_VERIFIED = OutcomeKind.VERIFIED.value
_VERIFIED_BYTE = bytes([_VERIFIED])
_PLAIN_VERDICTS = {kind.value: Verdict(kind) for kind in VerdictKind if kind is not VerdictKind.HAVE}


class _Sized(Protocol):
    def __len__(self) -> int: ...


def _entry_room(entry: Entry) -> int:
    return _ENTRY_ROOM + text_room(entry.name) + text_room(entry.target or "")


def _outcome_room(outcome: Outcome) -> int:
    return _OUTCOME_ROOM + text_room(outcome.name)


def _page_flags(last: bool, manifest_follows: bool) -> int:
    if manifest_follows and not last:
        raise ValueError("a page that is not the last one announces the manifest")
    return _LAST * last | _MANIFEST_FOLLOWS * manifest_follows


def _check_exponent(exponent: int) -> int:
    if not 17 <= exponent <= 24:
        raise ValueError(f"its block size 2^{exponent} is not between 2^17 and 2^24")
    return exponent


def _write_requests(out: Writer, items: Iterable[SpaceblockRequest]) -> None:
    for item in items:
        size, part = item.size, item.range
        flags = _REREADABLE if item.rereadable else 0
        if size is not None:
            flags |= _SIZE_KNOWN
        if isinstance(part, Partial):
            flags |= _PARTIAL
        if item.data is not None:
            flags |= _HOLES
        out.uint(flags)
        if size is not None:
            out.uint(size)
        if isinstance(part, Partial):
            out.uint(part.start)
            out.uint(part.stop)
        if item.data is not None:
            out.uint(item.data)


def _read_requests(reader: Reader, count: int) -> tuple[SpaceblockRequest, ...]:
    data, pos = reader.data, reader.pos
    rows: list[tuple[int | None, Range, bool, int | None]] = []
    is_plain = True
    for _ in range(count):
        flags, pos = decode_uint_var(data, pos)
        if flags > 15:
            raise ValueError(f"an item's flags {flags:#x} have bits that mean nothing")
        size: int | None = None
        part: Range = _FULL
        if flags & _SIZE_KNOWN:
            size, pos = decode_uint_var(data, pos)
        if flags & _PARTIAL:
            start, pos = decode_uint_var(data, pos)
            stop, pos = decode_uint_var(data, pos)
            part = Partial(start, stop)
            is_plain = False
        stored: int | None = None
        if flags & _HOLES:
            stored, pos = decode_uint_var(data, pos)
            is_plain = False
        rows.append((size, part, bool(flags & _REREADABLE), stored))
    reader.pos = pos
    return tuple(make_records(SpaceblockRequest, rows) if is_plain else [SpaceblockRequest(*row) for row in rows])


def _entry_kind(number: int, flags: int) -> EntryKind:
    if number not in _ENTRY_KINDS:
        raise ValueError(f"an entry is of the unknown kind {number}")
    kind, required, allowed = _ENTRY_KINDS[number]
    if flags & required != required or flags & ~allowed:
        raise ValueError(f"an entry of kind {kind.name} has the flags {flags:#x}, which do not fit it")
    return kind


def _check_mode(mode: int) -> int:
    if mode > MODE_MAX:
        raise ValueError(f"the mode {mode:#o} holds more than permission bits")
    return mode


def _write_entry(out: Writer, entry: Entry) -> None:
    name = entry.name.encode()
    mode, time, item = entry.mode, entry.mtime_ns, entry.item
    if entry.kind is EntryKind.FILE and None not in (item, mode, time) and entry.target is None:
        # What nearly all are; a call for each field would take twice as long.
        assert item is not None
        assert mode is not None
        assert time is not None
        if 0 < len(name) <= NAME_MAX and 0 <= mode <= MODE_MAX:
            seconds, nanoseconds = divmod(time, _BILLION)
            number = encode_uint_var
            head = _PLAIN_FILE + number(item) + number(len(name)) + name + number(mode)
            out.out += head + number(zigzag(seconds)) + number(nanoseconds)
            return
    flags = _HAS_ITEM * (entry.item is not None) | _HAS_MODE * (entry.mode is not None)
    flags |= _HAS_MTIME * (entry.mtime_ns is not None) | _HAS_TARGET * (entry.target is not None)
    out.uint(_entry_kind(entry.kind, flags))
    out.uint(flags)
    if entry.item is not None:
        out.uint(entry.item)
    out.string(check_name(entry.name), NAME_MAX)
    if entry.mode is not None:
        out.uint(_check_mode(entry.mode))
    if entry.mtime_ns is not None:
        seconds, nanoseconds = divmod(entry.mtime_ns, _BILLION)
        out.uint(zigzag(seconds))
        out.uint(nanoseconds)
    if entry.target is not None:
        out.string(check_name(entry.target), NAME_MAX)


def _read_entries(reader: Reader, count: int) -> tuple[Entry, ...]:
    data, pos = reader.data, reader.pos
    rows = []
    for _ in range(count):
        number, pos = decode_uint_var(data, pos)
        flags, pos = decode_uint_var(data, pos)
        kind = _entry_kind(number, flags)
        item: int | None = None
        mode: int | None = None
        mtime: int | None = None
        target: str | None = None
        if flags & _HAS_ITEM:
            item, pos = decode_uint_var(data, pos)
        name, pos = take_string(data, pos, NAME_MAX)
        check_name(name)
        if flags & _HAS_MODE:
            mode, pos = decode_uint_var(data, pos)
            _check_mode(mode)
        if flags & _HAS_MTIME:
            seconds, pos = decode_uint_var(data, pos)
            nanoseconds, pos = decode_uint_var(data, pos)
            if nanoseconds >= _BILLION:
                raise ValueError(f"a time has {nanoseconds} nanoseconds, which is a second or more")
            mtime = unzigzag(seconds) * _BILLION + nanoseconds
        if flags & _HAS_TARGET:
            target, pos = take_string(data, pos, NAME_MAX)
            check_name(target)
        rows.append((kind, name, item, mode, mtime, target))
    reader.pos = pos
    return tuple(make_records(Entry, rows))


def _read_verdicts(reader: Reader, count: int) -> tuple[Verdict, ...]:
    data, pos = reader.data, reader.pos
    verdicts = []
    for _ in range(count):
        number, pos = decode_uint_var(data, pos)
        verdict = _PLAIN_VERDICTS.get(number)
        if verdict is None:
            kind = VerdictKind(number)
            offset, pos = decode_uint_var(data, pos)
            ahead, pos = decode_uint_var(data, pos)
            digest, pos = take(data, pos, DIGEST_SIZE)
            verdict = Verdict(kind, offset, digest, _check_ahead(ahead, offset))
        verdicts.append(verdict)
    reader.pos = pos
    return tuple(verdicts)


def _check_ahead(ahead: int, offset: int) -> int:
    if ahead > offset:
        raise ValueError(f"its digest ends {ahead} bytes before the offset {offset}")
    return ahead


def _write_outcome(out: Writer, outcome: Outcome) -> None:
    kind = outcome.kind
    if kind is not OutcomeKind.VERIFIED and (outcome.digest or outcome.size or outcome.name):
        raise ValueError("only a verified outcome has a digest, a size and a name")
    if kind is not OutcomeKind.FAILED and outcome.code:
        raise ValueError("only a failed outcome has a code")
    if kind is OutcomeKind.VERIFIED:
        digest, name = outcome.digest, outcome.name.encode()
        if len(digest) == DIGEST_SIZE and len(name) <= NAME_MAX:
            # Nearly all are; a call for each field would take twice as long.
            out.out += _VERIFIED_BYTE + digest + encode_uint_var(outcome.size) + encode_uint_var(len(name)) + name
            return
    out.uint(kind)
    if kind is OutcomeKind.VERIFIED:
        out.fixed(outcome.digest, DIGEST_SIZE)
        out.string(outcome.name, NAME_MAX)
    elif kind is OutcomeKind.FAILED:
        out.uint(check_code(outcome.code))


def _read_outcomes(reader: Reader, count: int) -> tuple[Outcome, ...]:
    data, pos = reader.data, reader.pos
    rows: list[tuple[OutcomeKind, bytes, int, str, int]] = []
    for _ in range(count):
        number, pos = decode_uint_var(data, pos)
        if number == _VERIFIED:
            digest, pos = take(data, pos, DIGEST_SIZE)
            size, pos = decode_uint_var(data, pos)
            name, pos = take_string(data, pos, NAME_MAX)
            rows.append((OutcomeKind.VERIFIED, digest, size, name, 0))
        elif OutcomeKind(number) is OutcomeKind.FAILED:
            code, pos = decode_uint_var(data, pos)
            rows.append((OutcomeKind.FAILED, b"", 0, "", check_code(code)))
        else:
            rows.append((OutcomeKind.SKIPPED, b"", 0, "", 0))
    reader.pos = pos
    return tuple(make_records(Outcome, rows))
