# Invariant: whatever a stranger's first datagram holds, the endpoint's functions for it return (a token, a Retry, a
# Version Negotiation packet, or nothing) and never raise; no answer is more than three times as long as what it
# answers; a token is believed only if it was issued, for its own address and connection ID.
"""Tokens, Retry and Version Negotiation: what is answered before there is a connection."""

from __future__ import annotations

import functools
from collections.abc import Hashable

from spaceblock.quic.handshake.first_packets import VERSION, RetryTokens, initial_token, version_negotiation

from .choices import Choices, piece

ADDRESS, OTHER_ADDRESS = ("192.0.2.1", 4433), ("192.0.2.2", 4433)
NOW = 1_000.0
DATAGRAM = 1_200


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    kind = choices.below(3)
    if kind == 0:
        return _datagram(choices.rest())
    if kind == 1:
        return _token(choices)
    packet = version_negotiation(choices.take(choices.byte()), choices.take(choices.byte()))
    assert len(packet) <= 1 + 4 + 2 * (1 + 255) + 2 * 4
    return "negotiation"


def seeds() -> dict[str, bytes]:
    return {
        "initial": b"\0" + _initial(b""),
        "initial-with-a-token": b"\0" + _initial(b"token"),
        "other-version": b"\0\xc0\x1a\x2a\x3a\x4a\x08" + bytes(8) + b"\x08" + bytes(8),
        "negotiation": b"\0\xc0\0\0\0\0\x08" + bytes(8) + b"\x08" + bytes(8) + b"\0\0\0\1",
        "short": b"\0\x40" + bytes(40),
        "good-token": b"\1\0\0",
        "changed-token": b"\1" + piece(b"\0\0\1") + b"\0",
        "own-token": b"\1" + piece(b"") + b"\1" + b"token",
        "other-address": b"\1" + piece(b"") + b"\2",
        "version-negotiation": b"\2\x08" + bytes(8) + b"\x14" + bytes(20),
        "longest-version-negotiation": b"\2\xff" + bytes(255) + b"\xff" + bytes(255),
    }


def _initial(token: bytes) -> bytes:
    """An Initial packet's head (RFC 9000, section 17.2.2)."""
    ids = b"\x08" + bytes(range(8)) + b"\x08" + bytes(range(8, 16))
    return b"\xc0" + VERSION.to_bytes(4, "big") + ids + bytes([len(token)]) + token + b"\x41\x00" + bytes(256)


def _datagram(data: bytes) -> Hashable:
    """As the endpoint takes it: only what is long enough is answered at all."""
    token = initial_token(data)
    padded = data.ljust(DATAGRAM, b"\0")
    stop = 6 + padded[5]
    cid = padded[6:stop]
    if padded[0] < 0x80 or (version := int.from_bytes(padded[1:5], "big")) == 0:
        return "none"
    if version != VERSION:
        version_negotiation(cid, padded[stop + 1 : stop + 1 + padded[stop]])
        return "version"
    token = initial_token(padded)
    if token is None or len(cid) < 8:
        return "none"
    if token:
        assert _tokens().validate(token, cid, ADDRESS, NOW) is None
        return "token"
    answer = _tokens().retry(padded, ADDRESS, NOW)
    assert len(answer) <= 3 * DATAGRAM
    return "retry"


def _token(choices: Choices) -> Hashable:
    changes, kind, rest = choices.piece(), choices.below(4), choices.rest()
    good, cid = _issued()
    token = bytes(a ^ b for a, b in zip(good, changes.ljust(len(good), b"\0"), strict=False))
    token = rest if kind == 1 else token + rest
    address = OTHER_ADDRESS if kind == 2 else ADDRESS
    used = bytes(8) if kind == 3 else cid
    found = _tokens().validate(token, used, address, NOW)
    is_good = token == good and address == ADDRESS and used == cid
    assert found == (bytes(range(8)) if is_good else None)
    return is_good


@functools.cache
def _tokens() -> RetryTokens:
    return RetryTokens()


@functools.cache
def _issued() -> tuple[bytes, bytes]:
    """The token that a Retry packet carried, and the connection ID that it told the client to use."""
    packet = _tokens().retry(_initial(b"").ljust(DATAGRAM, b"\0"), ADDRESS, NOW)
    at = 6 + packet[5]
    cid = packet[at + 1 : at + 1 + packet[at]]
    return packet[at + 1 + packet[at] : -16], cid
