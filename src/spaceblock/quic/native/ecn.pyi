"""Whether a path carries ECN marks, and what the peer's counts say of it (RFC 9000, section 13.4)."""

from typing import Final, final

ECT_1: Final[int]
ECT_0: Final[int]
CE: Final[int]
"""The two bits of the IP header (RFC 3168, section 5), like the two before."""

ECN_OFF: Final[int]
ECN_WAITING: Final[int]
ECN_TESTING: Final[int]
ECN_UNKNOWN: Final[int]
ECN_CAPABLE: Final[int]
ECN_FAILED: Final[int]
"""The path or the peer does not play along, so that nothing is marked any more."""

@final
class PathEcn:
    """The state of one connection's path; :class:`Recovery <spaceblock.quic.native.recovery.Recovery>` has one."""

    def __new__(cls) -> PathEcn: ...
    @property
    def state(self) -> int: ...
    @property
    def sent(self) -> int:
        """Packets sent with ECT(0), on all paths."""

    @property
    def ect0(self) -> int: ...
    @property
    def ce(self) -> int:
        """What the peer has counted, like the one before."""

    def enable(self) -> None:
        """Say that whoever sends the packets can mark them."""
