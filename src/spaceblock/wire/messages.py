"""Every message of ``spaceblock/2`` but ``Block``, as a value that turns into bytes and back.

1. A message knows its own layout and limits and nothing of the session: whether it may come now is not decided here.
2. One set of checks serves both directions, so that what this side refuses to read it also refuses to write.
3. ``Block`` carries the bytes of items and is framed and parsed by :mod:`spaceblock.core` alone.

Messages that come in pages are defined in :mod:`spaceblock.wire.pages` and exported here with the others.
``docs/protocol.md`` is the specification, with a hex dump of each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, ClassVar

from ..blocks import Partial
from ..core import encode_uint_var, frame_digests
from ..errors import LocalProtocolError, RemoteProtocolError
from ..limits import MESSAGE_PAYLOAD_MAX, PHASE_MAX, TEXT_MAX
from ..process.lazily import dataclass
from . import (
    DIGEST_SIZE,
    NAME_MAX,
    UUID_SIZE,
    Message,
    MessageType,
    Reader,
    StreamType,
    Writer,
    check_code,
    check_errno,
    check_name,
    check_span,
    reason_of,
)
from .pages import (
    AnswerPage,
    ManifestPage,
    Outcome,
    OutcomeKind,
    RequestsPage,
    Verdict,
    VerdictKind,
    VerifiedPage,
    pages_of,
    pages_of_answer,
    pages_of_manifest,
    pages_of_requests,
    pages_of_verified,
    read_page_head,
    text_room,
    write_page_head,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "VERSION",
    "Amend",
    "Amendment",
    "AnswerPage",
    "BlockDigests",
    "Done",
    "Error",
    "Feature",
    "Hashed",
    "HaveReply",
    "Hello",
    "Hole",
    "ItemAbort",
    "ItemDigest",
    "ItemDigests",
    "ItemEnd",
    "ItemFailed",
    "ManifestPage",
    "Message",
    "MessageType",
    "NameProblem",
    "NameProblems",
    "NameRule",
    "NameUnit",
    "Outcome",
    "OutcomeKind",
    "Progress",
    "Query",
    "ReceiverState",
    "RequestsPage",
    "Resend",
    "StreamType",
    "System",
    "Unknown",
    "Verdict",
    "VerdictKind",
    "VerifiedPage",
    "Waiting",
    "decode_message",
    "encode_stream_header",
    "pages_of_amend",
    "pages_of_answer",
    "pages_of_block_digests",
    "pages_of_manifest",
    "pages_of_name_problems",
    "pages_of_requests",
    "pages_of_verified",
]

VERSION = 2
"""The version in ``Hello``, the same as in the ALPN ``spaceblock/2``."""

_LAST = 1


class Feature(IntFlag):
    """What a side can do beyond the base protocol; used only when both sides announced it. Unknown bits are kept."""

    NONE = 0
    RESUME = 1
    REPAIR = 2
    QUERY = 4
    FETCH = 8
    RENAME = 16
    COMPARE = 32


class System(IntEnum):
    """The family of a side's operating system, a hint for names."""

    UNKNOWN = 0
    POSIX = 1
    WINDOWS = 2
    APPLE = 3


class NameUnit(IntEnum):
    """What a system's limits of names and paths count."""

    BYTES = 0
    UTF16 = 1
    CODE_POINTS = 2


class NameRule(IntEnum):
    """Why a receiver cannot use a name; a rule from the future is told by its text alone."""

    TOO_LONG = 1
    PATH_TOO_LONG = 2
    CHARACTER = 3
    RESERVED = 4
    ENDING = 5
    COLLISION = 6
    EXISTS = 7
    NOT_RELATIVE = 8
    TOO_DEEP = 9
    FILE_AND_FOLDER = 10


class ReceiverState(IntEnum):
    """What the receiver is doing; each state has a time limit of its own."""

    MOVING = 0
    SINK = 1
    DISK = 2
    USER = 3
    VERIFYING = 4


def decode_message(message_type: int, payload: bytes) -> Message | None:
    """The message with this type and payload, or ``None`` for an unknown one that may be skipped.

    Raises :class:`RemoteProtocolError` for a payload that is not exactly one legal message, for an unknown type that
    may not be skipped, and for ``Block``, which the core parses.
    """
    read = _READERS.get(message_type)
    if read is None:
        _check_ignorable(message_type)
        return None
    reader = Reader(payload)
    try:
        if len(payload) > MESSAGE_PAYLOAD_MAX:
            raise ValueError(f"its {len(payload)} bytes pass the limit of {MESSAGE_PAYLOAD_MAX}")
        message = read(reader)
        reader.finish()
    except ValueError as error:
        name = MessageType(message_type).wire_name
        raise RemoteProtocolError(
            f"the peer's {name} message is malformed because {reason_of(error)}: update the older of the two sides"
        ) from error
    return message


def encode_stream_header(stream_type: StreamType, uuid: bytes = b"") -> bytes:
    """What a stream begins with: its type and, for a data stream, the UUID of its transfer."""
    if len(uuid) != (UUID_SIZE if stream_type is StreamType.DATA else 0):
        raise LocalProtocolError("a data stream, and no other, begins with a UUID of 16 bytes: give it one")
    return encode_uint_var(stream_type) + uuid


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first message of each side.

    ``name_limit`` is the longest part of a name in ``name_unit``, ``path_limit`` the longest name in bytes; 0 where it
    is not known. Another version's ``Hello`` is decoded as far as its version; the other fields have their defaults.
    """

    TYPE: ClassVar[MessageType] = MessageType.HELLO
    version: int = VERSION
    features: Feature = Feature.NONE
    software: str = ""
    system: System = System.UNKNOWN
    name_limit: int = 0
    name_unit: NameUnit = NameUnit.BYTES
    path_limit: int = 0

    def _write(self, out: Writer) -> None:
        out.uint(self.version)
        out.uint(self.features)
        out.prose(self.software, TEXT_MAX)
        out.uint(self.system)
        out.uint(self.name_limit)
        out.uint(self.name_unit)
        out.uint(self.path_limit)

    @classmethod
    def _read(cls, reader: Reader) -> Hello:
        version = reader.uint()
        if version != VERSION:
            reader.pos = len(reader.data)
            return cls(version)
        return cls(
            version,
            Feature(reader.uint()),
            reader.string(TEXT_MAX),
            System(reader.uint()),
            reader.uint(),
            NameUnit(reader.uint()),
            reader.uint(),
        )


@dataclass(frozen=True, slots=True)
class NameProblem:
    """A name that the receiver cannot use. ``rule`` is a :class:`NameRule` or one from the future."""

    entry: int
    rule: int
    text: str


@dataclass(frozen=True, slots=True)
class NameProblems(Message):
    """What is wrong with the names, and the limits of the folder that they are for [RENAME].

    ``suffix_limit`` is the length that the receiver adds to a name while its file is incomplete.
    """

    TYPE: ClassVar[MessageType] = MessageType.NAME_PROBLEMS
    name_limit: int
    name_unit: NameUnit
    path_limit: int
    suffix_limit: int
    last: bool
    problems: tuple[NameProblem, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.name_limit)
        out.uint(self.name_unit)
        out.uint(self.path_limit)
        out.uint(self.suffix_limit)
        out.uint(self.last)
        out.uint(len(self.problems))
        for problem in self.problems:
            out.uint(problem.entry)
            out.uint(problem.rule)
            out.prose(problem.text, TEXT_MAX)

    @classmethod
    def _read(cls, reader: Reader) -> NameProblems:
        limits = reader.uint(), NameUnit(reader.uint()), reader.uint(), reader.uint()
        last = bool(reader.flags(_LAST))
        problems = [NameProblem(reader.uint(), reader.uint(), reader.string(TEXT_MAX)) for _ in range(reader.count(3))]
        return cls(*limits, last, tuple(problems))


def pages_of_name_problems(
    limits: tuple[int, NameUnit, int, int], problems: Sequence[NameProblem]
) -> Iterator[NameProblems]:
    """Split the problems into messages, each with the ``limits`` of name, unit, path and suffix."""
    for last, _, page in pages_of(problems, lambda problem: _PROBLEM_ROOM + min(text_room(problem.text), TEXT_MAX)):
        yield NameProblems(*limits, last, page)


@dataclass(frozen=True, slots=True)
class Amendment:
    """Another name for the entry with index ``entry``."""

    entry: int
    name: str


@dataclass(frozen=True, slots=True)
class Amend(Message):
    """The sender's answer to ``NameProblems`` [RENAME]."""

    TYPE: ClassVar[MessageType] = MessageType.AMEND
    last: bool
    amendments: tuple[Amendment, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.last)
        out.uint(len(self.amendments))
        for amendment in self.amendments:
            out.uint(amendment.entry)
            out.string(check_name(amendment.name), NAME_MAX)

    @classmethod
    def _read(cls, reader: Reader) -> Amend:
        last = bool(reader.flags(_LAST))
        count = reader.count(3)
        amendments = [Amendment(reader.uint(), check_name(reader.string(NAME_MAX))) for _ in range(count)]
        return cls(last, tuple(amendments))


def pages_of_amend(amendments: Sequence[Amendment]) -> Iterator[Amend]:
    """Split the other names into messages; one empty page if there are none."""
    for last, _, page in pages_of(amendments, lambda amendment: _AMENDMENT_ROOM + text_room(amendment.name)):
        yield Amend(last, page)


@dataclass(frozen=True, slots=True)
class HaveReply(Message):
    """Whether the bytes that the receiver has are the sender's too; if not, all of the item follows [RESUME]."""

    TYPE: ClassVar[MessageType] = MessageType.HAVE_REPLY
    item: int
    confirmed: bool

    def _write(self, out: Writer) -> None:
        out.uint(self.item)
        out.uint(not self.confirmed)

    @classmethod
    def _read(cls, reader: Reader) -> HaveReply:
        return cls(reader.uint(), not reader.flags(1))


@dataclass(frozen=True, slots=True)
class ItemDigest(Message):
    """The sender's digest of an item's requested range, and the range's length in bytes."""

    TYPE: ClassVar[MessageType] = MessageType.ITEM_DIGEST
    item: int
    size: int
    digest: bytes

    def _write(self, out: Writer) -> None:
        out.uint(self.item)
        out.uint(self.size)
        out.fixed(self.digest, DIGEST_SIZE)

    @classmethod
    def _read(cls, reader: Reader) -> ItemDigest:
        return cls(reader.uint(), reader.uint(), reader.take(DIGEST_SIZE))


@dataclass(frozen=True, slots=True)
class ItemDigests(Message):
    """Many :class:`ItemDigest` in a row: each an item, its size and its digest."""

    TYPE: ClassVar[MessageType] = MessageType.ITEM_DIGEST
    digests: tuple[tuple[int, int, bytes], ...]

    def encode(self) -> bytes:
        try:
            return frame_digests(MessageType.ITEM_DIGEST, self.digests)
        except ValueError as error:
            raise LocalProtocolError(
                f"an ItemDigest message cannot be sent because {reason_of(error)}: correct its values"
            ) from error


@dataclass(frozen=True, slots=True)
class Progress(Message):
    """The receiver's report and heartbeat: bytes of the whole transfer that arrived, were hashed, and are durable."""

    TYPE: ClassVar[MessageType] = MessageType.PROGRESS
    state: ReceiverState
    received: int
    verified: int
    durable: int

    def _write(self, out: Writer) -> None:
        out.uint(self.state)
        out.uint(self.received)
        out.uint(self.verified)
        out.uint(self.durable)

    @classmethod
    def _read(cls, reader: Reader) -> Progress:
        return cls(ReceiverState(reader.uint()), reader.uint(), reader.uint(), reader.uint())


@dataclass(frozen=True, slots=True)
class ItemFailed(Message):
    """The receiver cannot take this item and asks the sender to stop sending it."""

    TYPE: ClassVar[MessageType] = MessageType.ITEM_FAILED
    item: int
    code: int
    errno: int
    phase: str
    text: str

    def _write(self, out: Writer) -> None:
        _write_failure(out, self.item, self.code, self.errno, self.phase, self.text)

    @classmethod
    def _read(cls, reader: Reader) -> ItemFailed:
        return cls(*_read_failure(reader))


@dataclass(frozen=True, slots=True)
class BlockDigests(Message):
    """Digests of successive blocks of one item, beginning with block ``first`` of its grid [REPAIR]."""

    TYPE: ClassVar[MessageType] = MessageType.BLOCK_DIGESTS
    item: int
    first: int
    digests: tuple[bytes, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.item)
        write_page_head(out, self.first, self.digests)
        for digest in self.digests:
            out.fixed(digest, DIGEST_SIZE)

    @classmethod
    def _read(cls, reader: Reader) -> BlockDigests:
        item = reader.uint()
        first, count = read_page_head(reader, DIGEST_SIZE)
        return cls(item, first, tuple(reader.take(DIGEST_SIZE) for _ in range(count)))


def pages_of_block_digests(item: int, first: int, digests: Sequence[bytes]) -> Iterator[BlockDigests]:
    """Split the digests of successive blocks, from block ``first`` on, into messages; none if there are none."""
    for start in range(0, len(digests), _DIGESTS_OF_A_PAGE):
        yield BlockDigests(item, first + start, tuple(digests[start : start + _DIGESTS_OF_A_PAGE]))


@dataclass(frozen=True, slots=True)
class Resend(Message):
    """Ranges of one item that the receiver wants again: at least one, none empty, ascending, apart [REPAIR]."""

    TYPE: ClassVar[MessageType] = MessageType.RESEND
    item: int
    ranges: tuple[Partial, ...]

    def _write(self, out: Writer) -> None:
        out.uint(self.item)
        out.uint(len(self.ranges))
        _check_ranges(self.ranges)
        for part in self.ranges:
            out.uint(part.start)
            out.uint(part.stop - part.start)

    @classmethod
    def _read(cls, reader: Reader) -> Resend:
        item = reader.uint()
        ranges = []
        for _ in range(reader.count(2)):
            start, length = reader.uint(), reader.uint()
            ranges.append(Partial(start, start + length))
        _check_ranges(ranges)
        return cls(item, tuple(ranges))


@dataclass(frozen=True, slots=True)
class _Bare(Message):
    """One that has no fields."""

    def _write(self, out: Writer) -> None:
        pass

    @classmethod
    def _read(cls, _reader: Reader) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class Waiting(_Bare):
    """The sender has nothing to send at present, because a pipe or program gives it nothing; all is well otherwise."""

    TYPE: ClassVar[MessageType] = MessageType.WAITING


@dataclass(frozen=True, slots=True)
class Hashed(Message):
    """This side has read ``size`` bytes of what it has on its own disk, to compare them; it is at work."""

    TYPE: ClassVar[MessageType] = MessageType.HASHED
    size: int

    def _write(self, out: Writer) -> None:
        out.uint(self.size)

    @classmethod
    def _read(cls, reader: Reader) -> Hashed:
        return cls(reader.uint())


@dataclass(frozen=True, slots=True)
class Done(_Bare):
    """The sender compared too and agrees; nothing follows it."""

    TYPE: ClassVar[MessageType] = MessageType.DONE


@dataclass(frozen=True, slots=True)
class Error(Message):
    """The transfer ends unfinished; nothing follows. ``item`` is the item at fault, if it was one."""

    TYPE: ClassVar[MessageType] = MessageType.ERROR
    code: int
    item: int | None
    phase: str
    errno: int
    text: str

    def _write(self, out: Writer) -> None:
        out.uint(check_code(self.code))
        out.uint(0 if self.item is None else self.item + 1)
        out.prose(self.phase, PHASE_MAX)
        out.uint(check_errno(self.errno))
        out.prose(self.text, TEXT_MAX)

    @classmethod
    def _read(cls, reader: Reader) -> Error:
        code, item = check_code(reader.uint()), reader.uint()
        phase, errno = reader.string(PHASE_MAX), check_errno(reader.uint())
        return cls(code, item - 1 if item else None, phase, errno, reader.string(TEXT_MAX))


@dataclass(frozen=True, slots=True)
class Query(Message):
    """The sender asks how the transfer with this UUID ended [QUERY]."""

    TYPE: ClassVar[MessageType] = MessageType.QUERY
    uuid: bytes

    def _write(self, out: Writer) -> None:
        out.fixed(self.uuid, UUID_SIZE)

    @classmethod
    def _read(cls, reader: Reader) -> Query:
        return cls(reader.take(UUID_SIZE))


@dataclass(frozen=True, slots=True)
class Unknown(_Bare):
    """The receiver has no record of a finished transfer with the UUID asked for [QUERY]."""

    TYPE: ClassVar[MessageType] = MessageType.UNKNOWN


@dataclass(frozen=True, slots=True)
class Hole(Message):
    """``length`` bytes of zero (at least one) at ``offset`` of an item, which need not be sent."""

    TYPE: ClassVar[MessageType] = MessageType.HOLE
    item: int
    offset: int
    length: int

    def _write(self, out: Writer) -> None:
        _check_hole(self.offset, self.length)
        out.uint(self.item)
        out.uint(self.offset)
        out.uint(self.length)

    @classmethod
    def _read(cls, reader: Reader) -> Hole:
        item, offset, length = reader.uint(), reader.uint(), reader.uint()
        _check_hole(offset, length)
        return cls(item, offset, length)


@dataclass(frozen=True, slots=True)
class ItemEnd(Message):
    """All bytes of an item were sent; ``size`` is the length of its requested range."""

    TYPE: ClassVar[MessageType] = MessageType.ITEM_END
    item: int
    size: int

    def _write(self, out: Writer) -> None:
        out.uint(self.item)
        out.uint(self.size)

    @classmethod
    def _read(cls, reader: Reader) -> ItemEnd:
        return cls(reader.uint(), reader.uint())


@dataclass(frozen=True, slots=True)
class ItemAbort(Message):
    """The sender gives this item up; the data stream goes on with the next."""

    TYPE: ClassVar[MessageType] = MessageType.ITEM_ABORT
    item: int
    code: int
    errno: int
    phase: str
    text: str

    def _write(self, out: Writer) -> None:
        _write_failure(out, self.item, self.code, self.errno, self.phase, self.text)

    @classmethod
    def _read(cls, reader: Reader) -> ItemAbort:
        return cls(*_read_failure(reader))


def _check_ignorable(message_type: int) -> None:
    if message_type == MessageType.BLOCK:
        raise RemoteProtocolError("the peer sent a Block outside of a data stream: update the older of the two sides")
    if not message_type & 1:
        raise RemoteProtocolError(
            f"the peer sent a message of the unknown type {message_type:#x}: update the older of the two sides"
        )


def _write_failure(out: Writer, item: int, code: int, errno: int, phase: str, text: str) -> None:
    out.uint(item)
    out.uint(check_code(code))
    out.uint(check_errno(errno))
    out.prose(phase, PHASE_MAX)
    out.prose(text, TEXT_MAX)


def _read_failure(reader: Reader) -> tuple[int, int, int, str, str]:
    item, code, errno = reader.uint(), check_code(reader.uint()), check_errno(reader.uint())
    return item, code, errno, reader.string(PHASE_MAX), reader.string(TEXT_MAX)


def _check_ranges(ranges: Sequence[Partial]) -> None:
    if not ranges:
        raise ValueError("it asks for no range")
    end = 0
    for part in ranges:
        if not end <= part.start < part.stop:
            raise ValueError("its ranges are empty or not in ascending order")
        end = part.stop


def _check_hole(offset: int, length: int) -> None:
    if length == 0:
        raise ValueError("a hole has no length")
    check_span(offset, length)


# Bounds on encoded bytes beside the texts, with 8 for each integer.
_PROBLEM_ROOM = 3 * 8
_AMENDMENT_ROOM = 2 * 8
_DIGESTS_OF_A_PAGE = (MESSAGE_PAYLOAD_MAX - 3 * 8) // DIGEST_SIZE

_READERS: dict[int, Callable[[Reader], Message]] = {
    cls.TYPE: cls._read
    for cls in (
        Hello,
        RequestsPage,
        ManifestPage,
        AnswerPage,
        NameProblems,
        Amend,
        HaveReply,
        ItemDigest,
        Progress,
        ItemFailed,
        Waiting,
        Hashed,
        BlockDigests,
        Resend,
        VerifiedPage,
        Done,
        Error,
        Query,
        Unknown,
        Hole,
        ItemEnd,
        ItemAbort,
    )
}
