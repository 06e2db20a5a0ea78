"""A transfer told message by message by a hostile peer, who may stop, repeat, lie or leave before and after each.

A conversation is a list of turns: what the peer says next, and what it has to hear before it can. Two of them say every
message that a sender says, and every one that a receiver says.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import spaceblock
from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.limits import Limits
from spaceblock.protocol.session import FEATURES
from spaceblock.trust.identity import Identity
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import (
    Amend,
    Amendment,
    AnswerPage,
    BlockDigests,
    Done,
    Hashed,
    HaveReply,
    Hole,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    ItemFailed,
    MessageType,
    NameProblem,
    NameProblems,
    NameRule,
    NameUnit,
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
    Waiting,
    pages_of_manifest,
    pages_of_requests,
)

from .hostile import RawPeer, RawStream, block, client_of, digest, hostile_receiver
from .support import BLOCK, failure, file_of, until, within

Turn = tuple[MessageType, Callable[[], None]]
"""A message, and what sends it."""

HURRIED = spaceblock.Options(
    timeouts=spaceblock.Timeouts(connect=5.0, offer=1.5, idle=1.5, sink=1.5, source=1.5, verify=1.5, close=0.5)
)

SIZE = 2 * BLOCK + 1_000
DATA = bytes(range(1, 251)) * (SIZE // 250 + 1)
DATA = DATA[:SIZE]
WRONG = DATA[:BLOCK] + bytes(BLOCK) + DATA[2 * BLOCK :]
SPARSE = bytes(BLOCK) + b"end"


@dataclass
class HostileSender:
    """What a hostile sender says to a listener: three items, of which one comes wrong and is repaired, one has a hole,
    and one is given up; the third has a name that the receiver has to ask about."""

    raw: RawPeer
    listener: spaceblock.Listener
    inbox: Path
    uuid: bytes
    resumes: bool = False
    control: RawStream = field(init=False)
    data: RawStream = field(init=False)
    receiving: spaceblock.Transfer | None = None

    @property
    def received(self) -> spaceblock.Transfer:
        """The transfer on the other side, which has accepted the offer by now."""
        assert self.receiving is not None
        return self.receiving

    async def turns(self) -> AsyncIterator[Turn]:
        """All that is said, in order."""
        items = (
            SpaceblockRequest(SIZE, rereadable=True),
            SpaceblockRequest(len(SPARSE), rereadable=True),
            SpaceblockRequest(5),
        )
        names = [
            Entry(EntryKind.FILE, name, item=item) for item, name in enumerate(("repaired", "sparse", "a/../third"))
        ]
        self.control = control = self.raw.open(StreamType.PUSH)
        yield (
            MessageType.REQUESTS,
            lambda: control.send(*pages_of_requests(SpaceblockRequests(self.uuid, BLOCK, items), True)),
        )
        yield MessageType.MANIFEST, lambda: control.send(*pages_of_manifest(names))
        self.receiving = (await within(anext(aiter(self.listener)))).accept(self.inbox)
        await control.hear(NameProblems)
        yield MessageType.AMEND, lambda: control.send(Amend(True, (Amendment(2, "third"),)))
        answer = await control.hear(AnswerPage)
        start = 0
        if self.resumes:
            assert answer.verdicts[0].kind is VerdictKind.HAVE
            start = answer.verdicts[0].offset
            yield MessageType.HAVE_REPLY, lambda: control.send(HaveReply(0, True))
        self.data = data = self.raw.open(StreamType.DATA, self.uuid)
        yield MessageType.WAITING, lambda: control.send(Waiting())
        yield MessageType.HASHED, lambda: control.send(Hashed(1))
        for offset in range(start, SIZE, BLOCK):
            yield MessageType.BLOCK, partial(data.write, block(0, offset, WRONG[offset : offset + BLOCK]))
        yield MessageType.ITEM_END, lambda: data.send(ItemEnd(0, SIZE))
        yield MessageType.HOLE, lambda: data.send(Hole(1, 0, BLOCK))
        yield MessageType.BLOCK, lambda: data.write(block(1, BLOCK, b"end"))
        yield MessageType.ITEM_END, lambda: data.send(ItemEnd(1, len(SPARSE)))
        yield MessageType.ITEM_ABORT, lambda: data.send(ItemAbort(2, 0x30, 5, "reading", "the disk is gone"))
        data.write(b"", fin=True)
        yield MessageType.ITEM_DIGEST, lambda: control.send(ItemDigest(0, SIZE, digest(DATA)))
        await control.hear(BlockDigests)
        blocks = tuple(digest(DATA[offset : offset + BLOCK]) for offset in range(0, SIZE, BLOCK))
        yield MessageType.BLOCK_DIGESTS, lambda: control.send(BlockDigests(0, 0, blocks))
        resend = await control.hear(Resend)
        assert resend.ranges == (Partial(BLOCK, 2 * BLOCK),)
        again = self.raw.open(StreamType.DATA, self.uuid)
        yield MessageType.BLOCK, lambda: again.write(block(0, BLOCK, DATA[BLOCK : 2 * BLOCK]))
        yield MessageType.ITEM_END, lambda: again.send(ItemEnd(0, BLOCK))
        again.write(b"", fin=True)
        yield MessageType.ITEM_DIGEST, lambda: control.send(ItemDigest(0, SIZE, digest(DATA)))
        yield MessageType.ITEM_DIGEST, lambda: control.send(ItemDigest(1, len(SPARSE), digest(SPARSE)))
        await control.hear(VerifiedPage)
        yield MessageType.DONE, lambda: control.send(Done())
        control.write(b"", fin=True)
        error = await failure(self.received)
        assert isinstance(error, spaceblock.SourceError), error
        assert error.item == 2
        assert (self.inbox / "repaired").read_bytes() == DATA
        assert (self.inbox / "sparse").read_bytes() == SPARSE


@asynccontextmanager
async def hostile_sender(
    inbox: Path, *, resumes: bool = False, options: spaceblock.Options | None = None
) -> AsyncIterator[HostileSender]:
    """A hostile sender that was greeted; where it ``resumes``, it has broken off once before."""
    identity, uuid = Identity.ephemeral(), os.urandom(16)
    options = replace(options or spaceblock.Options(), limits=Limits(not_durable=4 * BLOCK))
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        if resumes:
            await _break_off(listener, identity, uuid, inbox)
        async with client_of(listener, identity, features=FEATURES) as raw:
            yield HostileSender(raw, listener, inbox, uuid, resumes)


async def _break_off(listener: spaceblock.Listener, identity: Identity, uuid: bytes, inbox: Path) -> None:
    async with client_of(listener, identity, features=FEATURES) as raw:
        peer = HostileSender(raw, listener, inbox, uuid)
        turns = peer.turns()
        await until_due(turns, MessageType.BLOCK, 1)
        await until(lambda: peer.received.progress.durable >= BLOCK)
        raw.connection.close(0)
        await failure(peer.received)


@dataclass
class HostileReceiver:
    """What a hostile receiver says to a sender of three files: it has something of the first, wants a part of the
    second once more, and fails the third."""

    raw: RawPeer
    sending: spaceblock.Transfer
    contents: tuple[bytes, ...]
    control: RawStream = field(init=False)
    requests: RequestsPage = field(init=False)

    async def turns(self) -> AsyncIterator[Turn]:
        """All that is said, in order."""
        self.control = control = await self.raw.opened()
        self.requests = await control.hear(RequestsPage)
        first, second, _ = self.contents
        problem = NameProblem(1, NameRule.CHARACTER, "not that one")
        yield MessageType.NAME_PROBLEMS, lambda: control.send(NameProblems(255, NameUnit.BYTES, 0, 0, True, (problem,)))
        await control.hear(Amend)
        yield MessageType.PROGRESS, lambda: control.send(Progress(ReceiverState.USER, 0, 0, 0))
        had = Verdict(VerdictKind.HAVE, BLOCK, digest(first[:BLOCK]))
        yield MessageType.ANSWER, lambda: control.send(AnswerPage(True, 0, (had, *[Verdict(VerdictKind.ALL)] * 2)))
        await control.hear(HaveReply)
        yield MessageType.HASHED, lambda: control.send(Hashed(BLOCK))
        yield (
            MessageType.ITEM_FAILED,
            lambda: control.send(ItemFailed(2, 0x21, 28, "disk", "no room")),
        )
        for _ in range(2):
            await control.hear(ItemDigest)
        yield MessageType.PROGRESS, lambda: control.send(Progress(ReceiverState.VERIFYING, 1, 1, 1))
        count = -(-len(second) // BLOCK)
        yield MessageType.BLOCK_DIGESTS, lambda: control.send(BlockDigests(1, 0, (bytes(32),) * count))
        await control.hear(BlockDigests)
        yield MessageType.RESEND, lambda: control.send(Resend(1, (Partial(0, BLOCK),)))
        await control.hear(ItemDigest)
        outcomes = [Outcome(OutcomeKind.VERIFIED, digest(data), len(data), "x") for data in (first, second)]
        failed = Outcome(OutcomeKind.FAILED, code=0x21)
        yield MessageType.VERIFIED, lambda: control.send(VerifiedPage(True, 0, (*outcomes, failed)))
        await control.hear(Done)
        control.write(b"", fin=True)
        error = await failure(self.sending)
        assert isinstance(error, spaceblock.NoSpace), error
        assert error.item == 2


@asynccontextmanager
async def hostile_receiving(
    folder: Path, options: spaceblock.Options | None = None
) -> AsyncIterator[tuple[spaceblock.Peer, HostileReceiver]]:
    """A library's sender of three files, and the hostile receiver that it has connected to."""
    sources = [file_of(folder, name, SIZE) for name in ("first", "second", "third")]
    async with hostile_receiver(options, FEATURES) as (peer, raw):
        sending = peer.send(*sources)
        yield peer, HostileReceiver(raw, sending, tuple(path.read_bytes() for path in sources))


async def until_due(turns: AsyncIterator[Turn], wanted: MessageType, nth: int = 0) -> Callable[[], None]:
    """Say everything before the ``nth`` message of type ``wanted``, and return what says that one."""
    async for due, say in turns:
        if due is wanted:
            if nth == 0:
                return say
            nth -= 1
        say()
    raise AssertionError(f"{wanted.name} is never due")
