"""The transport: one UDP socket, any number of QUIC connections, behind an interface that no engine shows through.

``interface`` is what the rest of Spaceblock sees. ``endpoint`` owns socket and timers, ``connection`` drives one
connection, and ``handshake`` is the only place that imports aioquic. Importing this package imports none of them but
the interface.
"""

from __future__ import annotations

from .interface import (
    CloseReason,
    Connection,
    ConnectionEnded,
    HandshakeConfig,
    Stream,
    StreamStopped,
    TransportOptions,
)

__all__ = [
    "CloseReason",
    "Connection",
    "ConnectionEnded",
    "HandshakeConfig",
    "Stream",
    "StreamStopped",
    "TransportOptions",
]
