"""What several test modules need: offers in short, bytes to send, and conditions that are hard to reach."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue

from blake3 import blake3

from framing import collect
from spaceblock.blocks import BlockSize, SpaceblockRequest, SpaceblockRequests
from spaceblock.core import MESSAGE_DATA_MAX, Deframer
from spaceblock.errors import SpaceblockError
from spaceblock.limits import MESSAGE_PAYLOAD_MAX, Limits
from spaceblock.protocol.receiver import Receiver
from spaceblock.protocol.receiver_events import Failed, ItemAgreed, ItemLost, ReceiverEvent, Settled
from spaceblock.storage.debts import Debts
from spaceblock.storage.landing import Landing
from spaceblock.storage.rereading import Pursuit
from spaceblock.storage.ring import Ring
from spaceblock.storage.sinks import Mark, Sink
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import Message, Outcome, decode_message, pages_of_manifest, pages_of_requests

UUID = bytes(range(16))
BLOCK = BlockSize.MIN
NOBODY = 65_534


def uncounted() -> dict[str, str]:
    """The environment for a program that is looked at closely, so that coverage's own doings in it would show."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def requests_of(*sizes: int | None) -> SpaceblockRequests:
    """Whole items of these sizes."""
    return SpaceblockRequests(UUID, BLOCK, tuple(SpaceblockRequest(size) for size in sizes))


def manifest_of(*names: str | None, folders: tuple[str, ...] = ()) -> Manifest:
    """One file for each item, None leaving it unnamed."""
    entries = [Entry(EntryKind.FOLDER, folder) for folder in folders]
    entries += [Entry(EntryKind.FILE, name, item) for item, name in enumerate(names) if name is not None]
    return Manifest(tuple(entries), len(names))


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place, and from seed to seed."""
    return blake3(seed.to_bytes(8, "little")).digest(length=size)


def is_on_tmpfs(path: Path) -> bool:
    """Whether Linux's table of mounts says so of the device that ``path`` is on."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    rows = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return any(row[2] == number and row[row.index("-") + 1] in {"tmpfs", "ramfs"} for row in rows)


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be bound by permissions even when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def soft_limit(kind: int, value: int) -> Iterator[None]:
    """A resource limit (see :mod:`resource`) for a while."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextmanager
def no_more_descriptors(spare: int = 0) -> Iterator[None]:
    """Let the process open only ``spare`` descriptors more."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest + 2 - open_descriptors())]
    try:
        with soft_limit(resource.RLIMIT_NOFILE, max([highest, *held]) + 1 + spare):
            yield
    finally:
        for fd in held:
            os.close(fd)


@dataclass(frozen=True)
class Piece:
    """A Block message as it was read from a data stream."""

    item: int
    offset: int
    data: bytes


def read_stream(data: bytes) -> list[Piece | Message]:
    """The messages of a data stream (without its header); it must end between two of them."""
    deframer = Deframer(MESSAGE_PAYLOAD_MAX, MESSAGE_DATA_MAX)
    found: list[Piece | Message] = []
    for kind, what in collect(deframer, [data]):
        if kind == "block":
            found.append(Piece(*what))
        else:
            message = decode_message(*what)
            assert message is not None
            found.append(message)
    assert deframer.at_boundary
    return found


class FedLanding(Landing):
    """A landing and its stream: what the intake does not take waits; ``consume`` counts the rest."""

    def __init__(self, host: Host, key: int, consume: Callable[[int], None]) -> None:
        super().__init__(host, key, self._give)
        self._waiting = b""
        self._fin = False
        self._consume = consume

    def receive_data(self, data: bytes, fin: bool) -> None:
        self._waiting += data
        self._fin |= fin
        self.receive(self._give())
        if self.ended:
            self._drop()

    def close(self) -> None:
        super().close()
        self._drop()

    def _give(self) -> bool:
        count = 0
        while self._waiting and not self.ended and self.intake.ready():
            try:
                taken = self.intake.feed(self._waiting)
            except SpaceblockError:
                break
            count += taken
            self._waiting = self._waiting[taken:]
        self._consume(count)
        return self._fin and not self._waiting

    def _drop(self) -> None:
        self._consume(len(self._waiting))
        self._waiting = b""


class Host:
    """What a landing needs of its transfer: the real machine, ring, sink and threads, without an event loop.

    Jobs run in worker threads; what follows them runs in :meth:`settle`, in the caller's thread.
    """

    def __init__(self, requests: SpaceblockRequests, sink: Sink, ring: Ring, manifest: Manifest | None = None) -> None:
        self.receiver = Receiver(Limits())
        self.sink = sink
        self.ring = ring
        self.debts = Debts(Limits().not_durable, self.room) if sink.keeps else None
        self.pursuits: dict[int, Pursuit] = {}
        self.landings: list[FedLanding] = []
        self.consumed = 0
        self.lost: dict[int, SpaceblockError] = {}
        self.outcomes: tuple[Outcome, ...] | None = None
        self.calls_soon = 0
        self.error: SpaceblockError | None = None
        self._agreed: list[int] = []
        self._workers = ThreadPoolExecutor(2)
        self._running = 0
        self._calls: Queue[Callable[[], None]] = Queue()
        for page in pages_of_requests(requests, manifest is not None):
            self.receiver.receive_message(page)
        for names in pages_of_manifest(manifest.entries) if manifest is not None else ():
            self.receiver.receive_message(names)
        self.skipped = sink.prepare(requests, manifest)

    def accept(self, skip: Iterable[int] = ()) -> None:
        self.act(self.receiver.accept(self.skipped.union(skip)))

    def landing(self) -> FedLanding:
        """Another data stream."""
        landing = FedLanding(self, len(self.landings), self._consume)
        self.landings.append(landing)
        return landing

    def act(self, events: list[ReceiverEvent]) -> None:
        for event in events:
            if isinstance(event, ItemAgreed):
                self._agreed.append(event.item)
            elif isinstance(event, ItemLost):
                self.lost[event.item] = event.error
                if self.debts is not None:
                    self.debts.settled(event.item)
            elif isinstance(event, Settled):
                self.outcomes = event.outcomes
            elif isinstance(event, Failed):
                self.error = event.error
                for landing in self.landings:
                    landing.close()

    def fail(self, error: SpaceblockError) -> None:
        self.act(self.receiver.fail(error))

    def work(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        def ended(future: Future[None]) -> None:
            self._calls.put(partial(done, future.exception()))
            self._calls.put(self._has_ended)

        self._running += 1
        self._workers.submit(job).add_done_callback(ended)

    @property
    def has_calls(self) -> bool:
        """Whether :meth:`settle` has something to do."""
        return not self._calls.empty()

    def soon(self, call: Callable[[], None]) -> None:
        self.calls_soon += 1
        self._calls.put(call)

    def room(self) -> int:
        return sum(landing.room for landing in self.landings)

    def mark_all(self) -> None:
        if self.debts is not None:
            self.debts.marked()
        for landing in self.landings:
            landing.mark()

    def marked(self, marks: list[Mark]) -> None:
        for item, error in self.sink.checkpoint(marks).items():
            self.act(self.receiver.item_failed(item, error))
        for mark in marks:
            if self.debts is not None:
                self.debts.durable(mark.item, mark.offset)

    def written(self, item: int, size: int) -> None:
        raise AssertionError("nothing is resumed or repaired here")

    def settle(self) -> None:
        """Wait for the workers, and place what both sides agree on."""
        while self._running or self._agreed:
            while self._running:
                self._calls.get(timeout=60)()
            agreed, self._agreed = self._agreed, []
            for item, result in zip(agreed, self.sink.place(agreed), strict=True):
                if isinstance(result, str):
                    self.act(self.receiver.item_placed(item, result, self.sink.durable))
                else:
                    self.act(self.receiver.item_failed(item, result))

    def _has_ended(self) -> None:
        self._running -= 1

    def receive(self, message: Message) -> None:
        """A message on the control stream."""
        self.act(self.receiver.receive_message(message))

    def close(self) -> None:
        for landing in self.landings:
            landing.close()
        self.settle()
        self._workers.shutdown()
        self.sink.close()

    def _consume(self, count: int) -> None:
        self.consumed += count
