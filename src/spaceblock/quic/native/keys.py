"""Key material of packet protection: the suites, what a traffic secret yields, and how long a key may serve (RFC 9001).

A suite is named by TLS, a secret comes from the TLS key schedule; both are long-lived, so this is plain Python.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes

__all__ = [
    "CONFIDENTIALITY_LIMIT",
    "INTEGRITY_LIMIT",
    "IV_SIZE",
    "SUITES",
    "Keys",
    "Suite",
    "derive",
    "later_keys",
    "next_secret",
]

IV_SIZE = 12
"""Bytes of an IV, and so of a nonce, in every suite."""


class Suite(IntEnum):
    """The AEADs of TLS 1.3 that QUIC uses, by the numbers that ``protection`` gives them."""

    AES_128_GCM = 1
    AES_256_GCM = 2
    CHACHA20_POLY1305 = 3

    @property
    def key_size(self) -> int:
        """Bytes of a packet key, and of a header protection key."""
        return 16 if self is Suite.AES_128_GCM else 32

    @property
    def secret_size(self) -> int:
        """Bytes of a traffic secret: a digest of the suite's hash."""
        return self.hash.digest_size

    @property
    def hash(self) -> hashes.HashAlgorithm:
        """The hash of the TLS cipher suite, from which its secrets are expanded (RFC 8446, appendix B.4)."""
        return hashes.SHA384() if self is Suite.AES_256_GCM else hashes.SHA256()


SUITES = {
    "AES_128_GCM_SHA256": Suite.AES_128_GCM,
    "AES_256_GCM_SHA384": Suite.AES_256_GCM,
    "CHACHA20_POLY1305_SHA256": Suite.CHACHA20_POLY1305,
}
"""By the names of their TLS cipher suites."""

CONFIDENTIALITY_LIMIT = {
    Suite.AES_128_GCM: 2**23,
    Suite.AES_256_GCM: 2**23,
    Suite.CHACHA20_POLY1305: 2**62,
}
"""Packets that one key may seal before it must be updated (RFC 9001, section 6.6)."""

INTEGRITY_LIMIT = {
    Suite.AES_128_GCM: 2**52,
    Suite.AES_256_GCM: 2**52,
    Suite.CHACHA20_POLY1305: 2**36,
}
"""Packets of one connection, over all its keys, that may fail to open before it must be closed (section 6.6)."""


class Keys(NamedTuple):
    """What protects the packets of one direction and key phase; ``header`` outlives key updates (section 6.1)."""

    key: bytes
    iv: bytes
    header: bytes


def derive(suite: int, secret: bytes) -> Keys:
    """The keys that a traffic secret yields (section 5.1); ValueError for an unknown suite or a wrong size."""
    known = Suite(suite)
    return Keys(
        expand(known, secret, b"quic key", known.key_size),
        expand(known, secret, b"quic iv", IV_SIZE),
        expand(known, secret, b"quic hp", known.key_size),
    )


def next_secret(suite: int, secret: bytes) -> bytes:
    """The secret of the following key phase (section 6.1); keep the header key of the first."""
    known = Suite(suite)
    return expand(known, secret, b"quic ku", known.secret_size)


def later_keys(suite: int, secret: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and IV of each key phase after that of a traffic secret, one after the other without an end."""
    known = Suite(suite)
    while True:
        secret = next_secret(known, secret)
        yield expand(known, secret, b"quic key", known.key_size), expand(known, secret, b"quic iv", IV_SIZE)


def expand(suite: Suite, secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446, section 7.1)."""
    if len(secret) != suite.secret_size:
        raise ValueError(f"a secret of {len(secret)} bytes, where {suite.name} has {suite.secret_size}; pass TLS's own")
    full = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
    # The first block of HKDF-Expand (RFC 5869, section 2.3): nothing that QUIC derives is longer than a digest.
    return hmac.digest(secret, info + b"\x01", suite.hash.name)[:size]
