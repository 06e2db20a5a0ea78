"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

settings.register_profile("spaceblock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spaceblock")

if find_spec("spaceblock.quic.native.engine") is None:
    collect_ignore_glob = ["native/*"]  # without libcrypto's headers there is no native engine
elif sys.version_info < (3, 11):
    collect_ignore = ["native/test_handover.py", "native/test_rare.py"]  # they need an aioquic that needs Python 3.11

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
