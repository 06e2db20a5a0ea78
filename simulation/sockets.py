"""A UDP socket on the simulated network, with as much of a real one's interface as endpoints use.

Datagrams of one sender that wait together are read as one buffer where that was asked for, as Linux does (UDP_GRO), and
one write may be cut into many (UDP_SEGMENT). The ECN bits travel in the control messages in which Linux tells them.
"""

from __future__ import annotations

import random
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .network import Network

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IPV6_TCLASS = 67
COALESCED_MAX = 64
"""Datagrams in one buffer."""

ROOM = 0.001
"""Seconds until a full socket has room again."""


class SimulatedSocket:
    """One socket, bound to ``address``; a client's datagrams go ``forward``.

    With a likelihood of ``full``, a write finds no room; ``buffer`` is how many bytes of received datagrams are kept.
    """

    def __init__(
        self,
        network: Network,
        address: tuple[str, int],
        *,
        forward: bool,
        full: float = 0.0,
        buffer: int = 4 * 1024 * 1024,
        seed: int = 0,
    ) -> None:
        self.family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.forward = forward
        self.local = self._named(address)
        self.address = self.local
        """How others see it: a NAT may change it."""
        self.overflowed = 0
        self._network = network
        self._full = full
        self._random = random.Random(f"socket {seed} {forward}")
        self._buffer = buffer
        self._waiting: deque[tuple[bytes, tuple[Any, ...], int]] = deque()
        self._size = 0
        self._coalesces = False
        self._closed = False
        self._on_readable: Callable[[], None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self._told = False
        network.join(self)

    def rebind(self, host: str, port: int) -> None:
        """A NAT shows the socket under another address from now on."""
        self._network.rebind(self, self._named((host, port)))

    # The network's side.

    def arrive(self, data: bytes, source: tuple[Any, ...], ecn: int) -> None:
        if self._size + len(data) > self._buffer:
            self.overflowed += 1
            return
        self._waiting.append((data, source, ecn))
        self._size += len(data)
        self._tell_readable()

    # The loop's side.

    def watch_reading(self, callback: Callable[[], None] | None) -> None:
        self._on_readable = callback
        if self._waiting:
            self._tell_readable()

    def watch_writing(self, callback: Callable[[], None] | None) -> None:
        already = self._on_writable is not None
        self._on_writable = callback
        if callback is not None and not already:
            self._network.loop.call_later(ROOM, self._have_room)

    def _tell_readable(self) -> None:
        if self._on_readable is not None and not self._told:
            self._told = True
            self._network.loop.call_soon(self._read)

    def _read(self) -> None:
        self._told = False
        if self._on_readable is not None and self._waiting:
            self._on_readable()
            if self._waiting:
                self._tell_readable()

    def _have_room(self) -> None:
        if self._on_writable is not None:
            self._on_writable()
        if self._on_writable is not None:
            self._network.loop.call_later(ROOM, self._have_room)

    # The interface of a socket.

    def getsockname(self) -> tuple[Any, ...]:
        return self.local

    def fileno(self) -> int:
        return -1 if self._closed else 1_000_000

    def close(self) -> None:
        self._closed = True
        self._network.leave(self)

    def getsockopt(self, level: int, option: int) -> int:
        # Linux tells twice what a buffer holds.
        return self._buffer * (2 if sys.platform == "linux" else 1)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if (level, option) == (SOL_UDP, UDP_GRO):
            self._coalesces = bool(value)

    def recvfrom(self, size: int) -> tuple[bytes, tuple[Any, ...]]:
        data, source, _ = self._take()
        return data[:size], source

    def recvmsg(self, size: int, ancillary_size: int = 0, flags: int = 0) -> Any:
        raise BlockingIOError  # no errors wait, and nothing else is read in this way

    def recvmsg_into(
        self, buffers: list[memoryview], ancillary_size: int = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, tuple[Any, ...]]:
        data, source, ecn = self._take()
        segment = len(data)
        if self._coalesces:
            pieces = [data]
            while self._goes_on(pieces, segment, source, ecn, len(buffers[0])):
                pieces.append(self._take()[0])
            data = b"".join(pieces)
        buffers[0][: len(data)] = data
        ancillary = [self.traffic_class(ecn)]
        if len(data) > segment:
            ancillary.append((SOL_UDP, UDP_GRO, segment.to_bytes(4, sys.byteorder)))
        return len(data), ancillary, 0, source

    def sendto(self, data: Any, address: tuple[Any, ...]) -> int:
        return self.sendmsg([data], (), 0, address)

    def sendmsg(
        self, buffers: Iterable[Any], ancillary: Iterable[tuple[int, int, Any]], flags: int, address: tuple[Any, ...]
    ) -> int:
        if self._random.random() < self._full:
            raise BlockingIOError
        data = b"".join(bytes(part) for part in buffers)
        segment, ecn = len(data), 0
        for level, option, value in ancillary:
            number = int.from_bytes(value, sys.byteorder)
            if (level, option) == (SOL_UDP, UDP_SEGMENT):
                segment = number
            elif (level, option) == self.traffic_class(0)[:2]:
                ecn = number & 3
        for start in range(0, len(data), segment):
            self._network.send(self, data[start : start + segment], address, ecn)
        return len(data)

    # For those who read and write its control messages.

    def traffic_class(self, ecn: int) -> tuple[int, int, bytes]:
        """The control message that carries ECN bits."""
        if self.family == socket.AF_INET6:
            return socket.IPPROTO_IPV6, IPV6_TCLASS, ecn.to_bytes(4, sys.byteorder)
        return socket.IPPROTO_IP, socket.IP_TOS, bytes([ecn])

    # Helpers.

    def _take(self) -> tuple[bytes, tuple[Any, ...], int]:
        if not self._waiting:
            raise BlockingIOError
        datagram = self._waiting.popleft()
        self._size -= len(datagram[0])
        return datagram

    def _goes_on(self, pieces: list[bytes], segment: int, source: tuple[Any, ...], ecn: int, room: int) -> bool:
        """Whether the kernel would put the next datagram behind those in ``pieces``."""
        if not self._waiting or len(pieces) >= COALESCED_MAX or len(pieces[-1]) < segment:
            return False
        data, other, mark = self._waiting[0]
        fits = len(data) <= segment and segment * len(pieces) + len(data) <= room
        return fits and other == source and mark == ecn

    def _named(self, address: tuple[str, int]) -> tuple[Any, ...]:
        return (*address, 0, 0) if self.family == socket.AF_INET6 else address
