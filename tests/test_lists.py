"""Many short messages at once: what the compiled core makes and reads is what its twin does, and what one by one is."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from types import ModuleType
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from spaceblock import _pylists
from spaceblock.wire.messages import ItemDigest, ItemDigests, MessageType

KIND = MessageType.ITEM_DIGEST
NUMBERS = st.integers(0, 2**62 - 1)
DIGESTS = st.lists(st.tuples(NUMBERS, NUMBERS, st.binary(min_size=32, max_size=32)), max_size=20)


@given(DIGESTS)
def test_digests_are_framed_as_one_by_one(core: ModuleType, digests: list[tuple[int, int, bytes]]) -> None:
    framed = core.frame_digests(KIND, digests)
    assert framed == b"".join(ItemDigest(*digest).encode() for digest in digests)
    assert framed == ItemDigests(tuple(digests)).encode()
    assert core.parse_digests(KIND, framed) == (digests, len(framed))


@given(DIGESTS, st.binary(max_size=60), st.integers(0, 100))
def test_parsing_stops_at_what_is_no_whole_digest(
    core: ModuleType, digests: list[tuple[int, int, bytes]], rest: bytes, start: int
) -> None:
    data = _pylists.frame_digests(KIND, digests) + rest
    start = min(start, len(data))
    found = core.parse_digests(KIND, data, start)
    assert found == _pylists.parse_digests(KIND, data, start)
    assert found[1] <= len(data)
    if not start:
        assert found[0][: len(digests)] == digests


@pytest.mark.parametrize("cut", range(1, 38))
def test_a_digest_that_is_not_all_there_waits(core: ModuleType, cut: int) -> None:
    whole = core.frame_digests(KIND, [(7, 4096, bytes(32))])
    assert core.parse_digests(KIND, whole + whole[:-cut]) == ([(7, 4096, bytes(32))], len(whole))


def test_another_length_is_no_digest(core: ModuleType) -> None:
    for size in (33, 37):
        longer = bytes([KIND, size]) + bytes(size)
        assert core.parse_digests(KIND, longer) == ([], 0)
    with pytest.raises(ValueError, match="31 bytes where 32 belong"):
        core.frame_digests(KIND, [(0, 0, bytes(31))])
    with pytest.raises(ValueError, match="outside 0 to"):
        core.frame_digests(KIND, [(2**62, 0, bytes(32))])
    with pytest.raises(ValueError, match="pos is 9, outside 0 to 3"):
        core.parse_digests(KIND, b"abc", 9)


TIMES = st.integers(-(2**60), 2**60)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.tuples(
        *(NUMBERS, st.integers(0, 0o7777), TIMES, TEXT.filter(bool), TEXT),
        *(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)),
    ),
    max_size=5,
)
LAYOUT = "uptsSkd"


@given(st.binary(max_size=3), ROWS, st.binary(max_size=40), st.integers(0, 6))
def test_rows_are_read_as_they_were_written(
    core: ModuleType, head: bytes, rows: list[tuple[Any, ...]], rest: bytes, most: int
) -> None:
    written = core.write_rows(head, LAYOUT, iter(rows))
    assert written == _pylists.write_rows(head, LAYOUT, rows)
    assert core.read_rows(head, LAYOUT, written, 0, len(rows)) == (rows, len(written))
    data = b"x" + written + rest
    found, end = core.read_rows(head, LAYOUT, data, 1, most)
    assert (found, end) == _pylists.read_rows(head, LAYOUT, data, 1, most)
    assert found[: len(rows)] == rows[:most]
    assert len(found) <= most


@pytest.mark.parametrize("layout", list(LAYOUT))
@given(data=st.binary(max_size=40))
def test_reading_rows_stops_at_what_is_none(core: ModuleType, layout: str, data: bytes) -> None:
    found, end = core.read_rows(b"", layout, data, 0, 9)
    assert (found, end) == _pylists.read_rows(b"", layout, data, 0, 9)
    assert end <= len(data)
    assert len(found) <= 9


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        *(("u", -1), ("u", 2**62), ("u", None), ("u", "1"), ("p", 0o10000), ("t", 2**63)),
        *(("t", -(2**63) - 1), ("t", None), ("s", ""), ("s", "x" * 16_385), ("S", "é" * 8_193), ("s", "\udc80")),
        *(("u", 1.5), ("t", 1.5), ("s", None), ("s", b"x"), ("k", bytes(15)), ("d", bytes(16))),
        *(("d", None), ("?", 1)),
    ],
)
def test_a_row_that_does_not_fit_is_refused(core: ModuleType, layout: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        core.write_rows(b"", f"u{layout}", [(1, value)])
    with pytest.raises(ValueError, match="1 fields where 2 belong"):
        core.write_rows(b"", "uu", [(1,)])


def test_rows_that_another_could_not_have_written_are_not_read(core: ModuleType) -> None:
    for layout, data in {
        "p": b"\x50\x00",  # more than permission bits
        "s": b"\x00",
        "S": b"\x80\x00\x40\x01" + bytes(16_385),
        "t": b"\x00\x80\x00\x00\x00",  # cut off below
        "k": bytes(15),
        "d": bytes(31),
    }.items():
        assert core.read_rows(b"", layout, data[: 4 if layout == "t" else None], 0, 1) == ([], 0), layout
    assert core.read_rows(b"", "s", b"\x01\xff", 0, 1) == ([], 0), "no Unicode"
    assert core.read_rows(b"", "t", b"\x00" + core.write_rows(b"", "u", [(10**9,)]), 0, 1) == ([], 0), "a whole second"
    assert core.read_rows(b"ab", "u", b"ac\x00", 0, 1) == ([], 0), "another kind"
    with pytest.raises(ValueError, match="pos is 9, outside 0 to 3"):
        core.read_rows(b"", "u", b"abc", 9, 1)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_short_digests_are_the_beginnings_of_the_whole_ones(core: ModuleType, texts: list[bytes]) -> None:
    texts = [*texts, bytes(16_384), bytes(16_385)]
    assert core.short_digests(iter(texts)) == [blake3(text).digest()[:16] for text in texts]


@dataclass(frozen=True, slots=True)
class Pair:
    first: int
    second: str = "two"


def test_records_are_what_their_class_makes(core: ModuleType) -> None:
    rows = [(number, str(number)) for number in range(5)]
    made = core.make_records(Pair, iter(rows))
    assert made == [Pair(*row) for row in rows]
    assert [hash(each) for each in made] == [hash(Pair(*row)) for row in rows]
    with pytest.raises(FrozenInstanceError):
        made[0].first = 1
    for row in ((1,), (1, "a", 2)):
        with pytest.raises(TypeError, match="Pair has 2 fields"):
            core.make_records(Pair, [row])
