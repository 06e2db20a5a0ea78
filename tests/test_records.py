"""Files of records: whatever happens to one, what is read from it is a beginning of what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.storage.records import MAGIC, PAYLOAD_MAX, Record, RecordWriter, read_records

KEY = bytes(range(32))
OTHER = bytes(32)

records = st.lists(st.builds(Record, st.integers(0, 255), st.binary(max_size=40)), max_size=6)


def written(*found: Record, key: bytes = KEY) -> bytes:
    return MAGIC + RecordWriter(key).encode(*found)


@given(records)
def test_what_was_written_is_read(found: list[Record]) -> None:
    data = written(*found)
    read = read_records(data, KEY)
    assert read.records == tuple(found)
    assert read.end == len(data)


@given(records, records)
def test_a_file_can_be_gone_on_with(first: list[Record], second: list[Record]) -> None:
    data = written(*first)
    data += RecordWriter(KEY, read_records(data, KEY).tag).encode(*second)
    assert read_records(data, KEY).records == (*first, *second)


@given(records, st.integers(0, 400))
def test_what_is_cut_off_takes_nothing_with_it_but_what_it_cuts(found: list[Record], length: int) -> None:
    data = written(*found)
    read = read_records(data[:length], KEY)
    assert read.records == tuple(found)[: len(read.records)]
    assert read.end <= length
    assert length < len(data) or read.records == tuple(found)


@given(records.filter(bool), st.integers(0, 10_000), st.integers(1, 255))
def test_what_is_changed_ends_the_file(found: list[Record], place: int, change: int) -> None:
    data = bytearray(written(*found))
    place %= len(data)
    data[place] ^= change
    read = read_records(bytes(data), KEY)
    assert read.records == tuple(found)[: len(read.records)]
    assert read.end <= place or not read.end


def test_records_cannot_be_swapped_or_left_out() -> None:
    one, two, three = Record(1, b"one"), Record(1, b"two"), Record(1, b"333")
    data = written(one, two, three)
    size = (len(data) - len(MAGIC)) // 3
    pieces = [data[len(MAGIC) + size * index : len(MAGIC) + size * (index + 1)] for index in range(3)]
    assert read_records(MAGIC + pieces[1] + pieces[0] + pieces[2], KEY).records == ()
    assert read_records(MAGIC + pieces[0] + pieces[2], KEY).records == (one,)


def test_without_the_key_nothing_is_believed() -> None:
    assert read_records(written(Record(1, b"x"), key=OTHER), KEY).records == ()


def test_another_version_is_not_believed() -> None:
    data = written(Record(1, b"x"))
    assert read_records(MAGIC[:-1] + b"\x02" + data[len(MAGIC) :], KEY).records == ()


def test_a_length_that_lies_asks_for_no_memory() -> None:
    assert read_records(MAGIC + b"\xff\xff\xff\xff\x01" + bytes(100), KEY).records == ()


def test_a_record_that_could_not_be_read_is_not_written() -> None:
    with pytest.raises(ValueError, match="limit"):
        written(Record(1, bytes(PAYLOAD_MAX + 1)))
