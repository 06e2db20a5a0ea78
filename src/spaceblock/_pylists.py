"""Many short messages at once in plain Python: the specification by example, the oracle of the tests, the fallback.

Names, signatures, results and exceptions are those of ``_fastlists``; ``_fastlists.pyi`` documents them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ._pyblock import bounded, bytes_of, decode_uint_var, encode_uint_var

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_T = TypeVar("_T")

_DIGEST_SIZE = 32


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
