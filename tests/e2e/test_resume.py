"""A transfer that breaks off goes on from where it was, when the same is sent again."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import spaceblock
from spaceblock.blocks import SpaceblockRequest
from spaceblock.limits import Limits
from spaceblock.names import STAGING_PREFIX
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.journal import JOURNAL, Journal, Keeper, Part
from spaceblock.storage.records import read_records
from spaceblock.trust.identity import Identity
from spaceblock.wire.messages import (
    AnswerPage,
    Done,
    Feature,
    HaveReply,
    ItemDigest,
    ItemEnd,
    OutcomeKind,
    Progress,
    VerdictKind,
    VerifiedPage,
)

from .hostile import block, client_of, digest, item_bytes
from .stages import Gate
from .support import (
    BLOCK,
    assert_helpful,
    deliver,
    digest_of,
    failure,
    failures,
    file_of,
    pair,
    tree,
    unreadable_again,
    until,
    visible,
    within,
)

MIB = 1024 * 1024
SIZE = 24 * MIB
HALF = SIZE // 2
LIMITS = Limits(not_durable=4 * MIB)


@dataclass(frozen=True)
class Sides:
    """Both sides' options, each with an identity that is kept, and the folder that is received into."""

    sender: spaceblock.Options
    receiver: spaceblock.Options
    inbox: Path

    def connected(self) -> object:
        return pair(self.receiver, here=self.sender)

    @property
    def unfinished(self) -> Path:
        """The hidden folder of the transfer that broke off."""
        (found,) = [path for path in self.inbox.iterdir() if path.name.startswith(STAGING_PREFIX)]
        return found

    @property
    def partial(self) -> Path:
        """The partial file of the only item that has one."""
        (found,) = [path for path in self.unfinished.iterdir() if path.name != JOURNAL]
        return found


@pytest.fixture
def sides(tmp_path: Path, inbox: Path) -> Sides:
    return Sides(
        spaceblock.Options(identity=tmp_path / "sender", limits=LIMITS),
        spaceblock.Options(identity=tmp_path / "receiver", limits=LIMITS),
        inbox,
    )


async def break_off(sides: Sides, *sources: Path, enough: int = SIZE // 3, durability: str = "fsync") -> int:
    """Begin to send, and cancel when so much is noted as received; returns how much of it was durable."""
    async with pair(sides.receiver, here=sides.sender) as peers:
        sending = peers.here.send(*sources)
        receiving = (await peers.offer()).accept(sides.inbox, durability=durability)  # type: ignore[arg-type]
        await until(lambda: receiving.progress.durable >= enough, "enough to be durable")
        sending.cancel()
        await failures(sending, receiving)
        return receiving.progress.durable


async def finish(
    sides: Sides, *sources: Path, on_conflict: str = "rename"
) -> tuple[spaceblock.Receipt, spaceblock.Receipt]:
    """Send the same again; the receipts of both sides."""
    async with pair(sides.receiver, here=sides.sender) as peers:
        return await deliver(peers, *sources, folder=sides.inbox, on_conflict=on_conflict)


async def test_sending_the_same_again_goes_on_from_where_it_broke_off(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    durable = await break_off(sides, source)
    assert not (sides.inbox / "large").exists(), "nothing has the final name before it is verified"
    assert sides.partial.stat().st_size >= durable
    for receipt in await finish(sides, source):
        assert receipt.items[0].digest == digest_of(source.read_bytes())
        assert receipt.resumed >= durable
        assert receipt.repaired == 0
    assert tree(sides.inbox) == {"large": source.read_bytes()}, "nothing is left behind"


async def test_what_broke_off_in_memory_goes_on_from_there(memory_folder: Path, sides: Sides) -> None:
    source = file_of(memory_folder, "large", SIZE)
    target = memory_folder / "target"
    target.mkdir()
    sides = replace(sides, inbox=target)
    durable = await break_off(sides, source)
    for receipt in await finish(sides, source):
        assert receipt.items[0].digest == digest_of(source.read_bytes())
        assert receipt.resumed >= durable
    assert tree(target) == {"large": source.read_bytes()}


async def test_progress_tells_what_was_resumed(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    durable = await break_off(sides, source)
    async with pair(sides.receiver, here=sides.sender) as peers:
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(sides.inbox)
        receipt, _ = await within(asyncio.gather(sending, receiving))
        assert sending.progress.resumed == receiving.progress.resumed == receipt.resumed >= durable


async def test_what_was_there_before_counts_for_no_rate(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    await break_off(sides, source)
    async with pair(sides.receiver, here=sides.sender) as peers:
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(sides.inbox)
        receipts = await within(asyncio.gather(sending, receiving))
        for transfer, receipt in zip((sending, receiving), receipts, strict=True):
            assert transfer.progress.rate * receipt.seconds < SIZE - receipt.resumed + 1, "nobody looked before the end"


async def test_what_was_resumed_can_break_off_and_be_resumed_again(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    first = await break_off(sides, source, enough=SIZE // 4)
    second = await break_off(sides, source, enough=first + SIZE // 4)
    receipt, _ = await finish(sides, source)
    assert second > first
    assert receipt.resumed >= second
    assert tree(sides.inbox) == {"large": source.read_bytes()}


async def test_after_the_end_the_same_is_another_transfer(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "file", 1000)
    await finish(sides, source)
    receipt, _ = await finish(sides, source)
    assert receipt.resumed == 0
    assert sorted(tree(sides.inbox)) == ["file", "file (1)"]


async def test_a_byte_that_changed_in_the_partial_file_costs_one_block(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    await break_off(sides, source)
    with sides.partial.open("r+b") as file:
        file.seek(5 * BLOCK + 17)
        old = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([old[0] ^ 1]))
    for receipt in await finish(sides, source):
        assert receipt.repaired == BLOCK
        assert receipt.resumed > 0
    assert tree(sides.inbox) == {"large": source.read_bytes()}


async def test_a_source_that_changed_meanwhile_arrives_as_it_is_now(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    await break_off(sides, source)
    file_of(tmp_path, "large", SIZE)
    receipt, _ = await finish(sides, source)
    assert receipt.items[0].digest == digest_of(source.read_bytes())
    assert tree(sides.inbox) == {"large": source.read_bytes()}


@pytest.mark.parametrize("size", [SIZE - MIB, SIZE + MIB])
async def test_a_source_of_another_size_begins_anew(tmp_path: Path, sides: Sides, size: int) -> None:
    source = file_of(tmp_path, "large", SIZE)
    await break_off(sides, source)
    file_of(tmp_path, "large", size)
    receipt, _ = await finish(sides, source)
    assert receipt.resumed == 0
    assert tree(sides.inbox) == {"large": source.read_bytes()}


async def test_files_that_are_in_their_place_are_not_sent_again(tmp_path: Path, sides: Sides) -> None:
    small = [file_of(tmp_path, f"small-{number}", 100_000) for number in range(20)]
    large = file_of(tmp_path, "zz-large", SIZE)
    await break_off(sides, *small, large, enough=20 * 100_000 + SIZE // 3)
    receipt, _ = await finish(sides, *small, large)
    assert receipt.resumed >= 20 * 100_000 + SIZE // 3
    assert tree(sides.inbox) == {path.name: path.read_bytes() for path in (*small, large)}, "no copy has another name"


@pytest.mark.parametrize("on_conflict", ["skip", "error", "overwrite"])
async def test_what_an_earlier_attempt_placed_is_no_conflict(tmp_path: Path, sides: Sides, on_conflict: str) -> None:
    small, large = file_of(tmp_path, "small", 1000), file_of(tmp_path, "large", SIZE)
    await break_off(sides, small, large, enough=1000 + SIZE // 3)
    receipt, _ = await finish(sides, small, large, on_conflict=on_conflict)
    assert receipt.bytes == SIZE + 1000
    assert tree(sides.inbox) == {"small": small.read_bytes(), "large": large.read_bytes()}


async def test_folders_of_an_attempt_that_broke_off_get_their_modes_and_times_in_the_end(
    tmp_path: Path, sides: Sides
) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    file_of(folder / "inner", "large", SIZE)
    (folder / "inner").chmod(0o550)
    os.utime(folder / "inner", (10**9, 10**9))
    await break_off(sides, folder)
    await finish(sides, folder)
    status = (sides.inbox / "folder" / "inner").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o550, 10**9)


@pytest.mark.parametrize("equal", [True, False])
async def test_what_is_here_by_another_way_since_is_compared_and_not_resumed(
    tmp_path: Path, sides: Sides, equal: bool
) -> None:
    large, small = file_of(tmp_path, "large", SIZE), file_of(tmp_path, "small", 1000)
    await break_off(sides, large, small)
    here = large.read_bytes() if equal else bytes(SIZE)
    (sides.inbox / "large").write_bytes(here)
    receipt, _ = await finish(sides, large, small, on_conflict="skip")
    assert [(item.skipped, bool(item.digest)) for item in receipt.items] == [(True, equal), (False, True)]
    assert receipt.resumed <= 1000
    assert tree(sides.inbox) == {"large": here, "small": small.read_bytes()}


async def test_a_placed_file_that_its_user_changed_since_is_left_alone(tmp_path: Path, sides: Sides) -> None:
    small, large = file_of(tmp_path, "small", 1000), file_of(tmp_path, "large", SIZE)
    await break_off(sides, small, large, enough=1000 + SIZE // 3)
    (sides.inbox / "small").write_bytes(b"mine")
    await finish(sides, small, large)
    assert tree(sides.inbox) == {
        "small": b"mine",
        "small (1)": small.read_bytes(),
        "large": large.read_bytes(),
    }


async def test_a_placed_file_whose_source_changed_since_arrives_beside_it(tmp_path: Path, sides: Sides) -> None:
    small, large = file_of(tmp_path, "small", 1000), file_of(tmp_path, "large", SIZE)
    before = small.read_bytes()
    await break_off(sides, small, large, enough=1000 + SIZE // 3)
    file_of(tmp_path, "small", 1000)
    async with pair(sides.receiver, here=sides.sender) as peers:
        sending = peers.here.send(small, large)
        await within(asyncio.gather(sending, (await peers.offer()).accept(sides.inbox)))
        assert sending.progress.items_done == 2, "what is sent after all counts once"
    assert tree(sides.inbox) == {
        "small": before,
        "small (1)": small.read_bytes(),
        "large": large.read_bytes(),
    }


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_what_moved_before_and_cannot_be_read_again_fails_alone(
    tmp_path: Path, sides: Sides, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    large, small = file_of(tmp_path, "large", SIZE), file_of(tmp_path, "small", 1000)
    await break_off(sides, large, small)
    unreadable_again(large if side == "sender" else sides.partial, monkeypatch)
    async with pair(sides.receiver, here=sides.sender) as peers:
        sending = peers.here.send(large, small)
        receiving = (await peers.offer()).accept(sides.inbox)
        errors = await failures(sending, receiving)
    for error in errors:
        assert isinstance(error, spaceblock.SourceError if side == "sender" else spaceblock.StorageError)
        assert error.item == 0
        assert_helpful(error)
    assert visible(sides.inbox) == {"small": small.read_bytes()}


async def test_a_sparse_file_is_resumed_with_its_holes(tmp_path: Path, sides: Sides) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        for offset in range(0, SIZE, 2 * MIB):
            file.seek(offset)
            file.write(bytes(range(256)) * 4 * 1024)
        file.truncate(SIZE + 8 * MIB)
    durable = await break_off(sides, source)
    receipt, _ = await finish(sides, source)
    assert receipt.resumed >= durable
    assert receipt.repaired == 0
    assert (sides.inbox / "sparse").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("damage", ["torn", "cut", "flipped", "of another version", "gone", "a link", "empty"])
async def test_a_journal_that_cannot_be_believed_is_not(tmp_path: Path, sides: Sides, damage: str) -> None:
    source = file_of(tmp_path, "large", SIZE)
    durable = await break_off(sides, source)
    journal = sides.unfinished / JOURNAL
    data = bytearray(journal.read_bytes())
    if damage == "torn":
        data = data[:-3]
    elif damage == "cut":
        data = data[:60]
    elif damage == "flipped":
        data[20] ^= 1
    elif damage == "of another version":
        data[7] += 1
    elif damage == "empty":
        data.clear()
    journal.unlink()
    if damage == "a link":
        (tmp_path / "elsewhere").write_bytes(data)
        journal.symlink_to(tmp_path / "elsewhere")
    elif damage != "gone":
        journal.write_bytes(data)
    receipt, _ = await finish(sides, source)
    assert receipt.items[0].digest == digest_of(source.read_bytes())
    assert receipt.resumed < durable if damage == "torn" else receipt.resumed == 0
    assert tree(sides.inbox) == {"large": source.read_bytes()}


@pytest.mark.parametrize("wrong", ["key", "transfer", "peer", "file", "nothing"])
async def test_a_journal_that_is_whole_and_not_this_ones_is_not_believed(
    tmp_path: Path, sides: Sides, wrong: str
) -> None:
    """It claims that half is there. Where nothing but that is wrong it is believed, and the digests find out."""
    source = file_of(tmp_path, "large", SIZE)
    await break_off(sides, source)
    journal, partial = sides.unfinished / JOURNAL, sides.partial
    key = spaceblock.Identity.load(tmp_path / "receiver").derived_key("journal")
    peer = spaceblock.Identity.load(tmp_path / "sender").peer_id
    uuid = read_records(journal.read_bytes(), key).records[0].payload[:16]
    claim = Part(partial.stat().st_ino, HALF, HALF, bytes(32))
    partial.write_bytes(bytes(SIZE))
    journal.unlink()
    folder = os.open(sides.unfinished, os.O_RDONLY)
    try:
        keeper = Keeper("somebody else" if wrong == "peer" else peer, bytes(32) if wrong == "key" else key)
        forged = Journal.create(folder, bytes(16) if wrong == "transfer" else uuid, keeper, True)
        forged.durable_up_to([(bytes.fromhex(partial.name), claim)])
        forged.close()
    finally:
        os.close(folder)
    if wrong == "file":
        partial.rename(tmp_path / "elsewhere")
        partial.write_bytes(bytes(SIZE))
    receipt, _ = await finish(sides, source)
    assert (receipt.resumed, receipt.repaired) == ((HALF, HALF) if wrong == "nothing" else (0, 0))
    assert receipt.items[0].digest == digest_of(source.read_bytes())
    assert tree(sides.inbox) == {"large": source.read_bytes()}


async def test_another_peer_does_not_get_at_what_is_unfinished(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    await break_off(sides, source)
    other = Sides(spaceblock.Options(identity=tmp_path / "other", limits=LIMITS), sides.receiver, sides.inbox)
    receipt, _ = await finish(other, source)
    assert receipt.resumed == 0
    assert sides.partial.exists(), "it waits for who began it"
    receipt, _ = await finish(sides, source)
    assert receipt.resumed > 0
    assert sorted(tree(sides.inbox)) == ["large", "large (1)"]


async def test_without_durability_what_arrived_is_kept_too(tmp_path: Path, sides: Sides) -> None:
    source = file_of(tmp_path, "large", SIZE)
    async with pair(sides.receiver, here=sides.sender) as peers:
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(sides.inbox, durability="none")
        await until(lambda: receiving.progress.bytes_done >= SIZE // 2, "half to have come")
        sending.cancel()
        await failures(sending, receiving)
        assert receiving.progress.durable == 0
    receipt, _ = await finish(sides, source)
    assert receipt.resumed >= SIZE // 2 - LIMITS.not_durable
    assert tree(sides.inbox) == {"large": source.read_bytes()}


async def test_a_ticket_that_has_expired_is_good_for_what_was_begun_and_nothing_else(
    tmp_path: Path, sides: Sides
) -> None:
    source, other = file_of(tmp_path, "large", SIZE), file_of(tmp_path, "other", 1000)
    async with spaceblock.listen("127.0.0.1", options=sides.receiver) as listener:
        async with spaceblock.connect(listener.ticket, options=sides.sender) as peer:
            sending = peer.send(source)
            receiving = (await within(anext(aiter(listener)))).accept(sides.inbox)
            await until(lambda: receiving.progress.durable >= SIZE // 3, "enough to be durable")
            sending.cancel()
            await failures(sending, receiving)
        listener._book.expire(time.time())
        async with spaceblock.connect(listener.ticket, options=sides.sender) as peer:
            (error,) = await failures(peer.send(other))
            assert isinstance(error, spaceblock.TicketExpired)
            assert error.remote
            sending = peer.send(source)
            offer = await within(anext(aiter(listener)))
            with pytest.raises(spaceblock.TicketExpired):
                next(iter(listener._peers)).send(b"nothing for it")
            receipt, _ = await within(asyncio.gather(sending, offer.accept(sides.inbox)))
            assert receipt.resumed
    assert (sides.inbox / "large").read_bytes() == source.read_bytes()


def size_of(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return -1


async def test_an_item_that_begins_anew_before_its_sender_has_said_so_is_not_mistaken_for_what_was_there(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data stream may overtake the control stream; what is read again just then is another file already."""
    old, new = os.urandom(2 * MIB), os.urandom(2 * MIB)
    me, source = Identity.ephemeral(), SpaceblockRequest(len(new))
    async with spaceblock.listen("127.0.0.1", options=sides.receiver) as listener:
        async with client_of(listener, me, features=Feature.RESUME) as raw:
            offer = raw.offer(source, names=("file",))
            receiving = (await within(anext(aiter(listener)))).accept(sides.inbox)
            await offer.control.read(AnswerPage)
            offer.data().write(item_bytes(0, old))
            while (await offer.control.read(Progress)).durable < len(old):
                pass
        await failure(receiving)
        async with client_of(listener, me, features=Feature.RESUME) as raw:
            with Gate(monkeypatch, FolderSink, "reread") as gate:
                offer = raw.offer(source, names=("file",), uuid=offer.uuid)
                receiving = (await within(anext(aiter(listener)))).accept(sides.inbox)
                (verdict,) = (await offer.control.read(AnswerPage)).verdicts
                assert (verdict.kind, verdict.offset) == (VerdictKind.HAVE, len(old))
                await within(gate.reached.wait())
                partial, data = sides.partial, offer.data()
                data.write(block(0, 0, new[:BLOCK]))
                await until(lambda: size_of(partial) == BLOCK, "the first block to be stored")
            await until(lambda: not receiving._job._running, "everything that was begun to be over")
            data.write(b"".join(block(0, start, new[start : start + BLOCK]) for start in range(BLOCK, len(new), BLOCK)))
            data.send(ItemEnd(0, len(new)), fin=True)
            offer.control.send(HaveReply(0, False), ItemDigest(0, len(new), digest(new)))
            verified = await offer.control.read(VerifiedPage)
            offer.control.send(Done(), fin=True)
            await within(receiving)
    assert [outcome.kind for outcome in verified.outcomes] == [OutcomeKind.VERIFIED]
    assert tree(sides.inbox) == {"file": new}
