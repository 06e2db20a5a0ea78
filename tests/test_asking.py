"""Asking for other names: which callbacks there can be, in which order they are called, and what their answers do."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from spaceblock import BadName, OfferItem
from spaceblock.blocks import Full, Partial, SpaceblockRequest
from spaceblock.errors import LocalProtocolError, TransferRefused
from spaceblock.names import NameRules, Problem, find_problems
from spaceblock.transfers.asking import Rename, ask_for_names
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import NameRule, NameUnit, System

WINDOWS = NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000)
REQUESTS = (SpaceblockRequest(5), SpaceblockRequest(None), SpaceblockRequest(9, Partial(1, 2)))


def entries_of(*names: str) -> list[Entry]:
    items = iter(range(len(names)))
    return [
        Entry(EntryKind.FOLDER, name[:-1]) if name.endswith("/") else Entry(EntryKind.FILE, name, next(items))
        for name in names
    ]


async def asked(rename: Rename, *names: str) -> list[str]:
    """The names after ``rename`` was asked for those that Windows would not take."""
    entries = entries_of(*names)
    renaming = await ask_for_names(rename, entries, REQUESTS, WINDOWS, find_problems(WINDOWS, entries))
    return [entry.name for entry in renaming.entries]


def plain(item: OfferItem, problem: BadName) -> str:
    return problem.proposal


async def coroutine(item: OfferItem, problem: BadName) -> str:
    await asyncio.sleep(0)
    return problem.proposal


class Plain:
    def __call__(self, item: OfferItem, problem: BadName) -> str:
        return problem.proposal


class Awaited:
    async def __call__(self, item: OfferItem, problem: BadName) -> str:
        return problem.proposal


CALLBACKS: list[Any] = [
    *[plain, coroutine, Plain(), Awaited(), functools.partial(plain), functools.partial(coroutine)],
    lambda item, problem: coroutine(item, problem),
]


@pytest.mark.parametrize("rename", CALLBACKS)
async def test_any_callable_will_do(rename: Rename) -> None:
    assert await asked(rename, "a:b", "c") == ["a_b", "c"]


async def test_items_are_shown_as_they_are_offered_and_folders_without_an_index() -> None:
    seen = []

    def rename(item: OfferItem, problem: BadName) -> str:
        seen.append(item)
        assert problem.name == item.name
        return problem.proposal

    await asked(rename, "d:/", "a?", "b?", "d:/c?")
    assert seen == [
        OfferItem(-1, "d:", None, Full()),
        OfferItem(0, "a?", 5, Full()),
        OfferItem(1, "b?", None, Full()),
        OfferItem(2, "d_/c?", 9, Partial(1, 2)),
    ]


async def test_plain_callables_leave_the_loop_free() -> None:
    loop_runs = threading.Event()

    def rename(item: OfferItem, problem: BadName) -> str:
        assert loop_runs.wait(20)
        return problem.proposal

    asking = asyncio.ensure_future(asked(rename, "a:"))
    await asyncio.sleep(0)
    loop_runs.set()
    assert await asking == ["a_"]


async def test_a_user_who_always_answers_wrongly_is_asked_three_times_in_all() -> None:
    seen = []

    def rename(item: OfferItem, problem: BadName) -> str:
        seen.append(str(problem))
        return "b?"

    assert await asked(rename, "a:") == ["a:"]
    assert len(seen) == 3
    assert "contains ':'" in seen[0]
    assert "cannot become 'b?': that contains '?'" in seen[1]


async def test_none_leaves_a_name_and_the_next_is_asked_for() -> None:
    answers = iter([None, "fine"])
    assert await asked(lambda item, problem: next(answers), "a:", "b:") == ["a:", "fine"]


async def test_what_moved_with_its_folder_is_not_asked_for() -> None:
    calls = []

    def rename(item: OfferItem, problem: BadName) -> str:
        calls.append(item.name)
        return item.name.replace(":", "-") if item.name else ""

    assert await asked(rename, "a:b/x", "a:b/y", "a:b/z?") == ["a-b/x", "a-b/y", "a-b/z?"]
    assert calls == ["a:b/x", "a-b/z?", "a-b/z?", "a-b/z?"]


async def test_an_answer_keeps_to_what_the_receivers_problems_tell_of_it() -> None:
    """Only the limits of a receiver are known; what else it refuses shows in its problems."""
    posix = NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000)
    seen = []

    def rename(item: OfferItem, problem: BadName) -> str:
        seen.append(problem.reason)
        return "still:bad" if len(seen) == 1 else "good"

    problems = [Problem(0, NameRule.CHARACTER, "contains ':', which this disk does not allow")]
    renaming = await ask_for_names(rename, entries_of("a:b"), REQUESTS, posix, problems)
    assert renaming.changes() == {0: "good"}
    assert "cannot become 'still:bad'" in seen[1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(lambda: 5, "returned an int"), (lambda: b"x", "returned a bytes"), (lambda: [][0], "IndexError")],
)
async def test_what_is_no_answer_is_the_programs_mistake(answer: Any, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words) as caught:
        await asked(lambda item, problem: answer(), "a:")
    assert caught.value.name == "a:"


@pytest.mark.parametrize("raised", [StopIteration(), StopAsyncIteration()])
async def test_an_exception_that_asyncio_cannot_carry_is_told_too(raised: Exception) -> None:
    def rename(item: OfferItem, problem: BadName) -> str:
        raise raised

    with pytest.raises(LocalProtocolError):
        await asked(rename, "a:")


async def test_an_error_of_this_library_passes_as_it_is() -> None:
    def rename(item: OfferItem, problem: BadName) -> str:
        raise TransferRefused("not today: ask tomorrow")

    with pytest.raises(TransferRefused, match="not today"):
        await asked(rename, "a:")


async def test_nobody_waits_for_a_user_who_does_not_answer() -> None:
    answer = threading.Event()

    def rename(item: OfferItem, problem: BadName) -> str:
        answer.wait(20)
        return ""

    asking = asyncio.ensure_future(asked(rename, "a:"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    answer.set()
