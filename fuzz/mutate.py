"""Changes inputs a little, in the ways in which decoders go wrong: lengths, counts, edges, repetitions, cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

EDGES = (0, 1, 2, 3, 0x1F, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFE, 0xFF)
VARINTS = (0, 1, 63, 64, 16_383, 16_384, 65_535, 65_536, 2**20, 2**30 - 1, 2**30, 2**32, 2**61, 2**62 - 2, 2**62 - 1)


def mutate(data: bytes, others: Sequence[bytes], size_max: int, random: Random) -> bytes:
    """A changed copy of ``data``, of at most ``size_max`` bytes; ``others`` are inputs to borrow from."""
    out = bytearray(data)
    for _ in range(1 << random.randrange(5)):
        random.choice(_CHANGES)(out, others, random)
    return bytes(out[:size_max])


def _flip(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    if out:
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)


def _set(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    if out:
        out[random.randrange(len(out))] = random.choice((random.choice(EDGES), random.randrange(256)))


def _step(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    if out:
        at = random.randrange(len(out))
        out[at] = (out[at] + random.choice((-2, -1, 1, 2))) & 0xFF


def _insert(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at = random.randrange(len(out) + 1)
    out[at:at] = random.choice((random.randbytes(random.randrange(1, 9)), bytes(random.randrange(1, 40))))


def _delete(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    start, stop = _span(out, random)
    del out[start:stop]


def _repeat(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    start, stop = _span(out, random)
    if stop - start <= 512:
        out[start:start] = out[start:stop] * random.randrange(1, 4)


def _move(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    start, stop = _span(out, random)
    part = out[start:stop]
    del out[start:stop]
    at = random.randrange(len(out) + 1)
    out[at:at] = part


def _cut(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    del out[random.randrange(len(out) + 1) :]


def _put_varint(out: bytearray, _others: Sequence[bytes], random: Random) -> None:
    value = random.choice(VARINTS)
    shortest = next(exponent for exponent in range(4) if value < 1 << (8 << exponent) - 2)
    exponent = random.choice((shortest, shortest, random.randrange(shortest, 4)))
    size = 1 << exponent
    encoded = (value | exponent << 8 * size - 2).to_bytes(size, "big")
    at = random.randrange(len(out) + 1)
    out[at : at + random.choice((0, 1, size))] = encoded


def _borrow(out: bytearray, others: Sequence[bytes], random: Random) -> None:
    other = random.choice(others)
    start, stop = _span(other, random)
    at, end = _span(out, random)
    out[at : random.choice((at, end))] = other[start:stop]


def _join(out: bytearray, others: Sequence[bytes], random: Random) -> None:
    other = random.choice(others)
    out[random.randrange(len(out) + 1) :] = other[random.randrange(len(other) + 1) :]


def _span(data: bytes | bytearray, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 8, 16, 64, len(data)))
    return start, min(len(data), start + random.randrange(length + 1))


_CHANGES: tuple[Callable[[bytearray, Sequence[bytes], Random], None], ...] = (
    _flip,
    _set,
    _step,
    _insert,
    _delete,
    _repeat,
    _move,
    _cut,
    _put_varint,
    _borrow,
    _join,
)
