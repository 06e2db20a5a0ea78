"""What one side of a measured transfer says of itself, and what it moves."""

from __future__ import annotations

import random
import time
from typing import TypedDict

MIB = 1_048_576
GIB = 1024 * MIB

DATAGRAM = 1_452
"""Bytes of the datagrams that are measured, unless others are asked for: what Ethernet carries over IPv6."""

_PAGE = 4096


class Report(TypedDict, total=False):
    """One side of one transfer; times in seconds, sizes in bytes."""

    digest: str
    """BLAKE3 of what was moved, as 64 hex characters, from the transfer itself; of several items all that differ."""
    landed: str
    """The same of what lies at the receiver, read once more when the clock had stopped."""
    seconds: float
    """From the completed handshake, as this side saw it, to the end of the transfer."""
    cpu: float
    """User and system time of all threads of the process, from the completed handshake to the end of the transfer."""
    cpu_total: float
    """The same of the whole process: interpreter, imports and handshake too."""
    engine: str
    """The QUIC engine: ``native`` or ``aioquic``."""
    aead: str
    """What seals and opens its packets: ``evp``, which is OpenSSL, or ``ipsec-mb``."""
    rss_before: int
    """RssAnon just before the transfer."""
    rss_peak: int
    """The greatest RssAnon during the transfer."""
    samples: list[tuple[int, int]]
    """Nanoseconds on the clock that all processes share, and the bytes that this side then called done."""


class Meter:
    """Measures this process from :meth:`start` on."""

    def start(self) -> None:
        """The handshake is complete."""
        self._cpu, self._clock = time.process_time(), time.monotonic()

    def stop(self, digest: str) -> Report:
        """The transfer is over."""
        cpu, clock = time.process_time(), time.monotonic()
        return Report(digest=digest, seconds=clock - self._clock, cpu=cpu - self._cpu, cpu_total=cpu)


def content(size: int) -> bytes:
    """``size`` bytes that no layer could shrink, the same each time."""
    piece = random.Random(0).randbytes(MIB)
    return piece * (size // MIB) + piece[: size % MIB]


def touched(size: int) -> bytearray:
    """``size`` bytes whose pages are all present, so that no transfer into them has to wait for the kernel's."""
    buffer = bytearray(size)
    buffer[::_PAGE] = bytes(len(range(0, size, _PAGE)))
    return buffer
