"""Names that the receiver cannot use: asked for on the sending side, on the receiving side, or refused."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock import BadName, Item, NameRule, NameRules, OfferItem
from spaceblock.wire.messages import NameUnit, System

from .support import assert_helpful, deliver, digest_of, failure, pair, tree, within

WINDOWS = NameRules(System.WINDOWS, 120, NameUnit.UTF16, 1_000)
APPLE = NameRules(System.APPLE, 120, NameUnit.UTF16, 1_000)
"""Their limits are lower than they would be, so that what fits them fits the disk that the tests run on."""

Pretend = Callable[[NameRules], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Let every target folder have the limits of another system."""
    return lambda limits: monkeypatch.setattr("spaceblock.storage.folder.rules_of", lambda *_: limits)


def proposed(item: OfferItem, problem: BadName) -> str:
    """A user who takes what is proposed."""
    assert item.name == problem.name
    return problem.proposal


FORTY = [
    *[f"folder/part-{number}:{ch}x.txt" for number, ch in enumerate('<>:"|?*\\\x01\x1b')],  # characters
    *["folder/con", "nul.txt", "folder/COM1.log", "lpt¹"],  # devices
    *["folder/dot.", "space ", "both. .", "folder /x"],  # endings
    *["x" * 300 + ".tar.gz", "folder/" + "é" * 300 + ".txt", "😀" * 128],  # too long a part
    *["/".join(["y" * 250] * 130)],  # too long in all
    *["/".join("deep" for _ in range(70))],
    *["../up", "/etc/passwd", "a//b", "./here", "folder/../x"],  # not relative
    *["nul\0.bin", "folder/a\0b"],
    *["no text \udcff"],
    *[".spaceblock-mine", ".Spaceblock-mine/x"],  # reserved by this program
    *["README", "readme", "ReadMe", "caf\u00e9", "cafe\u0301"],  # the same file there
    *["clash", "clash/inner", "clash/other"],  # a file and a folder
]


async def test_a_set_with_every_kind_of_bad_name_arrives_complete_under_other_names(
    inbox: Path, pretend: Pretend
) -> None:
    pretend(WINDOWS)
    rules = set()

    def ask(item: OfferItem, problem: BadName) -> str:
        rules.add(problem.rule)
        return proposed(item, problem)

    contents = [os.urandom(20) for _ in FORTY]
    async with pair() as peers:
        items = [Item(data, name=name) for data, name in zip(contents, FORTY, strict=True)]
        sending = peers.here.send(*items, rename=ask)
        offer = await peers.offer()
        sent, received = await within(asyncio.gather(sending, offer.accept(inbox)))
    assert rules == set(NameRule) - {NameRule.EXISTS}
    found = {name: data for name, data in tree(inbox).items() if data is not None}
    assert sorted(found.values()) == sorted(contents), "everything arrived"
    assert [item.path for item in sent.items] == [item.path for item in received.items]
    for index, item in enumerate(sent.items):
        assert item.path is not None
        assert found[item.path] == contents[index]
        assert item.digest == digest_of(contents[index])
        assert WINDOWS.fault(item.path) is None
    assert [item.name for item in sent.items] == FORTY
    assert sent.renamed == {item.name: item.path for item in sent.items if item.name != item.path}
    assert len(sent.renamed) >= 35
    # The receiver hears nothing of names that could not even be offered.
    assert received.renamed == {item.name: item.path for item in received.items if item.name != item.path}


async def test_a_folder_is_asked_for_once_and_takes_what_is_in_it_along(
    tmp_path: Path, inbox: Path, pretend: Pretend
) -> None:
    pretend(WINDOWS)
    asked = []

    async def ask(item: OfferItem, problem: BadName) -> str:
        await asyncio.sleep(0)
        asked.append((item.index, item.name, problem.is_folder))
        return problem.proposal

    for name in ("a:b/one", "a:b/c/two", "a:b/c/three?", "a:b/empty:/"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(name)
    async with pair() as peers:
        sending = peers.here.send(tmp_path / "tree", rename=ask)
        sent, received = await within(asyncio.gather(sending, (await peers.offer()).accept(inbox)))
    assert asked == [(-1, "tree/a:b", True), (-1, "tree/a_b/empty:", True), (0, "tree/a_b/c/three?", False)]
    assert sorted(tree(inbox)) == [
        *["tree", "tree/a_b", "tree/a_b/c", "tree/a_b/c/three_", "tree/a_b/c/two", "tree/a_b/empty_", "tree/a_b/one"]
    ]
    assert sent.renamed == received.renamed
    assert sent.renamed["tree/a:b"] == "tree/a_b"
    assert sent.renamed["tree/a:b/empty:"] == "tree/a_b/empty_"
    assert sent.renamed["tree/a:b/c/three?"] == "tree/a_b/c/three_"


async def test_a_plain_callback_runs_in_a_thread_and_may_take_its_time(inbox: Path) -> None:
    loop_thread = threading.get_ident()
    began, go_on = threading.Event(), threading.Event()

    def ask(item: OfferItem, problem: BadName) -> str:
        assert threading.get_ident() != loop_thread
        began.set()
        assert go_on.wait(20)
        return "short"

    async with pair() as peers:
        transfer = peers.here.send(Item(b"x", name="x" * 256), rename=ask)
        receiving = (await peers.offer()).accept(inbox)
        await within(asyncio.to_thread(began.wait))
        assert transfer.progress.phase is receiving.progress.phase is spaceblock.Phase.NAMES
        go_on.set()
        await within(asyncio.gather(transfer, receiving))
    assert tree(inbox) == {"short": b"x"}


async def test_a_callback_sees_the_limits_and_is_asked_again_if_its_answer_would_not_do(inbox: Path) -> None:
    seen: list[BadName] = []
    answers = iter(["y" * 256, "taken", "fine.txt"])

    def ask(item: OfferItem, problem: BadName) -> str:
        seen.append(problem)
        return next(answers)

    async with pair() as peers:
        sending = peers.here.send(Item(b"x", name="x" * 300), Item(b"y", name="taken"), rename=ask)
        await within(asyncio.gather(sending, (await peers.offer()).accept(inbox)))
    assert tree(inbox) == {"fine.txt": b"x", "taken": b"y"}
    limit = os.pathconf(inbox, "PC_NAME_MAX")
    assert [problem.limits.name_limit for problem in seen] == [limit] * 3
    assert [problem.rule for problem in seen] == [NameRule.TOO_LONG, NameRule.TOO_LONG, NameRule.COLLISION]
    assert all(problem.proposal == "x" * limit for problem in seen)
    assert "cannot become 'taken'" in str(seen[2])


# A sender that cannot ask.


async def test_without_a_sender_to_ask_the_receiver_chooses(inbox: Path, pretend: Pretend) -> None:
    pretend(APPLE)
    phases = set()

    async def ask(item: OfferItem, problem: BadName) -> str:
        phases.add(transfer.progress.phase)
        return problem.proposal

    async with pair() as peers:
        transfer = peers.here.send(Item(b"1", name="Name"), Item(b"2", name="name"), Item(b"3", name="é" * 400))
        offer = await peers.offer()
        sent, received = await within(asyncio.gather(transfer, offer.accept(inbox, rename=ask)))
    assert tree(inbox) == {"Name": b"1", "name (1)": b"2", "é" * 120: b"3"}
    assert sent.renamed == received.renamed == {"name": "name (1)", "é" * 400: "é" * 120}
    assert sent.items == received.items


async def test_without_anybody_to_ask_both_are_told_which_name_and_why(inbox: Path) -> None:
    async with pair() as peers:
        names = ["fine", "x" * 256, "y" * 257]
        sending = peers.here.send(*[Item(b"x", name=name) for name in names])
        receiving = (await peers.offer()).accept(inbox)
        ours, theirs = await within(asyncio.gather(failure(sending), failure(receiving)))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.NameRejected)
        assert (error.code, error.exit_code) == ("name", 7)
        assert "has a part longer than 255 bytes (and 1 more name cannot be used)" in str(error)
        assert "rename it" in str(error)
    assert theirs.name == "x" * 256
    assert ours.remote
    assert_helpful(ours, theirs)
    assert tree(inbox) == {}


@pytest.mark.parametrize("sender_asks", [False, True])
@pytest.mark.parametrize("receiver_asks", [False, True])
async def test_whoever_is_asked_may_refuse_to_choose(inbox: Path, sender_asks: bool, receiver_asks: bool) -> None:
    asked = []

    def nothing(who: str) -> Any:
        return lambda item, problem: asked.append(who)

    async with pair() as peers:
        sending = peers.here.send(Item(b"x", name="x" * 256), rename=nothing("sender") if sender_asks else None)
        receiving = (await peers.offer()).accept(inbox, rename=nothing("receiver") if receiver_asks else None)
        errors = await within(asyncio.gather(failure(sending), failure(receiving)))
    assert all(isinstance(error, spaceblock.NameRejected) for error in errors)
    assert asked == ["sender"] * sender_asks + ["receiver"] * (3 * receiver_asks)
    assert tree(inbox) == {}


async def test_a_file_where_a_folder_is_needed_is_a_matter_of_names_too(inbox: Path) -> None:
    (inbox / "data").write_text("mine")
    async with pair() as peers:
        sending = peers.here.send(Item(b"1", name="data/a"), Item(b"2", name="data/b"), rename=proposed)
        sent, _ = await within(asyncio.gather(sending, (await peers.offer()).accept(inbox)))
    assert tree(inbox) == {"data": b"mine", "data (1)": None, "data (1)/a": b"1", "data (1)/b": b"2"}
    assert sent.renamed == {"data/a": "data (1)/a", "data/b": "data (1)/b"}


# Callbacks that fail.


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize(("ask", "words"), [(lambda *_: 1 / 0, "ZeroDivisionError"), (lambda *_: 5, "returned an int")])
async def test_a_callback_that_fails_ends_the_transfer_as_this_programs_mistake(
    who: str, ask: Any, words: str, inbox: Path
) -> None:
    async with pair() as peers:
        sending = peers.here.send(Item(b"x", name="x" * 256), rename=ask if who == "sender" else None)
        receiving = (await peers.offer()).accept(inbox, rename=ask if who == "receiver" else None)
        errors = dict(
            zip(("sender", "receiver"), await asyncio.gather(failure(sending), failure(receiving)), strict=True)
        )
    assert isinstance(errors[who], spaceblock.LocalProtocolError)
    assert words in str(errors[who])
    assert tree(inbox) == {}


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("canceller", ["sender", "receiver"])
async def test_a_cancel_while_somebody_is_asked_ends_both_sides(who: str, canceller: str, inbox: Path) -> None:
    asking = asyncio.Event()

    async def ask(item: OfferItem, problem: BadName) -> str:
        asking.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with pair() as peers:
        sending = peers.here.send(Item(b"x", name="x" * 256), rename=ask if who == "sender" else None)
        receiving = (await peers.offer()).accept(inbox, rename=ask if who == "receiver" else None)
        await within(asking.wait())
        (sending if canceller == "sender" else receiving).cancel()
        errors = await asyncio.gather(failure(sending), failure(receiving))
    assert all(isinstance(error, spaceblock.TransferCancelled) for error in errors)
    assert tree(inbox) == {}


# What is found before anything is offered.


async def test_a_sender_is_asked_at_once_for_what_no_receiver_could_take(tmp_path: Path, inbox: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / os.fsdecode(b"caf\xe9.txt")).write_text("latin")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").write_text(folder)
    asked = []

    def ask(item: OfferItem, problem: BadName) -> str:
        asked.append(item.name)
        return problem.proposal

    async with pair() as peers:
        sources = [tmp_path / "tree", tmp_path / "a/same", tmp_path / "b/same"]
        sending = peers.here.send(*sources, rename=ask)
        offer = await peers.offer()
        assert [item.name for item in offer.items] == ["tree/caf_.txt", "same", "same (1)"]
        sent, _ = await within(asyncio.gather(sending, offer.accept(inbox)))
    assert asked == ["tree/caf\udce9.txt", "same"] or asked == ["same", "tree/caf\udce9.txt"]
    assert tree(inbox) == {"tree": None, "tree/caf_.txt": b"latin", "same": b"a", "same (1)": b"b"}
    assert sent.renamed == {"tree/caf\udce9.txt": "tree/caf_.txt", "same": "same (1)"}


async def test_into_buffers_names_are_nobodys_problem() -> None:
    target = bytearray(1)
    async with pair() as peers:
        sent, _ = await deliver(peers, Item(b"x", name="x" * 300), into=[target])
    assert target == b"x"
    assert sent.renamed == {}


async def test_a_link_follows_what_it_points_to(tmp_path: Path, inbox: Path, pretend: Pretend) -> None:
    pretend(WINDOWS)
    top = tmp_path / "tree"
    (top / "a?b").mkdir(parents=True)
    (top / "a?b" / "file?").write_text("here")
    (top / "link").symlink_to("a?b/file?")
    async with pair() as peers:
        sending = peers.here.send(top, links="copy", rename=proposed)
        await within(asyncio.gather(sending, (await peers.offer()).accept(inbox)))
    assert os.readlink(inbox / "tree" / "link") == "a_b/file_"
    assert (inbox / "tree" / "link").read_text() == "here"
