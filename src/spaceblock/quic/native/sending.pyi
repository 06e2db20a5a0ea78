from collections.abc import Callable, Iterable
from typing import Any

from .credit import Credit
from .mtu import PathMtu
from .phases import KeyPhases
from .protection import HeaderKey, PacketKey
from .ranges import PacketRanges
from .recovery import Recovery
from .streams import ReceiveStream, SendStream

class PacketSender:
    recovery: Recovery
    received: PacketRanges
    phases: KeyPhases
    credit: Credit
    mtu: PathMtu
    datagram_size: int
    segment: int
    mark: int
    max_data: int
    data_sent: int
    send_streams: dict[int, SendStream]
    lost: list[Any]
    delivered: list[Any]
    ack_due: bool
    packets_max: int
    idle_since: int
    timer_set: int
    is_confined: bool
    path_room: int
    used_cid: bytes
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
        datagram_limit: int = 0,
    ) -> None: ...
    def set_peer_cid(self, cid: bytes) -> None: ...
    def set_peer_address(self, address: Any, family: int) -> None: ...
    def move_to(self, address: Any, used_cid: bytes) -> None: ...
    def confine(self, room: int) -> None: ...
    def release(self) -> None: ...
    def probe(self) -> None: ...
    def path_packet(self, frames: bytes, size: int, cid: bytes, now: int) -> bytes: ...
    def limit_datagrams(self, limit: int) -> None: ...
    def reset_path(self) -> None: ...
    def on_refused(self, now: int) -> None: ...
    def add_send_stream(self, stream: SendStream) -> None: ...
    def remove_send_stream(self, stream: SendStream) -> None: ...
    def wake(self, stream: SendStream) -> None: ...
    def send_control(self, frame: bytes, token: Any = None) -> None: ...
    def adopt(
        self,
        pn: int,
        time: int,
        size: int,
        frames: Iterable[tuple[bytes, Any]],
        stream: SendStream | None,
        offset: int,
        length: int,
        fin: bool,
    ) -> None: ...
    @property
    def batch(self) -> Any: ...
    def build(self, now: int) -> int: ...
    @property
    def waiting(self) -> int: ...
    def wants_to_send(self) -> bool: ...
    def next_timer(self, idle: int) -> int: ...
    def close_packet(self, frame: bytes, now: int) -> bytes: ...
    def on_timer(self, now: int) -> None: ...
