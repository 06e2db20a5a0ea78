"""Turns the bytes of an input into decisions, decisions into an input, and errors into a few kinds."""

from __future__ import annotations

import re

_PARTICULARS = re.compile(r"'.*'|\".*\"|0x[0-9a-f]+|[0-9]+")


class Choices:
    """Reads an input from its start; behind its end everything is 0 and empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._pos < len(self._data)

    def byte(self) -> int:
        """A number from 0 to 255."""
        return self.number(1)

    def number(self, size: int) -> int:
        """A big-endian number of ``size`` bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def large(self) -> int:
        """A number of any magnitude below 2^64: a byte says how many bytes follow."""
        return self.number(self.byte() % 9)

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit - 1``, at most 2^16 of them."""
        return self.number(1 if limit <= 256 else 2) % limit

    def take(self, size: int) -> bytes:
        """Up to ``size`` bytes, as many as there are."""
        data = self._data[self._pos : self._pos + size]
        self._pos += len(data)
        return data

    def piece(self) -> bytes:
        """Bytes with their length, of two bytes, before them."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def piece(data: bytes) -> bytes:
    """What :meth:`Choices.piece` reads."""
    return len(data).to_bytes(2, "big") + data


def large(value: int) -> bytes:
    """What :meth:`Choices.large` reads."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def kind_of(error: Exception) -> str:
    """An error's words without the numbers and names in them."""
    return _PARTICULARS.sub("#", str(error))
