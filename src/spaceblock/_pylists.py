"""Many short messages at once in plain Python: the specification by example, the oracle of the tests, the fallback.

Names, signatures, results and exceptions are those of ``_fastlists``; ``_fastlists.pyi`` documents them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ._pyblock import UINT_VAR_MAX, bounded, bytes_of, decode_uint_var, encode_uint_var

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_T = TypeVar("_T")

_DIGEST_SIZE = 32
_STRING_MAX = 16_384
_PERMISSIONS = 0o7777
_BILLION = 1_000_000_000
_SECONDS_MAX = 9_000_000_000
_BYTES = {"k": 16, "d": 32}
_STRINGS = {"s": 1, "S": 0}


def frame_digests(kind: int, digests: Sequence[tuple[int, int, bytes]]) -> bytes:
    head = encode_uint_var(kind)
    out = bytearray()
    for item, size, digest in digests:
        if len(digest) != _DIGEST_SIZE:
            raise ValueError(f"it holds {len(digest)} bytes where {_DIGEST_SIZE} belong")
        payload = encode_uint_var(item) + encode_uint_var(size) + digest
        out += head + encode_uint_var(len(payload)) + payload
    return bytes(out)


def parse_digests(kind: int, data: ReadableBuffer, pos: int = 0) -> tuple[list[tuple[int, int, bytes]], int]:
    found: list[tuple[int, int, bytes]] = []
    with bytes_of(data) as view:
        pos = bounded(pos, "pos", 0, len(view))
        try:
            while True:
                message_type, at = decode_uint_var(view, pos)
                length, at = decode_uint_var(view, at)
                stop = at + length
                if message_type != kind or stop > len(view):
                    break
                item, at = decode_uint_var(view[:stop], at)
                size, at = decode_uint_var(view[:stop], at)
                if stop - at != _DIGEST_SIZE:
                    break
                found.append((item, size, bytes(view[at:stop])))
                pos = stop
        except ValueError:
            pass
    return found, pos


def make_records(cls: type[_T], rows: Iterable[tuple[Any, ...]]) -> list[_T]:
    width = len(cls.__slots__)  # type: ignore[attr-defined]
    made = []
    for row in rows:
        if len(row) != width:
            raise TypeError(f"{cls.__name__} has {width} fields and not {len(row)}; give a value for each")
        made.append(cls(*row))
    return made


def write_rows(head: bytes, layout: str, rows: Iterable[tuple[Any, ...]]) -> bytes:
    out = bytearray()
    try:
        for row in rows:
            if len(row) != len(layout):
                raise ValueError(f"a row has {len(row)} fields where {len(layout)} belong")
            out += head
            for code, value in zip(layout, row, strict=True):
                out += _field(code, value)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a field does not fit: {error}") from None
    return bytes(out)


def read_rows(
    head: bytes, layout: str, data: ReadableBuffer, pos: int, count: int
) -> tuple[list[tuple[Any, ...]], int]:
    rows: list[tuple[Any, ...]] = []
    count = bounded(count, "count")
    with bytes_of(data) as view:
        pos = bounded(pos, "pos", 0, len(view))
        while len(rows) < count and view[pos : pos + len(head)] == head:
            at = pos + len(head)
            row = []
            try:
                for code in layout:
                    value, at = _read_field(code, view, at)
                    row.append(value)
            except _Misfit:
                break
            rows.append(tuple(row))
            pos = at
    return rows, pos


def short_digests(texts: Iterable[bytes]) -> list[bytes]:
    from blake3 import blake3

    return [blake3(text).digest(length=16) for text in texts]


class _Misfit(Exception):
    """What comes is no whole row."""


def _field(code: str, value: Any) -> bytes:
    if code in "up":
        return encode_uint_var(bounded(value, "a number", 0, UINT_VAR_MAX if code == "u" else _PERMISSIONS))
    if code == "t":
        seconds, nanoseconds = divmod(_bits(value), _BILLION)
        return encode_uint_var(_folded(seconds)) + encode_uint_var(nanoseconds)
    if code in _STRINGS:
        text = str.encode(value)
        if not _STRINGS[code] <= len(text) <= _STRING_MAX:
            raise ValueError(f"a string of {len(text)} bytes passes its limits")
        return encode_uint_var(len(text)) + text
    if code not in _BYTES:
        raise ValueError(f"there is no field {code!r}; take one of those that the contract names")
    if len(value) != _BYTES[code]:
        raise ValueError(f"it holds {len(value)} bytes where {_BYTES[code]} belong")
    return bytes(value)


def _read_field(code: str, view: memoryview, at: int) -> tuple[Any, int]:
    try:
        number, at = (_BYTES[code], at) if code in _BYTES else decode_uint_var(view, at)
        if code == "u":
            return number, at
        if code == "p" and number <= _PERMISSIONS:
            return number, at
        if code == "t" and number <= 2 * _SECONDS_MAX:
            nanoseconds, at = decode_uint_var(view, at)
            if nanoseconds < _BILLION:
                return _unfolded(number) * _BILLION + nanoseconds, at
        stop = at + number
        if code in _BYTES and stop <= len(view):
            return bytes(view[at:stop]), stop
        if code in _STRINGS and _STRINGS[code] <= number <= _STRING_MAX and stop <= len(view):
            return str(view[at:stop], "utf-8"), stop
    except ValueError:
        pass
    if code not in "upt" and code not in _BYTES and code not in _STRINGS:
        raise ValueError(f"there is no field {code!r}; take one of those that the contract names")
    raise _Misfit


def _bits(value: int) -> int:
    """A number of 64 bits, one of them for its sign."""
    if not -(2**63) <= value < 2**63:
        raise OverflowError(f"{value} has more than 64 bits")
    return value


def _folded(value: int) -> int:
    return _bits(value) * 2 if value >= 0 else -_bits(value) * 2 - 1


def _unfolded(value: int) -> int:
    return -(value + 1 >> 1) if value & 1 else value >> 1
