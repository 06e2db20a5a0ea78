"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from engines import NAMED, Engines, chosen, use, why_not_native
from support import open_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Commands

settings.register_profile("spaceblock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spaceblock")

if find_spec("spaceblock.quic.native.engine") is None:
    collect_ignore_glob = ["native/*", "test_simulated_*"]  # without libcrypto's headers there is no native engine
elif sys.version_info < (3, 11):
    # They need an aioquic that needs Python 3.11.
    collect_ignore_glob = ["native/test_handover.py", "native/test_paths.py", "native/test_rare.py", "test_simulated_*"]

SHARED_MEMORY = Path("/dev/shm")

CORES = {"python": ("_pyblock", "_pydeframer", "_pylists", "_pyfiles")}
if os.environ.get("SPACEBLOCK_NO_EXTENSION") != "1":
    CORES["cython"] = ("_fastblock", "_fastdeframer", "_fastlists", "_fastfiles")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engines",
        default="",
        metavar="WORDS",
        help=f"the QUIC engines that the end-to-end tests run on, by default all that there are: {', '.join(NAMED)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen(config.getoption("--engines"))  # what is wrong with it is better said now than by every test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engines" in metafunc.fixturenames:
        combinations = chosen(metafunc.config.getoption("--engines"))
        if metafunc.definition.get_closest_marker("any_engine"):
            combinations = NAMED["aioquic" if why_not_native() else "native"]
        metafunc.parametrize("engines", combinations, indirect=True, ids=str)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if why_not_native():
        terminalreporter.write_line(f"Nothing ran on the native engine: {why_not_native()}.")


@pytest.fixture
def engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """The engine of each side; a test that has this fixture runs once for each combination."""
    combination: Engines = request.param
    use(combination, monkeypatch)
    return combination


@pytest.fixture(scope="session", params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    """The twins and the extensions in turn; an extension that is missing is a failure unless it was switched off."""
    core = ModuleType(request.param)
    for name in CORES[request.param]:
        vars(core).update(vars(importlib.import_module(f"spaceblock.{name}")))
    return core


@pytest.fixture(autouse=True)
def spaceblock_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, so that nothing touches the user's."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SPACEBLOCK_HOME", str(home))
    return home


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder on a file system that has no disk."""
    if not SHARED_MEMORY.is_dir():
        pytest.skip(f"there is no {SHARED_MEMORY}")
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    """A command that runs in this process tells what is logged; what it set up for that ends with the test."""
    logger = logging.getLogger("spaceblock")
    handlers, level, propagates = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty folder to receive into."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    """Whoever uses this closes every descriptor that was opened."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Runs the command line with a home of its own."""
    from commands import commands_in  # which needs terminals, that not every system has

    with commands_in(tmp_path) as commands:
        yield commands
