"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

settings.register_profile("spaceblock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spaceblock")

CORES = ["python"] if os.environ.get("SPACEBLOCK_NO_EXTENSION") == "1" else ["python", "cython"]


@pytest.fixture(scope="session", params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    """The twin and the extension in turn; an extension that is missing is a failure unless it was switched off."""
    return importlib.import_module({"python": "spaceblock._pyblock", "cython": "spaceblock._fastblock"}[request.param])


@pytest.fixture(autouse=True)
def spaceblock_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, so that nothing touches the user's."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SPACEBLOCK_HOME", str(home))
    return home
