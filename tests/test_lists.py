"""Many short messages at once: what the compiled core makes and reads is what its twin does, and what one by one is."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaceblock import _pylists
from spaceblock.messages import ItemDigest, ItemDigests, MessageType

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
