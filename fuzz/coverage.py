"""What an input reached that none before it had: lines of Python, places in compiled code, results."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Hashable
from types import CodeType, FrameType
from typing import Any

import spaceblock

PACKAGE = os.path.dirname(spaceblock.__file__)
RESULTS_MAX = 5_000

PATIENCE = 1_000
"""Runs without a new line after which most runs are not watched, which is several times as fast."""

SPARSE = 8
"""Of the runs after that, one in so many is."""


class Coverage:
    """Remembers what was ever reached. ``counters`` is the library made from ``counters.c``, which was loaded
    before the program began, or None when compiled modules do not count."""

    def __init__(self, counters: ctypes.CDLL | None) -> None:
        self.lines = 0
        self._results: set[Hashable] = set()
        self._left: dict[CodeType, set[int]] = {}  # lines of a function that nothing has reached yet
        self._counters = counters
        self._fresh = False
        self._number = 0
        self._former: Any = None
        self._watch_until = PATIENCE

    @property
    def places(self) -> int:
        """Places in compiled code reached so far."""
        return self._counters.fuzz_places() if self._counters is not None else 0

    @property
    def results(self) -> int:
        """Different results seen so far."""
        return len(self._results)

    def start(self, number: int) -> None:
        """Watch what this thread does from now on, in run ``number``; only now and then where little is new."""
        self._fresh = False
        self._former = sys.gettrace()
        if number < self._watch_until or number % SPARSE == 0:
            self._number = number
            sys.settrace(self._on_call)

    def stop(self, result: Hashable) -> bool:
        """Watch no more; whether there was anything new since :meth:`start`."""
        self.leave()
        if result not in self._results and len(self._results) < RESULTS_MAX:
            self._results.add(result)
            self._fresh = True
        if self._counters is not None and self._counters.fuzz_merge():
            self._fresh = True
        return self._fresh

    def leave(self) -> None:
        """Watch no more, and let who watched this thread before go on."""
        sys.settrace(self._former)

    def _on_call(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            is_ours = code.co_filename.startswith(PACKAGE)
            left = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno} if is_ours else set()
            self._left[code] = left
            if is_ours:
                self._reach()
        # Tracing costs most where it has nothing left to find.
        return self._on_line if left else None

    def _on_line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        left = self._left[frame.f_code]
        if event == "line" and frame.f_lineno in left:
            left.remove(frame.f_lineno)
            self._reach()
        return self._on_line if left else None

    def _reach(self) -> None:
        self.lines += 1
        self._watch_until = self._number + PATIENCE
        self._fresh = True
