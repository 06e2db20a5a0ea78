"""How a transfer ended, asked by its sender over a stream of its own, and answered by its receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..errors import ErrorCode, RemoteProtocolError, SpaceblockError
from ..limits import CONTROL_BACKLOG
from ..quic.interface import Connection, Stream
from ..storage.staging import remove_left
from ..trust.memory import Memory, Received
from ..wire.messages import (
    Message,
    Outcome,
    Query,
    StreamType,
    Unknown,
    VerifiedPage,
    encode_stream_header,
    pages_of_verified,
)
from .control import MessageStream

REPLY_MAX = 256 * 1_048_576
"""Bytes of a reply that are read."""


class Answering:
    """One Query stream that the peer opened; ``on_finished`` is called once, after ``patience`` seconds at the latest
    if nothing is asked until then, or nothing read of the answer. ``settle`` is awaited before anything is looked up:
    it brings what is still being received of the UUID to its end.

    An answer may be long: the peer is given one at a time, for which it has its ``turn``, and no more of it is made
    than it reads.
    """

    def __init__(
        self,
        stream: Stream,
        peer_id: str,
        memory: Memory,
        on_violation: Callable[[SpaceblockError], None],
        patience: float,
        settle: Callable[[bytes], Awaitable[None]],
        turn: asyncio.Lock,
    ) -> None:
        self.stream = stream
        self._turn = turn
        self._seconds = patience
        self._is_needed = True
        self.on_finished: Callable[[], None] = lambda: None
        self._peer_id = peer_id
        self._memory = memory
        self._settle = settle
        self._messages = MessageStream(stream, self._receive, self._receive_end, on_violation)
        self._query: Query | None = None
        self._looking: asyncio.Task[None] | None = None
        self._patience = asyncio.get_running_loop().call_later(patience, self._overdue)

    def start(self, first: bytes, fin: bool) -> None:
        """Begin with what came behind the stream's type."""
        self._messages.start(first, fin)

    def _receive(self, message: Message, payload_size: int) -> None:
        if not isinstance(message, Query) or self._query is not None:
            raise RemoteProtocolError(f"the peer sent {type(message).__name__} where one Query was expected")
        self._query = message

    def _overdue(self) -> None:
        self._messages.stop_reading()
        give_up(self.stream, ErrorCode.TIMEOUT)
        self.on_finished()

    def close(self) -> None:
        """Nobody needs an answer any more."""
        self._patience.cancel()
        self._is_needed = False

    def _receive_end(self) -> None:
        self._patience.cancel()
        if self._query is None:
            self._messages.send([], fin=True)
            self.on_finished()
            return
        self._looking = asyncio.get_running_loop().create_task(self._answer(self._query.uuid))

    async def _answer(self, uuid: bytes) -> None:
        try:
            await self._settle(uuid)
            async with self._turn:
                if self._is_needed:
                    await self._say(await asyncio.to_thread(self._look_up, uuid))
        except (SpaceblockError, asyncio.TimeoutError):
            give_up(self.stream, ErrorCode.TIMEOUT)
        finally:
            self.on_finished()

    async def _say(self, found: Received | None) -> None:
        if found is None:
            self._messages.send([Unknown()], fin=True)
            return
        for page in pages_of_verified(found.outcomes):
            self._messages.send([page], fin=page.last)
            await asyncio.wait_for(self.stream.drain(CONTROL_BACKLOG), self._seconds)

    def _look_up(self, uuid: bytes) -> Received | None:
        found = self._memory.outcome(uuid, self._peer_id)
        if found is not None and found.folder:
            # A program that was killed between the record and its last steps left its folder for unfinished files.
            remove_left(found.folder, uuid, self._memory.keeper(self._peer_id))
        return found


def give_up(stream: Stream, code: ErrorCode) -> None:
    """Stop a stream of the peer's in both directions that it has."""
    stream.stop(code)
    if not stream.is_unidirectional:
        stream.reset(code)


async def ask(connection: Connection, uuid: bytes, most: int) -> tuple[Outcome, ...] | None:
    """The outcomes of the transfer ``uuid`` as its receiver recorded them; None if it knows of no end. Where there are
    more than ``most``, these are only some more than that: an outcome takes a byte on the wire, and a hundred here.

    Raises :class:`RemoteProtocolError`, and waits until the connection ends if the peer does not answer.
    """
    stream = connection.open_stream(unidirectional=False)
    answer: asyncio.Future[tuple[Outcome, ...] | None] = asyncio.get_running_loop().create_future()
    outcomes: list[Outcome] = []
    size = 0
    known, is_whole = True, False

    def receive(message: Message, payload_size: int) -> None:
        nonlocal size, known, is_whole
        size += payload_size
        if isinstance(message, Unknown) and not outcomes:
            known = False
        elif isinstance(message, VerifiedPage) and known and message.first == len(outcomes) and size <= REPLY_MAX:
            outcomes.extend(message.outcomes)
            is_whole = message.last
            if len(outcomes) > most:
                end()
                messages.stop_reading()
        else:
            raise RemoteProtocolError(
                f"the peer sent {type(message).__name__} where the end of a transfer was expected"
            )

    def end() -> None:
        if not answer.done():
            answer.set_result(tuple(outcomes) if is_whole or len(outcomes) > most else None)

    def fail(error: SpaceblockError) -> None:
        if not answer.done():
            answer.set_exception(error)

    messages = MessageStream(stream, receive, end, fail)
    stream.write(encode_stream_header(StreamType.QUERY))
    messages.send([Query(uuid)], fin=True)
    messages.start()
    try:
        return await answer
    finally:
        messages.stop_reading()
