"""Send and receive from a program without an event loop: each call runs one transfer from its beginning to its end.

Whoever can be reached listens: without a ticket a call makes one, shows it to ``on_ticket`` and waits for a peer; with
a ticket it connects. Ctrl-C cancels the transfer, tells the other side, and then raises ``KeyboardInterrupt``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from .api import connect, listen
from .errors import ConnectionLost, LocalProtocolError
from .events import Receipt
from .options import Conflict, Durability, Links, Options
from .peer import Peer, check_sending
from .process.interrupts import run
from .storage.sources import check_sources
from .transfers.asking import Rename
from .transfers.following import ShowProgress
from .transfers.offer import Offer
from .trust.contacts import Contact
from .trust.tickets import Ticket

_T = TypeVar("_T")

ShowTicket = Callable[[str], object]


def send(
    ticket: str | Ticket | Contact | None,
    *sources: Any,
    on_ticket: ShowTicket | None = None,
    options: Options | None = None,
    progress: ShowProgress | None = None,
    links: Links = "skip",
    rename: Rename | None = None,
    host: str = "0.0.0.0",
    port: int | range = 0,
) -> Receipt:
    """Send what :meth:`Peer.send` takes; returns the :class:`Receipt` once the receiver verified all.

    With ``ticket=None`` this side listens on ``host`` and ``port``, calls ``on_ticket(ticket)`` and sends to the first
    peer that comes. ``links``, ``rename`` and ``progress`` are those of :meth:`Peer.send`. ``rename`` runs in another
    thread, the others in this one, between packets, and so should be quick; what they raise cancels the transfer.
    What is missing or cannot be sent is told before a ticket is shown or used.

    Raises what :func:`spaceblock.connect`, :func:`spaceblock.listen` and :meth:`Peer.send` raise, and
    :class:`LocalProtocolError` inside a running event loop.
    """

    async def to(peer: Peer) -> Receipt:
        return await peer.send(*sources, links=links, rename=rename, progress=progress)

    async def work() -> Receipt:
        # Before a ticket is shown, or used up.
        check_sending(sources, links, rename)
        check_sources(sources, links)
        if ticket is not None:
            async with connect(ticket, options=options) as peer:
                return await to(peer)
        show = _required(on_ticket, options)
        async with listen(host, port, options=options) as listener:
            show(listener.ticket)
            async for peer in listener.peers():
                return await to(peer)
        raise ConnectionLost("the listener ended before a peer came: send again")

    return _run(work)


def receive(
    folder: str | os.PathLike[str] | None = ".",
    ticket: str | Ticket | Contact | None = None,
    on_ticket: ShowTicket | None = None,
    *,
    into: Sequence[Any] | None = None,
    on_conflict: Conflict = "rename",
    durability: Durability = "fsync",
    options: Options | None = None,
    progress: ShowProgress | None = None,
    rename: Rename | None = None,
    host: str = "0.0.0.0",
    port: int | range = 0,
) -> Receipt:
    """Accept one offer, into ``folder`` or into the writable buffers ``into``, and return its :class:`Receipt`.

    Without a ticket this side listens on ``host`` and ``port`` and calls ``on_ticket(ticket)``; with one it connects
    and takes what the listener sends. ``into``, ``on_conflict``, ``durability`` and ``rename`` are those of
    :meth:`Offer.accept`, ``progress`` is that of :func:`send`.

    Raises what :func:`spaceblock.connect`, :func:`spaceblock.listen` and :meth:`Offer.accept` raise,
    :class:`ConnectionLost` if the sender leaves without an offer, and :class:`LocalProtocolError` inside a running
    event loop.
    """

    async def take(offer: Offer) -> Receipt:
        target = None if into is not None else folder
        return await offer.accept(
            target, into=into, on_conflict=on_conflict, durability=durability, rename=rename, progress=progress
        )

    async def work() -> Receipt:
        if ticket is not None:
            async with connect(ticket, options=options) as peer:
                async for offer in peer.offers():
                    return await take(offer)
            raise ConnectionLost("the sender ended the connection without an offer: ask what went wrong there")
        show = _required(on_ticket, options)
        async with listen(host, port, options=options) as listener:
            show(listener.ticket)
            async for offer in listener:
                return await take(offer)
        raise ConnectionLost("the listener ended before an offer came: receive again")

    return _run(work)


def _run(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise LocalProtocolError(
            "an event loop is running here, which spaceblock.sync would block: use spaceblock.connect() or listen()"
        )
    # A program with a handler of its own for Ctrl-C keeps it.
    takes_over = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return run(work(), (signal.SIGINT,) if takes_over else ())


def _required(on_ticket: ShowTicket | None, options: Options | None) -> ShowTicket:
    if on_ticket is not None:
        return on_ticket
    if options is not None and options.trust:
        return lambda ticket: None
    raise LocalProtocolError("nobody would learn the ticket: give on_ticket=print, or a ticket to connect with")
