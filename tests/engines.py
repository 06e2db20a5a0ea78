"""Which QUIC engine each side of a test has: the same tests run on either engine, and between one and the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

import spaceblock
from spaceblock import api, sync
from spaceblock.options import Engine, Options


@dataclass(frozen=True)
class Engines:
    """The engine of who connects, and of who listens."""

    client: Engine
    server: Engine

    def __str__(self) -> str:
        return self.client if self.client == self.server else f"{self.client}-to-{self.server}"


STOCK = Engines("aioquic", "aioquic")

NAMED = {
    "aioquic": [STOCK],
    "native": [Engines("native", "native")],
    "mixed": [Engines("native", "aioquic"), Engines("aioquic", "native")],
}
"""What ``--engines`` understands."""

in_use = STOCK
"""The engines of the test that runs, for what it starts by itself: raw peers and other processes."""


def chosen(words: str) -> list[Engines]:
    """The combinations that a comma-separated choice names; without one, all that this machine has."""
    if not words:
        return NAMED["aioquic"] if why_not_native() else [engines for named in NAMED.values() for engines in named]
    unknown = [word for word in words.split(",") if word not in NAMED]
    if unknown:
        raise pytest.UsageError(f"--engines does not know {', '.join(unknown)}: choose from {', '.join(NAMED)}")
    found = [engines for word in words.split(",") for engines in NAMED[word]]
    if why_not_native() and found != [STOCK]:
        raise pytest.UsageError(f"--engines {words}: {why_not_native()}")
    return found


def why_not_native() -> str:
    """Why there is no native engine here, or nothing."""
    try:
        Options(engine="native").chosen_engine()
    except spaceblock.EngineUnavailable as error:
        return str(error)
    return ""


def use(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both sides of this process's connections name these engines, where the test itself names none."""
    monkeypatch.setattr(sys.modules[__name__], "in_use", engines)
    connect, listen = api.connect, api.listen
    for module in (spaceblock, api, sync):
        monkeypatch.setattr(module, "connect", _naming(engines.client, connect))
        monkeypatch.setattr(module, "listen", _naming(engines.server, listen))


def _naming(engine: Engine, enter: Callable[..., Any]) -> Callable[..., Any]:
    def with_engine(*arguments: Any, options: Options | None = None, **named: Any) -> Any:
        options = options or Options()
        return enter(*arguments, options=options if options.engine else replace(options, engine=engine), **named)

    return with_engine
