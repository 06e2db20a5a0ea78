"""The messages that come in pages: a list with no limit of its own, cut into messages of bounded size.

Each page says where it begins and whether it is the last; an empty list is one empty page. That pages join up is for
the session to check. A page's elements are the one place where speed counts, as a transfer may have a million of them:
the core makes and reads many plain ones at once, and what is unusual about one is seen to here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, ClassVar, Protocol, TypeVar

from ..blocks import Full, Partial, Range, SpaceblockRequest, SpaceblockRequests
from ..core import decode_uint_var, make_records, read_rows, write_rows
from ..limits import MESSAGE_PAYLOAD_MAX
from ..process.lazily import dataclass
from . import (
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
    unzigzag,
    zigzag,
)
from .manifest import Entry, EntryKind

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
        _write_entries(out, self.entries)

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
        if self.verdicts and self.verdicts[0] == _ALL and self.verdicts.count(self.verdicts[0]) == len(self.verdicts):
            out.out += bytes(len(self.verdicts))
            return
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
        _write_outcomes(out, self.outcomes)

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
    ends = list(accumulate(map(room, values)))
    first, used = 0, 0
    while (stop := max(bisect_right(ends, used + _PAGE_ROOM, first), first + 1)) < len(values):
        yield False, first, tuple(values[first:stop])
        first, used = stop, ends[stop - 1]
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

# What nearly all elements are, as the core writes and reads them.
_PLAIN_REQUEST = bytes([_SIZE_KNOWN | _REREADABLE]), "u"
_PLAIN_FILE = bytes([0, _HAS_ITEM | _HAS_MODE | _HAS_MTIME]), "uspt"
_PLAIN_OUTCOME = bytes([OutcomeKind.VERIFIED]), "duS"

_FULL = Full()
_ALL = Verdict(VerdictKind.ALL)
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


def _write_requests(out: Writer, items: Sequence[SpaceblockRequest]) -> None:
    sizes = [(item.size,) for item in items if item.data is None and item.rereadable and type(item.range) is Full]
    if len(sizes) == len(items) and None not in {size for (size,) in sizes}:
        out.out += write_rows(*_PLAIN_REQUEST, sizes)
        return
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
    items: list[SpaceblockRequest] = []
    while len(items) < count:
        sizes, reader.pos = read_rows(*_PLAIN_REQUEST, reader.data, reader.pos, count - len(items))
        items += make_records(SpaceblockRequest, [(size, _FULL, True, None) for (size,) in sizes])
        if len(items) < count:
            items.append(_read_request(reader))
    return tuple(items)


def _read_request(reader: Reader) -> SpaceblockRequest:
    flags = reader.uint()
    if flags > 15:
        raise ValueError(f"an item's flags {flags:#x} have bits that mean nothing")
    size = reader.uint() if flags & _SIZE_KNOWN else None
    part: Range = Partial(reader.uint(), reader.uint()) if flags & _PARTIAL else _FULL
    stored = reader.uint() if flags & _HOLES else None
    return SpaceblockRequest(size, part, bool(flags & _REREADABLE), stored)


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


_file_row = attrgetter("item", "name", "mode", "mtime_ns")


def _write_entries(out: Writer, entries: Sequence[Entry]) -> None:
    _write_runs(out, entries, EntryKind.FILE, "target", _PLAIN_FILE, _file_row, _write_entry)


def _write_entry(out: Writer, entry: Entry) -> None:
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
    rows: list[tuple[EntryKind, str, int | None, int | None, int | None, str | None]] = []
    while len(rows) < count:
        files, reader.pos = read_rows(*_PLAIN_FILE, reader.data, reader.pos, count - len(rows))
        rows += [(EntryKind.FILE, name, item, mode, mtime, None) for item, name, mode, mtime in files]
        if len(rows) < count:
            rows.append(_read_entry(reader))
    return tuple(make_records(Entry, rows))


def _read_entry(reader: Reader) -> tuple[EntryKind, str, int | None, int | None, int | None, str | None]:
    """The fields of an entry, in their order."""
    number, flags = reader.uint(), reader.uint()
    kind = _entry_kind(number, flags)
    item = reader.uint() if flags & _HAS_ITEM else None
    name = check_name(reader.string(NAME_MAX))
    mode = _check_mode(reader.uint()) if flags & _HAS_MODE else None
    mtime: int | None = None
    if flags & _HAS_MTIME:
        seconds, nanoseconds = reader.uint(), reader.uint()
        if nanoseconds >= _BILLION:
            raise ValueError(f"a time has {nanoseconds} nanoseconds, which is a second or more")
        mtime = unzigzag(seconds) * _BILLION + nanoseconds
    target = check_name(reader.string(NAME_MAX)) if flags & _HAS_TARGET else None
    return kind, name, item, mode, mtime, target


def _read_verdicts(reader: Reader, count: int) -> tuple[Verdict, ...]:
    data, pos = reader.data, reader.pos
    if data[pos : pos + count].count(VerdictKind.ALL) == count:  # as nearly always
        reader.pos += count
        return (_ALL,) * count
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


_outcome_row = attrgetter("digest", "size", "name")


def _write_outcomes(out: Writer, outcomes: Sequence[Outcome]) -> None:
    _write_runs(out, outcomes, OutcomeKind.VERIFIED, "code", _PLAIN_OUTCOME, _outcome_row, _write_outcome)


def _write_outcome(out: Writer, outcome: Outcome) -> None:
    kind = outcome.kind
    if kind is not OutcomeKind.VERIFIED and (outcome.digest or outcome.size or outcome.name):
        raise ValueError("only a verified outcome has a digest, a size and a name")
    if kind is not OutcomeKind.FAILED and outcome.code:
        raise ValueError("only a failed outcome has a code")
    out.uint(kind)
    if kind is OutcomeKind.VERIFIED:
        out.fixed(outcome.digest, DIGEST_SIZE)
        out.uint(outcome.size)
        out.string(outcome.name, NAME_MAX)
    elif kind is OutcomeKind.FAILED:
        out.uint(check_code(outcome.code))


def _read_outcomes(reader: Reader, count: int) -> tuple[Outcome, ...]:
    rows: list[tuple[OutcomeKind, bytes, int, str, int]] = []
    while len(rows) < count:
        verified, reader.pos = read_rows(*_PLAIN_OUTCOME, reader.data, reader.pos, count - len(rows))
        rows += [(OutcomeKind.VERIFIED, digest, size, name, 0) for digest, size, name in verified]
        if len(rows) < count:
            rows.append(_read_outcome(reader))
    return tuple(make_records(Outcome, rows))


def _read_outcome(reader: Reader) -> tuple[OutcomeKind, bytes, int, str, int]:
    """The fields of an outcome, in their order."""
    kind = OutcomeKind(reader.uint())
    if kind is OutcomeKind.VERIFIED:
        return kind, reader.take(DIGEST_SIZE), reader.uint(), reader.string(NAME_MAX), 0
    return kind, b"", 0, "", check_code(reader.uint()) if kind is OutcomeKind.FAILED else 0


_kind_of = attrgetter("kind")


def _write_runs(
    out: Writer,
    things: Sequence[_T],
    kind: IntEnum,
    odd: str,
    layout: tuple[bytes, str],
    row_of: Callable[[_T], tuple[Any, ...]],
    write: Callable[[Writer, _T], None],
) -> None:
    """Write runs of the usual ``kind``, of which none has the field ``odd``, at once, and all others one by one."""
    is_odd = attrgetter(odd)
    for each_kind, group in groupby(things, _kind_of):
        run = list(group)
        if each_kind is kind and not any(map(is_odd, run)):
            try:
                out.out += write_rows(*layout, map(row_of, run))
                continue
            except ValueError:
                pass  # which of them it is, and why, is found below
        for each in run:
            write(out, each)
