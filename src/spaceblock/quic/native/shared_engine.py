"""A native engine whose packets a thread of its endpoint may move, too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from ..handover import HandOver
from ..interface import TransportOptions
from .engine_shell import NativeEngine
from .pump import Pump

P = ParamSpec("P")
R = TypeVar("R")


class SharedEngine(NativeEngine):
    """Every method holds the lock of ``pump``, as the thread does that stands in for the event loop."""

    def __init__(self, pump: Pump, state: HandOver, options: TransportOptions, *others: Any) -> None:
        self._shared = pump
        super().__init__(state, options, *others)


def _locked(method: Callable[Concatenate[NativeEngine, P], R]) -> Callable[Concatenate[SharedEngine, P], R]:
    @functools.wraps(method)
    def locked(self: SharedEngine, *arguments: P.args, **named: P.kwargs) -> R:
        with self._shared.lock:
            return method(self, *arguments, **named)

    return cast("Callable[Concatenate[SharedEngine, P], R]", locked)


_ONLY_PYTHONS = {"next_event", "ended", "get_peer_address"}
"""Methods that are called often, and touch nothing but what the GIL protects."""

for _name, _method in vars(NativeEngine).items():
    if callable(_method) and not _name.startswith("_") and _name not in _ONLY_PYTHONS:
        setattr(SharedEngine, _name, _locked(_method))
