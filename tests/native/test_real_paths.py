"""What a path really carries: hosts in network namespaces of their own and a router between them, as root on Linux."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from quic_pair import CLIENT, MIB, SERVER, Streams
from spaceblock.quic import Connection, TransportOptions
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.native.engine_shell import NativeEngine

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root, Linux and iproute2"
)

HEADERS = 28
STEP = 16
"""Bytes that are not worth another probe."""

PATIENCE = 60.0
CLIENT_HOST, SERVER_HOST = "10.77.1.1", "10.77.2.1"
CLONE_NEWNET = 0x40000000


@dataclass
class Route:
    """The client, a router and the server, each in a namespace; the local network of the client takes 9000 bytes."""

    name: str

    def set_mtu(self, mtu: int) -> None:
        """What is behind the router takes packets of so many bytes."""
        self._ip("router", "link", "set", "far", "mtu", str(mtu))
        self._ip("server", "link", "set", "eth", "mtu", str(mtu))

    def shrink(self, mtu: int) -> None:
        """The router passes on packets of so many bytes, which no host's own network tells of."""
        for there in ("near", "far"):
            self._ip("router", "link", "set", there, "mtu", str(mtu))

    def open(self) -> None:
        for place in ("client", "router", "server"):
            ip("netns", "add", self.of(place))
        self._link("client", "near", CLIENT_HOST, "10.77.1.254")
        self._link("server", "far", SERVER_HOST, "10.77.2.254")
        forwarding = ["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]
        subprocess.run(["ip", "netns", "exec", self.of("router"), *forwarding], check=True)

    def close(self) -> None:
        for place in ("client", "router", "server"):
            subprocess.run(["ip", "netns", "del", self.of(place)], stderr=subprocess.DEVNULL)

    def of(self, place: str) -> str:
        return f"{self.name}-{place}"

    def _link(self, place: str, there: str, host: str, router: str) -> None:
        peer = ["peer", "name", there, "netns", self.of("router")]
        ip("link", "add", "eth", "mtu", "9000", "netns", self.of(place), "type", "veth", *peer)
        for end, name, address in ((place, "eth", host), ("router", there, router)):
            self._ip(end, "addr", "add", f"{address}/24", "dev", name)
            self._ip(end, "link", "set", name, "mtu", "9000", "up")
        self._ip(place, "link", "set", "lo", "up")
        self._ip(place, "route", "add", "default", "via", router)

    def _ip(self, place: str, *words: str) -> None:
        ip("-n", self.of(place), *words)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def route() -> Iterator[Route]:
    path = Route(f"spaceblock-{os.getpid()}")
    path.close()  # of a test that was killed
    try:
        path.open()
    except subprocess.CalledProcessError:
        path.close()
        pytest.skip("this system does not let us make network namespaces")
    yield path
    path.close()


@dataclass
class Meeting:
    """What both threads tell each other."""

    address: Future[tuple[str, int]] = field(default_factory=Future)
    client_done: Future[int] = field(default_factory=Future)
    """Bytes of the datagrams that the client sends in the end; of the server, likewise."""
    server_done: Future[int] = field(default_factory=Future)


def move(
    path: Route,
    size: int,
    *,
    upload: bool = True,
    native: bool = True,
    halfway: Callable[[], None] = lambda: None,
) -> int:
    """Move bytes and compare them; returns the bytes of the sender's datagrams in the end."""
    options = TransportOptions(native=native)
    data = random.Random(size).randbytes(size)
    meeting = Meeting()

    async def work(connection: Connection, sends: bool, done: Future[int], other: Future[int]) -> None:
        if sends:
            stream = connection.open_stream(unidirectional=True)
            for start in range(0, size, MIB):
                if start == size // 2 // MIB * MIB:
                    halfway()
                stream.write(data[start : start + MIB], fin=start + MIB >= size)
                await stream.drain(2 * MIB)
            await stream.drain(0)
        else:
            reader = await streams_of[connection].next()
            assert await reader.read_all() == data
        done.set_result(datagram_of(connection))
        await asyncio.wrap_future(other)

    streams_of: dict[Connection, Streams] = {}

    async def serve() -> None:
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        async with opened(SERVER_HOST, options, server=SERVER, on_connection=accepted.put_nowait) as endpoint:
            meeting.address.set_result(endpoint.local_address)
            connection = await accepted.get()
            streams_of[connection] = Streams(connection)
            await work(connection, not upload, meeting.server_done, meeting.client_done)

    async def call() -> None:
        async with opened(CLIENT_HOST, options) as endpoint:
            connection = await endpoint.connect(await asyncio.wrap_future(meeting.address), CLIENT, timeout=30)
            streams_of[connection] = Streams(connection)
            await work(connection, upload, meeting.client_done, meeting.server_done)

    threads = [
        inside(path.of("server"), serve, (meeting.address, meeting.server_done)),
        inside(path.of("client"), call, (meeting.client_done,)),
    ]
    for thread in threads:
        thread.join()
    return (meeting.client_done if upload else meeting.server_done).result(0)


def datagram_of(connection: Any) -> int:
    engine = connection.engine
    return int(engine.packets.datagram_size) if isinstance(engine, NativeEngine) else int(engine._max_datagram_size)


@contextlib.asynccontextmanager
async def opened(host: str, options: TransportOptions, **others: Any) -> Any:
    endpoint = await Endpoint.bind(host, 0, options, **others)
    try:
        yield endpoint
    finally:
        await endpoint.close()


def inside(namespace: str, job: Callable[[], Awaitable[None]], promises: tuple[Future[Any], ...]) -> threading.Thread:
    """Run an event loop on a thread in a namespace; a failure breaks its promises."""

    def run() -> None:
        try:
            with open(f"/run/netns/{namespace}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            asyncio.run(asyncio.wait_for(job(), PATIENCE))
        except BaseException as error:
            for promise in promises:
                if not promise.done():
                    promise.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("upload", [True, False], ids=["up", "down"])
@pytest.mark.parametrize(("mtu", "found"), [(1_280, 1_252), (1_500, 1_472), (9_000, 8_972)])
def test_a_transfer_reaches_what_its_path_carries(route: Route, mtu: int, found: int, upload: bool) -> None:
    route.set_mtu(mtu)
    assert found - STEP < move(route, 96 * MIB, upload=upload) <= found


@pytest.mark.parametrize("upload", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("mtu", [9_000, 1_500])
def test_a_transfer_survives_a_path_that_shrinks(route: Route, mtu: int, upload: bool) -> None:
    route.set_mtu(mtu)
    assert 1_200 <= move(route, 32 * MIB, upload=upload, halfway=lambda: route.shrink(1_280)) <= 1_252


@pytest.mark.parametrize("mtu", [1_280, 1_500, 9_000])
def test_the_other_engine_takes_what_every_path_carries(route: Route, mtu: int) -> None:
    route.set_mtu(mtu)
    assert move(route, MIB, native=False, halfway=lambda: route.shrink(1_280)) <= 1_252
