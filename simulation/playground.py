"""Two connected sides to play with: what programs do and what the network does, one call each, in any order.

For sequences of operations that Hypothesis makes up, and for those that are written down because they once went wrong.
Every call checks that nothing failed and that what was read is what was written; :meth:`Playground.finish` makes the
network good again and asks for everything that was not given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

from spaceblock.quic import CloseReason, TransportOptions

from .chance import steady
from .clock import VirtualLoop
from .hosts import Channel, Host, Kind, Talker, host
from .network import Conditions, Network
from .transfers import CLIENT_ADDRESS, SERVER_ADDRESS, Wrong

WRITTEN_MAX = 200_000
"""Bytes of one direction of a stream."""

CODE = 7
"""With which everything is given up."""

GOOD = Conditions()
REST = 600.0
"""Seconds within which everything must be done, once the network is good."""


@dataclass
class Pipe:
    """One direction of a stream."""

    content: bytes
    writer: Channel | None = None
    reader: Channel | None = None
    written: int = 0
    ended: bool = False
    was_reset: bool = False
    """By its writer."""
    was_stopped: bool = False
    """By its reader."""
    received: int = 0
    end: str | None = None
    """How it ended for its reader."""
    held: int = 0
    """Bytes for which the reader owes credit."""

    @property
    def is_given_up(self) -> bool:
        return self.was_reset or self.was_stopped


@dataclass
class Side:
    """One side: its host, its connection, and whether its readers hold back credit."""

    host: Host
    is_client: bool
    talker: Talker | None = None
    holds: bool = False
    pipes: list[Pipe] = field(default_factory=list)
    """Those that it reads."""


class Playground:
    """The client and the server, connected; ``options`` are those of both sides' :class:`TransportOptions`."""

    def __init__(self, client: Kind = Kind.NATIVE, server: Kind = Kind.NATIVE, seed: int = 0, **options: Any) -> None:
        self.loop = VirtualLoop()
        self._chance = contextlib.ExitStack()
        self._chance.enter_context(steady(seed))
        self.network = Network(self.loop, seed, GOOD, GOOD)
        self.network.drop = self._drop
        self.streams: list[tuple[Pipe, Pipe | None]] = []
        """The opener's direction, and the other one of a bidirectional stream."""
        self._seed = seed
        self._doomed = {True: 0, False: 0}
        self._was_bad = False
        self._was_closed = False
        self._has_moved = False
        self._numbers: dict[int, int] = {}  # of the streams, by ID
        chosen = TransportOptions(**{"idle_timeout": 3_600.0, **options})

        async def connect() -> tuple[Side, Side]:
            address = CLIENT_ADDRESS[False], SERVER_ADDRESS[False]
            to = Side(host(server, self.network, address[1], chosen, self._accept, seed=seed), is_client=False)
            self._server = to
            by = Side(host(client, self.network, address[0], chosen, seed=seed), is_client=True)
            by.talker = await by.host.connect(address[1], 10)
            by.talker.set_stream_handler(lambda stream: self._answer(by, stream))
            return by, to

        self.client, self.server = self.loop.run(connect())

    @property
    def is_over(self) -> bool:
        """Whether a side's connection ended."""
        return any(side.talker is not None and side.talker.close_reason is not None for side in self._sides)

    # What programs do. Which of two sides it is, ``by_client`` says, and of a stream ``by_opener``.

    def open(self, *, by_client: bool = True, unidirectional: bool = True) -> int | None:
        """Open a stream; returns its number, or None where the handshake is not yet complete."""
        side, other = self._sides if by_client else self._sides[::-1]
        if side.talker is None or self.is_over:
            return None
        stream = side.talker.open_stream(unidirectional=unidirectional)
        number = len(self.streams)
        self._numbers[stream.stream_id] = number
        there = Pipe(self._content(number), writer=stream)
        back = None if unidirectional else Pipe(self._content(-1 - number), reader=stream)
        self.streams.append((there, back))
        other.pipes.append(there)
        if back is not None:
            side.pipes.append(back)
        self._attach(side, stream, there, back)
        self.pass_time(0)
        return number

    def write(self, number: int, size: int, *, by_opener: bool = True, end: bool = False) -> None:
        """Write so many bytes more, or what there is left; ``end`` ends the direction."""
        pipe = self._pipe(number, by_opener)
        if pipe is None or pipe.writer is None or pipe.ended or pipe.is_given_up:
            return
        start, pipe.written = pipe.written, min(pipe.written + size, len(pipe.content))
        pipe.writer.write(pipe.content[start : pipe.written], fin=end)
        pipe.ended = end
        self.pass_time(0)

    def reset(self, number: int, *, by_opener: bool = True) -> None:
        """The writer gives up."""
        pipe = self._pipe(number, by_opener)
        if pipe is not None and pipe.writer is not None:
            pipe.was_reset = True
            pipe.writer.reset(CODE)
            self.pass_time(0)

    def stop(self, number: int, *, by_opener: bool = True) -> None:
        """The reader of what ``by_opener`` writes wants no more."""
        pipe = self._pipe(number, by_opener)
        if pipe is not None and pipe.reader is not None and pipe.end is None:
            pipe.was_stopped = True
            pipe.end = "stopped"
            pipe.reader.stop(CODE)
            self.pass_time(0)

    def hold(self, *, by_client: bool = True) -> None:
        """The readers of a side grant no more credit; a second call lets them grant all that they owe."""
        side = self._sides[not by_client]
        side.holds = not side.holds
        if not side.holds:
            self._release(side)
        self.pass_time(0)

    def ping(self, *, by_client: bool = True) -> None:
        """A side wants to hear of the other."""
        talker = self._sides[not by_client].talker
        if talker is not None and not self.is_over:
            talker.keep_alive()
            self.pass_time(0)

    def close(self, *, by_client: bool = True) -> None:
        """A side ends the connection."""
        talker = self._sides[not by_client].talker
        if talker is not None and not self.is_over:
            self._was_closed = True
            talker.close(CODE)
            self.pass_time(0)

    # What the network does.

    def pass_time(self, seconds: float) -> None:
        """Let happen what happens in so much time."""
        self.loop.pass_time(seconds)
        for side in self._sides:
            reason = None if side.talker is None else side.talker.close_reason
            if reason is not None and not self._may_end(reason):
                raise Wrong(f"the {'client' if side.is_client else 'server'}'s connection ended: {reason}")

    def change(self, *, forward: bool = True, **conditions: Any) -> None:
        """Give one direction other conditions; see :class:`.network.Conditions`."""
        self._was_bad |= bool(conditions)
        self.network.change(Conditions(**conditions), forward=forward)

    def lose(self, count: int, *, forward: bool = True) -> None:
        """Lose so many of the next datagrams of a direction."""
        self._was_bad |= count > 5
        self._doomed[forward] = count

    def rebind(self, port: int) -> None:
        """A NAT gives the client another port, and the client says something."""
        self._has_moved = True
        self.client.host.socket.rebind(CLIENT_ADDRESS[False][0], port)
        self.ping()

    # The end.

    def finish(self) -> None:
        """Make the network good, end every stream, and see that all comes to rest and nothing is left."""
        try:
            self._doomed = {True: 0, False: 0}
            for forward in (True, False):
                self.network.change(GOOD, forward=forward)
            for side in self._sides:
                side.holds = False
                self._release(side)
            self.loop.run(self._rest())
            self.pass_time(0)
            self.loop.run(self._close())
        finally:
            self.loop.close()
            self._chance.close()

    async def _rest(self) -> None:
        """Wait until every stream is done; streams end and make way for others."""
        until = self.loop.time() + REST
        while not self.is_over and self._unfinished():
            for pipe in [pipe for pipes in self.streams for pipe in pipes if pipe is not None]:
                if pipe.writer is not None and not (pipe.ended or pipe.is_given_up):
                    pipe.ended = True
                    pipe.writer.write(b"", fin=True)
            if self._has_moved and self.client.talker is not None:
                self.client.talker.keep_alive()  # what it said when it moved may be lost
            await asyncio.sleep(0.2)
            if self.loop.time() > until:
                raise Wrong(f"the connection does not come to rest: {self._unfinished()}")

    async def _close(self) -> None:
        for side in self._sides:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(side.host.close(), 5)
            if side.host.connections:
                raise Wrong(f"{side.host.connections} connections are left")
        await asyncio.sleep(5)
        if self.loop.waiting:
            raise Wrong(f"{len(self.loop.waiting)} timers are left: {self.loop.waiting[0]}")

    # Helpers.

    @property
    def _sides(self) -> tuple[Side, ...]:
        return (self.client, self.server) if hasattr(self, "client") else ()

    def _unfinished(self) -> list[str]:
        found = []
        for number, pipes in enumerate(self.streams):
            for pipe in pipes:
                if pipe is None:
                    continue
                if pipe.end is None and not pipe.is_given_up:
                    found.append(f"stream {number} has {pipe.received} of {pipe.written} bytes")
                elif any(channel is not None and not channel.finished for channel in (pipe.writer, pipe.reader)):
                    found.append(f"stream {number} is not finished")
        return found

    def _may_end(self, reason: CloseReason) -> bool:
        if reason.timed_out:
            return self._was_bad or self._was_closed
        return self._was_closed and reason.is_application and reason.code == CODE

    def _accept(self, talker: Talker) -> None:
        self._server.talker = talker
        talker.set_stream_handler(lambda stream: self._answer(self._server, stream))

    def _answer(self, side: Side, stream: Channel) -> None:
        there, back = self.streams[self._numbers[stream.stream_id]]
        there.reader = stream
        if back is not None:
            back.writer = stream
        self._attach(side, stream, back, there)

    def _attach(self, side: Side, stream: Channel, writing: Pipe | None, reading: Pipe | None) -> None:
        def on_data(data: bytes, fin: bool) -> None:
            assert reading is not None
            self._read(side, reading, data, fin)

        def on_reset(code: int) -> None:
            assert reading is not None
            if not reading.was_reset or code != CODE or reading.end is not None:
                raise Wrong(f"stream {stream.stream_id} was reset with code {code:#x}, for no reason")
            reading.end = "reset"

        def on_stop(code: int) -> None:
            assert writing is not None
            if not writing.was_stopped or code != CODE:
                raise Wrong(f"stream {stream.stream_id} was stopped with code {code:#x}, for no reason")

        stream.set_handlers(
            on_data=on_data if reading else None,
            on_reset=on_reset if reading else None,
            on_stop=on_stop if writing else None,
        )

    def _read(self, side: Side, pipe: Pipe, data: bytes, fin: bool) -> None:
        if pipe.end is not None:
            raise Wrong(f"more arrives after the end ({pipe.end})")
        start, pipe.received = pipe.received, pipe.received + len(data)
        if data != pipe.content[start : pipe.received] or pipe.received > pipe.written:
            raise Wrong(f"what arrives differs between {start} and {pipe.received}")
        if fin:
            if not pipe.ended or pipe.received != pipe.written:
                raise Wrong(f"it ends after {pipe.received} bytes of {pipe.written}")
            pipe.end = "whole"
        pipe.held += len(data)
        if not side.holds:
            self._grant(pipe)

    def _release(self, side: Side) -> None:
        for pipe in side.pipes:
            self._grant(pipe)

    def _grant(self, pipe: Pipe) -> None:
        owed, pipe.held = pipe.held, 0
        if owed and pipe.reader is not None:
            pipe.reader.consume(owed)

    def _pipe(self, number: int, by_opener: bool) -> Pipe | None:
        if self.is_over or not self.streams:
            return None
        there, back = self.streams[number % len(self.streams)]
        return there if by_opener else back

    def _drop(self, forward: bool, data: bytes) -> bool:
        self._doomed[forward] -= 1
        return self._doomed[forward] >= 0

    def _content(self, number: int) -> bytes:
        return random.Random(f"content {self._seed} {number}").randbytes(WRITTEN_MAX)
