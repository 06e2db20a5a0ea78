"""Runs a scenario and judges its end: every byte that was written is read, or a typed error says why not.

A stream ends in one of three ways: whole, with the bytes that were written; reset by its writer or stopped by its
reader, where the scenario says so, and what was read until then is right; or lost with its connection. A connection
ends because its client closed it, or, on a harsh network only, by a time-out. Afterwards nothing may be left: no
connection, no timer, no failure that was swallowed. Whatever else happens is :class:`Wrong`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from spaceblock.errors import Unreachable
from spaceblock.quic import CloseReason, ConnectionEnded, Stream, StreamStopped

from .chance import steady
from .clock import VirtualLoop
from .hosts import Channel, Host, Kind, Talker, host
from .network import Fate, Network
from .scenario import Flow, Scenario, Transfer

CLIENT_ADDRESS = {False: ("192.0.2.1", 50_001), True: ("2001:db8::1", 50_001)}
SERVER_ADDRESS = {False: ("198.51.100.7", 4_433), True: ("2001:db8:ff::7", 4_433)}
MOVED = {False: "192.0.2.", True: "2001:db8::"}
"""What a NAT's other addresses begin with."""

DONE = 0x2A
"""The code with which the client closes."""

RESET, STOP = 0x1000, 0x2000
"""The codes of streams that are given up, before their number."""

KEEP_ALIVE = 1.0
"""Seconds between two signs of life of a client that may move."""

LINGER = 5.0
"""Seconds after which nothing may be left of anything."""


class Wrong(AssertionError):
    """What must not happen."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulation ended: of each way for a stream to end how many, of each fate of a datagram how many."""

    ends: Counter[str]
    fates: dict[Fate, int]
    seconds: float
    """Of virtual time."""
    trace: str
    """A digest of all that was sent; see :attr:`.network.Network.trace`."""


def simulate(scenario: Scenario, prepare: Callable[[Simulation], None] | None = None) -> Outcome:
    """Run one scenario to its end; raises :class:`Wrong`, or another :class:`AssertionError`.

    ``prepare`` may watch or change the network before anything is sent.
    """
    loop = VirtualLoop()
    try:
        with steady(scenario.seed):
            return loop.run(_run(loop, scenario, prepare))
    finally:
        loop.close()


class Simulation:
    """A scenario while it runs: ``client`` and ``server`` are the connections, once they are there."""

    def __init__(self, loop: VirtualLoop, scenario: Scenario) -> None:
        self.loop = loop
        self.scenario = scenario
        self.network = Network(loop, scenario.seed, scenario.forward, scenario.back)
        self.client: Talker | None = None
        self.server: Talker | None = None
        self.changed = asyncio.Event()
        self.server_host = self._host(scenario.server, self._accept)
        self.client_host = self._host(scenario.client, None)
        self.flows = [
            [_Flow(self, flow, index, way) for way, flow in enumerate((each.there, each.back)) if flow is not None]
            for index, each in enumerate(scenario.transfers)
        ]
        self.streams: list[Channel] = []
        self.moves: list[asyncio.TimerHandle] = []
        """Of the client, which are yet to come."""
        self._plans: dict[int, int] = {}  # the transfer of each stream

    async def connect(self) -> None:
        """Begin; raises what :meth:`.hosts.Host.connect` raises."""
        address = SERVER_ADDRESS[self.scenario.ipv6]
        self.client = await self.client_host.connect(address, self.scenario.limit)
        self._begin(self.client, by_client=True)
        for number, rebinding in enumerate(self.scenario.rebindings):
            self.moves.append(self.loop.call_later(rebinding.at, self.rebind, number, rebinding.address))
        if self.scenario.rebindings:
            self._keep_alive()

    @property
    def is_decided(self) -> bool:
        """Whether every stream has come to its end."""
        return all(flow.end is not None for flows in self.flows for flow in flows)

    @property
    def is_over(self) -> bool:
        """Whether a connection ended."""
        return any(talker is not None and talker.close_reason is not None for talker in (self.client, self.server))

    def rebind(self, number: int, address: bool) -> None:
        """Give the client its next address behind the NAT."""
        before = self.client_host.socket.address
        name = f"{MOVED[self.scenario.ipv6]}{100 + number}" if address else before[0]
        self.client_host.socket.rebind(name, before[1] + 1 + number)

    def tell(self, reason: CloseReason | None = None) -> None:
        """Something changed that somebody may wait for."""
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, of which :meth:`tell` tells."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def end_of(self, talker: Talker) -> CloseReason:
        """Wait until a connection is over."""
        await self.until(lambda: talker.close_reason is not None)
        assert talker.close_reason is not None
        return talker.close_reason

    def _host(self, kind: Kind, on_connection: Callable[[Talker], None] | None) -> Host:
        scenario = self.scenario
        is_client = on_connection is None
        return host(
            kind,
            self.network,
            (CLIENT_ADDRESS if is_client else SERVER_ADDRESS)[scenario.ipv6],
            scenario.client_options if is_client else scenario.server_options,
            on_connection,
            seed=scenario.seed,
            full=scenario.full,
            retry=scenario.retry,
            certificate=0 if is_client else scenario.certificate,
        )

    def _accept(self, talker: Talker) -> None:
        if self.server is not None:
            raise Wrong("the server has a second connection")
        self.server = talker
        self._begin(talker, by_client=False)

    def _begin(self, talker: Talker, *, by_client: bool) -> None:
        talker.set_stream_handler(self._answer)
        talker.set_close_handler(self.tell)
        for index, transfer in enumerate(self.scenario.transfers):
            if transfer.by_client is by_client:
                self.loop.call_later(transfer.start, self._open, talker, index, transfer)

    def _open(self, talker: Talker, index: int, transfer: Transfer) -> None:
        if talker.close_reason is not None:
            return
        stream = talker.open_stream(unidirectional=transfer.back is None)
        self._plans[stream.stream_id] = index
        self.streams.append(stream)
        there, *back = self.flows[index]
        self._serve(stream, there, back[0] if back else None)

    def _keep_alive(self) -> None:
        if self.client is not None and not self.is_over:
            self.client.keep_alive()
            self.loop.call_later(KEEP_ALIVE, self._keep_alive)

    def _answer(self, stream: Channel) -> None:
        if stream.stream_id not in self._plans:
            raise Wrong(f"stream {stream.stream_id} was opened by nobody")
        self.streams.append(stream)
        there, *back = self.flows[self._plans[stream.stream_id]]
        self._serve(stream, back[0] if back else None, there)

    def _serve(self, stream: Channel, writing: _Flow | None, reading: _Flow | None) -> None:
        stream.set_handlers(
            on_data=reading.on_data if reading else None,
            on_reset=reading.on_reset if reading else None,
            on_stop=writing.on_stop if writing else None,
        )
        if reading:
            reading.read_from(stream)
        if writing:
            writing.write_to(stream)


class _Flow:
    """One direction of a stream, from both ends."""

    def __init__(self, simulation: Simulation, flow: Flow, index: int, way: int) -> None:
        self.name = f"stream {index}, {'there' if way == 0 else 'back'}"
        self.content = random.Random(f"content {simulation.scenario.seed} {index} {way}").randbytes(flow.size)
        self.end: str | None = None
        self._simulation = simulation
        self._loop = simulation.loop
        self._flow = flow
        self._code = 2 * index + way
        self._writer: Channel | None = None
        self._reader: Channel | None = None
        self._was_stopped = False
        self._received = 0

    # Writing.

    def write_to(self, stream: Channel) -> None:
        self._writer = stream
        self._write_piece(0)

    def on_stop(self, code: int) -> None:
        self._expect(code, STOP, self._flow.stop_after, "was stopped")
        self._was_stopped = True

    def _write_piece(self, number: int) -> None:
        writer, flow = self._writer, self._flow
        assert writer is not None
        if self._was_stopped or self._simulation.is_over:
            return
        stop = flow.size if flow.reset_after is None else min(flow.reset_after, flow.size)
        is_last = number + 1 >= flow.pieces
        piece = self.content[stop * number // flow.pieces : stop * (number + 1) // flow.pieces]
        writer.write(piece, fin=is_last and flow.reset_after is None)
        if not is_last:
            self._loop.call_later(flow.pause, self._write_piece, number + 1)
        elif flow.reset_after is not None:
            writer.reset(RESET + self._code)

    # Reading.

    def read_from(self, stream: Channel) -> None:
        self._reader = stream
        self._stop_if_enough()

    def on_data(self, data: bytes, fin: bool) -> None:
        if self.end is not None:
            raise Wrong(f"{self.name} goes on after its end ({self.end})")
        start, self._received = self._received, self._received + len(data)
        if data != self.content[start : self._received]:
            raise Wrong(f"{self.name} differs between {start} and {self._received}")
        if data:
            self._loop.call_later(self._flow.hold, self._consume, len(data))
        if fin:
            if self._received != len(self.content) or self._flow.reset_after is not None:
                raise Wrong(f"{self.name} ends after {self._received} bytes of {len(self.content)}")
            self._finish("whole")
        else:
            self._stop_if_enough()

    def on_reset(self, code: int) -> None:
        self._expect(code, RESET, self._flow.reset_after, "was reset")
        if self.end is not None:
            raise Wrong(f"{self.name} was reset after its end ({self.end})")
        self._finish("reset")

    def _consume(self, count: int) -> None:
        assert self._reader is not None
        self._reader.consume(count)

    def _stop_if_enough(self) -> None:
        assert self._reader is not None
        if self.end is None and self._flow.stop_after is not None and self._received >= self._flow.stop_after:
            self._finish("stopped")
            self._reader.stop(STOP + self._code)

    def _finish(self, end: str) -> None:
        self.end = end
        self._simulation.tell()

    def _expect(self, code: int, kind: int, after: int | None, what: str) -> None:
        if after is None or code != kind + self._code:
            raise Wrong(f"{self.name} {what} with code {code:#x}, for no reason")


async def _run(loop: VirtualLoop, scenario: Scenario, prepare: Callable[[Simulation], None] | None) -> Outcome:
    simulation = Simulation(loop, scenario)
    if prepare is not None:
        prepare(simulation)
    try:
        await asyncio.wait_for(_transfer(simulation), scenario.limit)
    except asyncio.TimeoutError:
        ends = Counter(flow.end or "open" for flows in simulation.flows for flow in flows)
        raise Wrong(f"not over after {scenario.limit:.0f} s of virtual time: {dict(ends)}") from None
    seconds = simulation.network.now
    await _clean_up(simulation)
    ends = Counter(flow.end or "lost" for flows in simulation.flows for flow in flows)
    return Outcome(ends, simulation.network.fates, seconds, simulation.network.trace)


async def _transfer(simulation: Simulation) -> None:
    try:
        await simulation.connect()
    except (Unreachable, ConnectionEnded) as error:
        reason = error.reason if isinstance(error, ConnectionEnded) else None
        _allow(simulation.scenario, reason, f"the handshake failed: {error}")
        return
    await simulation.until(lambda: simulation.is_decided or simulation.is_over)
    if not simulation.is_over:
        await _come_to_rest(simulation)
    client, server = simulation.client, simulation.server
    assert client is not None
    ended_early = simulation.is_over
    client.close(DONE, "done")
    for name, talker in (("client", client), ("server", server)):
        if talker is not None:
            reason = await simulation.end_of(talker)
            is_ours = reason.is_application and reason.code == DONE and reason.by_peer is (talker is server)
            if not is_ours:
                # A close may be lost, and whoever has nothing to send finds out by and by.
                _allow(simulation.scenario, reason, f"the {name}'s connection ended", early=ended_early)


async def _come_to_rest(simulation: Simulation) -> None:
    """All that was written is acknowledged, and both sides are done with every stream."""
    for stream in simulation.streams:
        if isinstance(stream, Stream):
            try:
                await stream.drain(0)
            except StreamStopped as error:
                if error.error_code & (RESET | STOP) == 0:
                    raise Wrong(f"stream {stream.stream_id} was given up for no reason") from error
            except ConnectionEnded:
                return  # judged by the caller
    # What neither side waits for, such as the acknowledgement of a reset, may need a time-out or two.
    pause = 0.01
    while not all(stream.finished for stream in simulation.streams) and not simulation.is_over:
        await asyncio.sleep(pause)
        pause *= 1.5


def _allow(scenario: Scenario, reason: CloseReason | None, what: str, early: bool = True) -> None:
    # Where a close was lost, who speaks to the one that closed and forgot is told so by a stateless reset.
    is_time_out = reason is None or reason.timed_out or (reason.was_reset and not early)
    if not is_time_out or (early and not scenario.is_harsh):
        raise Wrong(f"{what}" + (f": {reason}" if reason else ""))


async def _clean_up(simulation: Simulation) -> None:
    for move in simulation.moves:
        move.cancel()
    for each in (simulation.client_host, simulation.server_host):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(each.close(), LINGER)
        if each.connections:
            raise Wrong(f"{each.connections} connections are left")
    await asyncio.sleep(LINGER)
    waiting = simulation.loop.waiting
    if waiting:
        raise Wrong(f"{len(waiting)} timers are left: {waiting[0]}")
