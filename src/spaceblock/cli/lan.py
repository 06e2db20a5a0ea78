"""Finding listeners on the local network by multicast DNS (RFC 6762, 6763); needs the package ``zeroconf``.

What is announced is public and proves nothing: a name, a peer ID, addresses. Whom to believe is decided by peer IDs,
which the handshake proves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import click

from ..display import address_text, printable
from ..errors import LocalProtocolError, Unreachable
from ..limits import ADDRESSES_MAX
from ..process.lazily import dataclass
from ..trust.contacts import Contact
from ..trust.identity import parse_peer_id, peer_id_text
from ..trust.tickets import Ticket
from .trusted import TrustedPeer

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    from ..listener import Listener
    from .console import Console

SERVICE = "_spaceblock._udp.local."

NAME_MAX = 63
"""Bytes of a label of DNS (RFC 1035, section 2.3.4)."""

_RESOLVE = 3_000
"""Milliseconds that one listener is given to tell its addresses."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A listener that announces itself, as it says."""

    name: str
    peer: str
    addresses: tuple[str, ...]


@asynccontextmanager
async def announcing(listener: Listener, name: str | None, console: Console) -> AsyncIterator[None]:
    """:func:`announced` where there is a ``name``; that it cannot be announced is told, and is no failure."""
    async with AsyncExitStack() as stack:
        if name is not None:
            try:
                shown = await stack.enter_async_context(announced(listener, name))
            except Unreachable as error:
                console.warn(error.message)
            else:
                console.say(f"announced on this network as {printable(shown)}")
        yield


@asynccontextmanager
async def announced(listener: Listener, name: str) -> AsyncIterator[str]:
    """Announce ``listener`` while the block runs, under ``name`` or, where that is taken, one like it; gives which."""
    zeroconf = _open()
    try:
        from zeroconf.asyncio import AsyncServiceInfo

        hosts = [host for host, _ in listener.addresses]
        info = AsyncServiceInfo(
            SERVICE,
            f"{_label(name)}.{SERVICE}",
            port=listener.addresses[0][1],
            properties={"id": listener.peer_id},
            addresses=[ipaddress.ip_address(host).packed for host in hosts if _is_address(host)],
            server=f"{listener.peer_id}.local.",
        )
        await zeroconf.async_register_service(info, allow_name_change=True)
        try:
            yield info.name.removesuffix(f".{SERVICE}")
        finally:
            await zeroconf.async_unregister_service(info)
    finally:
        await zeroconf.async_close()


async def browse(seconds: float, peer: str | None = None) -> list[Announced]:
    """The listeners that answer within ``seconds``; with ``peer`` only that one, as soon as it does."""
    from zeroconf import ServiceStateChange
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo

    zeroconf = _open()
    found: dict[str, Announced] = {}
    enough = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def look(name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        if await info.async_request(zeroconf.zeroconf, _RESOLVE):
            listener = _read(info)
            if listener is not None:
                found[name] = listener
                if listener.peer == peer:
                    enough.set()

    def changed(zeroconf: object, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Added:
            task = asyncio.ensure_future(look(name))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    try:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, [SERVICE], handlers=[changed])
        try:
            await asyncio.wait_for(enough.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            await browser.async_cancel()
    finally:
        for task in tasks:
            task.cancel()
        await zeroconf.async_close()
    listeners = sorted(found.values(), key=lambda listener: listener.name)
    return [listener for listener in listeners if peer in (None, listener.peer)]


async def reach(target: Ticket | TrustedPeer, seconds: float) -> Ticket | Contact:
    """Where ``target`` is: a trusted peer without an address is looked for on the network, for ``seconds`` at most.

    Raises :class:`Unreachable`.
    """
    if isinstance(target, Ticket):
        return target
    if target.addresses:
        return target.contact()
    found = await browse(seconds, target.peer)
    if not found:
        raise Unreachable(
            f"{target.name or target.peer} does not announce itself on this network: start it there with --announce, "
            "or give its address with spaceblock trust --address"
        )
    return target.contact(found[0].addresses)


def check() -> None:
    """Raise ``click.UsageError`` where the package is missing."""
    try:
        import zeroconf  # noqa: F401
    except ImportError:
        raise click.UsageError(
            "finding computers on the network needs the zeroconf package: run pip install 'spaceblock[lan]'"
        ) from None


def _open() -> AsyncZeroconf:
    from zeroconf import InterfaceChoice
    from zeroconf.asyncio import AsyncZeroconf

    try:
        return AsyncZeroconf(interfaces=InterfaceChoice.All)
    except (OSError, RuntimeError) as error:  # the latter where no interface has an address
        reason = error.strerror if isinstance(error, OSError) else None
        raise Unreachable(
            f"this computer's network takes no multicast ({reason or 'no interface is up'}): use a ticket, or give the "
            "peer an address with spaceblock trust"
        ) from error


def _read(info: AsyncServiceInfo) -> Announced | None:
    """What an answer says, if it is sensible: anybody on the network may have sent it."""
    properties: Mapping[bytes, bytes | None] = info.properties
    try:
        peer = peer_id_text(parse_peer_id((properties.get(b"id") or b"").decode("ascii", "replace")))
    except LocalProtocolError:
        return None
    port = info.port or 0
    addresses = [address for address in info.parsed_scoped_addresses() if "%" not in address][:ADDRESSES_MAX]
    if not addresses or not 0 < port < 65_536:
        return None
    shown = tuple(address_text(address, port) for address in addresses)
    return Announced(printable(info.name.removesuffix(f".{SERVICE}")), peer, shown)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _label(name: str) -> str:
    """A name as DNS takes it: dots would part it, and there is room for 63 bytes."""
    encoded = printable(name).replace(".", "-").encode("utf-8")[: NAME_MAX - 4]  # room for a number behind it
    return encoded.decode("utf-8", "ignore") or socket.gethostname()
