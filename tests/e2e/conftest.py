"""What holds after every end-to-end test, whatever it did to either side."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import Engines
from spaceblock import api, listener
from spaceblock.names import STAGING_PREFIX
from spaceblock.options import Options
from spaceblock.peer import transport_options
from spaceblock.quic import TransportOptions, endpoint

from .support import Census, back_to, names_below, remove_unfinished


@pytest.fixture(autouse=True)
def each_combination_of_engines(engines: Engines) -> None:
    """Every end-to-end test runs on either engine, and between one and the other."""


@pytest.fixture(autouse=True)
async def nothing_left_behind(tmp_path: Path) -> AsyncIterator[None]:
    """No descriptor, thread or task outlives a test, no unfinished file, and no exception that nobody saw."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    gc.freeze()  # what is older than the test need not be looked through after it
    before = Census.take()
    yield
    await back_to(before)
    assert complaints == []
    assert [name for name in names_below(tmp_path) if ".spaceblock-" in name] == []


@pytest.fixture
def unfinished_files_removed(inbox: Path) -> Iterator[None]:
    """What is kept of a transfer that broke off may be continued, in tests with this fixture by nobody."""
    yield
    if any(path.name.startswith(STAGING_PREFIX) for path in inbox.iterdir()):
        remove_unfinished(inbox)


@pytest.fixture
def connections_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection outlives its peer's silence, so that a transfer's own limits are what ends it. These count no time
    in which this program did not run, so that a machine that stands still for a moment changes nothing."""

    def patient(options: Options) -> TransportOptions:
        return replace(transport_options(options), idle_timeout=300.0)

    for module in (api, listener):
        monkeypatch.setattr(module, "transport_options", patient)


@pytest.fixture(autouse=True)
def short_closing_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed connections answer late packets for a moment only: hundreds of tests would wait a tenth of a second."""
    monkeypatch.setattr(endpoint, "LINGER", 0.01)
