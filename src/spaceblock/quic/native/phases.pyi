"""Key phases (RFC 9001, section 6): which key opens a packet, and when both sides move on to the next ones."""

from typing import final

@final
class KeyPhases:
    """For the packet engine, which alone has one; see ``PacketEngine.set_key_updates``."""

    @property
    def count(self) -> int:
        """Updates so far, by either side."""
