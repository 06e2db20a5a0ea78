import socket
from typing import Any

from .engine import PacketEngine

BUFFERS: int
ROUNDS: int
TRAINS: int
SENT_ALL: int
MORE: int
FULL: int
LIMIT: int

class Pump:
    def __init__(self, sock: socket.socket) -> None: ...
    def add_route(self, cid: bytes, engine: PacketEngine) -> None: ...
    def remove_route(self, cid: bytes) -> None: ...
    def receive(self) -> tuple[list[PacketEngine], list[tuple[bytes, Any]]]: ...
    def send(self, engine: PacketEngine) -> int: ...
    def resume(self) -> bool: ...
