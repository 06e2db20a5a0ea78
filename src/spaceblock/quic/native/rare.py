"""Frames that come now and then: resets, stops, stream limits, connection IDs, path challenges, and the close.

Each rule is one of RFC 9000, section 19; the section's number is beside it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...core import encode_uint_var
from ..handover import ConnectionId, HandOver

if TYPE_CHECKING:
    from .engine_shell import NativeEngine

STREAMS_MAX = 2**60
"""A stream's number must fit into 62 bits with its two low ones (section 4.6)."""

IDS_MAX = 8
"""Connection IDs of the peer that are kept: what the handshake announced as active_connection_id_limit."""

RETIRED_MAX = 32
"""RETIRE_CONNECTION_ID frames caused by one NEW_CONNECTION_ID: more is an attack (section 19.15)."""

_FRAME_ENCODING_ERROR = 0x07
_CONNECTION_ID_LIMIT_ERROR = 0x09
_PROTOCOL_VIOLATION = 0x0A


class RareFrames:
    """The connection IDs of both sides, and what each rare frame does to the engine."""

    def __init__(self, engine: NativeEngine, state: HandOver) -> None:
        self._engine = engine
        self._is_client = state.is_client
        self._local = {local.sequence: local for local in state.local_ids}
        self._next_sequence = 1 + max(self._local)
        self._peer = state.peer_id
        self._spare = {spare.sequence: spare for spare in state.spare_peer_ids}
        self._retired_below = 0

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
                self._violate(_FRAME_ENCODING_ERROR, kind, "more streams than can be numbered")
            elif kind <= 0x13:
                engine.allow_streams(kind == 0x13, fields[0])
        elif kind == 0x15:  # STREAM_DATA_BLOCKED, 19.13
            engine.peer_blocked(fields[0])
        elif kind == 0x18:  # NEW_CONNECTION_ID, 19.15
            self._take_id(fields[0], fields[1], fields[2][1:-16], fields[2][-16:])
        elif kind == 0x19:  # RETIRE_CONNECTION_ID, 19.16
            self._retire_local(fields[0])
        elif kind == 0x1A:  # PATH_CHALLENGE, 19.17
            engine.packets.send_control(b"\x1b" + fields[0])
        elif kind in (0x1C, 0x1D):  # CONNECTION_CLOSE, 19.19
            reason = fields[-1].decode("utf-8", "replace")
            engine.closed_by_peer(fields[0], reason, kind == 0x1D, now)
        elif kind in (0x07, 0x1E) and not self._is_client:  # NEW_TOKEN, HANDSHAKE_DONE: 19.7, 19.20
            self._violate(_PROTOCOL_VIOLATION, kind, "a frame that only a server sends")

    def _take_id(self, sequence: int, retire_before: int, cid: bytes, token: bytes) -> None:
        if not 1 <= len(cid) <= 20 or retire_before > sequence:
            self._violate(_FRAME_ENCODING_ERROR, 0x18, "a malformed connection ID")
            return
        known = self._peer if self._peer.sequence == sequence else self._spare.get(sequence)
        if known is not None:
            if known.cid != cid:
                self._violate(_PROTOCOL_VIOLATION, 0x18, "two connection IDs with one number")
            return
        if sequence < self._retired_below:
            self._send_retire(sequence)
            return
        self._spare[sequence] = ConnectionId(cid, sequence, token)
        if retire_before > self._retired_below:
            self._retire_peer_before(retire_before)
        if len(self._spare) + 1 > IDS_MAX:
            self._violate(_CONNECTION_ID_LIMIT_ERROR, 0x18, "more connection IDs than this side keeps")

    def _retire_peer_before(self, bound: int) -> None:
        self._retired_below = bound
        old = [sequence for sequence in self._spare if sequence < bound]
        if len(old) > RETIRED_MAX:
            self._violate(_PROTOCOL_VIOLATION, 0x18, "too many connection IDs retired at once")
            return
        for sequence in old:
            del self._spare[sequence]
            self._send_retire(sequence)
        if self._peer.sequence < bound and self._spare:
            self._send_retire(self._peer.sequence)
            self._peer = self._spare.pop(min(self._spare))
            self._engine.packets.set_peer_cid(self._peer.cid)

    def _retire_local(self, sequence: int) -> None:
        if sequence >= self._next_sequence:
            self._violate(_PROTOCOL_VIOLATION, 0x19, "a connection ID that was never issued")
            return
        retired = self._local.pop(sequence, None)
        if retired is None:
            return
        fresh = ConnectionId(os.urandom(8), self._next_sequence, os.urandom(16))
        self._next_sequence += 1
        self._local[fresh.sequence] = fresh
        head = b"\x18" + encode_uint_var(fresh.sequence) + b"\x00" + bytes([len(fresh.cid)])
        self._engine.packets.send_control(head + fresh.cid + fresh.token)
        self._engine.packets.set_local_cids([local.cid for local in self._local.values()])
        self._engine.issue_route(fresh.cid)
        self._engine.retire_route(retired.cid)

    def _send_retire(self, sequence: int) -> None:
        self._engine.packets.send_control(b"\x19" + encode_uint_var(sequence))

    def _violate(self, code: int, kind: int, reason: str) -> None:
        self._engine.packets.violate(code, kind, reason)
