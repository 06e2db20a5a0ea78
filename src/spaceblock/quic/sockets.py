"""What an endpoint asks of the kernel for its UDP socket: an address, room, trains of datagrams, what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
import sys
from collections.abc import Iterator
from typing import Any

from ..display import address_text
from ..errors import ConnectionFailed, Unreachable
from .interface import Address
from .routes import look_up

_log = logging.getLogger("spaceblock")

SOCKET_BUFFER = 4 * 1024 * 1024
"""What we ask of the kernel for either direction; it may give less."""

UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""Errors which say that nobody is there."""

PASSING = UNREACHABLE | {errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM}
"""Errors of a write that say nothing of how it was made."""

SOL_UDP = 17
UDP_GRO = 104
UDP_SEGMENT = 103  # <linux/udp.h>; the socket module has no name for it yet


def granted_buffers() -> tuple[int, int]:
    """The bytes that this system keeps of what arrives at a socket of ours, and of what is sent by it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for option, forced in _BUFFERS:
            _enlarge(sock, option, forced)
        return buffer_size(sock, socket.SO_RCVBUF), buffer_size(sock, socket.SO_SNDBUF)


def offloads() -> tuple[bool, bool]:
    """Whether the kernel cuts trains of datagrams (UDP_SEGMENT), and puts those that arrive together (UDP_GRO)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return knows_trains(sock), _IS_LINUX and _receive_trains(sock)


async def open_socket(host: str, port: int) -> socket.socket:
    """A socket that does not block, on ``host`` (``"::"`` takes IPv4 too) and ``port`` (0: any).

    Raises :class:`~spaceblock.errors.ConnectionFailed` when the address cannot be had.
    """
    try:
        found = await look_up(host, port, socket.AF_UNSPEC, socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
            for option, forced in _BUFFERS:
                _enlarge(sock, option, forced)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise cannot_use((host, port), error) from error
    return sock


def cannot_use(address: Address, error: OSError) -> ConnectionFailed:
    """What is said when a socket cannot be had or watched."""
    reason = error.strerror or str(error)
    return ConnectionFailed(
        f"the address {address_text(*address)} cannot be used: {reason[:1].lower()}{reason[1:]}; choose another one",
        phase="listen",
        errno=error.errno,
    )


async def resolve(sock: socket.socket, address: Address, timeout: float) -> Any:
    """The socket's own form of an address, as it will be seen on what comes back.

    Raises :class:`~spaceblock.errors.Unreachable` when it is not found within ``timeout`` seconds.
    """
    flags = socket.AI_V4MAPPED | socket.AI_ALL if sock.family == socket.AF_INET6 else 0
    host, port = address
    try:
        found = await look_up(host, port, sock.family, flags, timeout)
    except (OSError, asyncio.TimeoutError) as error:
        raise Unreachable(
            f"the address {address_text(host, port)} cannot be found; check its spelling and the network",
            phase="connecting",
        ) from error
    return found[0][4]


def buffer_size(sock: socket.socket, option: int) -> int:
    """The bytes that the kernel keeps in one direction: SO_RCVBUF or SO_SNDBUF."""
    # Linux tells twice what was granted: the other half is for its own bookkeeping.
    return sock.getsockopt(socket.SOL_SOCKET, option) // (2 if _IS_LINUX else 1)


@functools.cache
def tell_small_buffer(size: int) -> None:
    """Warn, once for each size, of a buffer smaller than :data:`SOCKET_BUFFER`."""
    _log.warning(
        "the system keeps only %d bytes of what arrives, so fast transfers will lose packets; "
        "let it keep more (on Linux: sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d)",
        size,
        SOCKET_BUFFER,
        SOCKET_BUFFER,
    )


def knows_trains(sock: socket.socket) -> bool:
    """Whether the kernel cuts one write into datagrams of one size (UDP_SEGMENT)."""
    try:
        sock.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    except OSError:
        return False
    return _IS_LINUX


def train_stop(datagrams: list[tuple[bytes, Any]], start: int) -> int:
    """Where the train that begins at ``start`` ends: one peer, one size, and the last one may be shorter."""
    data, address = datagrams[start]
    size = len(data)
    stop = start + 1
    limit = min(len(datagrams), start + min(_TRAIN, _TRAIN_SIZE // size))
    while stop < limit:
        data, other = datagrams[stop]
        if len(data) > size or other != address:
            break
        stop += 1
        if len(data) < size:
            break
    return stop


def report_errors(sock: socket.socket, wanted: bool) -> None:
    """Whether the kernel shall keep what the network reports, such as that nobody listens on a port."""
    if _HAS_ERROR_QUEUE:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, wanted)  # also for IPv4 peers of an IPv6 socket
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, wanted)


def reported_errors(sock: socket.socket) -> Iterator[tuple[int, Any]]:
    """What the network reported about datagrams sent earlier: each error's number, and where that one was sent."""
    while _HAS_ERROR_QUEUE:
        try:
            _, ancillary, _, address = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for _level, _kind, report in ancillary:
            yield int.from_bytes(report[:4], sys.byteorder), address


_TRAIN = 64  # segments that every kernel takes
_TRAIN_SIZE = 65_000  # of the 65507 bytes of one packet
_IS_LINUX = sys.platform == "linux"
_SO_SNDBUFFORCE = 32  # <asm-generic/socket.h>
_SO_RCVBUFFORCE = 33
_BUFFERS = ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE))
_HAS_ERROR_QUEUE = _IS_LINUX
_IP_RECVERR = 11  # <linux/in.h> and <linux/in6.h>; the socket module has no names for them yet
_IPV6_RECVERR = 25


def _receive_trains(sock: socket.socket) -> bool:
    """Ask the kernel to put datagrams of one sender together; False where it cannot."""
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def _enlarge(sock: socket.socket, option: int, forced: int) -> None:
    """Ask for a buffer of :data:`SOCKET_BUFFER` bytes, past the system's cap where this process may."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    if _IS_LINUX and buffer_size(sock, option) < SOCKET_BUFFER:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER)
