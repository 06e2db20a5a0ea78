"""Files of records that outlive the process which wrote them, and are believed only where nobody meddled with them.

A file is :data:`MAGIC`, whose last byte is the version of this layout, and then records: a length of 4 bytes
(little-endian), a kind of one byte, that many bytes of payload, and a tag of 16 bytes. A tag is a keyed BLAKE3 over the
tag before it and over the record, so that a record is worth something only behind all the others, in this file, and to
whoever has the key. What is torn, cut, swapped, from another version or forged ends the file where it begins.
"""

from __future__ import annotations

import os
import struct

from blake3 import blake3

from ..process.lazily import dataclass

MAGIC = b"spblkrc\x01"
TAG_SIZE = 16

PAYLOAD_MAX = 1_048_576
"""Bytes of one record."""

FILE_MAX = 256 * 1_048_576
"""Bytes of a file that is read: a record of a million names has room, and a planted file does not fill the memory."""

_HEAD = struct.Struct("<IB")


@dataclass(frozen=True, slots=True)
class Record:
    """One record: what it is is its ``kind``, 0 to 255."""

    kind: int
    payload: bytes


class RecordWriter:
    """Makes the bytes of a file, one record after the other; ``tag`` is that of the last one written so far."""

    def __init__(self, key: bytes, tag: bytes = MAGIC) -> None:
        self._key = key
        self.tag: bytes = tag

    def encode(self, *records: Record) -> bytes:
        """The bytes that append ``records``."""
        out: list[bytes] = []
        for record in records:
            payload = record.payload
            if len(payload) > PAYLOAD_MAX:
                raise ValueError(f"a record of {len(payload)} bytes passes the limit of {PAYLOAD_MAX}")
            whole = _HEAD.pack(len(payload), record.kind) + payload
            self.tag = _tag(self._key, self.tag, whole)
            out += (whole, self.tag)
        return b"".join(out)


@dataclass(frozen=True, slots=True)
class Records:
    """What can be believed of a file: its records, where they end in it, and the tag to go on with."""

    records: tuple[Record, ...]
    end: int
    tag: bytes


def read_records(data: bytes, key: bytes) -> Records:
    """The records at the beginning of ``data`` that were written with ``key``; none if it is no such file."""
    if not data.startswith(MAGIC):
        return Records((), 0, MAGIC)
    found: list[Record] = []
    position, tag = len(MAGIC), MAGIC
    while position + _HEAD.size + TAG_SIZE <= len(data):
        length, kind = _HEAD.unpack_from(data, position)
        start = position + _HEAD.size
        end = start + length + TAG_SIZE
        if length > PAYLOAD_MAX or end > len(data):
            break
        payload = data[start : start + length]
        following = _tag(key, tag, data[position : start + length])
        if following != data[start + length : end]:
            break
        found.append(Record(kind, payload))
        position, tag = end, following
    return Records(tuple(found), position, tag)


def read_file(fd: int) -> bytes:
    """All of an open file; raises :class:`ValueError` for one above :data:`FILE_MAX`, and :class:`OSError`."""
    size = os.fstat(fd).st_size
    if size > FILE_MAX:
        raise ValueError(f"a file of {size} bytes passes the limit of {FILE_MAX}")
    data = bytearray()
    while portion := os.pread(fd, min(1_048_576, FILE_MAX + 1 - len(data)), len(data)):
        data += portion
    return bytes(data)


def _tag(key: bytes, before: bytes, record: bytes) -> bytes:
    return blake3(before + record, key=key).digest(length=TAG_SIZE)
