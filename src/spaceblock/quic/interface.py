"""What the layers above know of QUIC: streams, connections, their end, and the options of a transport.

Rules: nothing here imports an engine. Every method is called on the event loop's thread, and every handler is called
there too, never from inside a call into the same object: what a handler does (write, consume, reset, close) takes
effect after it returned. Sizes are in bytes, times in seconds, codes are QUIC application error codes (RFC 9000,
section 20.2) unless said.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConnectionLost, LocalProtocolError, SpaceblockError
from ..limits import DATAGRAM_MAX, DATAGRAM_MIN, HALF_OPEN_MAX, HALF_OPEN_UNPROVED
from ..process.lazily import dataclass
from .suites import preferred_suites

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALPN = "spaceblock/2"
"""The application protocol that both sides must name in the TLS handshake (RFC 9001, section 8.1)."""

KEY_UPDATE_PACKETS_MAX = 2**22
"""Half of what one AES-GCM key may seal (RFC 9001, section 6.6)."""

Address = tuple[str, int]
"""A host, as a numeric address, and a port; an IPv4 peer of an IPv6 socket is shown as IPv4."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why and by whom a connection was ended; one of these exists for every connection that is over."""

    code: int
    """The application's error code, or QUIC's own (RFC 9000, section 20.1) when ``is_application`` is false."""

    reason: str = ""
    """Text from whoever closed; from a peer it is hostile until checked."""

    by_peer: bool = False
    is_application: bool = True
    timed_out: bool = False
    """Nothing came from the peer for the idle time-out, or the handshake took too long."""

    was_reset: bool = False
    """The peer does not know the connection any more, and said so by a stateless reset (RFC 9000, section 10.3)."""

    def __str__(self) -> str:
        if self.timed_out:
            return "nothing came from the peer for too long"
        if self.was_reset:
            return "the peer does not know the connection any more, as after a restart"
        who = "the peer" if self.by_peer else "this side"
        what = "code" if self.is_application else "QUIC error"
        text = f": {self.reason!r}" if self.reason else ""
        return f"{who} closed the connection with {what} {self.code:#x}{text}"


class ConnectionEnded(ConnectionLost):
    """The :class:`~spaceblock.errors.ConnectionLost` that the transport raises: ``reason`` says how it ended."""

    def __init__(self, message: str, *, reason: CloseReason, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.reason = reason

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "reason": self.reason}


class StreamStopped(SpaceblockError):
    """Bytes written to a stream will not arrive: the peer stopped it (``remote``), or this side reset it."""

    code = "stream_stopped"

    def __init__(self, message: str, *, error_code: int, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.error_code = error_code

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "error_code": self.error_code}


@dataclass(frozen=True, slots=True)
class HandshakeConfig:
    """What one side shows in the TLS handshake, and how it judges what the other side shows."""

    certificate: x509.Certificate | None = None
    """Self-signed is fine: nobody checks a chain. A server must have one; a client without one shows none."""

    private_key: Ed25519PrivateKey | None = None

    verify_peer: Callable[[x509.Certificate], None] | None = None
    """Judges the peer's certificate by raising :class:`~spaceblock.errors.WrongPeer`.

    On a client it runs before the client's own certificate is sent. That the peer holds the certificate's key is
    proved later in the handshake, in any case before the connection is handed out. Must not call into the connection.
    """


FIRST_WINDOW = 64 * 1024
"""Bytes that a sender may send on a stream before it has heard of more: four times what a new connection sends at once
(RFC 9002, section 7.2), so that nobody far away ever waits for it."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Sizes and bounds of an endpoint and of its connections."""

    datagram_size: int | None = None
    """Bytes of UDP payload to send, where the path carries them; None: what every path carries, and with the native
    engine as much more as this one turns out to."""

    idle_timeout: float = 30.0
    """A connection on which nothing arrived for this long is over; the peer may ask for less."""

    handshake_timeout: float = 10.0
    """How long a server keeps a connection whose handshake is not complete."""

    stream_window: int = 2 * 1024 * 1024
    """Credit of one unidirectional stream: what its reader may leave unconsumed."""

    control_window: int = 256 * 1024
    """Credit of one bidirectional stream."""

    connection_reserve: int = 4 * 1024 * 1024
    """Credit of the connection that unidirectional streams can never use up: bidirectional ones always move."""

    max_streams_uni: int = 64
    """Unidirectional streams of the peer that may be open or not yet consumed at once."""

    max_streams_bidi: int = 128

    retry_above: int = HALF_OPEN_UNPROVED
    """With more half-open connections than this, a client must first prove its address (RFC 9000, section 8.1.2)."""

    half_open_limit: int = HALF_OPEN_MAX
    """With more half-open connections than this, new ones are ignored."""

    native: bool = False
    """Hand each connection over to the native engine once its handshake is confirmed."""

    threaded: bool = True
    """Have a thread stand in for an event loop that is late, so that it may be busy: native engine only."""

    key_update_packets: int = KEY_UPDATE_PACKETS_MAX
    """Packets that the native engine seals with one key before it updates its keys, 1 to 2^22.

    RFC 9001, section 6.5, asks for three probe time-outs between updates, which is left to this number: small ones are
    for tests.
    """

    id_lifetime: float = 300.0
    """Seconds after which the native engine sends to another connection ID of the peer's, so that whoever watches from
    afar cannot tell for long what belongs together; only while something arrives."""

    cipher_suites: tuple[str, ...] = field(default_factory=preferred_suites)
    """TLS 1.3 suites, the preferred one first; a server's order decides."""

    def __post_init__(self) -> None:
        if self.datagram_size is not None and not DATAGRAM_MIN <= self.datagram_size <= DATAGRAM_MAX:
            raise LocalProtocolError(
                f"a datagram size of {self.datagram_size} bytes is not possible; "
                f"choose one from {DATAGRAM_MIN} to {DATAGRAM_MAX}"
            )
        if not 1 <= self.key_update_packets <= KEY_UPDATE_PACKETS_MAX:
            raise LocalProtocolError(
                f"a key update after {self.key_update_packets} packets is not possible; "
                f"choose a number from 1 to {KEY_UPDATE_PACKETS_MAX}"
            )
        if not self.id_lifetime > 0:
            raise LocalProtocolError(
                f"a connection ID cannot be used for {self.id_lifetime:g} seconds; choose more than 0"
            )

    @property
    def first_window(self) -> int:
        """Credit of a unidirectional stream before anything came on it. The native engine grants the rest as soon as
        something does: a crowd of clients could overrun the socket's buffer with what nobody has granted yet."""
        return min(self.stream_window, FIRST_WINDOW) if self.native else self.stream_window

    @property
    def connection_window(self) -> int:
        """Credit of the whole connection: every data stream may stall with a full window, and the reserve is left."""
        return self.max_streams_uni * self.stream_window + self.connection_reserve


class Intake(Protocol):
    """Takes a stream's bytes as they arrive; :class:`spaceblock.core.Deframer` is one."""

    @property
    def capsule(self) -> object:
        """How a native engine calls it without the GIL: a capsule named ``spaceblock.intake``; None if it cannot."""

    def feed(self, data: bytes, pos: int = 0) -> int:
        """Take bytes from ``pos`` on; returns the position of the first that was not taken."""

    def ready(self) -> bool:
        """Whether it would take more."""

    def settle(self) -> None:
        """Do what is best done soon with what was taken; a native engine calls this where the capsule asks for it."""


class Stream(abc.ABC):
    """One QUIC stream, bidirectional or unidirectional, opened by this side or by the peer."""

    stream_id: int
    is_unidirectional: bool
    is_local: bool
    """Opened by this side."""

    @abc.abstractmethod
    def set_handlers(
        self,
        *,
        on_data: Callable[[bytes, bool], None] | None,
        on_reset: Callable[[int], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
    ) -> None:
        """Say who is told of what arrives; may be called again, and what arrived before is kept and delivered soon.

        ``on_data(data, fin)`` gets the stream's bytes in order, in pieces of any size, the last one with ``fin`` true
        (and maybe empty). ``on_reset(code)``: the peer abandoned its direction; bytes not yet delivered are lost.
        ``on_stop(code)``: the peer reads no more; this direction was reset with the same code. Each of the latter two
        is called at most once. With ``on_data`` None, data is kept, bounded by the credit.
        """

    @abc.abstractmethod
    def set_intake(
        self,
        intake: Intake,
        *,
        on_taken: Callable[[bool], None],
        on_reset: Callable[[int], None],
        first: bytes = b"",
        fin: bool = False,
    ) -> None:
        """Have the stream's bytes go to ``intake`` from now on, in place of ``on_data``; what it took is consumed.

        ``on_taken(fin)`` is called after it took some, with ``fin`` once when those were the last. An intake that takes
        no more holds the rest back, bounded by the credit, until :meth:`resume`. ``first`` is what ``on_data`` was
        given and nobody consumed, and ``fin`` what it was told.
        """

    @abc.abstractmethod
    def resume(self) -> bool:
        """Give the intake what it held back; returns whether it has taken the last byte now."""

    @abc.abstractmethod
    def write(self, data: Any, fin: bool = False, release: Callable[[], None] | None = None) -> None:
        """Queue ``data`` (any contiguous buffer); ``fin`` ends this direction.

        Without ``release`` the bytes are copied. With it they may be sent, again and again, from where they lie, and
        must not change until ``release()`` is called, once: maybe at once, at the latest with the end of the stream.

        Nothing bounds the queue but the caller: see :meth:`drain`. Dropped silently once the connection is over or the
        peer stopped the stream (:meth:`drain` tells). Raises :class:`~spaceblock.errors.LocalProtocolError` after
        ``fin``, after :meth:`reset`, and on a unidirectional stream of the peer.
        """

    @property
    @abc.abstractmethod
    def backlog(self) -> int:
        """Bytes written and not yet acknowledged, an unacknowledged FIN counting as one; 0 once reset or stopped."""

    @abc.abstractmethod
    async def drain(self, limit: int) -> None:
        """Wait until :attr:`backlog` is at most ``limit``; with 0, until the peer has everything.

        Raises :class:`ConnectionEnded` when the connection is over, and :class:`StreamStopped` when this direction was
        reset by this side or stopped by the peer, unless everything had been acknowledged before that.
        """

    @abc.abstractmethod
    def reset(self, code: int) -> None:
        """Abandon this side's direction (RESET_STREAM): what was not delivered is lost. Harmless after its end."""

    @abc.abstractmethod
    def stop(self, code: int) -> None:
        """Read no more: ask the peer to stop (STOP_SENDING), drop what still comes, credit all of it.

        Afterwards neither ``on_data`` nor ``on_reset`` is called. Harmless after the stream's end, where it means that
        the rest of what was delivered will not be consumed.
        """

    @abc.abstractmethod
    def consume(self, count: int) -> None:
        """Grant ``count`` bytes of credit again, of those that ``on_data`` delivered.

        All that was delivered must be consumed sooner or later, also after the stream's end, or be given up by
        :meth:`stop`. Credit travels when a quarter of the window is free, so a reader must never wait for more while
        it leaves three quarters unconsumed. Raises :class:`~spaceblock.errors.LocalProtocolError` for more than was
        delivered; does nothing after :meth:`stop` or a reset, which credit everything themselves.
        """

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """Both directions are done: all of ours was acknowledged, and the peer's end was delivered or given up."""


class Connection(abc.ABC):
    """One QUIC connection whose handshake is complete on this side."""

    is_client: bool
    peer_certificate: x509.Certificate | None
    """The peer's certificate, whose key the handshake proved; None if it is a client that showed none."""

    close_reason: CloseReason | None
    """None while the connection lives."""

    @property
    @abc.abstractmethod
    def peer_address(self) -> Address:
        """Where the peer is now: a client may move."""

    @property
    @abc.abstractmethod
    def local_address(self) -> Address:
        """What the endpoint's socket is bound to."""

    @property
    @abc.abstractmethod
    def smoothed_rtt(self) -> float:
        """Estimated round-trip time (RFC 9002, section 5)."""

    @property
    @abc.abstractmethod
    def congestion_window(self) -> int:
        """Bytes that may be in flight to the peer (RFC 9002, section 7)."""

    @abc.abstractmethod
    def set_stream_handler(self, handler: Callable[[Stream], None] | None) -> None:
        """Say who is told of streams that the peer opens; those seen before are kept and delivered soon.

        ``handler`` should set the stream's handlers before it returns, but need not. With None, streams are kept.
        """

    @abc.abstractmethod
    def set_close_handler(self, handler: Callable[[CloseReason], None] | None) -> None:
        """Say who is told, once and soon, that the connection is over, whoever ended it and however.

        It is called after everything that had arrived on streams with handlers was delivered.
        """

    @abc.abstractmethod
    def open_stream(self, *, unidirectional: bool) -> Stream:
        """Open a stream; beyond the peer's limit it waits, as does what is written to it.

        The peer learns of the stream by its first byte. Raises :class:`ConnectionEnded` when the connection is over.
        """

    @abc.abstractmethod
    def close(self, code: int, reason: str = "") -> None:
        """End the connection at once; a second call does nothing.

        What was not acknowledged is lost, so drain first. ``reason`` is cut at :data:`REASON_MAX` bytes.
        """

    @abc.abstractmethod
    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is over: closed by either side, timed out, or failed."""

    @abc.abstractmethod
    def keep_alive(self) -> None:
        """Send a PING, which the peer must acknowledge: a peer that is gone is then noticed by the idle time-out."""


REASON_MAX = 512
"""UTF-8 bytes of a closing reason: it has to fit one packet of the smallest datagram beside the rest."""
