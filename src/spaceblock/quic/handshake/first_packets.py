"""What is read and answered before there is a connection: an Initial packet's token, Retry, Version Negotiation."""

from __future__ import annotations

import os
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it does not list what it re-exports
from aioquic.quic.packet import (
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from .private_names import OLD_SERIES

CID_SIZE = 8
"""Bytes of the connection IDs that we choose; a short header does not say their length."""

VERSION = int(QuicProtocolVersion.VERSION_1)

_LONG_HEADERS_MAX = 4  # of one datagram: an Initial, an early and a Handshake packet, and one more


class RetryTokens:
    """Address validation by Retry (RFC 9000, section 8.1.2): tokens are sealed and kept nowhere."""

    def __init__(self) -> None:
        self._handler = QuicRetryTokenHandler()

    def retry(self, data: bytes, address: Any, now: float) -> bytes:
        """The Retry packet that answers the Initial packet in ``data``."""
        header = pull_quic_header(Buffer(data=data), host_cid_length=CID_SIZE)
        source_cid = os.urandom(CID_SIZE)
        handler: Any = self._handler
        if OLD_SERIES:
            token = handler.create_token(address, header.destination_cid, source_cid)
        else:
            token = handler.create_token(
                address=address,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=source_cid,
                now=now,
            )
        return encode_quic_retry(
            version=VERSION,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )

    def validate(self, token: bytes, destination_cid: bytes, address: Any, now: float) -> bytes | None:
        """The connection ID that the client chose before the Retry, or None for a token that is not ours."""
        handler: Any = self._handler
        try:
            if OLD_SERIES:
                original_cid, retry_cid = handler.validate_token(address, token)
                return original_cid if retry_cid == destination_cid else None
            return handler.validate_token(  # type: ignore[no-any-return]
                address=address, destination_cid=destination_cid, token=token, now=now
            )
        except ValueError:
            return None


def initial_token(data: bytes) -> bytes | None:
    """The token of the Initial packet that ``data`` begins with, maybe empty; None if it begins with something else."""
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=CID_SIZE)
    except ValueError:
        return None
    return header.token if header.packet_type == QuicPacketType.INITIAL else None


def behind_long_headers(data: bytes) -> bytes:
    """The packet with a short header behind the others of a datagram, maybe empty (RFC 9000, section 12.2)."""
    buffer = Buffer(data=data)
    start = 0
    try:
        for _ in range(_LONG_HEADERS_MAX):
            if start == len(data) or not data[start] & 0x80:
                return data[start:]
            start += pull_quic_header(buffer, host_cid_length=CID_SIZE).packet_length
            buffer.seek(start)
    except ValueError:
        pass  # what follows cannot be found
    return b""


def version_negotiation(source_cid: bytes, destination_cid: bytes) -> bytes:
    """The packet that tells a client of which version we are (RFC 9000, section 6)."""
    return encode_quic_version_negotiation(
        source_cid=source_cid, destination_cid=destination_cid, supported_versions=[VERSION]
    )
