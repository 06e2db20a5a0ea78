"""Ways to hold a transfer in one phase until a test has done what it wants to do there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from spaceblock.storage import feed, folder
from spaceblock.trust.memory import Memory

from .support import PATIENCE

if TYPE_CHECKING:
    from typing_extensions import Self


class Gate:
    """A function of a worker thread that waits, from its ``first`` call on, until the gate is opened.

    ``reached`` is set on the event loop when somebody waits. Use it as a context manager: it opens at the end.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, first: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._function: Callable[..., Any] = getattr(owner, name)
        self._calls = 0
        self._first = first
        self._open = threading.Event()
        self.reached = asyncio.Event()
        monkeypatch.setattr(owner, name, lambda *arguments, **named: self._call(arguments, named))

    def open(self) -> None:
        """Let everybody through from now on."""
        self._open.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()

    def _holds(self, arguments: tuple[Any, ...]) -> bool:
        """Whether a call is one of those that wait."""
        return True

    def _call(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._calls += self._holds(arguments)
        if self._holds(arguments) and self._calls >= self._first and not self._open.is_set():
            self._loop.call_soon_threadsafe(self.reached.set)
            assert self._open.wait(PATIENCE), "the test never opened the gate"
        return self._function(*arguments, **named)


def sender_reads(monkeypatch: pytest.MonkeyPatch, first: int = 2) -> Gate:
    """The sender's disk hangs in the middle of a file."""
    return Gate(monkeypatch, feed, "fill_blocks", first)


def sender_remembers(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The sender's disk hangs when an earlier attempt to send the same is looked for."""
    return Gate(monkeypatch, Memory, "claim")


def receiver_writes(monkeypatch: pytest.MonkeyPatch, first: int = 1) -> Gate:
    """The receiver's disk hangs while it takes the bytes of a file."""
    return Gate(monkeypatch, folder, "write_all", first)


def receiver_flushes(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The receiver's disk hangs while it makes durable what came."""
    return Gate(monkeypatch, folder.FolderSink, "checkpoint")


def receiver_places(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The receiver hangs when everything is verified and only the final names are missing."""
    return Gate(monkeypatch, folder.FolderSink, "place")


def receiver_prepares(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The receiver hangs when it has accepted and not yet answered."""
    return Gate(monkeypatch, folder.FolderSink, "prepare")
