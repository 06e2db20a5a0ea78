"""Asking a user for other names: by a callback of the program's, which may take its time."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from ..blocks import Full, SpaceblockRequest
from ..display import kind_of, shown
from ..errors import LocalProtocolError, SpaceblockError
from ..events import OfferItem
from ..limits import NAME_ROUNDS
from ..names import BadName, NameRules, Problem, Renaming
from ..wire.manifest import Entry

Rename = Callable[[OfferItem, BadName], "str | Awaitable[str | None] | None"]
"""Called with an item and what is wrong with its name; returns the whole new name, or None to leave it."""


def check_rename(rename: Rename | None) -> None:
    """Raise :class:`LocalProtocolError` for what cannot be called."""
    if rename is not None and not callable(rename):
        raise LocalProtocolError(f"rename is {rename!r}: give a function (item, problem) that returns a name or None")


async def ask_for_names(
    rename: Rename,
    entries: Sequence[Entry],
    requests: Sequence[SpaceblockRequest],
    limits: NameRules,
    problems: Sequence[Problem],
) -> Renaming:
    """Ask ``rename`` for another name for each entry that has a problem, folders first, one after the other.

    An answer that would not do is asked for again, a few times; what is still wrong then keeps its name. Raises what
    ``rename`` raises if that is a :class:`SpaceblockError`, and else :class:`LocalProtocolError`.
    """
    renaming = await asyncio.to_thread(Renaming, entries, limits, problems)
    for problem in renaming.in_order(problems):
        await asyncio.sleep(0)  # answers may come without waiting, and there may be very many
        if renaming.is_mended(problem):
            continue
        for _ in range(NAME_ROUNDS):
            item = _item_of(renaming.entries[problem.entry], requests)
            name = await _call(rename, item, renaming.bad_name(problem))
            if name is None:
                break
            fault = renaming.rename(problem.entry, name)
            if fault is None:
                break
            problem = Problem(problem.entry, fault.rule, f"cannot become {shown(name)}: that {fault.reason}")
    return renaming


async def _call(rename: Rename, item: OfferItem, bad: BadName) -> str | None:
    try:
        if _is_coroutine_function(rename):
            name: Any = await rename(item, bad)  # type: ignore[misc]
        else:
            name = await _in_thread(lambda: rename(item, bad))
            if inspect.isawaitable(name):
                name = await name
    except SpaceblockError:
        raise
    except Exception as error:
        raise LocalProtocolError(
            f"rename() failed with {error!r} for {shown(bad.name)}: let it return a name or None", name=bad.name
        ) from error
    if name is None or isinstance(name, str):
        return name
    raise LocalProtocolError(
        f"rename() returned {kind_of(name)} for {shown(bad.name)}: let it return a name or None", name=bad.name
    )


def _is_coroutine_function(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def _in_thread(function: Callable[[], Any]) -> Any:
    """Run ``function`` in a thread of its own, which nobody waits for at the end: it may ask a user."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = RuntimeError("it stopped") if isinstance(raised, StopIteration) else raised
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="rename", daemon=True).start()
    return await outcome


def _item_of(entry: Entry, requests: Sequence[SpaceblockRequest]) -> OfferItem:
    """``entry`` as the callback sees it."""
    if entry.item is None:
        return OfferItem(-1, entry.name, None, Full())
    request = requests[entry.item]
    return OfferItem(entry.item, entry.name, request.size, request.range, request.rereadable)
