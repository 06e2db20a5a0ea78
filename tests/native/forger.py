"""A client over a real socket that ends its handshake honestly and then keeps to no rule: it seals what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from link import TAG

from quic_pair import CLIENT
from spaceblock.core import decode_uint_var
from spaceblock.quic import TransportOptions
from spaceblock.quic.handover import HandOver
from spaceblock.quic.handshake.engine import client_engine
from spaceblock.quic.handshake.leaving import hand_over
from spaceblock.quic.interface import Address
from spaceblock.quic.native.keys import Suite, derive
from spaceblock.quic.native.protection import HeaderKey, PacketKey

OPTIONS = TransportOptions(native=True, cipher_suites=("AES_128_GCM_SHA256",))
"""For both sides: the forger has one suite only."""

PATIENCE = 60.0
"""Seconds after which what the other side must do counts as not done."""

DATAGRAM = 1_400
SUITE = Suite.AES_128_GCM


@dataclass(frozen=True, slots=True)
class Close:
    """A CONNECTION_CLOSE as it came over the wire."""

    code: int
    frame_type: int
    reason: str


class Forger:
    """What the handshake left to a client; made by :func:`forger`."""

    def __init__(self, sock: socket.socket, state: HandOver) -> None:
        self.pn = state.next_packet_number
        """The number of the next packet."""
        self.largest = -1
        """The largest number that came from the other side."""
        self.close: Close | None = None
        """How the other side closed the connection."""
        ours, theirs = derive(SUITE, state.send_secret), derive(SUITE, state.receive_secret)
        self._sock = sock
        self._to = state.peer_id.cid
        self._cid_size = len(state.local_ids[0].cid)
        self._sealing, self._seal_mask = PacketKey(SUITE, ours.key, ours.iv), HeaderKey(SUITE, ours.header)
        self._opening, self._open_mask = PacketKey(SUITE, theirs.key, theirs.iv), HeaderKey(SUITE, theirs.header)
        self._heard = asyncio.Event()

    def seal(self, payload: bytes, pn: int | None = None, first: int = 0x40) -> bytes:
        """A packet; without ``pn`` it has the next number."""
        if pn is None:
            pn, self.pn = self.pn, self.pn + 1
        header = bytearray([first | 3]) + self._to + (pn % 2**32).to_bytes(4, "big")
        sealed = self._sealing.seal_packet(pn, bytes(header), payload)
        mask = self._seal_mask.mask(sealed[:16])
        header[0] ^= mask[0] & 0x1F
        for i in range(4):
            header[i - 4] ^= mask[1 + i]
        return bytes(header) + sealed

    async def send(self, *payloads: bytes) -> None:
        """Send each payload in a packet of its own."""
        for payload in payloads:
            await self.send_raw(self.seal(payload))

    async def send_raw(self, datagram: bytes) -> None:
        """Send anything, at the pace of the other side's socket."""
        self._sock.send(datagram)
        await asyncio.sleep(0)

    async def flood(self, frame: bytes, count: int) -> None:
        """Send a frame again and again, as many in a packet as it holds."""
        each = DATAGRAM // len(frame)
        for at in range(0, count, each):
            await self.send(frame * min(each, count - at))

    async def heard(self) -> None:
        """Wait for another packet of the other side."""
        self._heard.clear()
        await asyncio.wait_for(self._heard.wait(), PATIENCE)

    async def closed(self) -> Close:
        """Wait until the other side closes the connection."""
        while self.close is None:
            await self.heard()
        return self.close

    def on_readable(self) -> None:
        """Take in what has come, so that a close is not lost to a full socket."""
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                payload = self._open(self._sock.recv(65_535))
                if payload is not None:
                    self._heard.set()
                    if payload[0] in (0x1C, 0x1D):
                        self.close = _close_of(payload)

    def _open(self, datagram: bytes) -> bytes | None:
        start = 1 + self._cid_size
        if len(datagram) < start + 4 + TAG or datagram[0] & 0x80:
            return None
        mask = self._open_mask.mask(datagram[start + 4 : start + 20])
        first = datagram[0] ^ (mask[0] & 0x1F)
        size = 1 + (first & 3)
        number = bytes(datagram[start + i] ^ mask[1 + i] for i in range(size))
        # No test lasts long enough for a number that does not fit into its bytes.
        pn = int.from_bytes(number, "big")
        header = bytes([first]) + datagram[1:start] + number
        payload: bytes | None = self._opening.open_packet(pn, header, datagram[start + size :])
        if payload is not None:
            self.largest = max(self.largest, pn)
        return payload


@contextlib.asynccontextmanager
async def forger(address: Address) -> AsyncIterator[Forger]:
    """A hostile client of the server at ``address``, from the moment when its handshake is confirmed."""
    loop = asyncio.get_running_loop()
    engine = client_engine(CLIENT, OPTIONS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        engine.connect(address, loop.time())
        while not engine.confirmed:
            for data, _ in engine.datagrams_to_send(loop.time()):
                sock.send(data)
            datagram = await asyncio.wait_for(loop.sock_recv(sock, 65_535), PATIENCE)
            engine.receive_datagram(datagram, address, loop.time())
        # The last answers of the handshake, with which the server may forget it.
        for data, _ in engine.datagrams_to_send(loop.time()):
            sock.send(data)
        while engine.next_event() is not None:
            pass
        hostile = Forger(sock, hand_over(engine))
        loop.add_reader(sock, hostile.on_readable)
        try:
            yield hostile
        finally:
            loop.remove_reader(sock)


def _close_of(payload: bytes) -> Close:
    code, pos = decode_uint_var(payload, 1)
    frame_type, pos = decode_uint_var(payload, pos) if payload[0] == 0x1C else (0, pos)
    size, pos = decode_uint_var(payload, pos)
    return Close(code, frame_type, payload[pos : pos + size].decode())
