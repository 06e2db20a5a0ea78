"""The specification and the code agree: each hex dump of docs/protocol.md is a golden vector, each table is true."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from spaceblock import core as chosen_core
from spaceblock import limits, wire
from spaceblock.blocks import Full, Partial, SpaceblockRequest
from spaceblock.errors import ErrorCode
from spaceblock.wire import pages
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
    NameRule,
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
)

DOCUMENT = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")

UUID = bytes.fromhex("00112233445566778899aabbccddeeff")
HELLO = bytes.fromhex("ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f")  # b3sum of "hello"
WORLD = bytes.fromhex("d7894ae9716d38d2dfad0ec55424ca321ee12453d51f1b3adeb77d0475ed988c")  # b3sum of "world"

MESSAGES: dict[str, Message] = {
    "Hello": Hello(2, Feature.NONE, "spaceblock/0.1.0", System.POSIX, 255, NameUnit.BYTES, 4000),
    "Requests": RequestsPage(
        UUID,
        True,
        True,
        131_072,
        0,
        (
            SpaceblockRequest(5, Full(), True),
            SpaceblockRequest(None, Full(), False),
            SpaceblockRequest(4096, Partial(1024, 2048), True, 512),
        ),
    ),
    "Manifest": ManifestPage(
        True,
        0,
        (
            Entry(EntryKind.FOLDER, "data", mode=0o755),
            Entry(EntryKind.FILE, "data/hello.txt", 0, 0o644, 1_700_000_000_500_000_000),
            Entry(EntryKind.LINK, "latest", target="data"),
        ),
    ),
    "Answer": AnswerPage(
        True, 0, (Verdict(VerdictKind.ALL), Verdict(VerdictKind.SKIP), Verdict(VerdictKind.HAVE, 1_048_576, HELLO))
    ),
    "NameProblems": NameProblems(
        255, NameUnit.UTF16, 32_000, 12, True, (NameProblem(1, NameRule.CHARACTER, "no colons here"),)
    ),
    "Amend": Amend(True, (Amendment(1, "data/hello-2.txt"),)),
    "HaveReply": HaveReply(2, False),
    "ItemDigest": ItemDigest(0, 5, HELLO),
    "Progress": Progress(ReceiverState.VERIFYING, 1_000_000, 65_536, 0),
    "Waiting": Waiting(),
    "Hashed": Hashed(1_073_741_824),
    "ItemFailed": ItemFailed(7, ErrorCode.NO_SPACE, 28, "write", "the disk is full"),
    "BlockDigests": BlockDigests(0, 8, (HELLO, WORLD)),
    "Resend": Resend(0, (Partial(1_048_576, 1_179_648), Partial(2_097_152, 2_097_157))),
    "Verified": VerifiedPage(
        True,
        0,
        (
            Outcome(OutcomeKind.VERIFIED, HELLO, 5, "data/hello.txt"),
            Outcome(OutcomeKind.SKIPPED),
            Outcome(OutcomeKind.FAILED, code=ErrorCode.NO_SPACE),
        ),
    ),
    "Done": Done(),
    "Error": Error(ErrorCode.CANCELLED, None, "moving", 0, "cancelled by the user"),
    "Error of an item": Error(ErrorCode.INTEGRITY, 2, "verify", 0, "digests differ"),
    "Query": Query(UUID),
    "Unknown": Unknown(),
    "Hole": Hole(3, 0, 131_072),
    "ItemEnd": ItemEnd(0, 5),
    "ItemAbort": ItemAbort(4, ErrorCode.SOURCE_CHANGED, 0, "read", "the file grew"),
}

OTHERS = {"proof", "stream PUSH", "stream DATA", "ignorable", "Block"}
"""Dumps that are no message of messages.py; each has a test of its own."""


class Dump(NamedTuple):
    """One hex dump of the document: all its bytes, and how many stand on each of its lines."""

    data: bytes
    rows: list[bytes]


def read_dumps() -> dict[str, Dump]:
    """Every block that begins with ```` ```hex NAME ````; what follows ``#`` on a line is its meaning."""
    dumps = {}
    for name, body in re.findall(r"^```hex (.+?)\n(.+?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        rows = [bytes.fromhex(line.partition("#")[0]) for line in body.splitlines()]
        assert name not in dumps
        dumps[name] = Dump(b"".join(rows), rows)
    return dumps


DUMPS = read_dumps()


def table(first_column: str) -> list[list[str]]:
    """The cells of every row of the tables whose first column has this title."""
    rows: list[list[str]] = []
    for block in re.findall(r"(?:^\|.*\n)+", DOCUMENT, re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
        if cells[0][0] == first_column:
            rows += cells[2:]
    assert rows
    return rows


def test_every_dump_has_a_test() -> None:
    assert set(DUMPS) == set(MESSAGES) | OTHERS


def test_every_message_type_has_a_dump() -> None:
    assert {dump.data[0] for name, dump in DUMPS.items() if name in MESSAGES or name == "Block"} == set(MessageType)


@pytest.mark.parametrize("name", MESSAGES)
def test_dump_is_the_message(name: str, core: ModuleType) -> None:
    data, message = DUMPS[name].data, MESSAGES[name]
    message_type, pos = core.decode_uint_var(data)
    length, pos = core.decode_uint_var(data, pos)
    assert message_type == message.TYPE
    assert message.TYPE.wire_name == name.split()[0]
    assert length == len(data) - pos
    assert decode_message(message_type, data[pos:]) == message
    assert message.encode() == data


def test_block_dump(core: ModuleType) -> None:
    data = DUMPS["Block"].data
    deframer = core.Deframer(limits.MESSAGE_PAYLOAD_MAX, core.MESSAGE_DATA_MAX)
    pos = deframer.feed(data)
    assert deframer.event == deframer.BLOCK
    assert (deframer.item, deframer.offset, deframer.length) == (0, 131_072, 5)
    room = bytearray(5)
    deframer.provide(room)
    assert deframer.feed(data, pos) == len(data)
    assert deframer.landed() == [(0, 131_072, 5, 0, 0)]
    assert room == b"hello"

    header, rows = bytearray(core.HEADER_ROOM), bytearray(32)
    _, used, _ = core.frame_blocks(header, rows, 0, 131_072, 131_077, 131_072)
    assert header[:used] + b"hello" == data


def test_ignorable_dump() -> None:
    message_type, length = DUMPS["ignorable"].data[:2]
    assert message_type not in set(MessageType)
    assert decode_message(message_type, DUMPS["ignorable"].data[2 : 2 + length]) is None


def test_stream_dumps() -> None:
    assert encode_stream_header(StreamType.PUSH) == DUMPS["stream PUSH"].data
    assert encode_stream_header(StreamType.DATA, UUID) == DUMPS["stream DATA"].data


def test_proof_dump() -> None:
    secret, ticket_id, key, peer_id = (bytes(range(i, j)) for i, j in ((0, 32), (32, 48), (48, 80), (80, 112)))
    tag = hmac.digest(secret, b"spaceblock admission v1" + ticket_id + key + peer_id, "sha256")
    assert bytes([1]) + ticket_id + tag == DUMPS["proof"].data


def test_messages_are_as_in_the_document() -> None:
    said = {int(row[0], 0): row[1] for row in table("Type") if row[2] != "bidirectional" and row[1] != "DATA"}
    assert said == {kind.value: kind.wire_name for kind in MessageType}


def test_streams_are_as_in_the_document() -> None:
    said = {int(row[0], 0): row[1] for row in table("Type") if row[2] in ("bidirectional", "unidirectional")}
    assert said == {kind.value: kind.name for kind in StreamType}


def test_features_are_as_in_the_document() -> None:
    said = {int(row[0]): row[1] for row in table("Bit")}
    assert said == {feature.value: feature.name for feature in Feature if feature}


def test_error_codes_are_as_in_the_document() -> None:
    assert {int(row[0], 0): row[1] for row in table("Code")} == {code.value: code.name for code in ErrorCode}


def test_states_of_progress_are_as_in_the_document() -> None:
    said = {int(row[0]): row[1] for row in table("State")}
    assert said == {state.value: state.name for state in ReceiverState}
    assert {row[3] for row in table("State")} <= {row[0] for row in table("Name")}


def test_rules_of_names_are_as_in_the_document() -> None:
    assert {int(row[0]): row[1] for row in table("Rule")} == {rule.value: rule.name for rule in NameRule}


@pytest.mark.parametrize(("name", "value"), [row[:2] for row in table("Name")])
def test_limits_are_as_in_the_document(name: str, value: str) -> None:
    defaults = {"limits": limits.Limits(), "timeouts": limits.Timeouts()}
    section, dot, field = name.partition(".")
    if dot:
        actual = getattr(defaults[section], field)
    else:
        (actual,) = {getattr(module, name) for module in (limits, chosen_core, wire, pages) if hasattr(module, name)}
    assert actual == (2**62 - 1 if value == "2^62-1" else int(value))


def test_every_limit_is_in_the_document() -> None:
    said = {row[0] for row in table("Name")}
    fields = {f"limits.{name}" for name in limits.Limits.__slots__}
    assert said >= fields | {f"timeouts.{name}" for name in limits.Timeouts.__slots__}
