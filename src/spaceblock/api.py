"""The two ways in: :func:`listen` to be connected to, :func:`connect` to connect with a ticket."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from .errors import (
    AdmissionRefused,
    ConnectionFailed,
    LocalProtocolError,
    SpaceblockError,
    Stalled,
    Unreachable,
    WrongPeer,
)
from .events import Phase
from .options import Options, checked
from .peer import Peer, load_identity, transport_options
from .process.forks import Maker
from .quic.endpoint import Endpoint
from .quic.interface import Connection, ConnectionEnded, HandshakeConfig
from .quic.routes import look_up
from .transfers.throttle import throttle_of
from .transfers.transfer import error_of_greeting, in_any_case
from .trust.contacts import Contact
from .trust.identity import Identity, peer_id_of, peer_id_text, public_key_of
from .trust.memory import Memory
from .trust.tickets import Ticket, proof

if TYPE_CHECKING:
    from .listener import Listener

_FIRST_WORD = 0.002
"""Seconds in which the first packets of a handshake are on their way, and nothing is to be done but to wait."""

_STAGGER = 0.25
"""Seconds before the next address of a ticket is tried beside those that have not answered (RFC 8305, section 5)."""


@asynccontextmanager
async def listen(
    host: str = "0.0.0.0", port: int | range = 0, *, options: Options | None = None
) -> AsyncIterator[Listener]:
    """Listen on a UDP port (0: any free one; a range: the first of it that is free); gives a :class:`Listener`.

    The host ``"::"`` takes IPv6 and IPv4. A fixed port keeps tickets over a restart, a range does not unless
    :attr:`Options.name` says under which name.

    Leaving the block waits for the transfers that run and raises the first error that nobody retrieved; leaving it by
    an exception cancels them. Raises :class:`ConnectionFailed` where the address cannot be used, :class:`ListenerBusy`
    where another listener has the same name or address, and :class:`StorageError` where the key or the tickets cannot
    be read or kept.
    """
    from .listener import Listener

    maker = Maker()
    listener = await Listener.open(host, port, checked(options))
    try:
        yield listener
    except BaseException:
        await in_any_case(listener.abort, maker)
        raise
    try:
        await listener.close()
    except asyncio.CancelledError:
        await in_any_case(listener.abort, maker)
        raise


@asynccontextmanager
async def connect(ticket: str | Ticket | Contact, *, options: Options | None = None) -> AsyncIterator[Peer]:
    """Connect to the listener that issued ``ticket``; gives a :class:`Peer` once the listener has admitted this side.

    A :class:`Contact` does instead of a ticket where the listener trusts this side's peer ID.

    Leaving the block waits for the transfers that run and raises the first error that nobody retrieved; leaving it by
    an exception cancels them. Raises :class:`TicketMalformed`, :class:`Unreachable`, :class:`WrongPeer`,
    :class:`AdmissionRefused` and its kinds, and :class:`Stalled` where the listener does not greet in time.
    """
    options = checked(options)
    options.chosen_engine()
    if isinstance(ticket, str):
        ticket = Ticket.parse(ticket)
    elif not isinstance(ticket, Ticket | Contact):
        raise LocalProtocolError(
            f"a ticket is a string, not {type(ticket).__name__}: give the word the listener printed"
        )
    maker = Maker()
    known = options.identity
    identity = known if isinstance(known, Identity) else await asyncio.to_thread(load_identity, options)
    dialled = await _dial_all(ticket, identity, options)
    dialled.peer.redial = lambda: dialled.dial_again(ticket, identity, options)
    try:
        try:
            yield dialled.peer
        except BaseException:
            await in_any_case(dialled.peer.abort, maker)
            raise
        try:
            await dialled.peer.close()
        except asyncio.CancelledError:
            await in_any_case(dialled.peer.abort, maker)
            raise
    finally:
        await in_any_case(dialled.endpoint.close, maker)


class _Dialled:
    """A peer that greeted, and the socket it is reached by."""

    def __init__(self, endpoint: Endpoint, peer: Peer) -> None:
        self.endpoint = endpoint
        self.peer = peer

    async def dial_again(self, ticket: Ticket | Contact, identity: Identity, options: Options) -> Connection:
        """Another connection to the same listener, by another socket; raises what :func:`connect` does."""
        errors: list[SpaceblockError] = []
        for address in _addresses_of(ticket):
            try:
                endpoint, connection = await _open(address, ticket, identity, options)
            except SpaceblockError as error:
                errors.append(error)
                continue
            lost, self.endpoint = self.endpoint, endpoint
            await in_any_case(lost.close)
            return connection
        raise min(errors, key=_how_telling)


async def _dial_all(ticket: Ticket | Contact, identity: Identity, options: Options) -> _Dialled:
    """Try the ticket's addresses one after the other, each with a short start over the next; the first wins."""
    attempts: list[asyncio.Task[_Dialled]] = []
    winner: asyncio.Task[_Dialled] | None = None
    try:
        winner = await _first_of(attempts, ticket, identity, options)
        return winner.result()
    finally:
        try:
            await in_any_case(lambda: _let_go([attempt for attempt in attempts if attempt is not winner]))
        except asyncio.CancelledError:
            await in_any_case(lambda: _let_go(attempts))  # nobody gets the winner any more
            raise


async def _first_of(
    attempts: list[asyncio.Task[_Dialled]], ticket: Ticket | Contact, identity: Identity, options: Options
) -> asyncio.Task[_Dialled]:
    """The first attempt that succeeds; all that were begun are in ``attempts`` then, whatever this ends with."""
    errors: list[SpaceblockError] = []
    waiting: set[asyncio.Task[_Dialled]] = set()
    addresses = _addresses_of(ticket)
    while addresses or waiting:
        if addresses:
            attempt = asyncio.create_task(_dial(addresses.pop(0), ticket, identity, options))
            attempts.append(attempt)
            waiting.add(attempt)
        done, waiting = await asyncio.wait(
            waiting, timeout=_STAGGER if addresses else None, return_when=asyncio.FIRST_COMPLETED
        )
        for attempt in done:
            error = attempt.exception()
            if error is None:
                return attempt
            if not isinstance(error, SpaceblockError):
                raise error
            errors.append(error)
    raise min(errors, key=_how_telling)


async def _let_go(attempts: list[asyncio.Task[_Dialled]]) -> None:
    """End attempts that nobody needs, and what they have led to."""
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, _Dialled):
            await _give_up(result.peer, result.endpoint)


async def _dial(address: tuple[str, int], ticket: Ticket | Contact, identity: Identity, options: Options) -> _Dialled:
    endpoint, connection = await _open(address, ticket, identity, options)
    timeout = options.timeouts.connect
    memory, throttle = Memory(identity), throttle_of(options)
    peer = Peer(connection, peer_id_text(ticket.peer_id), options, lambda peer: None, memory, throttle)
    try:
        await asyncio.wait_for(peer.greet(), timeout)
    except asyncio.TimeoutError:
        await in_any_case(lambda: _give_up(peer, endpoint))
        text = f"the listener did not greet within {timeout:g} seconds: check that it still runs and try again"
        raise Stalled(text, phase=str(Phase.CONNECTING)) from None
    except ConnectionEnded as ended:
        await in_any_case(lambda: _give_up(peer, endpoint))
        raise error_of_greeting(ended.reason) from ended
    except MemoryError as error:
        await in_any_case(lambda: _give_up(peer, endpoint))
        text = "there is no memory for the connection: let this program have more and connect again"
        raise ConnectionFailed(text, errno=errno.ENOMEM, phase=str(Phase.CONNECTING)) from error
    except BaseException:
        await in_any_case(lambda: _give_up(peer, endpoint))
        raise
    return _Dialled(endpoint, peer)


async def _give_up(peer: Peer, endpoint: Endpoint) -> None:
    await peer.abort()
    await endpoint.close()


async def _open(
    address: tuple[str, int], ticket: Ticket | Contact, identity: Identity, options: Options
) -> tuple[Endpoint, Connection]:
    """A connection on which nothing was said yet, and the socket of its own that it has."""
    shown = proof(ticket, identity.public_key) if isinstance(ticket, Ticket) else None
    certificate = identity.certificate(shown)
    handshake = HandshakeConfig(certificate, identity.private_key, lambda shown: _check_pin(shown, ticket))
    transport = transport_options(options)
    endpoint = await Endpoint.bind(await _any_address(address), 0, transport)
    asyncio.get_running_loop().call_later(_FIRST_WORD, _import_ahead, transport.native)
    try:
        return endpoint, await endpoint.connect(address, handshake, options.timeouts.connect)
    except ConnectionEnded as ended:
        await in_any_case(endpoint.close)
        raise error_of_greeting(ended.reason) from ended
    except BaseException:
        await in_any_case(endpoint.close)
        raise


def _import_ahead(native: bool) -> None:
    """Import what is needed next, while the listener works at its answer."""
    from .transfers import outgoing  # noqa: F401

    if native:
        from .quic.native import shared_engine  # noqa: F401


def _addresses_of(ticket: Ticket | Contact) -> list[tuple[str, int]]:
    return list(ticket.addresses if isinstance(ticket, Ticket) else ticket.endpoints)


def _check_pin(shown: object, ticket: Ticket | Contact) -> None:
    from cryptography.x509 import Certificate

    assert isinstance(shown, Certificate)
    with suppress(AdmissionRefused):
        if peer_id_of(public_key_of(shown)) == ticket.peer_id:
            return
    if isinstance(ticket, Ticket):
        text = "the listener at the ticket's address has another key than the ticket says: ask for a new ticket"
    else:
        text = "whoever listens at the peer's address has another key than that peer: check the address and the peer ID"
    raise WrongPeer(text)


async def _any_address(address: tuple[str, int]) -> str:
    """The unspecified address of the family that reaches ``address``."""
    host, port = address
    try:
        found = await look_up(host, port, socket.AF_UNSPEC)
    except OSError as error:
        reason = error.strerror or error
        raise Unreachable(
            f"the name {host!r} cannot be resolved ({reason}): check the address, or take one of digits"
        ) from error
    return "::" if found[0][0] == socket.AF_INET6 else "0.0.0.0"


def _how_telling(error: SpaceblockError) -> int:
    """The lower, the more a user learns from it."""
    for rank, kind in enumerate((AdmissionRefused, WrongPeer, Stalled)):
        if isinstance(error, kind):
            return rank
    return 9
