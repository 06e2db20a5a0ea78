"""The journal of one transfer into one folder: what another attempt may go on from.

1. An entry about bytes is appended only when they are durable, and is itself durable before anybody hears of it. Where
   nothing is flushed (durability "none") the journal is good until the machine restarts, and says so.
2. What it says of a file is believed only if the file is still the same (inode, and size or more), and even then only
   as a claim: the digests of both sides decide in the end.
3. The names of finished files are in the journal before they are on the disk, so that a file is never placed twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field
from enum import IntEnum
from typing import Any

from ..blocks import Full, SpaceblockRequest
from ..core import read_rows, short_digests, write_rows
from ..process.lazily import dataclass
from ..wire import DIGEST_SIZE, UUID_SIZE, Reader, Writer
from .records import MAGIC, Record, RecordWriter, read_file, read_records

JOURNAL = "journal"
"""The name of the journal beside the partial files."""

ITEM_KEY_SIZE = 16
"""Bytes by which an item is known from one attempt to the next."""

INODE_MAX = 2**62 - 1

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_TEXT_MAX = 256


@dataclass(frozen=True, slots=True)
class Keeper:
    """Whose transfers are kept for another attempt: the peer, and a key of this side's own that nobody else has."""

    peer_id: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Up to ``offset`` the bytes of an item are durable in the file ``inode``; ``digest`` covers them up to
    ``checked``."""

    inode: int
    offset: int
    checked: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Placing:
    """A finished item was about to get ``name``: the file ``inode``, of ``size`` bytes and a time, with ``digest``."""

    inode: int
    size: int
    mtime_ns: int
    digest: bytes
    name: str


PLACING_ROW = "kuutdS"
"""An item's key, and a :class:`Placing`, as the core writes many at once."""

_FOLDER_ROW = "S"
"""A folder's name."""

_ROWS = 32
"""Of one record, which so holds less than it may whatever the names are: what is told at once is flushed at once, and a
tag for each would cost more than the rest."""


class _Kind(IntEnum):
    HEAD = 1
    PART = 2
    PLACING = 3
    DROPPED = 4
    FOLDERS = 5


@dataclass(slots=True)
class Contents:
    """What a journal says, by item."""

    parts: dict[bytes, Part] = field(default_factory=dict)
    placings: dict[bytes, Placing] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    """Those that were made, which are to get their modes and times when all is in its place."""

    def __bool__(self) -> bool:
        return bool(self.parts or self.placings)


class Journal:
    """Made by :meth:`create` or :meth:`open`; safe to call from any thread."""

    def __init__(self, fd: int, writer: RecordWriter, end: int, contents: Contents, durable: bool) -> None:
        self.contents = contents
        self._fd = fd
        self._writer = writer
        self._end = end
        self._durable = durable
        self._lock = threading.Lock()

    @classmethod
    def create(cls, folder: int, uuid: bytes, keeper: Keeper, durable: bool) -> Journal:
        """A new journal in ``folder``; raises :class:`OSError`. Its name has to be made durable before an entry is."""
        fd = os.open(JOURNAL, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600, dir_fd=folder)
        journal = cls(fd, RecordWriter(keeper.key), 0, Contents(), durable)
        try:
            journal._append(MAGIC + journal._writer.encode(_head(folder, uuid, keeper, durable)))
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def open(cls, folder: int, uuid: bytes, keeper: Keeper, durable: bool) -> Journal | None:
        """The journal that an earlier attempt left in ``folder``, or None where there is none to be believed.

        What follows the last record that is whole is cut off. Raises :class:`OSError`.
        """
        try:
            fd = os.open(JOURNAL, os.O_RDWR | _NO_FOLLOW, dir_fd=folder)
        except OSError:
            return None
        try:
            records = read_records(read_file(fd), keeper.key)
            heads = [_head(folder, uuid, keeper, way) for way in (True, False)]
            contents = _contents(records.records, heads)
            if contents is not None:
                os.ftruncate(fd, records.end)
                journal = cls(fd, RecordWriter(keeper.key, records.tag), records.end, contents, durable)
                if not durable and heads[1] not in records.records:
                    # What follows is not flushed, and what there was may be replaced by it.
                    journal._append(journal._writer.encode(heads[1]))
                    os.fdatasync(fd)
                return journal
        except ValueError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def durable_up_to(self, parts: Iterable[tuple[bytes, Part]]) -> None:
        """Note bytes that are durable; raises :class:`OSError`."""
        found = list(parts)
        with self._lock:
            self._write(*(Record(_Kind.PART, key + _encode_part(part)) for key, part in found))
            self.contents.parts.update(found)

    def placing(self, placings: Iterable[tuple[bytes, Placing]]) -> None:
        """Note the names that finished files are about to get; raises :class:`OSError`."""
        found = list(placings)
        with self._lock:
            rows = [(key, each.inode, each.size, each.mtime_ns, each.digest, each.name) for key, each in found]
            self._write(*_records_of(_Kind.PLACING, PLACING_ROW, rows))
            self.contents.placings.update(found)

    def made(self, folders: Iterable[str]) -> None:
        """Note new folders, which is durable no sooner than what is noted next; raises :class:`OSError`."""
        with self._lock:
            found = [(name,) for name in folders if name not in self.contents.folders]
            self._write(*_records_of(_Kind.FOLDERS, _FOLDER_ROW, found), durable=False)
            self.contents.folders.update(name for (name,) in found)

    def dropped(self, key: bytes) -> None:
        """Forget an item; raises :class:`OSError`."""
        with self._lock:
            if key in self.contents.parts or key in self.contents.placings:
                self._write(Record(_Kind.DROPPED, key))
                self.contents.parts.pop(key, None)
                self.contents.placings.pop(key, None)

    def close(self) -> None:
        """Close the file; harmless when done twice. Another thread that writes just now ends first, as otherwise it
        could write into what gets the descriptor's number next."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def _write(self, *records: Record, durable: bool = True) -> None:
        tag = self._writer.tag
        try:
            self._append(self._writer.encode(*records))
        except BaseException:
            # What was half written would make all that follows worthless.
            self._writer.tag = tag
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        if self._durable and durable:
            os.fdatasync(self._fd)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, view[written:], self._end + written)
        self._end += written


def item_keys(items: Iterable[tuple[int, str | None, SpaceblockRequest]]) -> list[bytes]:
    """By what each item is known from one attempt to the next: its name, or else its number, and what is asked for."""
    texts = [
        f"/{name}\0{request.size} 0 {request.size}"  # as nearly always
        if name is not None and type(request.range) is Full
        else _asked(item, name, request)
        for item, name, request in items
    ]
    return short_digests([text.encode(errors="surrogateescape") for text in texts])


def _asked(item: int, name: str | None, request: SpaceblockRequest) -> str:
    words = f"#{item}" if name is None else f"/{name}"
    return f"{words}\0{request.size} {request.start} {request.stop}"


def _contents(records: Iterable[Record], heads: list[Record]) -> Contents | None:
    """What the records say; None if they do not begin with one of ``heads``, and so belong to something else, or have
    another among them, and so were overtaken by a start of the machine."""
    contents = Contents()
    expected = True
    for record in records:
        if expected or record.kind == _Kind.HEAD:
            if record not in heads:
                return None
            expected = False
            continue
        if record.kind == _Kind.PLACING:
            contents.placings.update((key, Placing(*each)) for key, *each in _rows_of(PLACING_ROW, record.payload))
            continue
        if record.kind == _Kind.FOLDERS:
            contents.folders.update(name for (name,) in _rows_of(_FOLDER_ROW, record.payload))
            continue
        reader = Reader(record.payload)
        key = reader.take(ITEM_KEY_SIZE)
        if record.kind == _Kind.PART:
            contents.parts[key] = _read_part(reader)
        elif record.kind == _Kind.DROPPED:
            contents.parts.pop(key, None)
            contents.placings.pop(key, None)
        else:
            raise ValueError(f"a journal has no records of kind {record.kind}")
        reader.finish()
    return None if expected else contents


def _head(folder: int, uuid: bytes, keeper: Keeper, durable: bool) -> Record:
    """Which transfer, from whom, in which folder, and unless everything is flushed, since which start of the machine;
    a journal that was copied elsewhere, or was overtaken by a loss of power, does not begin with it."""
    out = Writer()
    out.fixed(uuid, UUID_SIZE)
    out.string(keeper.peer_id, _TEXT_MAX)
    out.uint(inode_of(os.fstat(folder)))
    out.string("" if durable else boot_id(), _TEXT_MAX)
    return Record(_Kind.HEAD, bytes(out.out))


def inode_of(status: os.stat_result) -> int:
    """The inode's number, as far as a journal can hold it: some file systems use all 64 bits."""
    return status.st_ino & INODE_MAX


def boot_id() -> str:
    """A word that changes when the machine starts anew; where the system has none, one that is never twice the same."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(64).strip()
    except OSError:
        return os.urandom(16).hex()


def _encode_part(part: Part) -> bytes:
    out = Writer()
    out.uint(part.inode)
    out.uint(part.offset)
    out.uint(part.checked)
    out.fixed(part.digest, DIGEST_SIZE)
    return bytes(out.out)


def _read_part(reader: Reader) -> Part:
    part = Part(reader.uint(), reader.uint(), reader.uint(), reader.take(DIGEST_SIZE))
    if part.checked > part.offset:
        raise ValueError("a digest covers more than there is")
    return part


def _records_of(kind: _Kind, row: str, rows: list[tuple[Any, ...]]) -> Iterator[Record]:
    for start in range(0, len(rows), _ROWS):
        yield Record(kind, write_rows(b"", row, rows[start : start + _ROWS]))


def _rows_of(row: str, payload: bytes) -> Sequence[tuple[Any, ...]]:
    rows, end = read_rows(b"", row, payload, 0, len(payload))
    if end != len(payload) or not rows:
        raise ValueError("a record of many things holds something else")
    return rows
