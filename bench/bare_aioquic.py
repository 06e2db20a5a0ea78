"""The baseline: one stream of an otherwise idle aioquic connection, from memory to memory, hashed on both sides.

It drives aioquic as aioquic's own asyncio layer does, datagram by datagram, and does nothing else: no messages, no
progress, no admission. Datagrams, cipher, socket buffers, stream and connection windows, the bytes written ahead and
the pieces that are hashed are those of Spaceblock's own transfers. Credit is stock aioquic's: a window that doubles
whenever half of it was used, so the sender never waits for credit longer than ours does. With ``--batch 64`` it takes
in datagrams in batches, as our endpoint does: the harder baseline, since our layers' own cost is all that is left.

``python bench/bare_aioquic.py`` moves 64 MiB between two processes and prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it does not list what it re-exports
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived
from aioquic.quic.packet import pull_quic_header
from aioquic.tls import CipherSuite
from blake3 import blake3

from processes import run_script, size_of
from spaceblock.cli.bench.measure import MIB, Meter, content, touched
from spaceblock.limits import DATA_BACKLOG, DATAGRAM_MIN
from spaceblock.quic.interface import TransportOptions
from spaceblock.quic.sockets import SOCKET_BUFFER
from spaceblock.trust.identity import Identity

SCRIPT = Path(__file__)

Address = tuple[str, int]


class Side(asyncio.DatagramProtocol):
    """One connection on one socket; the server's begins with the first datagram."""

    def __init__(self, quic: QuicConnection | None) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.established: asyncio.Future[None] = loop.create_future()
        self.terminated: asyncio.Future[None] = loop.create_future()
        self._quic = quic
        self._transport: asyncio.DatagramTransport | _BatchTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    @property
    def quic(self) -> QuicConnection:
        assert self._quic is not None
        return self._quic

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def use(self, transport: _BatchTransport) -> None:
        """Send with ``transport``, which also calls :meth:`take`."""
        self._transport = transport

    def datagram_received(self, data: bytes, address: Address) -> None:
        self.take(data, address)
        self.work()

    def take(self, data: bytes, address: Address) -> None:
        """Take in one datagram; :meth:`work` must follow."""
        if self._quic is None:
            header = pull_quic_header(Buffer(data=data), host_cid_length=8)
            self._quic = QuicConnection(
                configuration=configuration(is_client=False),
                original_destination_connection_id=header.destination_cid,
            )
        self._quic.receive_datagram(data, address, now=self._loop.time())

    def work(self) -> None:
        """Deliver what arrived, send what is due."""
        self._process_events()
        self.transmit()

    def stream_data_received(self, event: StreamDataReceived) -> None:
        """More of the one stream arrived, in order."""
        raise NotImplementedError

    def transmit(self) -> None:
        quic, transport = self.quic, self._transport
        assert transport is not None
        for data, address in quic.datagrams_to_send(now=self._loop.time()):
            transport.sendto(data, address)
        timer_at = quic.get_timer()
        if self._timer is not None and self._timer_at != timer_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and timer_at is not None:
            self._timer = self._loop.call_at(timer_at, self._handle_timer)
        self._timer_at = timer_at

    def close(self) -> None:
        """End the connection; the socket stays, so that the peer may learn of it."""
        self.quic.close()
        self.transmit()

    def release(self) -> None:
        """Let go of the socket and the timer."""
        if self._timer is not None:
            self._timer.cancel()
        assert self._transport is not None
        self._transport.close()

    def _handle_timer(self) -> None:
        assert self._timer_at is not None
        now = max(self._timer_at, self._loop.time())
        self._timer = self._timer_at = None
        self.quic.handle_timer(now=now)
        self.work()

    def _process_events(self) -> None:
        quic = self.quic
        event: QuicEvent | None = quic.next_event()
        while event is not None:
            if isinstance(event, StreamDataReceived):
                self.stream_data_received(event)
            elif isinstance(event, HandshakeCompleted):
                self.established.set_result(None)
            elif isinstance(event, ConnectionTerminated) and not self.terminated.done():
                self.terminated.set_result(None)
            event = quic.next_event()


class Receiver(Side):
    """Fills ``target``, hashes it in pieces of 1 MiB as they become full, and answers with the digest."""

    def __init__(self, target: bytearray) -> None:
        super().__init__(None)
        self.digests: asyncio.Queue[bytes] = asyncio.Queue()
        self._target = memoryview(target)
        self._position = self._hashed = 0
        self._hasher = blake3()

    def stream_data_received(self, event: StreamDataReceived) -> None:
        stop = self._position + len(event.data)
        self._target[self._position : stop] = event.data
        self._position = stop
        while stop - self._hashed >= MIB or (event.end_stream and self._hashed < stop):
            piece = self._target[self._hashed : min(self._hashed + MIB, stop)]
            self._hasher.update(piece)
            self._hashed += len(piece)
        if event.end_stream:
            digest = self._hasher.digest()
            self._begin()
            self.quic.send_stream_data(event.stream_id, digest, end_stream=True)
            self.digests.put_nowait(digest)

    def _begin(self) -> None:
        self._position = self._hashed = 0
        self._hasher = blake3()


class Sender(Side):
    """Writes a source in pieces of 1 MiB, hashing each, and waits for the digest."""

    def __init__(self) -> None:
        super().__init__(QuicConnection(configuration=configuration(is_client=True)))
        self._written = 0
        self._source = memoryview(b"")
        self._stream_id = -1
        self._hasher = blake3()
        self._answer: asyncio.Future[bytes] = self._loop.create_future()

    def connect(self, address: Address) -> None:
        self.quic.connect(address, now=self._loop.time())
        self.transmit()

    async def send(self, source: bytes) -> str:
        """Send all of ``source``; returns its digest, which the receiver confirmed."""
        self._source, self._written = memoryview(source), 0
        self._hasher = blake3()
        self._answer = self._loop.create_future()
        self._stream_id = self.quic.get_next_available_stream_id()
        self.transmit()
        answer = await self._answer
        if answer != self._hasher.digest():
            raise SystemExit("what arrived is not what was sent")
        return answer.hex()

    def transmit(self) -> None:
        while self._written < len(self._source) and self._backlog() <= DATA_BACKLOG:
            piece = self._source[self._written : self._written + MIB]
            self._written += len(piece)
            self._hasher.update(piece)
            # The type says bytes, but any buffer is copied into the stream's own.
            self.quic.send_stream_data(self._stream_id, cast(bytes, piece), self._written == len(self._source))
        super().transmit()

    def stream_data_received(self, event: StreamDataReceived) -> None:
        if event.end_stream:
            self._answer.set_result(event.data)

    def _backlog(self) -> int:
        stream = self.quic._streams.get(self._stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender._buffer_start


class _BatchTransport:
    """Reads up to ``batch`` datagrams before the connection works once."""

    def __init__(self, side: Side, sock: socket.socket, batch: int) -> None:
        sock.setblocking(False)
        self._side, self._sock, self._batch = side, sock, batch
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    def sendto(self, data: bytes, address: Any) -> None:
        with suppress(BlockingIOError):  # lost, as in a full router
            self._sock.sendto(data, address)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _on_readable(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(self._batch):
                self._side.take(*self._sock.recvfrom(65_535))
        self._side.work()


async def open_side(side: Side, batch: int) -> Address:
    """Give ``side`` a loopback socket with the buffers that Spaceblock asks for; returns its address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    sock.bind(("127.0.0.1", 0))
    address: Address = sock.getsockname()
    if batch:
        side.use(_BatchTransport(side, sock, batch))
    else:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: side, sock=sock)
    return address


def configuration(*, is_client: bool) -> QuicConfiguration:
    """What Spaceblock's transport would choose."""
    options = TransportOptions()
    identity = None if is_client else Identity.ephemeral()
    return QuicConfiguration(
        alpn_protocols=["bare"],
        certificate=None if identity is None else identity.certificate(),
        cipher_suites=[CipherSuite[options.cipher_suites[0]]],
        is_client=is_client,
        max_data=options.connection_window,
        max_datagram_size=options.datagram_size or DATAGRAM_MIN,
        max_stream_data=options.stream_window,
        private_key=None if identity is None else identity.private_key,
        verify_mode=0,  # ssl.CERT_NONE: the certificate is self-signed
    )


async def receive(size: int, batch: int) -> None:
    target = touched(size)
    side = Receiver(target)
    print("{}:{}".format(*await open_side(side, batch)), flush=True)
    meter = Meter()
    await side.established
    meter.start()
    digest = await side.digests.get()
    report = meter.stop(digest.hex())
    await side.terminated
    side.release()
    report["landed"] = blake3(target).hexdigest()
    print(json.dumps(report))


async def send(size: int, batch: int, to: str) -> None:
    host, _, port = to.rpartition(":")
    source = content(size)
    side = Sender()
    await open_side(side, batch)
    meter = Meter()
    side.connect((host, int(port)))
    await side.established
    meter.start()
    report = meter.stop(await side.send(source))
    side.close()
    side.release()
    print(json.dumps(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("role", nargs="?", choices=["receive", "send", "both"], default="both")
    parser.add_argument("--size", type=size_of, default=64 * MIB, help="bytes to move, such as 64MiB")
    parser.add_argument("--batch", type=int, default=0, help="datagrams taken in at once; 0: as aioquic's own layer")
    parser.add_argument("--to", help="the receiver's address, for the role send")
    arguments = parser.parse_args()
    if arguments.role == "receive":
        asyncio.run(receive(arguments.size, arguments.batch))
    elif arguments.role == "send":
        asyncio.run(send(arguments.size, arguments.batch, arguments.to))
    else:
        shared = ["--size", str(arguments.size), "--batch", str(arguments.batch)]
        pair = run_script(SCRIPT, ["receive", *shared], ["send", *shared])
        summary: dict[str, Any] = {"size": arguments.size, "receiver": pair.receiver, "sender": pair.sender}
        summary["cpu"] = pair.cpu
        summary["megabytes_per_second"] = arguments.size / pair.sender["seconds"] / 1e6
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
