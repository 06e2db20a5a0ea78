"""A box between a client and a server that gives the client another address, as a NAT does, and can change it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

Address = tuple[str, int]


class Nat:
    """Made by :func:`nat`; a client calls :attr:`address`, the server sees :attr:`outside`."""

    def __init__(self, server: Address, loss: float, seed: int) -> None:
        self.address: Address = ("", 0)
        self.outside: Address = ("", 0)
        self.watch: Callable[[bytes], bool] = lambda datagram: True
        """Is given what the client sends, and says whether it passes."""

        self._server = server
        self._loss = loss
        self._random = random.Random(seed)
        self._client: Any = None
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None

    async def rebind(self, host: str = "127.0.0.1") -> None:
        """Give the client another port, maybe on another host, and forget the old one: what comes there is lost."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_server), (host, 0))
        if self._outside is not None:
            self._outside.close()
        self._outside = transport
        self.outside = transport.get_extra_info("sockname")[:2]

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_client), ("127.0.0.1", 0))
        self.address = self._inside.get_extra_info("sockname")[:2]
        await self.rebind()

    def close(self) -> None:
        for transport in (self._inside, self._outside):
            if transport is not None:
                transport.close()

    def _from_client(self, data: bytes, address: Any) -> None:
        self._client = address
        if self.watch(data) and self._outside is not None and self._random.random() >= self._loss:
            self._outside.sendto(data, self._server)

    def _from_server(self, data: bytes, address: Any) -> None:
        if self._inside is not None and self._client is not None and self._random.random() >= self._loss:
            self._inside.sendto(data, self._client)


@contextlib.asynccontextmanager
async def nat(server: Address, loss: float = 0, seed: int = 1) -> AsyncIterator[Nat]:
    """A box in front of a server, which loses a share of the datagrams."""
    box = Nat(server, loss, seed)
    await box.open()
    try:
        yield box
    finally:
        box.close()


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Any], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)
