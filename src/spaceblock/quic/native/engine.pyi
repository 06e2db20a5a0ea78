from collections.abc import Callable, Iterable
from typing import Any, Final

from typing_extensions import Buffer

from .budget import Budget
from .protection import PacketKey
from .sending import PacketSender
from .streams import ReceiveStream

FLOW_CONTROL_ERROR: Final[int]
STREAM_LIMIT_ERROR: Final[int]
STREAM_STATE_ERROR: Final[int]
FINAL_SIZE_ERROR: Final[int]
FRAME_ENCODING_ERROR: Final[int]
CONNECTION_ID_LIMIT_ERROR: Final[int]
PROTOCOL_VIOLATION: Final[int]
KEY_UPDATE_ERROR: Final[int]
AEAD_LIMIT_REACHED: Final[int]
NO_VIABLE_PATH: Final[int]
"""Errors of the transport (RFC 9000, section 20.1), like those before."""

ELSEWHERE: int
RARE_FRAMES_AHEAD: int
RARE_FRAMES_WAITING: int

class PacketEngine(PacketSender):
    receive_streams: dict[int, ReceiveStream]
    rare: list[tuple[Any, ...]]
    news: list[ReceiveStream]
    failed: int
    opened: int
    violation: tuple[int, int, str] | None
    is_closing: bool
    heard_close: bool
    owner: Any
    peer_is_fixed: bool
    awaits_python: bool
    look_at: int
    def set_local_cids(self, cids: Iterable[bytes]) -> None: ...
    def set_credit(
        self, max_data: int, data_sent: int, local_max_data: int, data_received: int, consumed: int = 0
    ) -> None: ...
    def set_key_updates(
        self,
        make_keys: Callable[[], tuple[PacketKey, PacketKey]],
        phase: bool,
        interval: int,
        key_packets: int,
        failed_max: int,
    ) -> None: ...
    def add_receive_stream(self, stream: ReceiveStream) -> None: ...
    def remove_receive_stream(self, stream: ReceiveStream) -> None: ...
    def grant_stream(self, stream: ReceiveStream, consumed: int) -> bool: ...
    def share_credit(self, budget: Budget) -> None: ...
    def leave_credit(self) -> None: ...
    def take_turn(self, stream: ReceiveStream, now: int) -> None: ...
    def grant_connection(self, count: int) -> bool: ...
    def pull(self, stream: ReceiveStream) -> tuple[int, bool]: ...
    def count_reset(self, stream: ReceiveStream, final_size: int) -> bool: ...
    def violate(self, code: int, kind: int, reason: str) -> None: ...
    def receive(self, data: Buffer, segment: int, now: int, ecn: int = 0, elsewhere: Any = None) -> int: ...
