"""Chance that is the same each time: random bytes and fresh keys come from a seed while a simulation runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import ModuleType
from typing import Any

from aioquic import tls
from aioquic.quic import retry
from aioquic.quic.stream import QuicStream
from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


@contextmanager
def steady(seed: int) -> Iterator[None]:
    """Connection IDs, nonces and the keys of handshakes are those of ``seed``, so that every byte sent is."""
    chance = Random(f"chance {seed}")
    stand_ins: list[tuple[Any, str, Any]] = [
        (os, "urandom", chance.randbytes),
        (tls, "ec", _StandIn(ec, generate_private_key=lambda curve: _curve_key(chance, curve))),
        (tls, "x25519", _StandIn(x25519, X25519PrivateKey=_Generating(x25519.X25519PrivateKey, chance, 32))),
        (tls, "x448", _StandIn(x448, X448PrivateKey=_Generating(x448.X448PrivateKey, chance, 56))),
        (retry, "AESGCM", _Sealing(chance)),
        # It keeps streams in sets, whose order would be that of their places in memory.
        (QuicStream, "__hash__", lambda stream: stream.stream_id or 0),
    ]
    real = [getattr(owner, name) for owner, name, _ in stand_ins]
    try:
        for owner, name, stand_in in stand_ins:
            setattr(owner, name, stand_in)
        yield
    finally:
        for (owner, name, _), thing in zip(stand_ins, real, strict=True):
            setattr(owner, name, thing)


class _StandIn:
    """A module, except for some of its names."""

    def __init__(self, module: ModuleType, **others: Any) -> None:
        self._module = module
        self.__dict__.update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _Generating:
    """A class of private keys that makes new ones from a seed."""

    def __init__(self, kind: Any, chance: Random, size: int) -> None:
        self._kind = kind
        self._chance = chance
        self._size = size

    def generate(self) -> Any:
        return self._kind.from_private_bytes(self._chance.randbytes(self._size))


class _Sealing:
    """AES-GCM with keys from a seed."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def __call__(self, key: bytes) -> AESGCM:
        return AESGCM(key)

    def generate_key(self, bit_length: int) -> bytes:
        return self._chance.randbytes(bit_length // 8)


def _curve_key(chance: Random, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(chance.getrandbits(curve.key_size - 8) + 1, curve)
