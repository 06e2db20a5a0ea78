"""Native engines without sockets: the two sides of one handshake, as often as they are wanted, and what a hostile peer
with the right keys would send to them."""

from __future__ import annotations

import array
import functools
from dataclasses import asdict, dataclass

from hosts import Host, Path

from spaceblock.quic import TransportOptions
from spaceblock.quic.handover import HandOver
from spaceblock.quic.native.engine_shell import NativeEngine
from spaceblock.quic.native.keys import SUITES, derive
from spaceblock.quic.native.protection import HeaderKey, PacketKey

OPTIONS = TransportOptions(
    idle_timeout=50_000.0,
    stream_window=20_000,
    control_window=5_000,
    connection_reserve=10_000,
    max_streams_uni=3,
    max_streams_bidi=2,
)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the two sides of one handshake handed over, and when."""

    client: HandOver
    server: HandOver
    now: float

    def of(self, *, is_client: bool) -> HandOver:
        """What one side handed over."""
        return self.client if is_client else self.server


@functools.cache
def beginning() -> Beginning:
    """The same handshake whenever it is asked for."""
    path = Path(**asdict(OPTIONS))
    path.confirm()
    path.settle()
    path.client.hand_over()
    path.server.hand_over()
    client, server = path.client.state, path.server.state
    assert client is not None
    assert server is not None
    return Beginning(client, server, path.now)


class Side(Host):
    """One side, on the native engine from the start."""

    def __init__(self, *, is_client: bool) -> None:
        state = beginning().of(is_client=is_client)
        # The address is all that a Host asks of its first engine.
        super().__init__("client" if is_client else "server", None, OPTIONS, state.peer_address)  # type: ignore[arg-type]
        self.state = state
        self.engine = NativeEngine(state, OPTIONS, self._transmit)


class Forger:
    """Seals any payload for a side, as only its real peer could."""

    def __init__(self, state: HandOver) -> None:
        keys = derive(SUITES[state.suite], state.receive_secret)
        self._key = PacketKey(SUITES[state.suite], keys.key, keys.iv)
        self._mask = HeaderKey(SUITES[state.suite], keys.header)
        self._cid = state.local_ids[0].cid
        self.pn = state.received[-1][1]

    def seal(self, payload: bytes, reserved: int = 0) -> array.array[int]:
        """A packet with the next number, padded to where header protection takes its sample. It has not a byte to spare
        behind it, so that a checked build sees every one read too many."""
        header = bytearray([0x43 | reserved]) + self._cid + (self.pn & 0xFFFFFFFF).to_bytes(4, "big")
        sealed = self._key.seal_packet(self.pn, bytes(header), payload)
        self.pn += 1
        mask = self._mask.mask(sealed[:16])
        header[0] ^= mask[0] & 0x1F
        for i in range(4):
            header[9 + i] ^= mask[1 + i]
        return array.array("B", bytes(header) + sealed)
