"""The receiving path of the bytes: from one data stream to the ring or the caller's buffer, to the hasher and the disk.

On the event loop a :class:`Landing` takes the stream's messages apart: block data goes straight to the place where it
will be hashed and written from. What has landed is worked off by a worker thread, one batch at a time and in order.
When the ring is empty the stream is read no further, so its credit runs out and its sender waits; nothing else does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from blake3 import blake3

from ..core import MESSAGE_DATA_MAX, Deframer
from ..errors import InternalError, NoSpace, RemoteProtocolError, SpaceblockError
from ..limits import MESSAGE_PAYLOAD_MAX
from ..messages import Hole, ItemAbort, ItemEnd, decode_message
from ..protocol.receiver import ItemLost, Receiver, ReceiverEvent
from .ring import Ring
from .sinks import Sink

_STEPS_MAX = 1_024
"""Steps that wait for a busy worker before the stream is read no further."""


class Host(Protocol):
    """What a landing needs of its transfer."""

    receiver: Receiver
    ring: Ring
    sink: Sink

    def act(self, events: list[ReceiverEvent]) -> None:
        """Carry out what the state machine decided."""

    def fail(self, error: SpaceblockError) -> None:
        """End the transfer."""

    def work(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run ``job`` in a worker thread and ``done`` on the event loop afterwards."""


class _Kind(Enum):
    BEGIN = auto()
    DATA = auto()
    IN_PLACE = auto()
    HOLE = auto()
    END = auto()
    DROP = auto()


@dataclass(slots=True)
class _Step:
    """One thing for the worker to do with one item."""

    kind: _Kind
    item: int
    offset: int = 0
    length: int = 0
    data: memoryview = field(default_factory=lambda: memoryview(b""))


class Landing:
    """One data stream of one transfer; ``key`` tells the streams of a transfer apart, ``consume`` grants credit."""

    def __init__(self, host: Host, key: int, consume: Callable[[int], None]) -> None:
        self._host = host
        self._key = key
        self._consume = consume
        self._deframer = Deframer(MESSAGE_PAYLOAD_MAX, MESSAGE_DATA_MAX)
        self._arrived: deque[bytes] = deque()
        self._position = 0
        self._ends = False
        self.ended = False
        self.blocks = 0
        self._slot: memoryview | None = None
        self._used = 0
        self._landing: _Step | None = None
        self._targeted = False
        self._steps: list[_Step] = []
        self._retired: list[memoryview] = []
        self.working = False
        self._begun: set[int] = set()
        self._hashers: dict[int, blake3] = {}

    @property
    def waits_for_disk(self) -> bool:
        """Whether arrived bytes wait because the worker is behind."""
        return bool(self._arrived) and self.working

    @property
    def _is_behind(self) -> bool:
        """Whether so much waits for the worker that no more is read: items without bytes need no buffer to wait for."""
        return self.working and len(self._steps) >= _STEPS_MAX

    def receive_data(self, data: bytes, fin: bool) -> None:
        """Take the stream's next bytes, in order."""
        if self.ended:
            self._consume(len(data))
            return
        if data:
            self._arrived.append(data)
        self._ends |= fin
        self._advance()

    def receive_reset(self) -> None:
        """The sender gave the stream up: what was moving on it will not come."""
        if not self.ended:
            self._end()

    def close(self) -> None:
        """Let go of everything but what a worker still uses; what arrived and was not read is credited."""
        self.ended = True
        self._let_go()
        self._steps.clear()

    def _advance(self) -> None:
        consumed = 0
        try:
            while self._arrived and not self.ended and not self._is_behind and self._ready():
                data = self._arrived[0]
                position = self._deframer.feed(data, self._position)
                consumed += position - self._position
                if position == len(data):
                    self._arrived.popleft()
                    position = 0
                self._position = position
                self._handle(self._deframer.event)
            if self._ends and not self._arrived and not self.ended:
                if not self._deframer.at_boundary:
                    raise RemoteProtocolError("the sender ended a data stream in the middle of a message")
                self._end()
        except SpaceblockError as error:
            self.close()
            self._host.fail(error)
        if consumed:
            self._consume(consumed)

    def _handle(self, event: int) -> None:
        if event == Deframer.BLOCK:
            self._announce()
        elif event == Deframer.BLOCK_END:
            assert self._landing is not None
            self.blocks += 1
            if self._landing.kind is not _Kind.DROP:
                self._steps.append(self._landing)
            self._landing = None
            self._submit()
        elif event == Deframer.MESSAGE:
            self._receive_message()

    def _announce(self) -> None:
        item, offset, length = self._deframer.item, self._deframer.offset, self._deframer.length
        wanted = self._host.receiver.block(self._key, item, offset, length)
        self._landing = _Step(_Kind.DATA if wanted else _Kind.DROP, item, offset, length)
        self._targeted = False
        if wanted:
            self._begin(item)

    def _begin(self, item: int) -> None:
        if item not in self._begun:
            self._begun.add(item)
            self._steps.append(_Step(_Kind.BEGIN, item))

    def _ready(self) -> bool:
        """Find memory for the block that is about to land; False if there is none now."""
        step = self._landing
        if step is None or self._targeted:
            return True
        if step.kind is _Kind.DROP:
            self._deframer.set_target(_TRASH, 0)
        else:
            memory = self._host.sink.memory(step.item, step.offset, step.length)
            if memory is not None:
                step.kind, step.data = _Kind.IN_PLACE, memory
                self._deframer.set_target(memory, 0)
            else:
                start = self._room(step.length)
                if start < 0:
                    return False
                assert self._slot is not None
                step.data = self._slot[start : start + step.length]
                self._deframer.set_target(self._slot, start)
        self._targeted = True
        return True

    def _room(self, length: int) -> int:
        if self._slot is not None and length > len(self._slot) - self._used:
            self._retire()
            self._submit()
        if self._slot is None:
            self._slot = self._host.ring.take(self._advance)
            self._used = 0
            if self._slot is None:
                return -1
        start = self._used
        self._used += length
        return start

    def _receive_message(self) -> None:
        message = decode_message(self._deframer.message_type, self._deframer.payload)
        if isinstance(message, ItemEnd):
            if self._host.receiver.item_end(self._key, message):
                self._begin(message.item)
                self._begun.discard(message.item)
                self._steps.append(_Step(_Kind.END, message.item, length=message.size))
        elif isinstance(message, ItemAbort):
            self._act(self._host.receiver.item_abort(self._key, message))
        elif isinstance(message, Hole):
            if self._host.receiver.block(self._key, message.item, message.offset, message.length):
                self._begin(message.item)
                self._steps.append(_Step(_Kind.HOLE, message.item, message.offset, message.length))
        elif message is not None:
            raise RemoteProtocolError(f"the sender sent {type(message).__name__} on a data stream")
        self._submit()

    def _let_go(self) -> None:
        self._deframer.release()
        self._landing = None
        self._host.ring.forget(self._advance)
        unread = sum(map(len, self._arrived)) - self._position
        self._arrived.clear()
        self._position = 0
        if unread:
            self._consume(unread)

    def _end(self) -> None:
        self.ended = True
        self._let_go()
        self._act(self._host.receiver.stream_ended(self._key))
        self._submit()

    def _act(self, events: list[ReceiverEvent]) -> None:
        self._steps += [_Step(_Kind.DROP, event.item) for event in events if isinstance(event, ItemLost)]
        self._host.act(events)

    def _retire(self) -> None:
        if self._slot is not None:
            self._retired.append(self._slot)
            self._slot = None

    def _submit(self) -> None:
        """Hand over what has landed, unless the worker is busy: then it goes with the next batch."""
        if self.working:
            return
        if self._landing is None:
            self._retire()
        if not self._steps:
            self._give_back(self._retired)
            self._retired = []
            return
        steps, self._steps = self._steps, []
        slots, self._retired = self._retired, []
        results: list[tuple[int, int, bytes | SpaceblockError]] = []
        self.working = True

        def done(error: BaseException | None) -> None:
            self.working = False
            steps.clear()
            self._give_back(slots)
            if error is not None:
                self._host.fail(InternalError(f"storing received bytes failed unexpectedly: {error!r}; report this"))
            for item, size, result in results:
                if isinstance(result, bytes):
                    self._host.act(self._host.receiver.item_stored(item, size, result))
                elif isinstance(result, NoSpace):
                    self._host.fail(result)
                else:
                    self._host.act(self._host.receiver.item_failed(item, result))
            self._submit()
            self._advance()

        self._host.work(lambda: self._work(steps, results), done)

    def _give_back(self, slots: list[memoryview]) -> None:
        for slot in slots:
            self._host.ring.give(slot)

    def _work(self, steps: list[_Step], results: list[tuple[int, int, bytes | SpaceblockError]]) -> None:
        """Runs in a worker thread; an item without a hasher has failed or was dropped."""
        sink = self._host.sink
        for step in steps:
            try:
                if step.kind is _Kind.BEGIN:
                    self._hashers[step.item] = blake3()
                    sink.begin(step.item)
                    continue
                hasher = self._hashers.get(step.item)
                if hasher is None:
                    continue
                if step.kind is _Kind.DATA:
                    hasher.update(step.data)
                    sink.write(step.item, step.offset, step.data)
                elif step.kind is _Kind.IN_PLACE:
                    with step.data:
                        hasher.update(step.data)
                elif step.kind is _Kind.HOLE:
                    _fill_hole(sink, hasher, step)
                elif step.kind is _Kind.END:
                    sink.finish(step.item)
                    results.append((step.item, step.length, hasher.digest()))
                    del self._hashers[step.item]
                else:
                    del self._hashers[step.item]
                    sink.discard(step.item)
            except SpaceblockError as error:
                self._hashers.pop(step.item, None)
                sink.discard(step.item)
                results.append((step.item, 0, error))


def _fill_hole(sink: Sink, hasher: blake3, step: _Step) -> None:
    for start in range(0, step.length, len(_ZEROS)):
        hasher.update(_ZEROS[: step.length - start])
    sink.hole(step.item, step.offset, step.length)


_ZEROS = memoryview(bytes(65_536))
_TRASH = memoryview(bytearray(MESSAGE_DATA_MAX))
"""Where the bytes of an item land that has failed here while they were under way."""
