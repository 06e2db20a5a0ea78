"""Receivers that lie to a sender: in the answer, in the verdict, in their reports, by their silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import spaceblock
from spaceblock.blocks import Partial
from spaceblock.errors import ErrorCode
from spaceblock.limits import DATA_BACKLOG, FLIGHT_MAX, SLOT_SIZE
from spaceblock.quic.interface import StreamStopped
from spaceblock.wire.messages import (
    Amend,
    AnswerPage,
    Done,
    Error,
    HaveReply,
    Hello,
    ItemDigest,
    ItemFailed,
    ManifestPage,
    Outcome,
    OutcomeKind,
    Progress,
    ReceiverState,
    RequestsPage,
    Resend,
    StreamType,
    Verdict,
    VerdictKind,
    VerifiedPage,
)

from .hostile import RawPeer, RawStream, block, digest, frame, hostile_receiver
from .stages import sender_reads
from .support import BLOCK, assert_helpful, failure, file_of, resizable, until, within

pytestmark = pytest.mark.usefixtures("connections_live_on")

SIZE = 2 * BLOCK + 1000
HURRIED = spaceblock.Options(
    timeouts=spaceblock.Timeouts(connect=5.0, offer=0.5, idle=0.6, sink=0.5, verify=0.5, close=0.5)
)
ALL = Verdict(VerdictKind.ALL)
SKIP = Verdict(VerdictKind.SKIP)


@dataclass
class Attack:
    """A library's sender with two items, of which a raw receiver has read the offer."""

    peer: spaceblock.Peer
    raw: RawPeer
    control: RawStream
    sending: spaceblock.Transfer
    data: tuple[bytearray, bytearray]
    requests: RequestsPage

    async def accept(self) -> RawStream:
        """Answer honestly; the stream that then brings both items."""
        self.control.send(AnswerPage(True, 0, (ALL, ALL)))
        return await self.raw.opened()

    async def receive(self) -> None:
        """Answer honestly, and read all data and digests."""
        stream = await self.accept()
        await within(stream.ended.wait())
        for data in self.data:
            told = await self.control.read(ItemDigest)
            assert (told.size, told.digest) == (SIZE, digest(data))
        assert b"".join(data for _, _, data in stream.blocks) == b"".join(self.data)

    def verified(self, *outcomes: Outcome) -> None:
        self.control.send(VerifiedPage(True, 0, outcomes))

    @property
    def honest(self) -> tuple[Outcome, Outcome]:
        first, second = (Outcome(OutcomeKind.VERIFIED, digest(data), SIZE) for data in self.data)
        return first, second


@asynccontextmanager
async def attack(options: spaceblock.Options | None = None) -> AsyncIterator[Attack]:
    data = bytearray(b"\x01" * SIZE), bytearray(b"\x02" * SIZE)
    async with hostile_receiver(options) as (peer, raw):
        sending = peer.send(*data)
        control = await raw.opened()
        requests = await control.read(RequestsPage)
        assert control.stream_type == StreamType.PUSH
        yield Attack(peer, raw, control, sending, data, requests)
        assert all(map(resizable, data))
        if not peer.closed:
            await honest_transfer(peer, raw)


async def honest_transfer(peer: spaceblock.Peer, raw: RawPeer) -> None:
    """The same connection still carries a transfer to its end."""
    sending = peer.send(b"honest")
    while (control := await raw.opened()).stream_type != StreamType.PUSH:
        pass  # what is left of data streams
    await control.read(RequestsPage)
    control.send(AnswerPage(True, 0, (ALL,)))
    await within((await raw.opened()).ended.wait())
    await control.read(ItemDigest)
    control.send(VerifiedPage(True, 0, (Outcome(OutcomeKind.VERIFIED, digest(b"honest"), 6),)))
    await control.read(Done)
    control.write(b"", fin=True)
    await within(sending)


LIES_INSTEAD_OF_AN_ANSWER: dict[str, bytes] = {
    "too few verdicts": AnswerPage(True, 0, (ALL,)).encode(),
    "too many verdicts": AnswerPage(True, 0, (ALL, ALL, ALL)).encode(),
    "verdicts behind the beginning": AnswerPage(True, 1, (ALL,)).encode(),
    "verdicts that begin anew": AnswerPage(False, 0, (ALL,)).encode() + AnswerPage(True, 0, (ALL, ALL)).encode(),
    "a resume that was not announced": AnswerPage(True, 0, (ALL, Verdict(VerdictKind.HAVE, 1, bytes(32)))).encode(),
    "a verdict that does not exist": frame(0x06, b"\x01\0\x02\x07\x07"),
    "an end of everything": VerifiedPage(True, 0, (Outcome(OutcomeKind.SKIPPED),) * 2).encode(),
    "an item that failed": ItemFailed(0, ErrorCode.STORAGE, 0, "", "").encode(),
    "an offer": RequestsPage(b"u" * 16, True, False, BLOCK, 0, ()).encode(),
    "names": ManifestPage(True, 0, ()).encode(),
    "a digest": ItemDigest(0, 0, bytes(32)).encode(),
    "done": Done().encode(),
    "a greeting": Hello().encode(),
    "new names": Amend(True, ()).encode(),
    "a reply to a resume": HaveReply(0, True).encode(),
    "a wish to have it again": Resend(0, (Partial(0, 1),)).encode(),
    "a block": block(0, 0, b"x"),
    "a message that nobody knows": frame(0x7E, b""),
    "a message longer than any may be": frame(0x11, b"", announced=65_537),
    "half a message and the end": b"\x06\x04",
    "the end": b"",
}


@pytest.mark.parametrize("lie", LIES_INSTEAD_OF_AN_ANSWER.values(), ids=LIES_INSTEAD_OF_AN_ANSWER.keys())
async def test_a_lie_instead_of_an_answer_ends_its_transfer_alone(lie: bytes) -> None:
    async with attack() as at:
        at.control.write(lie, fin=True)
        error = await failure(at.sending)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert not error.remote
        assert_helpful(error)
        assert (await at.control.read(Error)).code == ErrorCode.PROTOCOL
        await within(at.control.ended.wait())


LIES_WHILE_DATA_MOVES: dict[str, bytes] = {
    "another answer": AnswerPage(True, 0, (ALL, ALL)).encode(),
    "an item skipped after all": VerifiedPage(True, 0, (Outcome(OutcomeKind.SKIPPED),) * 2).encode(),
    "an item that failed and does not exist": ItemFailed(2, ErrorCode.STORAGE, 0, "", "").encode(),
    "an item that failed for no reason": frame(0x12, b"\0\0\0\0\0"),
    "a greeting": Hello().encode(),
    "a report that is too short": frame(0x11, b"\0\0"),
    "a report of an unknown state": frame(0x11, b"\x09\0\0\0"),
    "the end": b"",
}


@pytest.mark.parametrize("lie", LIES_WHILE_DATA_MOVES.values(), ids=LIES_WHILE_DATA_MOVES.keys())
async def test_a_lie_while_data_moves_ends_its_transfer_alone(lie: bytes) -> None:
    async with attack() as at:
        await at.accept()
        at.control.write(lie, fin=True)
        error = await failure(at.sending)
        assert isinstance(error, spaceblock.RemoteProtocolError)
        assert_helpful(error)
        while not isinstance(message := await at.control.read(object), Error):  # type: ignore[type-var]
            assert isinstance(message, ItemDigest)
        assert message.code == ErrorCode.PROTOCOL


async def test_a_verdict_before_everything_was_sent_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "large", 20 * BLOCK)
    async with hostile_receiver() as (peer, raw):
        with sender_reads(monkeypatch) as gate:
            sending = peer.send(source)
            control = await raw.opened()
            await control.read(RequestsPage)
            await control.read(ManifestPage)
            control.send(AnswerPage(True, 0, (ALL,)))
            await within(gate.reached.wait())
            control.send(
                VerifiedPage(True, 0, (Outcome(OutcomeKind.VERIFIED, digest(source.read_bytes()), 20 * BLOCK),))
            )
            assert (await control.read(Error)).code == ErrorCode.PROTOCOL
        assert isinstance(await failure(sending), spaceblock.RemoteProtocolError)


async def test_an_honest_receiver_is_believed() -> None:
    async with attack() as at:
        await at.receive()
        at.verified(*at.honest)
        await at.control.read(Done)
        await within(at.control.ended.wait())
        at.control.write(b"", fin=True)
        receipt = await within(at.sending)
        assert [item.digest for item in receipt.items] == [digest(data).hex() for data in at.data]


@pytest.mark.parametrize("lie", ["digest", "size"])
async def test_a_receiver_that_verified_something_else_is_an_integrity_error(lie: str) -> None:
    async with attack() as at:
        await at.receive()
        first, _ = at.honest
        if lie == "digest":
            second = Outcome(OutcomeKind.VERIFIED, bytes(32), SIZE)
        else:
            second = Outcome(OutcomeKind.VERIFIED, digest(at.data[1]), SIZE - 1)
        at.verified(first, second)
        error = await failure(at.sending)
        assert isinstance(error, spaceblock.IntegrityError)
        assert (error.item, error.remote, error.exit_code) == (1, False, 5)
        assert_helpful(error)
        told = await at.control.read(Error)
        assert (told.code, told.item) == (ErrorCode.INTEGRITY, 1)


@pytest.mark.parametrize(
    "pages",
    [
        lambda one, two: [VerifiedPage(True, 0, (one,))],
        lambda one, two: [VerifiedPage(True, 0, (one, two, two))],
        lambda one, two: [VerifiedPage(True, 1, (two,))],
        lambda one, two: [VerifiedPage(False, 0, (one,)), VerifiedPage(True, 0, (one, two))],
        lambda one, two: [VerifiedPage(True, 0, (one, Outcome(OutcomeKind.SKIPPED)))],
    ],
    ids=["too few", "too many", "behind the beginning", "begins anew", "skipped what it wanted"],
)
async def test_a_verdict_that_does_not_fit_is_not_believed(pages: object) -> None:
    async with attack() as at:
        await at.receive()
        at.control.send(*pages(*at.honest))  # type: ignore[operator]
        assert isinstance(await failure(at.sending), spaceblock.RemoteProtocolError)
        assert (await at.control.read(Error)).code == ErrorCode.PROTOCOL


async def test_an_item_that_the_receiver_fails_is_left_out_and_the_error_says_so() -> None:
    text = "\x1b[31mno room\u202e"
    async with attack() as at:
        at.control.send(AnswerPage(True, 0, (ALL, ALL)), ItemFailed(1, ErrorCode.NO_SPACE, 28, "disk", text))
        at.control.stream.consume(0)
        stream = await at.raw.opened()
        await within(stream.ended.wait())
        first, _ = at.honest
        await at.control.read(ItemDigest)
        at.verified(first, Outcome(OutcomeKind.FAILED, code=ErrorCode.NO_SPACE))
        error = await failure(at.sending)
        assert isinstance(error, spaceblock.NoSpace)
        assert (error.item, error.errno, error.phase, error.remote) == (1, 28, "disk", True)
        assert not set(str(error)) & set("\x1b\u202e")
        assert error.receipt is not None
        assert [item.index for item in error.receipt.items] == [0]


async def test_names_from_a_receiver_are_told_as_they_are_and_touch_nothing(tmp_path: Path) -> None:
    async with attack() as at:
        await at.receive()
        first, second = at.honest
        at.verified(Outcome(first.kind, first.digest, SIZE, "../../etc/passwd"), second)
        await at.control.read(Done)
        at.control.write(b"", fin=True)
        receipt = await within(at.sending)
        assert receipt.items[0].path == "../../etc/passwd"


async def test_figures_that_lie_are_shown_and_nothing_more() -> None:
    async with attack() as at:
        stream = await at.accept()
        for value in (2**62 - 1, 0, 2**60):
            at.control.send(Progress(ReceiverState.MOVING, value, value, value))
        await until(lambda: at.sending.progress.bytes_done == 2**60)
        await within(stream.ended.wait())
        at.verified(*at.honest)
        at.control.write(b"", fin=True)
        await within(at.sending)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.REFUSED, spaceblock.TransferRefused),
        (ErrorCode.NO_SPACE, spaceblock.NoSpace),
        (ErrorCode.CANCELLED, spaceblock.TransferCancelled),
        (ErrorCode.TIMEOUT, spaceblock.Stalled),
        (ErrorCode.NAME, spaceblock.NameRejected),
        (ErrorCode.INTERNAL, spaceblock.InternalError),
        (0x7777, spaceblock.SpaceblockError),
    ],
)
@pytest.mark.parametrize("text", ["", "because\n\x1b[0m I say so"])
async def test_every_error_of_a_receiver_has_its_type_and_safe_words(
    code: int, kind: type[spaceblock.SpaceblockError], text: str
) -> None:
    async with attack() as at:
        at.control.send(Error(code, None, "", 0, text), fin=True)
        error = await failure(at.sending)
        assert type(error) is kind
        assert error.remote
        assert str(error)
        assert not set(str(error)) & set("\x1b\n")


async def test_stopping_the_data_without_a_word_is_the_receivers_fault() -> None:
    async with attack(HURRIED) as at:
        stream = await at.accept()
        stream.stream.stop(ErrorCode.INTERNAL)
        error = await failure(at.sending)
        assert isinstance(error, (spaceblock.RemoteProtocolError, spaceblock.Stalled))
        assert_helpful(error)


async def test_a_stop_that_overtakes_the_receivers_error_does_not_hide_it(tmp_path: Path) -> None:
    source = file_of(tmp_path, "large", 80 * BLOCK)
    async with hostile_receiver() as (peer, raw):
        sending = peer.send(source)
        control = await raw.opened()
        await control.read(RequestsPage)
        await control.read(ManifestPage)
        control.send(AnswerPage(True, 0, (ALL,)))
        (await raw.opened()).stream.stop(ErrorCode.CANCELLED)
        (outgoing,) = peer._outgoing
        (stream,) = outgoing._carrier._streams

        async def until_stopped() -> None:
            while True:
                await stream.drain(0)
                await asyncio.sleep(0)

        with pytest.raises(StreamStopped):  # the stop has arrived, alone
            await within(until_stopped())
        control.send(Error(ErrorCode.NO_SPACE, None, "", 28, "no space"), fin=True)
        error = await failure(sending)
        assert isinstance(error, spaceblock.NoSpace)


async def test_data_streams_of_the_receiver_and_for_a_transfer_it_receives_are_stopped() -> None:
    async with attack() as at:
        stray = at.raw.open(StreamType.DATA, at.requests.uuid)
        stray.write(b"data in the wrong direction")
        await within(stray.stopped.wait())
        at.control.send(Error(ErrorCode.REFUSED, None, "", 0, "no"), fin=True)
        await failure(at.sending)


# Silence, and leaving.


async def test_a_receiver_that_does_not_react_to_the_offer() -> None:
    async with attack(HURRIED) as at:
        error = await failure(at.sending)
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == str(spaceblock.Phase.OFFERING)
        assert_helpful(error)
        told = await at.control.read(Error)
        assert (told.code, told.phase) == (ErrorCode.TIMEOUT, str(spaceblock.Phase.OFFERING))


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (ReceiverState.MOVING, spaceblock.Phase.MOVING),
        (ReceiverState.SINK, spaceblock.Phase.SINK),
        (ReceiverState.DISK, spaceblock.Phase.DISK),
        (ReceiverState.VERIFYING, spaceblock.Phase.VERIFYING),
    ],
)
async def test_each_state_of_a_receiver_has_its_limit(state: ReceiverState, phase: spaceblock.Phase) -> None:
    """A heartbeat that says the same again and again does not extend it."""
    async with attack(HURRIED) as at:
        stream = await at.accept()
        await within(stream.ended.wait())

        async def beat() -> None:
            while True:
                at.control.send(Progress(state, 5, 0, 0))
                await asyncio.sleep(0.1)

        heart = asyncio.create_task(beat())
        error = await failure(at.sending)
        heart.cancel()
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == str(phase)


async def test_a_receiver_that_reads_nothing_stalls_the_transfer(tmp_path: Path) -> None:
    """What waits for it here is bounded, and far less than there is to send."""
    source = file_of(tmp_path, "large", 240 * BLOCK)
    async with hostile_receiver(HURRIED) as (peer, raw):
        sending = peer.send(source)
        control = await raw.opened()
        await control.read(RequestsPage)
        control.send(AnswerPage(True, 0, (ALL,)))
        stream = await raw.opened()
        stream.stream.set_handlers(on_data=None)
        (outgoing,) = peer._outgoing
        waiting: list[int] = []

        def watch() -> bool:
            waiting.append(outgoing._carrier.backlog)
            return sending.done

        await until(watch)
        error = await failure(sending)
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == str(spaceblock.Phase.MOVING)
        assert 0 < max(waiting) < DATA_BACKLOG + FLIGHT_MAX + SLOT_SIZE


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("code", [ErrorCode.NO_ERROR, ErrorCode.CANCELLED, ErrorCode.INTERNAL])
async def test_a_receiver_that_leaves_ends_the_transfer_at_once(code: ErrorCode, answered: bool) -> None:
    async with attack() as at:
        if answered:
            await at.accept()
        at.raw.connection.close(code, "bye")
        error = await failure(at.sending)
        assert error.remote
        if code is ErrorCode.INTERNAL:
            assert isinstance(error, spaceblock.InternalError)
        else:
            assert isinstance(error, spaceblock.TransferCancelled)
            assert_helpful(error)


async def test_a_receiver_that_leaves_before_verified_has_not_completed() -> None:
    async with attack() as at:
        await at.receive()
        at.raw.connection.close(ErrorCode.NO_ERROR)
        assert isinstance(await failure(at.sending), spaceblock.TransferCancelled)


async def test_a_receiver_that_leaves_with_its_verdict_has_completed() -> None:
    async with attack() as at:
        await at.receive()
        at.verified(*at.honest)
        await at.control.read(Done)
        at.raw.connection.close(ErrorCode.NO_ERROR)
        assert (await within(at.sending)).bytes == 2 * SIZE


async def test_a_cancel_that_the_receiver_ignores_ends_soon() -> None:
    """Not when nothing was heard of the receiver for too long, which would take longer than this test waits."""
    async with attack(spaceblock.Options(timeouts=spaceblock.Timeouts(idle=300.0, close=0.5))) as at:
        await at.accept()
        at.sending.cancel()
        assert isinstance(await failure(at.sending), spaceblock.TransferCancelled)


async def test_a_verdict_that_crosses_a_cancel_is_believed_only_if_it_is_true() -> None:
    for honest in (True, False):
        async with attack() as at:
            await at.receive()
            at.sending.cancel()
            first, second = at.honest
            at.verified(first, second if honest else Outcome(OutcomeKind.VERIFIED, bytes(32), SIZE))
            at.control.write(b"", fin=True)
            if honest:
                assert (await within(at.sending)).bytes == 2 * SIZE
            else:
                await failure(at.sending)
