"""A QUIC client or server on qh3 that does what standard input says and tells standard output what came of it.

Its language is that of docs/interop.md, which the peer of every other stack speaks too.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections import deque
from importlib import import_module
from typing import Any

events: Any = import_module("qh3.quic.events")
base: Any = import_module("qh3.asyncio.protocol").QuicConnectionProtocol

PIECE = 65_536
LOW = bytes((at ^ at >> 8) & 0xFF for at in range(PIECE))


def say(*words: object) -> None:
    print(*words, flush=True)


class Peer(base):  # type: ignore[misc]
    """One connection; :attr:`latest` is the one that came last, which commands are for."""

    latest: Peer | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Peer.latest = self
        self._digests: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self._known: set[int] = set()
        self._local_close = False
        self._waiting: deque[list[str]] = deque()

    def quic_event_received(self, event: Any) -> None:
        """Tell of what happened."""
        if isinstance(event, events.HandshakeCompleted):
            say("connected")
        elif isinstance(event, events.StreamDataReceived):
            self._receive(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, events.StreamReset):
            self._see(event.stream_id)
            say("reset", event.stream_id, event.error_code)
        elif isinstance(event, events.StopSendingReceived):
            say("stopped", event.stream_id, event.error_code)
        elif isinstance(event, events.ConnectionTerminated):
            kind = "application" if event.frame_type is None else "transport"
            side = "local" if self._local_close else "remote"
            say("closed", kind, side, event.error_code, event.reason_phrase)

    def obey(self, words: list[str]) -> None:
        """Carry out one command."""
        quic, command = self._quic, words[0]
        if command == "open":
            self._waiting.append(words)
            self._open()
        elif command == "answer":
            self._send(int(words[1]), int(words[2]), words[3])
        elif command == "reset":
            quic.reset_stream(int(words[1]), int(words[2]))
        elif command == "stop":
            quic.stop_stream(int(words[1]), int(words[2]))
        elif command == "close":
            self._local_close = True
            quic.close(error_code=int(words[1]), reason_phrase=" ".join(words[2:]))
        elif command == "update-keys":
            quic.request_key_update()
        else:
            say("failed no such command:", command)
        self.transmit()

    def datagram_received(self, data: bytes, address: Any) -> None:
        """With a datagram, credit for another stream may have come."""
        super().datagram_received(data, address)
        if self._waiting:
            self._open()
            self.transmit()

    def _open(self) -> None:
        """Open the streams that wait, as far as the other side allows."""
        while self._waiting:
            _, kind, size, end = self._waiting[0]
            stream_id = self._quic.get_next_available_stream_id(is_unidirectional=kind == "uni")
            quic = self._quic
            allowed = quic.max_concurrent_uni_streams if kind == "uni" else quic.max_concurrent_bidi_streams
            if stream_id // 4 >= allowed:
                return
            self._send(stream_id, int(size), end)
            self._waiting.popleft()
            self._known.add(stream_id)
            say("opened", stream_id)

    def _send(self, stream_id: int, size: int, end: str) -> None:
        for offset in range(0, size, PIECE):
            self._quic.send_stream_data(stream_id, piece_at(offset)[: size - offset])
        if end == "fin" or not size:
            self._quic.send_stream_data(stream_id, b"", end_stream=end == "fin")
        if end == "fin":
            say("sent", stream_id)

    def _receive(self, stream_id: int, data: bytes, is_end: bool) -> None:
        self._see(stream_id)
        digest = self._digests.setdefault(stream_id, hashlib.sha256())
        digest.update(data)
        self._sizes[stream_id] = self._sizes.get(stream_id, 0) + len(data)
        if is_end:
            say("received", stream_id, self._sizes[stream_id], digest.hexdigest())

    def _see(self, stream_id: int) -> None:
        if stream_id not in self._known:
            self._known.add(stream_id)
            is_theirs = (stream_id & 1 == 0) is not self._quic.configuration.is_client
            if is_theirs:
                say("accepted", stream_id)


def piece_at(offset: int) -> bytes:
    """The pattern from ``offset`` on, which is a multiple of :data:`PIECE`."""
    mask = (offset >> 16 ^ offset >> 24) & 0xFF
    return LOW.translate(bytes(byte ^ mask for byte in range(256)))


def configuration(options: argparse.Namespace) -> Any:
    made = import_module("qh3.quic.configuration").QuicConfiguration(
        alpn_protocols=[options.alpn],
        is_client=not options.listen,
        idle_timeout=float(options.idle.removesuffix("s")),
        verify_mode=0,  # ssl.CERT_NONE: the certificate is self-signed
        signature_algorithms=[0x0403, 0x0804, 0x0807],  # ECDSA, RSA-PSS and Ed25519, the last of which is ours
    )
    if options.datagram:
        made.max_datagram_size, made.probe_datagram_size = options.datagram, False
    if options.stream_window:
        made.max_stream_data = options.stream_window
    if options.window:
        made.max_data = options.window
    if options.certificate:
        made.load_cert_chain(options.certificate, options.key)
    return made


async def run(options: argparse.Namespace) -> None:
    made = configuration(options)
    loop = asyncio.get_running_loop()
    host, _, port = (options.listen or options.connect).rpartition(":")
    host = host.strip("[]")
    if options.listen:
        serve = import_module("qh3.asyncio.server").serve
        server = await serve(host, int(port), configuration=made, create_protocol=Peer, retry=options.retry == "true")
        say("listening", server._transport.get_extra_info("sockname")[1])
    else:
        connection = import_module("qh3.quic.connection").QuicConnection(configuration=made)
        family_any = "::1" if ":" in host else "127.0.0.1"
        _, protocol = await loop.create_datagram_endpoint(lambda: Peer(connection), local_addr=(family_any, 0))
        protocol.connect((host, int(port)) if "." in host else (host, int(port), 0, 0))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if Peer.latest is not None and line.split():
            Peer.latest.obey(line.decode().split())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen")
    parser.add_argument("--connect")
    parser.add_argument("--alpn")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--stream-window", type=int)
    parser.add_argument("--window", type=int)
    parser.add_argument("--datagram", type=int)
    parser.add_argument("--idle", default="30s")
    parser.add_argument("--retry")
    # qh3 cannot be told these.
    for name in ("ask", "streams", "key-update", "reset-key", "extensions"):
        parser.add_argument(f"--{name}")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
