"""A listener: one UDP port that peers with a ticket, or with a trusted key, may connect to."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Callable
from operator import index
from typing import TYPE_CHECKING, Any

from .errors import (
    CertificateMissing,
    ConnectionFailed,
    LimitExceeded,
    LocalProtocolError,
    PeerNotTrusted,
    SpaceblockError,
    TicketUnknown,
    error_code,
)
from .limits import ADDRESSES_MAX, check_choice
from .options import Options
from .peer import Peer, load_identity, transport_options
from .process.forks import Maker
from .process.unneeded import catch_up
from .quic.endpoint import Endpoint
from .quic.interface import Connection, HandshakeConfig
from .transfers.mailbox import Mailbox
from .transfers.reunions import Reunions
from .transfers.shares import Share
from .transfers.throttle import throttle_of
from .transfers.transfer import Unseen, cancel_all, in_any_case, spawn
from .trust.admission import AdmissionBook
from .trust.contacts import split_address
from .trust.guesses import Guesses
from .trust.identity import Identity
from .trust.memory import Memory
from .trust.places import Place, open_book

if TYPE_CHECKING:
    from .transfers.offer import Offer

# Whoever listens has time now, and none when an offer comes.
for _module in ("transfers.incoming", "storage.folder"):
    importlib.import_module(f".{_module}", __package__)


_PAUSE = 0.02
"""Seconds after which a listener has told its ticket, and waits for others."""


class Listener:
    """Admits peers and hands out what they offer; made by :func:`spaceblock.listen`.

    Iterating over it gives the :class:`Offer` of every peer that :meth:`peers` did not hand out.
    """

    def __init__(self, identity: Identity, options: Options, place: Place, memory: Memory) -> None:
        self.peer_id: str = identity.peer_id
        """Who this listener is: the digest of its public key, in text form."""
        self.ticket: str = ""
        """One string, good for one peer: addresses, peer ID and a secret. Show it to nobody else."""
        self._maker = Maker()
        self._identity = identity
        self._memory = memory
        self._reunions = Reunions()
        self._options = options
        self._place = place
        self._book: AdmissionBook = place.book
        self._endpoint: Endpoint | None = None
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._peers: set[Peer] = set()
        self._being_judged = 0
        self._guesses = Guesses()
        self._shares: dict[str, Share] = {}
        self._unclaimed: Mailbox[Peer] = Mailbox(lambda peer: peer.deliver_offers_to(None))
        self._offers: Mailbox[Offer] = Mailbox()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unseen = Unseen()
        self._throttle = throttle_of(options)
        self._closing = False

    @classmethod
    async def open(cls, host: str, port: int | range, options: Options) -> Listener:
        """Bind the port and make the first ticket; raises :class:`ConnectionFailed` where the address cannot be used,
        :class:`ListenerBusy` and :class:`StorageError`."""
        options.chosen_engine()
        opening = asyncio.ensure_future(asyncio.to_thread(_open_place, host, port, options))
        try:
            identity, place, memory = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await in_any_case(lambda: _close_opened(opening))
            raise
        listener = cls(identity, options, place, memory)
        try:
            await listener._bind(host, port)
        except BaseException:
            await in_any_case(listener._release)
            raise
        return listener

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The addresses that tickets carry, the most useful first."""
        return self._addresses

    def invite(self, count: int, lifetime: float | None = None) -> list[str]:
        """``count`` more tickets, each good for one peer during ``lifetime`` seconds (None: as the options say).

        They are recorded durably before this returns. Raises :class:`LimitExceeded` and :class:`StorageError`.
        """
        self._maker.check_process("this listener")
        seconds = self._options.ticket_lifetime if lifetime is None else lifetime
        return [ticket.encode() for ticket in self._book.issue_many(count, self._addresses, seconds, time.time())]

    def peers(self) -> AsyncIterator[Peer]:
        """Every peer that is admitted, to send to; its offers then come through :meth:`Peer.offers` alone."""
        self._maker.check("this listener")
        return aiter(self._unclaimed)

    def __aiter__(self) -> AsyncIterator[Offer]:
        self._maker.check("this listener")
        return aiter(self._offers)

    async def close(self) -> None:
        """Wait for the transfers that run, decline what is unanswered, and close.

        Harmless when done twice, and in a forked child. Raises the first error of a transfer that nobody awaited.
        """
        if self._maker.forked:
            return
        self._closing = True
        results = await asyncio.gather(*(peer.close() for peer in self._peers), return_exceptions=True)
        await self._release(self._place.leave)
        for result in (self._unseen.take(), *results):
            if isinstance(result, BaseException):
                raise result

    async def abort(self) -> None:
        """Cancel all transfers and close; harmless in a forked child."""
        if self._maker.forked:
            return
        self._closing = True
        await asyncio.gather(*(peer.abort() for peer in self._peers), return_exceptions=True)
        await self._release()

    async def _bind(self, host: str, port: int | range) -> None:
        handshake = HandshakeConfig(self._identity.certificate(), self._identity.private_key)
        transport = transport_options(self._options)
        remembered = await asyncio.to_thread(lambda: self._book.port)
        ports = _ports_to_try(port, remembered)
        for number in ports:
            try:
                self._endpoint = await Endpoint.bind(
                    host, number, transport, server=handshake, on_connection=self._connected
                )
                break
            except ConnectionFailed:
                if number == ports[-1]:
                    raise
        endpoint = self._endpoint
        assert endpoint is not None
        endpoint.strangers = self._guesses
        bound = endpoint.local_addresses[0][1]
        await asyncio.to_thread(self._book.remember_port, bound)
        self._addresses = tuple(_advertised(self._options.advertise, bound) or _usable(endpoint.local_addresses))
        self.ticket = (await asyncio.to_thread(self.invite, 1))[0]
        asyncio.get_running_loop().call_later(_PAUSE, _prepare_for_others, transport.native)

    def _connected(self, connection: Connection) -> None:
        spawn(self._tasks, self._admit(connection))

    async def _admit(self, connection: Connection) -> None:
        """Decide about a peer before a byte of it is read; the ticket's use is durable before ``Hello``."""
        self._being_judged += 1
        try:
            if len(self._peers) + self._being_judged > self._options.limits.peers:
                raise LimitExceeded("the listener has as many peers as it takes: try again later")
            admitted = await asyncio.to_thread(self._book.admit, connection.peer_certificate, time.time())
            share = self._shares.get(admitted.peer_id) or Share()
            lost = next((peer for peer in self._peers_of(admitted.peer_id) if peer.awaits_connection), None)
            if lost is None and share.connections >= self._options.limits.connections:
                raise LimitExceeded("the listener has as many connections of this peer as it takes: close some first")
        except SpaceblockError as error:
            if isinstance(error, (CertificateMissing, TicketUnknown, PeerNotTrusted)):
                self._guesses.wrong(connection.peer_address[0])
            connection.close(error_code(error), str(error))
            return
        finally:
            self._being_judged -= 1
        if self._closing:
            connection.close(0, "the listener is closing")
            return
        if lost is not None:
            lost.finish_only = admitted.finish_only
            lost.attach(connection)
            return
        share.connections += 1
        self._shares[admitted.peer_id] = share
        shared = (self._memory, self._throttle, share, self._reunions)
        peer = Peer(connection, admitted.peer_id, self._options, self._peer_gone, *shared)
        peer.siblings = self._sibling
        peer.finish_only = admitted.finish_only
        peer.deliver_offers_to(self._offers)
        self._peers.add(peer)
        self._unclaimed.put(peer)

    def _peers_of(self, peer_id: str) -> list[Peer]:
        return [peer for peer in self._peers if peer.peer_id == peer_id]

    def _sibling(self, lost: Peer) -> Peer | None:
        """Another connection to the same peer: its program may have been started anew."""
        others = (peer for peer in self._peers_of(lost.peer_id) if peer is not lost)
        return next((peer for peer in others if not (peer.closed or peer.awaits_connection)), None)

    def _peer_gone(self, peer: Peer) -> None:
        self._unclaimed.discard(peer)
        share = self._shares[peer.peer_id]
        share.connections -= 1
        if not share.connections:
            del self._shares[peer.peer_id]
        if not self._closing:
            spawn(self._tasks, self._bury(peer))

    async def _bury(self, peer: Peer) -> None:
        """Keep what nobody saw of a peer that left, and forget the rest."""
        await peer.wait_finished()
        peer.unseen.move_to(self._unseen)
        self._peers.discard(peer)

    async def _release(self, leave: Callable[[], None] = lambda: None) -> None:
        self._offers.close()
        self._unclaimed.close()
        await cancel_all(self._tasks)
        if self._endpoint is not None:
            await self._endpoint.close()
        await asyncio.to_thread(leave)
        await asyncio.to_thread(self._book.close)


def _prepare_for_others(native: bool) -> None:
    """Do once, while nobody waits, what the first connection would have to wait for."""
    catch_up()
    if native:
        from .quic.native import shared_engine  # noqa: F401


def _open_place(host: str, port: int | range, options: Options) -> tuple[Identity, Place, Memory]:
    if isinstance(port, range) and not (port and port[0] > 0 and port[-1] < 65_536 and port.step == 1):
        raise LocalProtocolError(f"{port} is not a range of ports: choose one within 1 to 65535")
    if not isinstance(port, range):
        check_choice("port", port, lambda port: 0 <= index(port) <= 65_535, "0 to 65535, or a range of ports")
    identity = load_identity(options)
    memory = Memory(identity)
    return identity, open_book(identity, host, port, options, memory.has_unfinished), memory


async def _close_opened(opening: asyncio.Future[tuple[Identity, Place, Memory]]) -> None:
    """Nobody wants the book that a thread is about to open: let go of its folder."""
    await asyncio.wait({opening})
    if opening.exception() is None:
        opening.result()[1].book.close()


def _ports_to_try(port: int | range, remembered: int | None) -> list[int]:
    """The port of last time comes first where the choice is free, so that tickets given out stay good."""
    if isinstance(port, range):
        return sorted(port, key=lambda number: number != remembered)
    return [remembered, 0] if port == 0 and remembered is not None else [port]


def _advertised(addresses: Any, port: int) -> list[tuple[str, int]]:
    return [split_address(address, port) for address in addresses]


def _usable(addresses: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Addresses that fit into a ticket: no IPv6 zones, and not too many."""
    plain = [(host, port) for host, port in addresses if "%" not in host]
    return plain[:ADDRESSES_MAX]
