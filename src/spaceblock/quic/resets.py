"""Stateless resets: what an endpoint says of a connection that it does not know any more (RFC 9000, section 10.3).

Rules: a token is made from a connection ID and a key that outlives the process, so nothing has to be remembered to send
one. A reset is smaller than what it answers, so that two endpoints cannot keep each other busy, and only so many are
sent a second. Tokens of peers are looked up by a keyed hash, so the time that it takes tells nothing of them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from typing import Generic, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .handshake.first_packets import CID_SIZE
from .interface import Address, HandshakeConfig

TOKEN_SIZE = 16

SIZE_MIN = 21
"""Bytes of the smallest datagram that may be taken for a reset (section 10.3)."""

RATE = 100
"""Resets sent in a second at most, and at once after a pause."""

C = TypeVar("C")


class StatelessResets(Generic[C]):
    """The resets of one endpoint: those that it sends, and those that its connections may get.

    ``key`` has 32 bytes; ``now`` is in seconds of any clock that goes forward.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._lookup_key = os.urandom(32)
        self._owners: dict[bytes, C] = {}  # by the keyed hash of a token
        self._watched: dict[C, tuple[bytes, ...]] = {}
        self._left = float(RATE)
        self._since = 0.0

    def token(self, cid: bytes) -> bytes:
        """The token that belongs to a connection ID of this endpoint."""
        return hashlib.blake2s(cid, key=self._key, digest_size=TOKEN_SIZE).digest()

    def watch(self, connection: C, tokens: tuple[bytes, ...]) -> None:
        """From now on these tokens, and no others, end ``connection``: those of the peer's IDs that are in use.

        A token that another connection has stays with that one.
        """
        for known in self._watched.pop(connection, ()):
            del self._owners[known]
        found = [self._hash(token) for token in tokens if len(token) == TOKEN_SIZE]
        mine = tuple(dict.fromkeys(token for token in found if token not in self._owners))
        self._owners.update(dict.fromkeys(mine, connection))
        if mine:
            self._watched[connection] = mine

    def connection_of(self, datagram: bytes) -> C | None:
        """The connection that ``datagram``, which no connection ID leads to, ends if its address is the right one."""
        if not self._owners or len(datagram) < SIZE_MIN:
            return None
        return self._owners.get(self._hash(datagram[-TOKEN_SIZE:]))

    def answer(self, datagram: bytes, now: float) -> bytes | None:
        """The reset for a packet with a short header and an unknown connection ID of ours; None for silence.

        It looks like any other packet (section 10.3), and is smaller than ``datagram`` (section 10.3.3).
        """
        size = min(len(datagram) - 1, _SIZE + secrets.randbelow(_SIZE_SPREAD))
        if size < SIZE_MIN or datagram[0] & 0xC0 != 0x40:
            return None
        self._left = min(RATE, self._left + (now - self._since) * RATE)
        self._since = now
        if self._left < 1:
            return None
        self._left -= 1
        noise = bytearray(os.urandom(size - TOKEN_SIZE))
        noise[0] = 0x40 | noise[0] & 0x3F
        return bytes(noise) + self.token(datagram[1 : 1 + CID_SIZE])

    def _hash(self, token: bytes) -> bytes:
        return hashlib.blake2s(token, key=self._lookup_key, digest_size=16).digest()


def reset_key(handshake: HandshakeConfig | None, address: Address) -> bytes:
    """The key of an endpoint's tokens: the same again after a restart, for a server that has a private key.

    It is one key for each address of each machine. Otherwise whoever can send a packet of one connection to another
    server that has the same identity would be told the token that ends it (RFC 9000, section 21.11).
    """
    if handshake is None or handshake.private_key is None:
        return os.urandom(32)
    secret = handshake.private_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    host, port = address
    place = f"{socket.gethostname()} {host} {port}".encode()
    return hashlib.blake2s(place, key=secret, person=b"resetkey").digest()


_SIZE = 43  # up to this size a reset is one byte smaller than what it answers
_SIZE_SPREAD = 16
