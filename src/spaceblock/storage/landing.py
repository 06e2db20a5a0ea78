"""The receiving path of the bytes: from a data stream to the ring or the caller's buffer, to the hasher and the disk.

A :class:`Landing` gives its stream an intake, which takes messages apart and puts block data straight to the place
where it will be hashed and written from; on the event loop it then checks what has landed. That is worked off by a
worker thread, in order, which gives every buffer back as soon as it is done with it. When the ring is empty the intake
takes no more, so the stream's credit runs out and its sender waits; nothing else does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field
from enum import Enum, auto
from typing import Any, Protocol

from blake3 import blake3

from ..core import MESSAGE_DATA_MAX, Deframer
from ..errors import InternalError, NoSpace, RemoteProtocolError, SpaceblockError
from ..limits import MESSAGE_PAYLOAD_MAX, SLOT_SIZE, SMALL_ITEM
from ..process.lazily import dataclass
from ..protocol.receiver_events import ItemLost, ItemRestarts, ReceiverEvent
from ..wire import MessageType
from ..wire.messages import Hole, ItemAbort, ItemEnd, Message, decode_message
from .belt import Belt, Supplies
from .rereading import Pursuit
from .ring import SPARE
from .sinks import Mark, Sink
from .turns import Turns

_STEPS_MAX = 1_024
"""Steps that wait for a busy worker before the stream is read no further."""

_TELL_AFTER = 4
"""Free buffers of which the event loop is told together while the worker goes on: to be woken for each costs more."""

_ROOM_AHEAD = 3 * MESSAGE_DATA_MAX
"""Bytes of room kept ready for blocks to come: more than arrive in one turn of the event loop, as what finds no room
waits in the stream's own memory and is copied twice."""


class Host(Supplies, Protocol):
    """What a landing needs of its transfer."""

    pursuits: dict[int, Pursuit]
    """The hashers of items that are resumed."""

    def act(self, events: list[ReceiverEvent]) -> None:
        """Carry out what the state machine decided."""

    def fail(self, error: SpaceblockError) -> None:
        """End the transfer."""

    def work(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run ``job`` in a worker thread and ``done`` on the event loop afterwards."""

    def soon(self, call: Callable[[], None]) -> None:
        """Have the event loop call ``call``; for any thread."""

    def mark_all(self) -> None:
        """Call :meth:`Landing.mark` of all landings."""

    def written(self, item: int, size: int) -> None:
        """All bytes of ``item`` are written, and its digest is still to be found by reading them again."""

    def marked(self, marks: list[Mark]) -> None:
        """What is before these marks is written."""


class _Kind(Enum):
    WHOLE = auto()  # some items whose bytes landed together, to be stored and hashed
    BEGIN = auto()
    RESUME = auto()
    REOPEN = auto()
    STORE = auto()
    HASH = auto()
    FAIL = auto()  # storing failed
    DATA = auto()  # to be stored and hashed
    HOLE = auto()
    MARK = auto()
    END = auto()
    DROP = auto()
    GIVE_BACK = auto()  # nobody reads a buffer of the ring any more


_NOTHING = memoryview(b"")


@dataclass(slots=True)
class _Step:
    """One thing for the worker to do with one item."""

    kind: _Kind
    item: int
    offset: int = 0
    length: int = 0
    data: memoryview = _NOTHING
    at_once: bool = False
    """It only computes or copies memory, so that it may be done on the event loop."""

    whole: Sequence[tuple[int, memoryview]] = ()
    """The items of :attr:`_Kind.WHOLE`, with their bytes."""

    error: Exception | None = None
    """That of :attr:`_Kind.FAIL`."""


_Result = tuple[int, int, "bytes | SpaceblockError | None"]
"""An item, its size, and its digest or why there is none; None where the digest is still to be found by reading."""

_Hasher = Any
"""A hasher, a pursuit or, for what is hashed again in any case, :class:`_NoHasher`."""


class Landing:
    """One data stream of one transfer; ``key`` tells the streams of a transfer apart.

    ``resume()`` gives the intake what waits in the stream, and says whether the last byte was taken.
    """

    def __init__(self, host: Host, key: int, resume: Callable[[], bool]) -> None:
        self._host = host
        self._key = key
        self._resume = resume
        self.intake: Deframer = Deframer(MESSAGE_PAYLOAD_MAX, MESSAGE_DATA_MAX, MessageType.ITEM_END)
        self.ended: bool = False
        self.blocks: int = 0
        self._ends = False
        self._rooms: dict[int, memoryview] = {}  # by number, those that blocks may still be put into or lie in
        self._in_place: set[int] = set()  # of these, the memory of a sink
        self._needs_ring = False
        self._belt = Belt(host, key, self.intake, self._give_back)
        self._last = (-1, 0)  # the item of the last block that was checked, and where that ended
        self._steps: list[_Step] = []
        self._turns: Turns[_Step] = Turns(self._begin_turns, self._work_off)
        self._handed_over = 0  # steps whose outcome is not taken yet
        self._done: deque[_Done] = deque()
        self._told = False
        self._begun: dict[int, bool] = {}  # with whether there is nothing to store
        self._hashers: dict[int, _Hasher] = {}
        self._unmarked: dict[int, int] = {}  # items with bytes behind their last mark, and how far those go
        self._hashed_late: set[int] = set()  # items with holes: long ones take time, so the worker hashes
        self._marks_are_due = False

    @property
    def working(self) -> bool:
        """Whether a worker has something to do."""
        return self._handed_over > 0

    @property
    def room(self) -> int:
        """Bytes of the ring's buffers that blocks may still be put into."""
        return self.intake.free

    @property
    def waits_for_disk(self) -> bool:
        """Whether arrived bytes wait because the worker is behind."""
        return self.working and (self.intake.event != Deframer.NEED_DATA or self._is_behind)

    @property
    def _is_behind(self) -> bool:
        """Whether so much waits for the worker that no more is read: items without bytes need no buffer to wait for."""
        return self.working and self._handed_over + len(self._steps) >= _STEPS_MAX

    def receive(self, fin: bool) -> None:
        """The intake took bytes, or may take some again; with ``fin`` there are no more to come."""
        self._ends |= fin
        self._take_all()
        self._advance()

    def receive_reset(self) -> None:
        """The sender gave the stream up: what was moving on it will not come."""
        if not self.ended:
            self._end()

    def close(self) -> None:
        """Let go of everything but what a worker still uses."""
        self.ended = True
        self._let_go()
        self._steps.clear()
        self._turns.clear()
        self._turns.finish()

    def _advance(self) -> None:
        try:
            while self._go_on():
                self._ends |= self._resume()
            if self.ended:
                return
            if self._ends and self.intake.event == Deframer.NEED_DATA:
                if not self.intake.at_boundary:
                    raise RemoteProtocolError("the sender ended a data stream in the middle of a message")
                self._end()
            else:
                self._submit()
                if not self.ended:
                    self._prepare_room()
        except SpaceblockError as error:
            self.close()
            self._host.fail(error)

    def _go_on(self) -> bool:
        """Deal with what has landed, and with what the intake stopped for; whether it takes more than it did."""
        while not self.ended:
            # Looked at first: when it has stopped, what is collected then is all that came before it stopped.
            stopped_for = self.intake.event
            if not self._collect():
                return False
            self.intake.check()
            if self._is_behind or stopped_for == Deframer.NEED_DATA:
                return False
            if stopped_for == Deframer.MESSAGE:
                message = decode_message(self.intake.message_type, self.intake.payload)
                self.intake.proceed()  # before, as what it leads to may let this go on, which must not find it again
                self._receive_message(message)
            elif not self.intake.ready() and not self._make_room():
                return False
            if not self.ended and self.intake.ready():
                return True
        return False

    def _collect(self) -> bool:
        """Check the blocks that have landed, and note what is to be done with them; False if that was the end."""
        left = self.intake.room
        while self._collect_some() and not self.ended:
            pass
        self._retire(left)
        debts = self._host.debts
        if debts is not None and debts.wants_marks:
            self._host.mark_all()
        elif self._marks_are_due:
            self.mark()
        return not self.ended

    def _collect_some(self) -> bool:
        """False if there was nothing: what lies on the belt comes by itself, behind what has to be hashed first."""
        landed = self.intake.landed()
        whole = 0  # up to here items were taken whole
        for index, (item, offset, length, room, start) in enumerate(landed):
            if index < whole:
                continue
            if length and not offset:
                whole = index + 2 * self._take_whole(landed, index)
                if index < whole:
                    continue
            if not length:
                self._end_item(ItemEnd(item, offset))
                continue
            is_settled = room < 0
            wanted = self._host.receiver.block(self._key, item, offset, length, is_run=is_settled)
            self.blocks += start if is_settled else 1
            self._last = item, offset + length
            if is_settled:
                error = self.intake.belt_error
                if wanted:
                    self._owe(item, offset, length)
                if wanted and error is not None:
                    self._steps.append(_Step(_Kind.FAIL, item, error=error, at_once=True))
                if not wanted or error is not None:
                    self._belt.forget(item)
            elif wanted:
                in_place = room in self._in_place
                is_stored = in_place or self._host.sink.forgets(item)
                self._begin(item, is_stored, offset)
                self._owe(item, offset, length)
                data = self._rooms[room][start : start + length]
                if item in self._hashed_late:
                    self._steps.append(_Step(_Kind.HASH if is_stored else _Kind.DATA, item, offset, length, data))
                    continue
                hasher = self._hashers.get(item)
                if hasher is not None:
                    hasher.update(data)  # here, where the bytes are still in the cache
                if is_stored:
                    data.release()
                else:
                    never_waits = self._host.sink.never_waits(item)
                    self._steps.append(_Step(_Kind.STORE, item, offset, length, data, never_waits))
        return bool(landed)

    def _take_whole(self, landed: Sequence[tuple[int, int, int, int, int]], index: int) -> int:
        """Note the items of which a block and the end landed together, from ``landed[index]`` on; returns how many."""
        found: list[tuple[int, int]] = []
        for at in range(index, len(landed) - 1, 2):
            item, offset, length, room, _ = landed[at]
            ended, size, nothing, _, _ = landed[at + 1]
            if offset or nothing or ended != item or size != length or room in self._in_place:
                break
            found.append((item, length))
        count = self._host.receiver.take_whole(self._key, found) if found else 0
        if count:
            whole = []
            for at in range(index, index + 2 * count, 2):
                item, _, length, room, start = landed[at]
                whole.append((item, self._rooms[room][start : start + length]))
            self._steps.append(_Step(_Kind.WHOLE, found[0][0], whole=whole))
            self.blocks += count
            if self._host.debts is not None:
                self._host.debts.received_whole(found[:count])
        return count

    def _begin(self, item: int, is_stored: bool, offset: int) -> None:
        if item in self._begun:
            return
        self._begun[item] = is_stored
        receiver, kind = self._host.receiver, _Kind.BEGIN
        self._hashers[item] = blake3()
        if receiver.is_repairing(item):
            kind, self._hashers[item] = _Kind.REOPEN, _NoHasher()
        elif receiver.is_resumed(item):
            kind, self._hashers[item] = _Kind.RESUME, self._host.pursuits[item]
        elif item in self._host.pursuits:
            self._host.act([ItemRestarts(item)])  # HaveReply, which says so too, may come later
        if kind is not _Kind.BEGIN:
            self._hashed_late.add(item)
        self._steps.append(_Step(kind, item, offset, at_once=is_stored and kind is _Kind.BEGIN))

    def _owe(self, item: int, offset: int, length: int) -> None:
        debts = self._host.debts
        if debts is not None and not self._host.receiver.is_repairing(item):
            debts.received(item, offset + length, length)
            self._unmarked[item] = offset + length

    def mark(self) -> None:
        """Let everything that has landed be made durable, also where nothing more comes now."""
        self._marks_are_due = self.intake.has_settled  # then a hasher is ahead of what was collected
        if self._unmarked and not self.ended and not self._marks_are_due:
            self._note_marks()
            self._submit()

    def _note_marks(self) -> None:
        for item, offset in self._unmarked.items():
            hasher = self._hashers.get(item)
            if hasher is not None:
                late = item in self._hashed_late
                data = memoryview(b"" if late else hasher.digest())
                self._steps.append(_Step(_Kind.MARK, item, offset, data=data, at_once=not late))
        self._unmarked.clear()

    def _make_room(self) -> bool:
        """Find memory for the block that is about to land; False if there is none now."""
        debts = self._host.debts
        item, offset = self.intake.item, self.intake.offset
        # What comes again adds to no debt, and may be what an item's debt waits for.
        if debts is not None and debts.too_high and not self._host.receiver.is_repairing(item):
            debts.wait(self._advance)
            self._submit()
            return False
        if self._belt.extend(*self._last, self.intake.length) and self.intake.ready():
            return True
        self._belt.take_down()
        due = self._host.receiver.due(self._key, item, offset)
        memory = self._host.sink.memory(item, offset, due) if due >= self.intake.length else None
        if memory is not None:
            number = self.intake.provide(memory, 0, item, offset)
            self._in_place.add(number)
        else:
            memory = self._host.ring.take(self._advance)
            if memory is None:
                self._submit()
                return False
            number = self.intake.provide(memory)
            self._needs_ring = True
        self._rooms[number] = memory
        return True

    def _prepare_room(self) -> None:
        """Keep memory ready for blocks to come, but not what other streams may be waiting for."""
        ring, debts = self._host.ring, self._host.debts
        if ring.free < SPARE:
            self._belt.take_down()
            self._leave_rooms()
        elif debts is not None and debts.too_high:
            debts.wait(self._advance)
        elif self._has_belt():
            self._belt.extend(*self._last)
            if len(self._rooms) > len(self._in_place):
                self._leave_rooms()
        elif self._needs_ring:
            while self.intake.free < _ROOM_AHEAD and ring.free > SPARE:
                if debts is not None and debts.room_left < SLOT_SIZE:
                    break
                memory = ring.take(self._advance)
                assert memory is not None
                self._rooms[self.intake.provide(memory)] = memory
        self._submit()

    def _leave_rooms(self) -> None:
        self.intake.withdraw()
        self._collect()

    def _has_belt(self) -> bool:
        """Whether blocks can come on a belt, as those of an item that the event loop hashes while no worker has to do
        with it."""
        item, offset = self._last
        belt = self._belt
        if belt.item is not None and not self._is_hashed_here(belt.item):
            belt.take_down()
        if belt.item is None and not self.working and self._is_hashed_here(item):
            belt.put_up(item, offset, self._hashers[item])
        return belt.item is not None

    def _is_hashed_here(self, item: int) -> bool:
        return item in self._begun and item in self._hashers and item not in self._hashed_late

    def _retire(self, left: int) -> None:
        """Give up the rooms below ``left``, which the intake has left and whose blocks were collected, once those are
        stored."""
        for number in [number for number in self._rooms if number < left]:
            memory = self._rooms.pop(number)
            if number in self._in_place:
                self._in_place.discard(number)
            else:
                self._give_back(memory)

    def _give_back(self, memory: memoryview) -> None:
        """Let the ring have a buffer again, behind all steps that may read it."""
        self._steps.append(_Step(_Kind.GIVE_BACK, -1, data=memory, at_once=True))

    def _receive_message(self, message: Message | None) -> None:
        if isinstance(message, ItemEnd):
            self._end_item(message)
        elif isinstance(message, ItemAbort):
            self._act(self._host.receiver.item_abort(self._key, message))
        elif isinstance(message, Hole):
            if self._host.receiver.block(self._key, message.item, message.offset, message.length):
                self._begin(message.item, False, message.offset)
                self._owe(message.item, message.offset, message.length)
                self._hashed_late.add(message.item)
                self._belt.forget(message.item)
                self._steps.append(_Step(_Kind.HOLE, message.item, message.offset, message.length))
        elif message is not None:
            raise RemoteProtocolError(f"the sender sent {type(message).__name__} on a data stream")

    def _end_item(self, message: ItemEnd) -> None:
        self._belt.forget(message.item)
        if self._host.receiver.item_end(self._key, message):
            self._begin(message.item, False, 0)
            if self._unmarked.get(message.item, 0) and message.size > SMALL_ITEM:
                self._note_marks()
            self._unmarked.pop(message.item, None)
            at_once = self._begun.pop(message.item) and message.item not in self._hashed_late
            self._hashed_late.discard(message.item)
            self._steps.append(_Step(_Kind.END, message.item, length=message.size, at_once=at_once))

    def _let_go(self) -> None:
        self.intake.release()
        self._belt.take_down()
        self._host.ring.forget(self._advance)
        if self._host.debts is not None:
            self._host.debts.forget(self._advance)
        self._retire(self.intake.room)

    def _end(self) -> None:
        self.ended = True
        if self.intake.in_block:
            with suppress(RemoteProtocolError):
                # So that the item counts as one that was moving on this stream.
                self._host.receiver.block(self._key, self.intake.item, self.intake.offset, self.intake.length)
        self._let_go()
        self._act(self._host.receiver.stream_ended(self._key))
        self._submit()
        self._turns.finish()

    def _act(self, events: list[ReceiverEvent]) -> None:
        for event in events:
            if isinstance(event, ItemLost):
                self._belt.forget(event.item)
                self._steps.append(_Step(_Kind.DROP, event.item))
        self._host.act(events)

    def _submit(self) -> None:
        """Have done what is to be done with what has landed."""
        at_once = all(step.at_once for step in self._steps)
        if not self._steps or (at_once and self.working and not self.ended):
            return  # whoever works tells when that is over
        steps, self._steps = self._steps, []
        if self.working or not at_once:
            self._handed_over += len(steps)
            self._turns.add(steps)
            return
        # Cheaper than waking a thread, and the bytes are still in the cache.
        done = _Done()
        self._work(steps, done)
        self._take(done)

    def _begin_turns(self, job: Callable[[], None]) -> None:
        def ended(error: BaseException | None) -> None:
            if isinstance(error, SpaceblockError):  # as where no thread can be had
                self._host.fail(error)
            elif error is not None:
                self._host.fail(InternalError(f"storing received bytes failed unexpectedly: {error!r}; report this"))

        self._host.work(job, ended)

    def _work_off(self, steps: list[_Step]) -> None:
        """Runs in a worker thread, and lets the event loop know when some buffers are free again, or all is done."""
        start = 0
        while start < len(steps):
            stop = start + 1
            while stop < len(steps) and steps[stop - 1].kind is not _Kind.GIVE_BACK:
                stop += 1
            done = _Done(stop - start)
            self._work(steps[start:stop], done)
            self._done.append(done)
            is_news = stop == len(steps) or len(self._done) >= _TELL_AFTER or done.results or done.marks
            if is_news and not self._told:
                self._told = True
                self._host.soon(self._take_done)
            start = stop

    def _take_done(self) -> None:
        self._told = False
        self._take_all()
        self._advance()

    def _take_all(self) -> None:
        while self._done:
            done = self._done.popleft()
            self._handed_over -= done.steps
            self._take(done)

    def _take(self, done: _Done) -> None:
        if done.marks:
            self._host.marked(done.marks)
        for slot in done.slots:
            self._host.ring.give(slot)
        stored = []
        for item, size, result in done.results:
            if isinstance(result, bytes):
                stored.append((item, size, result))
            elif result is None:
                self._host.written(item, size)
            elif isinstance(result, NoSpace):
                self._host.fail(result)
            else:
                self._host.act(self._host.receiver.item_failed(item, result))
        if len(stored) == 1:
            self._host.act(self._host.receiver.item_stored(*stored[0]))
        elif stored:
            self._host.act(self._host.receiver.items_stored(stored))

    def _work(self, steps: list[_Step], done: _Done) -> None:
        """Runs in a worker thread unless all is at once; an item without a hasher has failed or was dropped."""
        results, marks = done.results, done.marks
        sink = self._host.sink
        for step in steps:
            if step.kind is _Kind.WHOLE:
                results += _store_whole(sink, step.whole)
                continue
            if step.kind is _Kind.GIVE_BACK:
                done.slots.append(step.data)
                continue
            try:
                hasher = self._hashers.get(step.item)
                if hasher is None:
                    continue
                if step.kind is _Kind.BEGIN:
                    sink.begin(step.item)
                elif step.kind is _Kind.RESUME:
                    sink.resume(step.item)
                elif step.kind is _Kind.REOPEN:
                    sink.reopen(step.item)
                elif step.kind is _Kind.MARK:
                    marks.append(_mark(step, hasher))
                elif step.kind is _Kind.STORE:
                    _store(sink, step)
                elif step.kind is _Kind.FAIL:
                    assert step.error is not None
                    raise step.error
                elif step.kind is _Kind.HASH:
                    with step.data:
                        hasher.update(step.data)
                elif step.kind is _Kind.DATA:
                    _store(sink, step)
                    hasher.update(step.data)
                elif step.kind is _Kind.HOLE:
                    _fill_hole(sink, hasher, step)
                elif step.kind is _Kind.END:
                    sink.finish(step.item)
                    digest = hasher.digest() if isinstance(hasher, blake3) else hasher.end()
                    results.append((step.item, step.length, digest))
                    del self._hashers[step.item]
                else:
                    del self._hashers[step.item]
                    sink.discard(step.item)
            except SpaceblockError as error:
                self._hashers.pop(step.item, None)
                sink.discard(step.item)
                results.append((step.item, 0, error))


def _store_whole(sink: Sink, items: Sequence[tuple[int, memoryview]]) -> Iterator[_Result]:
    """Store and hash items of which everything is here: as many at once as go well, the next by itself, and so on."""
    done = 0
    while done < len(items):
        rest = items[done:] if done else items
        digests = sink.store_whole(rest)
        for (item, data), digest in zip(rest, digests, strict=False):
            yield item, len(data), digest
        done += len(digests)
        if done < len(items):
            item, data = items[done]
            done += 1
            try:
                sink.begin(item)
                sink.write(item, 0, data)
                sink.finish(item)
                yield item, len(data), blake3(data).digest()
            except SpaceblockError as error:
                sink.discard(item)
                yield item, 0, error


def _store(sink: Sink, step: _Step) -> None:
    memory = sink.memory(step.item, step.offset, step.length)
    if memory is None:
        sink.write(step.item, step.offset, step.data)
    else:
        with memory:
            memory[:] = step.data


def _fill_hole(sink: Sink, hasher: _Hasher, step: _Step) -> None:
    sink.hole(step.item, step.offset, step.length)
    for start in range(0, step.length, len(_ZEROS)):
        hasher.update(_ZEROS[: step.length - start])


def _mark(step: _Step, hasher: _Hasher) -> Mark:
    if isinstance(hasher, Pursuit):
        return Mark(step.item, step.offset, *hasher.mark())
    return Mark(step.item, step.offset, step.offset, bytes(step.data) or hasher.digest())


@dataclass(slots=True)
class _Done:
    """What became of some steps."""

    steps: int = 0
    slots: list[memoryview] = field(default_factory=list)
    results: list[_Result] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


class _NoHasher:
    """For bytes that are put between others: the item is hashed anew when all of them are there."""

    def update(self, data: object) -> None:
        return

    def end(self) -> None:
        return


_ZEROS = memoryview(bytes(65_536))
