"""The connection IDs of both sides: issued, used, replaced and retired (RFC 9000, section 5.1).

Rules: this side has as many IDs at the peer as the handshake left there, and replaces each one that the peer retires.
Of the peer's, one is used on each path, and never on two paths that it is not told to be one (section 9.5); who gives
back a path gives back its ID, which is retired and never used again. The one in use is exchanged when this side moves,
and after a while.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...core import encode_uint_var
from ..handover import ConnectionId, HandOver
from ..handshake.first_packets import CID_SIZE
from .engine import CONNECTION_ID_LIMIT_ERROR, FRAME_ENCODING_ERROR, PROTOCOL_VIOLATION

if TYPE_CHECKING:
    from .engine_shell import NativeEngine

IDS_MAX = 8
"""Connection IDs of the peer that are kept: what the handshake announced as active_connection_id_limit."""

RETIRED_MAX = 4 * IDS_MAX
"""RETIRE_CONNECTION_ID frames without an acknowledgement: more is an attack (section 5.1.2)."""

GAPS_MAX = 64
"""Numbers of the peer's IDs that are remembered beyond the first that is missing; they have to be consecutive."""


class ConnectionIds:
    """The IDs of one connection; ``token_of`` makes the stateless reset token of an ID of ours."""

    def __init__(self, engine: NativeEngine, state: HandOver, token_of: Callable[[bytes], bytes] | None) -> None:
        self.current: ConnectionId = state.peer_id
        """The ID of the peer that packets are sent to."""

        self._engine = engine
        self._token_of = token_of
        self._local = {local.sequence: local for local in state.local_ids}
        self._next_sequence = 1 + max(self._local)
        self._spare = {spare.sequence: spare for spare in state.spare_peer_ids}
        self._lent: dict[int, ConnectionId] = {}  # to paths that are not the one in use
        self._retired_below = state.peer_ids_retired_below
        self._retiring: set[int] = set()  # without an acknowledgement
        # What the peer has numbered so far; what of it is not kept any more is retired.
        self._numbered_below = self._retired_below
        self._numbered = set(state.peer_ids_known)
        self._close_gaps()
        self.tokens: tuple[bytes, ...] = ()
        """The stateless reset tokens of all IDs of the peer that are in use; they are asked for at every wake-up."""
        self._note_tokens()

    # The peer's.

    @property
    def has_spare(self) -> bool:
        """Whether :meth:`lend` has one to give."""
        return bool(self._spare) or not self.current.cid

    def lend(self) -> ConnectionId | None:
        """An ID for another path, to be put to :meth:`use` or given back by :meth:`retire`; None while there is none.

        A peer that chose an ID of no bytes has no other, and no need of it.
        """
        if not self.current.cid:
            return self.current
        if not self._spare:
            return None
        fresh = self._spare.pop(min(self._spare))
        self._lent[fresh.sequence] = fresh
        self._note_tokens()
        return fresh

    def has_lent(self, known: ConnectionId) -> bool:
        """Whether an ID may be used still: it is the current one or was lent, and is not retired."""
        return known is self.current or known.sequence in self._lent

    def use(self, known: ConnectionId) -> None:
        """Send packets to an ID that was lent, and lend the one that was used until now."""
        if known is self.current:
            return
        self._lent.pop(known.sequence, None)
        self._lent[self.current.sequence] = self.current
        self.current = known
        self._note_tokens()
        self._engine.packets.set_peer_cid(known.cid)

    def retire(self, known: ConnectionId) -> None:
        """Use an ID that was lent no more."""
        if self._lent.pop(known.sequence, None) is not None:
            self._note_tokens()
            self._send_retire(known.sequence)

    def replace(self) -> bool:
        """Use another ID from now on, and never again the one that was used; False where the peer left none."""
        old, fresh = self.current, self.lend()
        if fresh is None:
            return False
        if fresh is not old:
            self.use(fresh)
            self.retire(old)
        return True

    def take(self, sequence: int, retire_before: int, cid: bytes, token: bytes) -> None:
        """NEW_CONNECTION_ID (section 19.15)."""
        if not 1 <= len(cid) <= 20 or retire_before > sequence:
            self._violate(FRAME_ENCODING_ERROR, 0x18, "a malformed connection ID")
            return
        if not self.current.cid:
            self._violate(PROTOCOL_VIOLATION, 0x18, "a connection ID from a peer that uses none")
            return
        for known in (self.current, *self._lent.values(), *self._spare.values()):
            same = (known.sequence == sequence, known.cid == cid)
            if any(same) and not (all(same) and known.token == token):
                self._violate(PROTOCOL_VIOLATION, 0x18, "two connection IDs with one number, or one with two")
                return
        if sequence < self._retired_below:
            self._send_retire(sequence)
        elif sequence >= self._numbered_below and sequence not in self._numbered:
            self._spare[sequence] = ConnectionId(cid, sequence, token)
            self._numbered.add(sequence)
            self._close_gaps()
        if retire_before > self._retired_below:
            self._retire_peer_before(retire_before)
        if 1 + len(self._lent) + len(self._spare) > IDS_MAX:
            self._violate(CONNECTION_ID_LIMIT_ERROR, 0x18, "more connection IDs than this side keeps")
        elif len(self._numbered) > GAPS_MAX:
            self._violate(PROTOCOL_VIOLATION, 0x18, "connection IDs that are not numbered one by one")

    def _retire_peer_before(self, bound: int) -> None:
        self._retired_below = bound
        self._numbered_below = max(self._numbered_below, bound)
        self._close_gaps()
        for kept in (self._spare, self._lent):
            for sequence in [sequence for sequence in kept if sequence < bound]:
                del kept[sequence]
                self._send_retire(sequence)
        self._note_tokens()
        if self.current.sequence < bound:
            self.replace()

    def _note_tokens(self) -> None:
        self.tokens = tuple(known.token for known in (self.current, *self._lent.values()) if known.token)

    def _close_gaps(self) -> None:
        self._numbered = {number for number in self._numbered if number >= self._numbered_below}
        while self._numbered_below in self._numbered:
            self._numbered.discard(self._numbered_below)
            self._numbered_below += 1

    # RETIRE_CONNECTION_ID frames of this side.

    def retire_arrived(self, sequence: int) -> None:
        """The peer knows that one of its IDs is retired."""
        self._retiring.discard(sequence)

    def retire_lost(self, sequence: int) -> None:
        """Say it again."""
        if sequence in self._retiring:
            self._engine.packets.send_control(b"\x19" + encode_uint_var(sequence), ("retire", sequence))

    def _send_retire(self, sequence: int) -> None:
        self._retiring.add(sequence)
        self.retire_lost(sequence)
        if len(self._retiring) > RETIRED_MAX:
            self._violate(CONNECTION_ID_LIMIT_ERROR, 0x18, "more connection IDs to retire than are acknowledged")

    # Ours.

    def retire_local(self, sequence: int) -> None:
        """RETIRE_CONNECTION_ID (section 19.16): the peer gets another one for it."""
        if sequence >= self._next_sequence:
            self._violate(PROTOCOL_VIOLATION, 0x19, "a connection ID that was never issued")
            return
        retired = self._local.pop(sequence, None)
        if retired is None:
            return
        cid = os.urandom(CID_SIZE)
        token = os.urandom(16) if self._token_of is None else self._token_of(cid)
        fresh = ConnectionId(cid, self._next_sequence, token)
        self._next_sequence += 1
        self._local[fresh.sequence] = fresh
        head = b"\x18" + encode_uint_var(fresh.sequence) + b"\x00" + bytes([len(fresh.cid)])
        self._engine.packets.set_local_cids([local.cid for local in self._local.values()])
        self._engine.issue_route(fresh.cid)
        self._engine.retire_route(retired.cid)
        self._engine.packets.send_control(head + fresh.cid + fresh.token)

    def _violate(self, code: int, kind: int, reason: str) -> None:
        self._engine.packets.violate(code, kind, reason)
