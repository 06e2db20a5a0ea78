"""What a receiver's own records claim, and how they move to another folder of the same disk's contents.

A disk that is made anew has other inodes, and is at another place. What a record says of those is said anew with the
receiver's own key; what is torn or foreign stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spaceblock.core import read_rows, write_rows
from spaceblock.storage.journal import ITEM_KEY_SIZE, PLACING_ROW
from spaceblock.storage.records import MAGIC, Record, RecordWriter, read_records
from spaceblock.wire import DIGEST_SIZE, UUID_SIZE, Reader, Writer

HEAD, PART, PLACING, DROPPED, FOLDERS = 1, 2, 3, 4, 5
FOLDER = 3
_TEXT_MAX = 256


@dataclass(frozen=True, slots=True)
class Claim:
    """Of the file ``inode``, which lies under ``name`` or has been moved, the bytes before ``offset`` are there, and
    those before ``checked`` have ``digest``."""

    name: str
    inode: int
    offset: int
    checked: int
    digest: bytes
    is_placing: bool


def claims_of(journal: bytes, key: bytes) -> list[Claim]:
    """What a journal claims at its end."""
    found: dict[tuple[bytes, bool], Claim] = {}
    for record in read_records(journal, key).records:
        reader = Reader(record.payload)
        if record.kind in (HEAD, FOLDERS):
            continue
        if record.kind == PLACING:
            for item, inode, size, _, digest, _ in _placings(record):
                found[item, True] = Claim(item.hex(), inode, size, size, digest, True)
            continue
        item = reader.take(ITEM_KEY_SIZE)
        if record.kind == PART:
            inode, offset, checked = reader.uint(), reader.uint(), reader.uint()
            found[item, False] = Claim(item.hex(), inode, offset, checked, reader.take(DIGEST_SIZE), False)
        else:
            found.pop((item, False), None)
            found.pop((item, True), None)
    return list(found.values())


def move_journal(path: Path, key: bytes, inodes: Mapping[int, int]) -> None:
    """Let a journal speak of the inodes that files have now, on a machine that was started since."""

    def moved(record: Record) -> Record:
        reader, out = Reader(record.payload), Writer()
        if record.kind == HEAD:
            out.fixed(reader.take(UUID_SIZE), UUID_SIZE)
            out.string(reader.string(_TEXT_MAX), _TEXT_MAX)
            out.uint(inodes.get(reader.uint(), 0))
            out.string("another start" if reader.string(_TEXT_MAX) else "", _TEXT_MAX)
        elif record.kind == PLACING:
            rows = [(item, inodes.get(inode, 0), *rest) for item, inode, *rest in _placings(record)]
            return Record(record.kind, write_rows(b"", PLACING_ROW, rows))
        elif record.kind == PART:
            out.fixed(reader.take(ITEM_KEY_SIZE), ITEM_KEY_SIZE)
            out.uint(inodes.get(reader.uint(), 0))
            return Record(record.kind, bytes(out.out) + record.payload[reader.pos :])
        else:
            return record
        return Record(record.kind, bytes(out.out))

    _rewrite(path, key, moved)


def move_outcome(path: Path, key: bytes, folder: Path) -> None:
    """Let what is remembered of a transfer speak of the folder as it is called now."""

    def moved(record: Record) -> Record:
        return Record(FOLDER, os.fsencode(folder)) if record.kind == FOLDER else record

    _rewrite(path, key, moved)


def _placings(record: Record) -> list[tuple[Any, ...]]:
    rows, end = read_rows(b"", PLACING_ROW, record.payload, 0, len(record.payload))
    assert end == len(record.payload)
    return rows


def _rewrite(path: Path, key: bytes, moved: Callable[[Record], Record]) -> None:
    data, times = path.read_bytes(), path.stat()
    found = read_records(data, key)
    if found.end:
        path.write_bytes(MAGIC + RecordWriter(key).encode(*map(moved, found.records)) + data[found.end :])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
