"""One barrier for many files: what it cannot do is done for each, and what it could not write is told."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spaceblock.errors import SpaceblockError, StorageError
from spaceblock.storage import barrier
from spaceblock.storage import folder as folders
from spaceblock.storage.barrier import BATCH, flush_all
from spaceblock.storage.folder import FolderSink
from support import manifest_of, requests_of

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a barrier for a whole file system")


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    barrier._syncfs.cache_clear()
    yield
    barrier._syncfs.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that it is of another release."""
    release: str = request.param
    found = os.uname()
    said = os.uname_result((found.sysname, found.nodename, release, found.version, found.machine))
    monkeypatch.setattr(os, "uname", lambda: said)


@needs_linux
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("kernel", ["6.1.0-9-amd64", "5.8.0"], indirect=True)
def test_a_kernel_that_tells_of_every_write_is_trusted(folder: int) -> None:
    assert flush_all(folder)


@needs_linux
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("kernel", ["5.7.19", "4.19.0-27-amd64", "unknown"], indirect=True)
def test_a_kernel_that_may_keep_quiet_is_not(folder: int) -> None:
    assert not flush_all(folder)


@needs_linux
def test_what_could_not_be_written_is_an_error(folder: int) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        flush_all(-1)


def received(target: Path, names: list[str]) -> list[str | SpaceblockError]:
    """An empty file for each name, put into place."""
    sink = FolderSink(target)
    try:
        sink.prepare(requests_of(*[0] * len(names)), manifest_of(*names))
        for item in range(len(names)):
            sink.begin(item)
            sink.finish(item)
        return sink.place(range(len(names)))
    finally:
        sink.close()


@pytest.mark.parametrize("files", [1, BATCH])
def test_without_a_barrier_every_file_and_folder_is_flushed_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        flushed.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(folders, "flush_all", lambda fd: False)
    names = [f"d{number}/x" for number in range(files)]
    assert received(tmp_path, names) == names
    for path in (tmp_path / name for name in names):
        assert {path.stat().st_ino, path.parent.stat().st_ino} <= set(flushed)


def test_a_barrier_that_fails_behind_the_names_fails_all_that_was_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(folders, "flush_all", fail)
    for error in received(tmp_path, [f"d{number}/x" for number in range(BATCH)]):
        assert isinstance(error, StorageError)
        assert error.errno == errno.EIO
