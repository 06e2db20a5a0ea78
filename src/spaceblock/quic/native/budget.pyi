from .engine import PacketEngine
from .streams import ReceiveStream

LAPSE: int
SHARE_MIN: int
SIZE_MIN: int
TURNS: int

class Budget:
    size: int
    pledged: int
    holding: int
    waiting: int
    def __init__(self, size: int) -> None: ...
    def turn(self, now: int) -> tuple[PacketEngine, ReceiveStream] | None: ...
