"""Where the peer is: addresses that change, and how they are validated (RFC 9000, sections 8.2 and 9).

Rules: the peer's newest packet that does more than probe says where it is. From then on packets go there, but until an
answer has come from there, no more than three times of what came (section 9.3.1); if none comes, they go back to the
address that was validated last. Only a server's peer moves, since a client knows one address of its server. What is
sent here is for the path alone: nobody repeats a PATH_RESPONSE, and neither round trips nor windows come from it.

Times are in seconds on the event loop's clock, sizes in bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Any

from ...process.lazily import dataclass
from ..handover import ConnectionId, HandOver
from .ids import ConnectionIds

if TYPE_CHECKING:
    from .engine_shell import NativeEngine

MICROSECONDS = 1_000_000
"""Of a second: the compiled modules count in these."""

DATAGRAM_SIZE = 1_200
"""Bytes of a datagram with a challenge or an answer: the path must be able to carry them (section 8.2.1)."""

AMPLIFICATION = 3
"""Times what came from an address that may be sent there before it is validated (section 8.1)."""

PATHS_MAX = 4
"""Addresses that only probed, and whose connection IDs are kept."""

ANSWERS_MAX = 4
"""Challenges on one path that are answered at once; of more, the last ones."""

INITIAL_PTO = 0.999
"""The probe time-out of a path of which nothing is known (RFC 9002, section 6.2.2)."""

PATIENCE = 3
"""Probe time-outs after which a path that does not answer is given up (section 8.2.4)."""


@dataclass(slots=True, eq=False)
class Path:
    """One address of the peer; ``room`` is what may be sent there while it is not validated and not in use."""

    address: Any
    theirs: bytes
    """The connection ID of ours that the peer uses on it."""

    ours: ConnectionId | None = None
    """The peer's that this side uses on it; of the path in use, that is the current one whatever stands here."""

    is_valid: bool = False
    room: int = 0
    answers: list[bytes] = field(default_factory=list)
    """Challenges of the peer."""

    outstanding: dict[bytes, bool] = field(default_factory=dict)
    """Challenges of ours, and whether their datagrams had the full size."""

    is_due: bool = False
    """A challenge is to be sent."""

    next_at: float = 0.0
    interval: float = 0.0
    deadline: float | None = None

    def begin(self, interval: float, deadline: float) -> None:
        """Ask whether the peer is there."""
        self.is_due, self.interval, self.deadline = True, interval, deadline

    def end(self) -> None:
        """Ask no more."""
        self.is_due, self.deadline = False, None
        self.outstanding.clear()


class Paths:
    """The paths of one connection. :attr:`has_work` says whether :meth:`to_send` would do anything."""

    def __init__(self, engine: NativeEngine, ids: ConnectionIds, state: HandOver, now: float) -> None:
        self.has_work: bool = False
        self._engine = engine
        self._packets = engine.packets
        self._ids = ids
        self._active = Path(state.peer_address, state.used_cid, is_valid=state.path_room is None)
        self._fallback: Path | None = None  # validated last, while the one in use is not
        self._others: list[Path] = []  # the one that was heard of last is the last
        self._packets.peer_is_fixed = state.is_client
        self._packets.move_to(state.peer_address, state.used_cid)
        if state.path_room is not None:
            if state.validated_address is not None:
                self._fallback = Path(state.validated_address, state.used_cid, ids.current, is_valid=True)
            self._packets.confine(state.path_room)
            self._begin(self._active, now)

    @property
    def address(self) -> Any:
        """Where the peer is now."""
        return self._active.address

    def is_known(self, address: Any) -> bool:
        """Whether the peer is at ``address``."""
        return same_place(address, self._active.address)

    def moved(self, now: float) -> None:
        """This side is elsewhere: ask whether the peer is there still, and be found by that (section 9.2)."""
        self._begin(self._active, now)

    # What came.

    def visited(self, address: Any, size: int, theirs: bytes, moved: bool, now: float) -> None:
        """Packets of ``size`` bytes in all came from an address that the peer was not at when they came."""
        if self.is_known(address):
            if not self._active.is_valid:
                self._packets.path_room += AMPLIFICATION * size
            return
        path = self._find(address)
        if path is None:
            path = Path(address, theirs)
            self._others.append(path)
            if len(self._others) > PATHS_MAX:
                self._give_back(self._others.pop(0))
        path.theirs = theirs
        path.room += AMPLIFICATION * size
        if moved:
            self._move_to(path, now)

    def challenged(self, data: bytes, address: Any) -> None:
        """PATH_CHALLENGE (section 19.17) came, from ``address`` if that is not where the peer was."""
        path = self._active if address is None or self.is_known(address) else self._find(address)
        if path is not None:
            path.answers.append(data)
            del path.answers[:-ANSWERS_MAX]
            self.has_work = True

    def answered(self, data: bytes, now: float) -> None:
        """PATH_RESPONSE (section 19.18) came; on which path it came does not matter (section 8.2.3)."""
        for path in self._all():
            if data in path.outstanding:
                had_full_size = path.outstanding[data]
                path.end()
                if not path.is_valid:
                    path.is_valid = True
                    if path is self._active:
                        self._confirmed(path)
                    if not had_full_size:
                        self._begin(path, now)
                return

    # What is due.

    def timer(self) -> float | None:
        """When :meth:`on_timer` is to be called."""
        if self._active.deadline is None and self._fallback is None and not self._others:
            return None  # as nearly always
        times = [
            path.deadline if path.is_due else min(path.next_at, path.deadline)
            for path in self._all()
            if path.deadline is not None
        ]
        return min(times, default=None)

    def on_timer(self, now: float) -> None:
        """Ask again, or give up."""
        for path in list(self._all()):
            if path.deadline is None:
                continue
            if now >= path.deadline:
                path.end()
                if path is self._active and not path.is_valid:
                    self._fall_back()
            elif now >= path.next_at:
                path.is_due = self.has_work = True

    def to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Datagrams with their addresses."""
        sent = []
        for path in self._all():
            if path.answers or path.is_due:
                datagram = self._datagram(path, now)
                if datagram:
                    sent.append((datagram, path.address))
        self.has_work = any(path.answers or path.is_due for path in self._all())
        return sent

    # Helpers.

    def _all(self) -> Iterator[Path]:
        yield self._active
        if self._fallback is not None:
            yield self._fallback
        yield from self._others

    def _find(self, address: Any) -> Path | None:
        return next((path for path in self._all() if same_place(path.address, address)), None)

    def _move_to(self, path: Path, now: float) -> None:
        """Section 9.3."""
        ours = self._id_for(path)
        if ours is None:
            return  # the peer changed its connection ID and left none for this side to answer with (section 9.5)
        old = self._active
        old.ours, old.theirs = self._ids.current, self._packets.used_cid
        if not old.is_valid:
            old.end()
        if path is self._fallback:
            self._fallback = None
        elif old.is_valid:
            self._fallback = old
        if path in self._others:
            self._others.remove(path)
        self._make_active(path, ours)
        if not path.is_valid:
            self._packets.confine(path.room)
            self._begin(path, now)
            # If somebody else brought a copy of the packet from here, the peer will answer from there (section 9.3.3).
            if self._fallback is not None and self._fallback.deadline is None:
                self._begin(self._fallback, now)
        if old is not self._fallback:
            self._give_back(old)

    def _confirmed(self, path: Path) -> None:
        """The peer is where it seemed to be (section 9.4)."""
        old, self._fallback = self._fallback, None
        self._packets.release()
        if old is None or old.address[0] != path.address[0]:
            self._engine.forget_path()
        self._packets.probe()
        if old is not None:
            self._give_back(old)

    def _fall_back(self) -> None:
        """Section 9.3.2."""
        path, self._fallback = self._fallback, None
        if path is None:
            self._engine.lose_path()
            return
        old = self._active
        old.ours = self._ids.current
        ours = path.ours if path.ours is not None and self._ids.has_lent(path.ours) else self._ids.current
        self._make_active(path, ours)
        self._packets.probe()
        self._give_back(old)

    def _make_active(self, path: Path, ours: ConnectionId) -> None:
        self._active = path
        self._ids.use(ours)
        self._packets.release()
        self._packets.move_to(path.address, path.theirs)

    def _begin(self, path: Path, now: float) -> None:
        pto = self._engine.pto
        longer = max(pto, INITIAL_PTO)
        known = path if path.is_valid else self._fallback
        is_near = known is not None and known.address[0] == path.address[0]
        path.begin(pto if is_near else longer, now + PATIENCE * longer)
        self.has_work = True

    def _id_for(self, path: Path) -> ConnectionId | None:
        """The ID of the peer to use on a path: another one, if the peer uses another one of ours (section 9.5)."""
        if path is self._active:
            return self._ids.current
        if path.ours is not None and self._ids.has_lent(path.ours):
            return path.ours
        if path.theirs == self._packets.used_cid:
            return self._ids.current
        path.ours = self._ids.lend()
        return path.ours

    def _give_back(self, path: Path) -> None:
        path.answers.clear()
        in_use = [other.ours for other in self._all() if other is not self._active]
        if path.ours is not None and path.ours not in (self._ids.current, *in_use):
            self._ids.retire(path.ours)

    def _datagram(self, path: Path, now: float) -> bytes:
        """Answers and a challenge in one packet; nothing while there is no room, or no ID to send it to."""
        ours = self._id_for(path)
        if ours is None:
            path.answers.clear()
            return b""
        frames = [b"\x1b" + data for data in path.answers]
        challenge = os.urandom(8) if path.is_due else b""
        if challenge:
            frames.append(b"\x1a" + challenge)
        if path.answers and path is self._active:
            frames.append(b"\x01")  # more than a probe, so that the peer sees that this path is in use (section 9.3.3)
        body = b"".join(frames)
        room = self._room(path)
        size = DATAGRAM_SIZE if room >= DATAGRAM_SIZE else 0
        if room < len(body) + _OVERHEAD + len(ours.cid):
            return b""
        packet = self._packets.path_packet(body, size, ours.cid, int(now * MICROSECONDS))
        if not packet:
            return b""
        self._spend(path, len(packet))
        path.answers.clear()
        if challenge:
            path.is_due = False
            path.outstanding[challenge] = len(packet) >= DATAGRAM_SIZE
            path.next_at = now + path.interval
            path.interval *= 2
        return packet

    def _room(self, path: Path) -> int:
        if path.is_valid:
            return DATAGRAM_SIZE
        return self._packets.path_room if path is self._active else path.room

    def _spend(self, path: Path, size: int) -> None:
        if path.is_valid:
            return
        if path is self._active:
            self._packets.path_room -= size
        else:
            path.room -= size


def same_place(one: Any, other: Any) -> bool:
    """Whether two addresses of one socket are the same; an IPv6 flow label tells nothing."""
    return bool(one[:2] == other[:2] and one[3:] == other[3:])


_OVERHEAD = 1 + 4 + 16  # first byte, packet number, tag
