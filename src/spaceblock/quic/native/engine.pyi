from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import Buffer

from .phases import KeyPhases
from .protection import HeaderKey, PacketKey
from .ranges import PacketRanges
from .recovery import Recovery
from .streams import ReceiveStream, SendStream

class PacketEngine:
    recovery: Recovery
    received: PacketRanges
    phases: KeyPhases
    datagram_size: int
    max_data: int
    data_sent: int
    local_max_data: int
    data_received: int
    send_streams: dict[int, SendStream]
    receive_streams: dict[int, ReceiveStream]
    rare: list[tuple[Any, ...]]
    news: list[ReceiveStream]
    lost: list[Any]
    delivered: list[Any]
    ack_due: bool
    failed: int
    opened: int
    violation: tuple[int, int, str] | None
    def __init__(
        self,
        recovery: Recovery,
        received: PacketRanges,
        sealing: PacketKey,
        seal_mask: HeaderKey,
        opening: PacketKey,
        open_mask: HeaderKey,
        datagram_size: int,
        accept: Callable[[int], ReceiveStream | None],
    ) -> None: ...
    def set_peer_cid(self, cid: bytes) -> None: ...
    packets_max: int
    is_closing: bool
    owner: Any
    idle_since: int
    def set_peer_address(self, address: Any, family: int) -> None: ...
    def set_local_cids(self, cids: Iterable[bytes]) -> None: ...
    def set_credit(self, max_data: int, data_sent: int, local_max_data: int, data_received: int) -> None: ...
    def set_key_updates(
        self,
        make_keys: Callable[[], tuple[PacketKey, PacketKey]],
        phase: bool,
        interval: int,
        key_packets: int,
        failed_max: int,
    ) -> None: ...
    def add_send_stream(self, stream: SendStream) -> None: ...
    def remove_send_stream(self, stream: SendStream) -> None: ...
    def add_receive_stream(self, stream: ReceiveStream) -> None: ...
    def remove_receive_stream(self, stream: ReceiveStream) -> None: ...
    def count_reset(self, stream: ReceiveStream, final_size: int) -> bool: ...
    def wake(self, stream: SendStream) -> None: ...
    def send_control(self, frame: bytes, token: Any = None) -> None: ...
    def violate(self, code: int, kind: int, reason: str) -> None: ...
    def adopt(
        self,
        pn: int,
        time: int,
        size: int,
        frames: list[tuple[bytes, Any]],
        stream: SendStream | None,
        offset: int,
        length: int,
        fin: bool,
    ) -> None: ...
    def receive(self, data: Buffer, segment: int, now: int) -> int: ...
    def on_timer(self, now: int) -> None: ...
    @property
    def batch(self) -> Any: ...
    def build(self, now: int) -> int: ...
    @property
    def waiting(self) -> int: ...
    def wants_to_send(self) -> bool: ...
    def close_packet(self, frame: bytes, now: int) -> bytes: ...
