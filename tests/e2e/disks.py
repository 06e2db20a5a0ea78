"""Real disks that are small, full, locked or broken, for tests that may mount them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
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
