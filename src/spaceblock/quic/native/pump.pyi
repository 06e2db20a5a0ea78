import socket
from typing import Any, ClassVar

from .engine import PacketEngine

BUFFERS: int
ROUNDS: int
TRAINS: int

class Pump:
    SENT_ALL: ClassVar[int]
    """Nothing is left that may be sent now."""
    MORE: ClassVar[int]
    """Sending stopped only to give others their turn."""
    FULL: ClassVar[int]
    """The socket is full: call :meth:`resume` when it can be written to."""
    LIMIT: ClassVar[int]
    """The key has sealed as many packets as it may."""

    def __init__(self, sock: socket.socket) -> None: ...
    def add_route(self, cid: bytes, engine: PacketEngine) -> None: ...
    def remove_route(self, cid: bytes) -> None: ...
    def receive(self) -> tuple[list[PacketEngine], list[tuple[bytes, Any]]]: ...
    def send(self, engine: PacketEngine) -> int: ...
    def resume(self) -> bool: ...
