"""The twin of ``_fastfiles``, where that is not: no file is handled in one go, so all are handled one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def find_files(paths: Sequence[bytes | str]) -> list[tuple[int, tuple[int, int, int, int, int]]]:
    return []


def read_files(
    slot: WriteableBuffer,
    used: int,
    limit: int,
    block_type: int,
    end_type: int,
    files: Sequence[tuple[int, bytes | str, int, int, int, int, int]],
) -> tuple[int, list[tuple[int, bytes | None]]]:
    return used, []


def store_files(
    folder: int, flush: bool, files: Sequence[tuple[bytes | str, int, int, ReadableBuffer]]
) -> list[tuple[bytes | None, int, int]]:
    return []


def place_files(staging: int, folder: int, files: Sequence[tuple[bytes | str, bytes | str]]) -> int:
    return 0


def is_in_memory(fd: int) -> bool:
    return False
