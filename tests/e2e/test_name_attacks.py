"""Every known attack by a name, against the real file system: nothing outside the folder, nothing of the receiver's own
touched, and no terminal misled. The sender is one that says whatever it likes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import spaceblock
from commands import Commands
from spaceblock import BadName, Item, NameRule, NameRules, OfferItem
from spaceblock.blocks import SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import ErrorCode
from spaceblock.names import Problem, Renaming, local_rules
from spaceblock.options import Conflict
from spaceblock.protocol.session import FEATURES
from spaceblock.trust.identity import Identity
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import (
    Amend,
    Amendment,
    AnswerPage,
    Done,
    Hello,
    ItemDigest,
    Message,
    NameProblem,
    NameProblems,
    NameUnit,
    StreamType,
    System,
    VerifiedPage,
    pages_of_manifest,
    pages_of_requests,
)

from .hostile import RawOffer, RawPeer, client_of, digest, hostile_receiver, item_bytes
from .support import BLOCK, assert_helpful, failure, names_below, tree, within

WINDOWS = NameRules(System.WINDOWS, 100, NameUnit.UTF16, 400)

ATTACKS = {
    "climbs up": ["../outside", "a/../../outside", "..", "a/..", "../inbox/../outside"],
    "absolute": ["/outside", "//outside", "/tmp/outside"],
    "drive letter": ["C:/outside", "C:outside", "c:\\outside", "Z:/"],
    "UNC": ["\\\\server\\share\\outside", "//server/share/outside", "\\\\?\\C:\\outside", "\\\\.\\PhysicalDrive0"],
    "alternate stream": ["outside.txt:stream", "outside.txt::$DATA", "a:b/outside"],
    "backslash": ["..\\outside", "a\\..\\..\\outside", "a\\b"],
    "device": ["CON", "nul.txt", "COM1", "COM¹", "lpt9.log", "aux/outside", "a/prn", "CONIN$"],
    "trailing dot or space": ["outside.", "outside ", "a./outside", "... ", "outside. . ."],
    "NUL": ["outside\0.txt", "\0", "a/b\0/c"],
    "control": ["a\nb", "a\rb", "\x01", "a\x7fb", "\x85", "a\tb"],
    "ANSI": ["\x1b[2J\x1b[Houtside", "\x1b]0;title\x07", "\x9b31m"],
    "bidi": ["outside\u202egpj.exe", "\u2066a\u2069", "\u200fa", "a\u200b"],
    "dots": [".", "./outside", "a/.", "a//outside", "a/", ""],
    "staging": [".spaceblock-00/0", ".SPACEBLOCK-x", ".\u017fpaceblock-1"],
    "overlong": ["x" * 256, "é" * 128, "/".join("x" * 70), "/".join(["y" * 200] * 30)],
    "not UTF-8 when written as it is": ["\ufffe", "\uffff", "\U0010ffff"],
}


EVERYWHERE = ["climbs up", "absolute", "NUL", "dots", "staging", "overlong"]
"""Attacks that no folder takes; of the others some are names like any other where nothing gives them a meaning."""


@pytest.mark.parametrize("limits", [None, WINDOWS], ids=["real", "windows"])
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hostile_name_stays_inside_or_is_refused(
    attack: str, limits: NameRules | None, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limits is not None:
        monkeypatch.setattr("spaceblock.storage.folder.rules_of", lambda *_: limits)
    (tmp_path / "outside").write_text("mine")
    taken = []
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        for name in filter(None, ATTACKS[attack]):
            offer = raw.offer(SpaceblockRequest(3), names=(name,))
            accepted = (await within(anext(aiter(listener)))).accept(inbox)
            if (limits or local_rules()).fault(name) is None:
                receipt = await complete(offer, accepted)
                assert receipt.items[0].path == name
                assert names_below(inbox)[-1] == name, "there, under that name, and nowhere else"
                clear(inbox)
                taken.append(name)
            else:
                error = await failure(accepted)
                assert isinstance(error, spaceblock.NameRejected)
                assert_helpful(error)
                assert error.message.isprintable()
                assert (await offer.error()).code == ErrorCode.NAME
                assert tree(inbox) == {}
    assert (tmp_path / "outside").read_text() == "mine"
    assert sorted(names_below(tmp_path)) == ["inbox", "outside"]
    if attack in EVERYWHERE:
        assert taken == []
    if limits is not None:
        assert all(ch not in name for name in taken for ch in '<>:"|?*\\\n\r\t\x1b')
        assert not any(part.endswith((".", " ")) for name in taken for part in name.split("/"))


@pytest.mark.parametrize("attack", EVERYWHERE)
async def test_a_hostile_name_for_a_command_that_takes_everything_ends_it_with_nothing_written(
    attack: str, commands: Commands, tmp_path: Path, inbox: Path
) -> None:
    """``--dir`` names a folder that is there, where a name of the peer's choice could be put beside what one has."""
    (tmp_path / "outside").write_text("mine")
    (inbox / "mine").write_text("mine")
    name = next(filter(None, ATTACKS[attack]))
    words = ("receive", "--listen", "127.0.0.1:0", "--dir", inbox, "--yes", "--once", "--overwrite")
    receiver = commands.start(*words)
    async with client_of(await asyncio.to_thread(receiver.read_line)) as raw:
        error = await raw.offer(SpaceblockRequest(3), names=(name,)).error()
        received = await asyncio.to_thread(receiver.end)
    assert error.code == ErrorCode.NAME
    assert received.code == 7
    assert "the name" in received.err
    assert tree(inbox) == {"mine": b"mine"}
    assert (tmp_path / "outside").read_text() == "mine"


CLASHES = {
    "case": (("Name", "name"), True),
    "case of a folder": (("Dir/x", "dir"), True),
    "composition": (("caf\u00e9", "cafe\u0301"), True),
    "special case": (("stra\u00dfe", "STRASSE"), True),
    "compatibility": (("\u212a", "k"), True),
    "file and folder": (("a", "a/b"), False),
    "folder and file": (("a/b", "a"), False),
}


@pytest.mark.parametrize("clash", CLASHES)
async def test_two_names_for_one_file_never_overwrite_each_other(
    clash: str, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, only_where_case_is_ignored = CLASHES[clash]
    for limits in [WINDOWS] if only_where_case_is_ignored else [WINDOWS, local_rules()]:
        monkeypatch.setattr("spaceblock.storage.folder.rules_of", lambda *_, limits=limits: limits)
        async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
            offer = raw.offer(SpaceblockRequest(3), SpaceblockRequest(3), names=names)
            error = await failure((await within(anext(aiter(listener)))).accept(inbox, on_conflict="overwrite"))
            assert isinstance(error, spaceblock.NameRejected)
            await offer.error()
        assert tree(inbox) == {}


@pytest.mark.parametrize("planted", ["a", "a/b"])
@pytest.mark.parametrize("on_conflict", ["rename", "skip", "overwrite", "error"])
async def test_a_link_in_the_folder_leads_nowhere(
    planted: str, on_conflict: Conflict, tmp_path: Path, inbox: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x").write_text("mine")
    (inbox / planted).parent.mkdir(exist_ok=True)
    (inbox / planted).symlink_to(secret)
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(3), names=(f"{planted}/x",))
        error = await failure((await within(anext(aiter(listener)))).accept(inbox, on_conflict=on_conflict))
        assert isinstance(error, spaceblock.NameRejected)
        await offer.error()
    assert tree(secret) == {"x": b"mine"}


@pytest.mark.parametrize("name", ["\x1b[2Jx", "\u202egpj", "a\nb", "\x9bx", "\u2028x"])
async def test_a_name_in_an_error_is_safe_to_print_on_both_sides(name: str, inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener) as raw:
        offer = raw.offer(SpaceblockRequest(3), names=(f"../{name}",))
        error = await failure((await within(anext(aiter(listener)))).accept(inbox))
        told = await offer.error()
    for text in (str(error), told.text):
        assert text.isprintable()
        assert len(text) < 1_000


# Lies in the rounds that names are asked for.


async def asking(listener: spaceblock.Listener, raw: RawPeer, inbox: Path) -> tuple[RawOffer, spaceblock.Transfer]:
    """An offer whose name the receiver has just asked to change."""
    offer = raw.offer(SpaceblockRequest(3), SpaceblockRequest(3), names=("x" * 300, "y"))
    accepted = (await within(anext(aiter(listener)))).accept(inbox)
    problems = await offer.control.read(NameProblems)
    assert [problem.entry for problem in problems.problems] == [0]
    assert problems.name_limit == os.pathconf(inbox, "PC_NAME_MAX")
    return offer, accepted


@asynccontextmanager
async def renaming_client(listener: spaceblock.Listener) -> AsyncIterator[RawPeer]:
    """A raw client that says that it can give other names."""
    async with client_of(listener, greets=False) as raw:
        session = raw.open(StreamType.SESSION)
        session.send(Hello(features=FEATURES))
        await session.read(Hello)
        yield raw


@pytest.mark.parametrize("name", ["../outside", "/outside", "y", "y/x", "z" * 300, "a\0", ".spaceblock-1", "\u017f/.."])
async def test_other_names_are_checked_again(name: str, tmp_path: Path, inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, renaming_client(listener) as raw:
        offer, accepted = await asking(listener, raw, inbox)
        offer.control.send(Amend(True, (Amendment(0, name),)))
        if name != "y":
            await offer.control.read(NameProblems)
            offer.control.send(Amend(True, (Amendment(0, name),)))  # a sender that insists is not asked again
        error = await failure(accepted)
        assert isinstance(error, (spaceblock.NameRejected, spaceblock.RemoteProtocolError))
        await offer.error()
    assert sorted(names_below(tmp_path)) == ["inbox"]


@pytest.mark.parametrize(
    "lie",
    [
        Amend(True, (Amendment(2, "z"),)),
        Amend(True, (Amendment(2**62 - 1, "z"),)),
        Amend(True, (Amendment(0, "z"), Amendment(0, "w"))),
        Amend(True, (Amendment(0, "z"), Amendment(1, "z"))),
        ItemDigest(0, 3, bytes(32)),
        Done(),
    ],
)
async def test_a_lie_instead_of_other_names_ends_its_transfer_alone(lie: Message, inbox: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, renaming_client(listener) as raw:
        offer, accepted = await asking(listener, raw, inbox)
        offer.control.send(lie)
        assert isinstance(await failure(accepted), spaceblock.RemoteProtocolError)
        assert (await offer.error()).code == ErrorCode.PROTOCOL
        offer = raw.offer(SpaceblockRequest(3), names=("fine",))
        await complete(offer, (await within(anext(aiter(listener)))).accept(inbox))
    assert tree(inbox) == {"fine": b"abc"}


async def test_a_sender_that_never_gives_other_names_is_given_up(inbox: Path) -> None:
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(offer=1.5, close=0.5))
    async with spaceblock.listen("127.0.0.1", options=options) as listener, renaming_client(listener) as raw:
        offer, accepted = await asking(listener, raw, inbox)
        error = await failure(accepted)
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == str(spaceblock.Phase.NAMES)
        assert (await offer.error()).code == ErrorCode.TIMEOUT
    assert tree(inbox) == {}


def test_the_receivers_words_and_limits_are_met_with_care() -> None:
    renaming = Renaming([Entry(EntryKind.FILE, "x" * 300 + ".txt", 0)], NameRules(System.UNKNOWN, 1, NameUnit.BYTES, 1))
    for limit, path in [(1, 1), (2**62 - 1, 2**62 - 1), (0, 0), (3, 2**62 - 1), (2**62 - 1, 1)]:
        limits = NameRules(System.UNKNOWN, limit, NameUnit.CODE_POINTS, path)
        renaming = Renaming(renaming.entries, limits)
        proposal = renaming.propose(Problem(0, NameRule.TOO_LONG, "is too long"))
        assert proposal == "" or limits.fault(proposal) is None


async def test_a_receiver_that_asks_without_end_is_a_liar() -> None:
    async with hostile_receiver(features=FEATURES) as (peer, raw):
        asked = []

        def ask(item: OfferItem, problem: BadName) -> str:
            asked.append(str(problem))
            return f"name {len(asked)}"

        sending = peer.send(Item(b"x", name="fine"), rename=ask)
        control = await raw.opened()
        for _ in range(4):
            control.send(NameProblems(1, NameUnit.BYTES, 1, 0, True, (NameProblem(0, 99, "\x1b[2Jno"),)))
        error = await failure(sending)
        assert isinstance(error, spaceblock.RemoteProtocolError)
    assert all(text.isprintable() for text in asked)


async def complete(offer: RawOffer, accepted: spaceblock.Transfer) -> spaceblock.Receipt:
    """Send the one item of ``offer`` as an honest sender does."""
    await offer.control.read(AnswerPage)
    offer.data().write(item_bytes(0, b"abc"), fin=True)
    offer.control.send(ItemDigest(0, 3, digest(b"abc")))
    await offer.control.read(VerifiedPage)
    offer.control.send(Done(), fin=True)
    return await within(accepted)


def clear(folder: Path) -> None:
    """Remove everything below ``folder``."""
    for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
        path.rmdir() if path.is_dir() else path.unlink()


async def test_a_name_that_comes_after_the_offer_was_accepted_overwrites_nothing(inbox: Path) -> None:
    """Who takes one name, and lets that be overwritten, did not take another that the sender gives instead."""
    for name in ("shown", "precious", "prized"):
        (inbox / name).write_bytes(b"kept")
    names = ("shown", "x" * 300)
    entries = [Entry(EntryKind.FILE, name, item) for item, name in enumerate(names)]
    entries += [Entry(EntryKind.LINK, "link", target="shown"), Entry(EntryKind.FOLDER, "precious")]
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, features=FEATURES) as raw:
        control, uuid = raw.open(StreamType.PUSH), bytes(16)
        items = (SpaceblockRequest(5, rereadable=True),) * 2
        control.send(*pages_of_requests(SpaceblockRequests(uuid, BLOCK, items), True), *pages_of_manifest(entries))
        receiving = (await within(anext(aiter(listener)))).accept(inbox, on_conflict="overwrite")
        await control.read(NameProblems)
        others = Amendment(1, "precious"), Amendment(2, "prized"), Amendment(3, "folder")
        control.send(Amend(True, others))
        await control.read(AnswerPage)
        raw.open(StreamType.DATA, uuid).write(item_bytes(0, b"first") + item_bytes(1, b"other"), fin=True)
        control.send(ItemDigest(0, 5, digest(b"first")), ItemDigest(1, 5, digest(b"other")))
        await control.read(VerifiedPage)
        control.send(Done(), fin=True)
        receipt = await within(receiving._wait())
    assert [item.path for item in receipt.items] == ["shown", "precious (1)"]
    assert (inbox / "shown").read_bytes() == b"first", "this one was agreed on"
    assert (inbox / "precious").read_bytes() == (inbox / "prized").read_bytes() == b"kept"
    assert os.readlink(inbox / "prized (1)") == "shown"


async def test_who_comes_back_with_another_offer_under_the_same_uuid_asks_again(inbox: Path) -> None:
    """What was accepted goes on by itself over another connection, and nothing else does."""
    (inbox / "precious").write_bytes(b"kept")
    identity, item = Identity.ephemeral(), SpaceblockRequest(5, rereadable=True)
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(retry=0.5))
    async with (
        spaceblock.listen("127.0.0.1", options=options) as listener,
        client_of(listener, identity, features=FEATURES) as one,
    ):
        first = one.offer(item, names=("shown",))
        receiving = (await within(anext(aiter(listener)))).accept(inbox, on_conflict="overwrite")
        await first.control.read(AnswerPage)
        async with client_of(listener, identity, features=FEATURES) as other:
            other.offer(item, item, names=("shown", "precious"), uuid=first.uuid)
            again = await within(anext(aiter(listener)))
            assert [each.name for each in again.items] == ["shown", "precious"]
            await again.decline()
        assert isinstance(await failure(receiving), spaceblock.ConnectionLost)
    assert (inbox / "precious").read_bytes() == b"kept"


async def test_who_comes_back_with_another_name_overwrites_nothing(inbox: Path) -> None:
    (inbox / "precious").write_bytes(b"kept")
    identity, item = Identity.ephemeral(), SpaceblockRequest(5, rereadable=True)
    async with spaceblock.listen("127.0.0.1") as listener, client_of(listener, identity, features=FEATURES) as one:
        first = one.offer(item, names=("shown",))
        receiving = (await within(anext(aiter(listener)))).accept(inbox, on_conflict="overwrite")
        await first.control.read(AnswerPage)
        async with client_of(listener, identity, features=FEATURES) as other:
            second = other.offer(item, names=("precious",), uuid=first.uuid)
            await second.control.read(AnswerPage)
            second.data().write(item_bytes(0, b"other"), fin=True)
            second.control.send(ItemDigest(0, 5, digest(b"other")))
            await second.control.read(VerifiedPage)
            second.control.send(Done(), fin=True)
            receipt = await within(receiving._wait())
    assert [each.path for each in receipt.items] == ["precious (1)"]
    assert (inbox / "precious").read_bytes() == b"kept"
