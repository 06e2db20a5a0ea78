"""Whether touching a buffer may wait for a disk: mapped files and what is made from them, nothing else."""

from __future__ import annotations

import array
import mmap
from pathlib import Path

import pytest

from spaceblock.storage.resident import is_resident


def test_what_python_allocates_is_in_memory() -> None:
    for buffer in (b"abc", bytearray(3), array.array("Q", [1, 2]), memoryview(memoryview(bytearray(8))[2:])):
        assert is_resident(memoryview(buffer))


def test_a_mapped_file_may_not_be(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(bytes(4096))
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapped,
        memoryview(mapped) as view,
        view[10:20] as part,
    ):
        assert not is_resident(view)
        assert not is_resident(part)


def test_an_array_over_a_mapped_file_may_not_be(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "mapped"
    path.write_bytes(bytes(4096))
    mapped = numpy.memmap(path, dtype="u1", mode="r+")
    assert not is_resident(memoryview(mapped))
    assert not is_resident(memoryview(numpy.asarray(mapped)[5:10]))
    assert is_resident(memoryview(numpy.zeros(10)[2:4]))


def test_a_chain_without_an_end_is_not_followed_for_ever() -> None:
    class Odd(bytearray):
        @property
        def base(self) -> Odd:
            return self

    assert not is_resident(memoryview(Odd(3)))
