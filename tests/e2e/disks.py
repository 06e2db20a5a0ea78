"""Real disks that are small, full, locked or broken, for tests that may mount them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1024 * 1024


@contextmanager
def small_disk(at: Path, *, options: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    with _mounted(at, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield at


@contextmanager
def same_disk(at: Path, *, again: Path) -> Iterator[Path]:
    """The folder ``again`` a second time, as a mount of its own."""
    with _mounted(at, "--bind", again):
        yield at


@contextmanager
def odd_disk(
    at: Path, *, system: str | None = None, faults: Mapping[str, Sequence[object]] | None = None
) -> Iterator[Path]:
    """A disk whose operations fail as ``faults`` say, or which takes names as ``system`` does; see odd_disk.py."""
    backing = at.with_name(f"{at.name}-backing")
    at.mkdir()
    backing.mkdir()
    spec = json.dumps({"faults": faults or {}, "system": system})
    words = [sys.executable, str(Path(__file__).with_name("odd_disk.py")), str(at), str(backing), spec]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        if not server.stdout.readline():
            pytest.skip("only root can mount a disk of its own, and where there is FUSE")
        try:
            yield at
        finally:
            subprocess.run(["umount", at], check=True)
    shutil.rmtree(backing)


@contextmanager
def lying_disk(at: Path) -> Iterator[Path]:
    """A file system that says it has some 50 MB free, and on which a tenth of that cannot be written out."""
    with small_disk(at.with_name(f"{at.name}-below"), options="size=6m") as below:
        _make_image(below / "image", 64 * MIB)
        with _mounted(at, "-o", "loop", below / "image"):
            yield at


@contextmanager
def dying_disk(at: Path, name: str, data: bytes) -> Iterator[Path]:
    """A file system with one file, ``name``, whose end cannot be read any more."""
    image = at.with_name(f"{at.name}-image")
    _make_image(image, 64 * MIB)
    with _mounted(at, "-o", "loop", image), (at / name).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    with _mounted(at, "-o", "loop,ro", image):
        os.truncate(image, 12 * MIB)
        yield at


def _make_image(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-F", image], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine makes no ext4 file systems")


@contextmanager
def _mounted(at: Path, *words: str | Path) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *words, at], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("only root can mount a disk of its own")
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)
