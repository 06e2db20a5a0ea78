"""Frames that come now and then: resets, stops, stream limits, connection IDs, path challenges, and the close.

Each rule is one of RFC 9000, section 19; the section's number is beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .engine import ELSEWHERE, FRAME_ENCODING_ERROR, PROTOCOL_VIOLATION
from .ids import ConnectionIds
from .paths import Paths

if TYPE_CHECKING:
    from .engine_shell import NativeEngine

STREAMS_MAX = 2**60
"""A stream's number must fit into 62 bits with its two low ones (section 4.6)."""


class RareFrames:
    """What each rare frame does to the engine, to its connection IDs and to its paths."""

    def __init__(self, engine: NativeEngine, ids: ConnectionIds, paths: Paths) -> None:
        self._engine = engine
        self._ids = ids
        self._paths = paths

    def handle(self, frame: tuple[Any, ...], now: float) -> None:
        """Act on one frame: its type and its fields, already taken apart."""
        kind, *fields = frame
        engine = self._engine
        if kind == 0x04:  # RESET_STREAM, 19.4
            engine.peer_reset(*fields)
        elif kind == 0x05:  # STOP_SENDING, 19.5
            engine.peer_stopped(*fields)
        elif kind == 0x11:  # MAX_STREAM_DATA, 19.10
            engine.peer_allows(*fields)
        elif kind in (0x12, 0x13, 0x16, 0x17):  # MAX_STREAMS, STREAMS_BLOCKED: 19.11, 19.14
            if fields[0] > STREAMS_MAX:
                self._violate(FRAME_ENCODING_ERROR, kind, "more streams than can be numbered")
            elif kind <= 0x13:
                engine.allow_streams(kind == 0x13, fields[0])
        elif kind == 0x15:  # STREAM_DATA_BLOCKED, 19.13
            engine.peer_blocked(fields[0])
        elif kind == 0x18:  # NEW_CONNECTION_ID, 19.15
            self._ids.take(fields[0], fields[1], fields[2][1:-16], fields[2][-16:])
        elif kind == 0x19:  # RETIRE_CONNECTION_ID, 19.16
            self._ids.retire_local(fields[0])
        elif kind == 0x1A:  # PATH_CHALLENGE, 19.17
            self._paths.challenged(*fields)
        elif kind == 0x1B:  # PATH_RESPONSE, 19.18
            self._paths.answered(fields[0], now)
        elif kind == ELSEWHERE:
            address, size, theirs, moved = fields
            self._paths.visited(address, size, theirs, moved, now)
        elif kind in (0x1C, 0x1D):  # CONNECTION_CLOSE, 19.19
            reason = fields[-1].decode("utf-8", "replace")
            engine.closed_by_peer(fields[0], reason, kind == 0x1D, now)
        elif kind == 0x07 and self._engine.is_client:  # NEW_TOKEN, 19.7: not kept, since nothing is resumed
            if not fields[-1]:
                self._violate(FRAME_ENCODING_ERROR, kind, "a token without bytes")
        elif kind in (0x07, 0x1E) and not self._engine.is_client:  # NEW_TOKEN, HANDSHAKE_DONE: 19.7, 19.20
            self._violate(PROTOCOL_VIOLATION, kind, "a frame that only a server sends")

    def _violate(self, code: int, kind: int, reason: str) -> None:
        self._engine.packets.violate(code, kind, reason)
