"""Both machines and both paths of the bytes together, over a pipe in memory: they always agree on what happened.

A :class:`Pipe` carries every control message and every byte of the data streams as the network would, in an order and
in pieces drawn by chance. Files, threads and digests are real.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spaceblock.core import decode_uint_var
from spaceblock.errors import (
    ErrorCode,
    IntegrityError,
    NoSpace,
    RemoteProtocolError,
    SourceChanged,
    SpaceblockError,
    StorageError,
    TransferCancelled,
    error_code,
)
from spaceblock.limits import Limits
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.sender import Answered, Completed, Failed, ItemRefused, Sender, SenderEvent, SenderState
from spaceblock.storage.feed import Feed
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.ring import Ring
from spaceblock.storage.sources import Item, hold_buffers, prepare
from spaceblock.wire.messages import (
    ItemAbort,
    ItemDigest,
    ItemEnd,
    Message,
    Outcome,
    OutcomeKind,
    VerifiedPage,
    decode_message,
    pages_of_requests,
)
from support import BLOCK, FedLanding, Host, open_descriptors, pattern, requests_of

SLOT = 12_288


def through_the_wire(message: Message) -> Message:
    """What the other side reads of a message."""
    data = message.encode()
    message_type, position = decode_uint_var(data)
    length, position = decode_uint_var(data, position)
    assert length == len(data) - position
    read = decode_message(message_type, data[position:])
    assert read is not None
    return read


class FlakySink(FolderSink):
    """A folder that fails chosen items at a chosen step."""

    def __init__(self, folder: Path, fails: dict[int, str]) -> None:
        super().__init__(folder, on_conflict="skip", durability="none")
        self._fails = fails

    def _fail(self, item: int, step: str) -> None:
        if self._fails.get(item) == step:
            raise StorageError(f"the disk failed to {step}: try another", item=item, errno=5)

    def begin(self, item: int) -> None:
        self._fail(item, "begin")
        super().begin(item)

    def write(self, item: int, offset: int, data: memoryview) -> None:
        self._fail(item, "write")
        super().write(item, offset, data)

    def finish(self, item: int) -> None:
        self._fail(item, "finish")
        super().finish(item)

    def store_whole(self, items: Sequence[tuple[int, memoryview]]) -> list[bytes]:
        return []  # so that each step of each item can fail

    def _place_many(self, items: Sequence[int], folder: int, results: dict[int, str | SpaceblockError]) -> None:
        return

    def _place(self, item: int, folder: int, digests: Mapping[int, bytes]) -> str:
        self._fail(item, "place")
        return super()._place(item, folder, digests)


@dataclass
class Lane:
    """One data stream: its feed, the bytes on their way, and the landing at its end."""

    feed: Feed
    landing: FedLanding
    under_way: bytes = b""
    filled: bool = False


class Pipe:
    """A sender and a receiver, and all that is on its way between them."""

    def __init__(self, folder: Path, things: list[object], fails: dict[int, str], wrong_digests: set[int]) -> None:
        self.held = hold_buffers(things)
        self.prepared = prepare(self.held)
        self.sender = Sender(self.prepared.requests, self.prepared.manifest)
        self.host = Host(self.prepared.requests, FlakySink(folder, fails), Ring(2, 2 * BLOCK), self.prepared.manifest)
        self.wrong_digests = wrong_digests
        self.lanes: list[Lane] = []
        self.to_receiver: deque[Message] = deque()
        self.to_sender: deque[Message] = deque()
        self.completed: Completed | None = None
        self.error: SpaceblockError | None = None

    def run(self, random: Random, cancel_at: tuple[str, int] | None) -> None:
        """Let things happen in random order until nothing is left to happen."""
        self.host.accept()
        step = 0
        while True:
            if cancel_at is not None and cancel_at[1] == step:
                self.cancel(cancel_at[0])
            step += 1
            self.collect()
            busy = [lane for lane in self.lanes if lane.under_way or not lane.filled]
            choices = ["control"] * bool(self.to_receiver) + ["answer"] * bool(self.to_sender) + ["data"] * bool(busy)
            if not choices:
                self.host.settle()
                self.collect()
                if not self.to_receiver and not self.to_sender:
                    break
                continue
            choice = random.choice(choices)
            if choice == "control":
                self.host.receive(through_the_wire(self.to_receiver.popleft()))
            elif choice == "answer":
                self.act(self.sender.receive_message(through_the_wire(self.to_sender.popleft())))
            else:
                self.move(random.choice(busy), random)
            if random.random() < 0.2:
                self.host.settle()

    def cancel(self, who: str) -> None:
        error = TransferCancelled(f"the {who} cancelled")
        if who == "sender":
            self.act(self.sender.fail(error))
        else:
            self.host.fail(error)

    def move(self, lane: Lane, random: Random) -> None:
        """Fill a lane's next buffer, or let some of its bytes arrive."""
        if not lane.filled and (not lane.under_way or random.random() < 0.5):
            filled = lane.feed.fill(memoryview(bytearray(SLOT)))
            for piece in filled.pieces:
                lane.under_way += piece
                piece.release()
            for item, size, digest in filled.sent:
                assert digest is not None
                self.sender.item_sent(item, size, digest)
            for item, error in filled.aborted:
                self.sender.item_aborted(item, error)
            lane.filled = filled.done
        count = random.choice([1, 100, 5_000, 10**6])
        data, lane.under_way = lane.under_way[:count], lane.under_way[count:]
        lane.landing.receive_data(data, lane.filled and not lane.under_way)

    def collect(self) -> None:
        """Take what either side wants to say."""
        for message in self.sender.messages_to_send():
            if isinstance(message, ItemDigest) and message.item in self.wrong_digests:
                message = ItemDigest(message.item, message.size, bytes(32))
            self.to_receiver.append(message)
        self.to_sender.extend(self.host.receiver.messages_to_send())

    def act(self, events: list[SenderEvent]) -> None:
        for event in events:
            if isinstance(event, Answered):
                for items in (event.wanted[::2], event.wanted[1::2]):
                    feed = Feed(items, self.prepared.sources, BLOCK)
                    self.lanes.append(Lane(feed, self.host.landing()))
            elif isinstance(event, ItemRefused):
                for lane in self.lanes:
                    lane.feed.refuse(event.item, event.error)
            elif isinstance(event, Completed):
                self.completed = event
            elif isinstance(event, Failed):
                self.error = event.error
                for lane in self.lanes:
                    lane.feed.close()
                    lane.filled = True
                    lane.under_way = b""
                    lane.landing.receive_reset()

    def close(self) -> None:
        for lane in self.lanes:
            lane.feed.close()
        self.host.close()
        self.prepared.release()


FATES = ["arrives"] * 6 + ["skipped", "vanishes", "begin", "write", "finish", "place", "wrong digest"]
SIZES = st.sampled_from([0, 1, 2, 100, SLOT, BLOCK - 1, BLOCK, BLOCK + 1]) | st.integers(0, 20_000)
ITEMS = st.lists(st.tuples(st.booleans(), SIZES, st.sampled_from(FATES)), max_size=6)


def laid_out(folder: Path, items: Iterable[tuple[bool, int, str]]) -> tuple[Pipe, list[bytes]]:
    """A pipe for items that are files or buffers, of these sizes, with these fates; and their contents."""
    (folder / "out").mkdir()
    (folder / "in").mkdir()
    things: list[object] = []
    contents: list[bytes] = []
    fails: dict[int, str] = {}
    wrong_digests: set[int] = set()
    for number, (is_file, size, fate) in enumerate(items):
        contents.append(pattern(size, number))
        path = folder / "out" / str(number)
        if is_file or fate == "vanishes":
            path.write_bytes(contents[-1])
            things.append(path)
        else:
            things.append(Item(contents[-1], name=str(number)))
        if fate == "skipped":
            (folder / "in" / str(number)).write_bytes(b"was here before")
        elif fate == "wrong digest":
            wrong_digests.add(number)
        elif fate in ("begin", "write", "finish", "place"):
            fails[number] = fate
    pipe = Pipe(folder / "in", things, fails, wrong_digests)
    for number, (_, _, fate) in enumerate(items):
        if fate == "vanishes":
            (folder / "out" / str(number)).unlink()
    return pipe, contents


def expected(size: int, fate: str) -> tuple[OutcomeKind, type[SpaceblockError] | None]:
    if fate == "skipped":
        return OutcomeKind.SKIPPED, None
    if fate == "arrives" or (fate == "write" and size == 0):
        return OutcomeKind.VERIFIED, None
    if fate == "vanishes":
        return OutcomeKind.FAILED, SourceChanged
    return OutcomeKind.FAILED, IntegrityError if fate == "wrong digest" else StorageError


@settings(max_examples=60)
@given(ITEMS, st.integers(0, 2**32))
@example([], 0)
@example([(True, 3 * BLOCK, "arrives"), (False, 3 * BLOCK, "write"), (True, 0, "arrives")], 1)
def test_both_sides_agree_on_every_item_and_the_content_is_right(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[bool, int, str]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("pipe")
    descriptors = open_descriptors()
    pipe, contents = laid_out(folder, items)
    try:
        pipe.run(Random(seed), None)
        assert pipe.completed is not None
        assert pipe.completed.outcomes == pipe.host.outcomes
        assert pipe.sender.state is SenderState.VERIFIED
        assert pipe.host.receiver.state is State.DONE
        for number, (_, size, fate) in enumerate(items):
            kind, error = expected(size, fate)
            outcome = pipe.completed.outcomes[number]
            assert outcome.kind is kind
            if error is not None:
                assert isinstance(pipe.completed.errors[number], error)
                assert isinstance(pipe.host.lost[number], error)
                assert outcome.code == error_code(pipe.host.lost[number])
    finally:
        pipe.close()
    for number, (_, size, fate) in enumerate(items):
        path = folder / "in" / str(number)
        kind, _ = expected(size, fate)
        if kind is OutcomeKind.FAILED:
            assert not path.exists()
        else:
            assert path.read_bytes() == (contents[number] if kind is OutcomeKind.VERIFIED else b"was here before")
    assert not any(path.is_dir() for path in (folder / "in").iterdir()), "nothing unfinished is left"
    assert open_descriptors() == descriptors


@settings(max_examples=60)
@given(ITEMS, st.integers(0, 2**32), st.sampled_from(["sender", "receiver"]), st.integers(0, 60))
def test_a_cancel_at_any_moment_leaves_both_sides_of_one_mind(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[bool, int, str]], seed: int, who: str, moment: int
) -> None:
    folder = tmp_path_factory.mktemp("pipe")
    descriptors = open_descriptors()
    pipe, contents = laid_out(folder, items)
    try:
        pipe.run(Random(seed), (who, moment))
        outcomes: tuple[Outcome, ...] | None = pipe.host.outcomes
        nothing_to_send = all(fate == "skipped" for _, _, fate in items)
        if pipe.completed is not None:
            assert pipe.completed.outcomes == outcomes
        elif outcomes is not None:
            assert nothing_to_send, "only an offer that needs no data can be verified before its answer is read"
        else:
            assert isinstance(pipe.error, TransferCancelled)
            assert isinstance(pipe.host.error, TransferCancelled)
            assert pipe.error.remote is not pipe.host.error.remote
    finally:
        pipe.close()
    for path in (folder / "in").iterdir():
        assert path.read_bytes() in (contents[int(path.name)], b"was here before")
    assert open_descriptors() == descriptors


# One machine alone, with a peer that says whatever it likes.

DIGEST = bytes(32)


def step(receiver: Receiver, call: str, item: int, number: int, stream: int) -> None:
    """One thing that the sender or this side's storage might do next, sensible or not."""
    if call == "block":
        receiver.block(stream, item, number, 1)
    elif call == "end":
        receiver.item_end(stream, ItemEnd(item, number))
    elif call == "abort":
        receiver.item_abort(stream, ItemAbort(item, ErrorCode.SOURCE, 0, "", ""))
    elif call == "digest":
        receiver.receive_message(ItemDigest(item, number, DIGEST))
    elif call == "stream ended":
        receiver.stream_ended(stream)
    elif call == "stored":
        receiver.item_stored(min(item, 3), number, DIGEST)
    elif call == "placed":
        receiver.item_placed(min(item, 3), "", durable=True)
    else:
        receiver.item_failed(min(item, 3), NoSpace("full: free some space"))


CALLS = ["block", "block", "end", "end", "digest", "stored", "placed", "abort", "failed", "stream ended"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(CALLS), st.integers(0, 4), st.sampled_from([0, 1, 2, BLOCK]), st.sampled_from([1, 2])
        ),
        max_size=60,
    )
)
def test_whatever_comes_in_whatever_order_the_machine_keeps_count(steps: list[tuple[str, int, int, int]]) -> None:
    receiver = Receiver(Limits())
    for page in pages_of_requests(requests_of(2, None, 0, 1), False):
        receiver.receive_message(page)
    receiver.accept(skip=[3])
    for call, item, number, stream in steps:
        with suppress(RemoteProtocolError):
            step(receiver, call, item, number, stream)
    messages = receiver.messages_to_send()
    verified = [message for message in messages if isinstance(message, VerifiedPage)]
    if receiver.state is State.VERIFIED:
        assert [len(page.outcomes) for page in verified] == [4]
        assert not receiver.expects_data()
        assert not any(receiver.wants(item) for item in range(4))
    else:
        assert receiver.state is State.MOVING
        assert verified == []
        assert any(receiver.wants(item) for item in range(4))
