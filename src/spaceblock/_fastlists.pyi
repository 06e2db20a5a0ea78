"""The contract of what handles many short messages at once, and of its twin ``_pylists``."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from _typeshed import ReadableBuffer

_T = TypeVar("_T")

def frame_digests(kind: int, digests: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Messages of type ``kind``, each of an item, its size and its digest of 32 bytes; ValueError for a number beyond
    2^62-1, and for a digest of another length."""

def parse_digests(kind: int, data: ReadableBuffer, pos: int = 0) -> tuple[list[tuple[int, int, bytes]], int]:
    """The messages that :func:`frame_digests` makes, from ``pos`` on as far as they follow each other and are whole;
    and the position behind them. What comes there is for who reads any message; ValueError for a ``pos`` beyond the
    end."""

def make_records(cls: type[_T], rows: Iterable[tuple[Any, ...]]) -> list[_T]:
    """An instance of a dataclass with slots for each row, which has a value for each field in their order.

    For values that are known to be right: ``__post_init__`` need not be run. TypeError for a row of another length.
    """

def write_rows(head: bytes, layout: str, rows: Iterable[tuple[Any, ...]]) -> bytes:
    """The bytes of records of one kind: of each ``head``, and its row, a value for each letter of ``layout``.

    ``u`` is an integer as on the wire, ``p`` one that holds permission bits (at most 0o7777); ``t`` a time in
    nanoseconds, written as seconds, folded, and nanoseconds; ``s`` a string of at most 16384 bytes of UTF-8 behind its
    length, ``S`` one that may be empty; ``k`` and ``d`` are 16 and 32 bytes. ValueError for rows of which one does not
    fit.
    """

def read_rows(
    head: bytes, layout: str, data: ReadableBuffer, pos: int, count: int
) -> tuple[list[tuple[Any, ...]], int]:
    """At most ``count`` rows of what :func:`write_rows` makes, from ``pos`` on as far as they follow each other and are
    whole; and the position behind them. What comes there is for who reads any record. ValueError for a ``pos`` beyond
    the end."""

def short_digests(texts: Iterable[bytes]) -> list[bytes]:
    """The first 16 bytes of the BLAKE3 digest of each text; fast where they are short."""
