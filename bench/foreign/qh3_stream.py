"""qh3: one stream over its own asyncio layer, from memory into memory; an answer on the stream ends it."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from side import MIB, Side


def configuration(side: Side) -> Any:
    made = import_module("qh3.quic.configuration").QuicConfiguration(
        alpn_protocols=["bare"],
        is_client=not side.receives,
        max_datagram_size=side.datagram,
        probe_datagram_size=False,  # or it would find out that loopback carries 64 KiB
        verify_mode=0,  # ssl.CERT_NONE: the certificate is self-signed
    )
    if side.receives:
        made.load_cert_chain(f"{side.certificate}/certificate.pem", f"{side.certificate}/key.pem")
    return made


async def receive(side: Side) -> None:
    qh3, events = import_module("qh3.asyncio"), import_module("qh3.quic.events")
    base: Any = import_module("qh3.asyncio.protocol").QuicConnectionProtocol
    ended = asyncio.Event()

    class Receiver(base):  # type: ignore[misc]
        done = 0

        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, events.HandshakeCompleted):
                side.start()
            elif isinstance(event, events.StreamDataReceived):
                side.memory[self.done : self.done + len(event.data)] = event.data
                self.done += len(event.data)
                if event.end_stream:
                    self._quic.send_stream_data(event.stream_id, b"all", end_stream=True)
                    side.stop()
            elif isinstance(event, events.ConnectionTerminated):
                ended.set()

    server = await qh3.serve("127.0.0.1", side.port, configuration=configuration(side), create_protocol=Receiver)
    side.announce()
    await ended.wait()
    server.close()


async def send(side: Side) -> None:
    qh3 = import_module("qh3.asyncio")
    async with qh3.connect("127.0.0.1", side.port, configuration=configuration(side)) as protocol:
        side.start()
        reader, writer = await protocol.create_stream()
        for at in range(0, side.size, MIB):
            writer.write(bytes(side.memory[at : at + MIB]))
        writer.write_eof()
        if await reader.read() != b"all":
            raise SystemExit("the receiver is silent")
        side.stop()


def main() -> None:
    side = Side(__doc__)
    asyncio.run(receive(side) if side.receives else send(side))
    side.report()


if __name__ == "__main__":
    main()
