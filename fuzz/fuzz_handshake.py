# Invariant: whatever a stranger shows in the handshake (a certificate of any bytes, any transport parameters, any
# frames in its first packet, any packet in answer to ours), the other side's engine goes on or ends the connection with
# a reason; no exception leaves it; whoever completes the handshake has proved the key that it showed.
"""A handshake with a stranger, from either side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from aioquic.buffer import encode_uint_var
from aioquic.quic.crypto import CryptoPair
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from quic_pair import CLIENT, SERVER
from spaceblock.errors import WrongPeer
from spaceblock.quic import HandshakeConfig, TransportOptions
from spaceblock.quic.handshake.engine import Engine, HandshakeCompleted, client_engine, server_engine
from spaceblock.quic.handshake.first_packets import VERSION

from .choices import Choices, piece
from .steady import steady
from .vectors import certificate_of

OPTIONS = TransportOptions(cipher_suites=("AES_128_GCM_SHA256",))
CLIENT_ADDRESS, SERVER_ADDRESS = ("192.0.2.1", 1), ("192.0.2.2", 2)
NOW = 1_000.0
KEY = Ed25519PrivateKey.from_private_bytes(b"stranger".ljust(32))
FLIGHTS_MAX = 8
CODE_MAX = 0x200  # all of QUIC's own are below
SIZE_MAX = 1_500


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    kinds: list[Callable[[Choices], Hashable]] = [
        _client_shows,
        _server_shows,
        _client_wants,
        _server_wants,
        _first_packet,
        _answer,
    ]
    kind = choices.below(len(kinds))
    with steady(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of certificates that a future release of cryptography will refuse
        return kind, kinds[kind](choices)


def seeds() -> dict[str, bytes]:
    own = certificate_of(KEY, b"\4\1a").public_bytes(Encoding.DER)
    parameters = b"".join(
        encode_uint_var(number) + encode_uint_var(len(value)) + value
        for number, value in (
            (1, b"\x40\x64"),
            (3, b"\x45\xdc"),
            (4, b"\x80\x10\0\0"),
            (8, b"\4"),
            (0x0A, b"\3"),
            (0x0E, b"\4"),
        )
    )
    crypto = b"\6" + encode_uint_var(0) + encode_uint_var(4) + b"\1\0\0\0"
    return {
        "client-certificate": b"\0" + own,
        "client-without": b"\0",
        "server-certificate": b"\1" + own,
        "client-parameters": b"\2" + parameters,
        "server-parameters": b"\3" + parameters,
        "small-datagrams": b"\2" + b"\3\2\x44\xaf" + parameters,
        "crypto": b"\4" + crypto,
        "ping": b"\4\1",
        "close": b"\4\x1c\0\0\0",
        "negotiation": b"\5\x80\0\0\0\0" + piece(b"\x1a\x2a\x3a\x4a"),
        "negotiation-of-ours": b"\5\x80\0\0\0\0" + piece(b"\0\0\0\1"),
        "retry": b"\5\xf0\0\0\0\1" + piece(b"token" + bytes(16)),
        "handshake": b"\5\xe0\0\0\0\1" + piece(b"\x40\x20" + bytes(32)),
    }


@dataclass(frozen=True, slots=True)
class _Shown:
    """Stands where a certificate does, and is sent as these bytes."""

    der: bytes

    def public_bytes(self, _encoding: Encoding) -> bytes:
        return self.der


class _Talk:
    """Two engines and a perfect path between them; what is not ours may fail, and is then not heard any more."""

    def __init__(self, client: HandshakeConfig, server: HandshakeConfig = SERVER) -> None:
        self.client = client_engine(client, OPTIONS)
        self.client.connect(SERVER_ADDRESS, now=NOW)
        self.first = [data for data, _ in self.client.datagrams_to_send(NOW)]
        hello = self.first[0]
        self.server = server_engine(server, OPTIONS, hello[6 : 6 + hello[5]], None)

    def go(self, ours: Engine) -> Hashable:
        theirs = self.server if ours is self.client else self.client
        to_server, completed = self.first, False
        for _ in range(FLIGHTS_MAX):
            self._bring(to_server, self.server, CLIENT_ADDRESS, theirs)
            answer = [data for data, _ in self.server.datagrams_to_send(NOW)]
            self._bring(answer, self.client, SERVER_ADDRESS, theirs)
            to_server = [data for data, _ in self.client.datagrams_to_send(NOW)]
            while (event := ours.next_event()) is not None:
                completed |= isinstance(event, HandshakeCompleted)
        reason = ours.ended()
        assert reason is None or reason.by_peer or not reason.is_application
        return completed, reason is not None and (reason.by_peer, min(reason.code, CODE_MAX))

    def _bring(self, datagrams: list[bytes], to: Engine, address: Any, theirs: Engine) -> None:
        for datagram in datagrams:
            try:
                to.receive_datagram(datagram, address, NOW)
            except Exception:
                if to is not theirs:
                    raise


def _client_shows(choices: Choices) -> Hashable:
    der = choices.rest()
    talk = _Talk(HandshakeConfig(_Shown(der) if der else None, KEY))  # type: ignore[arg-type]
    result = talk.go(talk.server)
    _check_key(talk.server, result)
    return result


def _server_shows(choices: Choices) -> Hashable:
    def verify(certificate: x509.Certificate) -> None:
        if certificate.public_key() != KEY.public_key():
            raise WrongPeer("another key")

    shown = HandshakeConfig(_Shown(choices.rest()), KEY)  # type: ignore[arg-type]
    talk = _Talk(HandshakeConfig(CLIENT.certificate, CLIENT.private_key, verify), shown)
    result = talk.go(talk.client)
    _check_key(talk.client, result)
    return result


def _client_wants(choices: Choices) -> Hashable:
    parameters = choices.rest()

    class Client(Engine):
        def _serialize_transport_parameters(self) -> bytes:
            ids = b"\x0f" + encode_uint_var(len(self._local_initial_source_connection_id))
            return ids + self._local_initial_source_connection_id + parameters

    return _with(Client, None)


def _server_wants(choices: Choices) -> Hashable:
    parameters = choices.rest()

    class Server(Engine):
        def _serialize_transport_parameters(self) -> bytes:
            found = b""
            for number, cid in (
                (0, self._original_destination_connection_id),
                (0x0F, self._local_initial_source_connection_id),
            ):
                found += encode_uint_var(number) + encode_uint_var(len(cid)) + cid
            return found + parameters

    return _with(None, Server)


def _with(client: type[Engine] | None, server: type[Engine] | None) -> Hashable:
    """One of the two is hostile."""
    talk = _Talk(CLIENT)
    if server is not None:
        talk.server.__class__ = server
        return talk.go(talk.client)
    hostile = client_engine(CLIENT, OPTIONS)
    assert client is not None
    hostile.__class__ = client
    hostile.connect(SERVER_ADDRESS, now=NOW)
    talk.client, talk.first = hostile, [data for data, _ in hostile.datagrams_to_send(NOW)]
    hello = talk.first[0]
    talk.server = server_engine(SERVER, OPTIONS, hello[6 : 6 + hello[5]], None)
    return talk.go(talk.server)


def _first_packet(choices: Choices) -> Hashable:
    """Frames of any bytes in an Initial packet; its keys are known to everybody."""
    cid, own_cid = bytes(range(8)), bytes(range(8, 16))
    payload = choices.rest().ljust(1_170, b"\0")
    length = (2 + len(payload) + 16) | 0x4000
    header = b"\xc1" + VERSION.to_bytes(4, "big") + b"\x08" + cid + b"\x08" + own_cid + b"\0"
    header += length.to_bytes(2, "big") + b"\0\0"
    crypto = CryptoPair()
    crypto.setup_initial(cid=cid, is_client=True, version=VERSION)
    engine = server_engine(SERVER, OPTIONS, cid, None)
    engine.receive_datagram(crypto.encrypt_packet(header, payload, 0), CLIENT_ADDRESS, NOW)
    if engine.get_peer_address() is None:
        return "ignored"
    sent = sum(len(data) for data, _ in engine.datagrams_to_send(NOW))
    assert sent <= 3 * (len(header) + len(payload) + 16)
    reason = engine.ended()
    return engine.started, reason is not None and min(reason.code, CODE_MAX)


def _answer(choices: Choices) -> Hashable:
    """A long header of any type and version in answer to a client's first packet, with the right connection IDs."""
    engine = client_engine(CLIENT, OPTIONS)
    engine.connect(SERVER_ADDRESS, now=NOW)
    ((hello, _), *_) = engine.datagrams_to_send(NOW)
    destination, source = hello[6:14], hello[15:23]
    head = choices.take(5).ljust(5, b"\x80")
    packet = head + b"\x08" + source + b"\x08" + destination + choices.piece()
    engine.receive_datagram(packet, SERVER_ADDRESS, NOW)
    engine.datagrams_to_send(NOW)
    reason = engine.ended()
    return engine.version_mismatch, reason is not None and min(reason.code, CODE_MAX)


def _check_key(engine: Engine, result: Any) -> None:
    completed, ended = result
    certificate = engine.peer_certificate
    if completed and not ended and certificate is not None:
        assert certificate.public_key() == KEY.public_key()
