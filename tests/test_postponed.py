"""Signals that come while modules are imported: they wait, and then they do what they always do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spaceblock.process.postponed import Postponed

INTERRUPTED = """
import os, signal, sys

module, number, *sys.argv[1:] = sys.argv[1:]

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Interrupt())
from spaceblock.__main__ import main
sys.exit(main())
"""
"""A command that gets a signal when it begins to import a module."""

BEGUN_TO_REMOVE = """
import os, signal, sys
from spaceblock.cli.bench.pair import scratch_folder

def interrupt(event, arguments):
    if event == "shutil.rmtree":
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
with scratch_folder(sys.argv[1], 0) as folder:
    (folder / "file").touch()
"""

IMPORTED = ["spaceblock.process.postponed", "spaceblock.cli", "click.core", "asyncio", "spaceblock.cli.console"]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those that a program has when it starts, whatever this one was started with."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(module: str, number: signal.Signals, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, str(int(number)), *words], capture_output=True, text=True
    )


@pytest.mark.parametrize("module", IMPORTED)
@pytest.mark.parametrize("words", [["receive"], ["bench"]], ids=" ".join)
def test_a_command_is_interrupted_before_it_has_begun(module: str, words: list[str]) -> None:
    ended = command(module, signal.SIGINT, *words)
    assert ended.returncode == 130
    assert ended.stdout == ""
    assert ended.stderr == ("" if module == "spaceblock.process.postponed" else "spaceblock: interrupted\n")


@pytest.mark.parametrize("module", ["click.core", "asyncio"])
def test_a_program_is_told_so_too(module: str) -> None:
    ended = command(module, signal.SIGINT, "receive", "--json")
    assert ended.returncode == 130
    assert json.loads(ended.stdout)["code"] == "interrupted"


@pytest.mark.parametrize("module", ["asyncio", "spaceblock.cli.console"])
def test_a_supervisor_is_answered_with_the_number_of_its_signal(module: str) -> None:
    ended = command(module, signal.SIGTERM, "receive")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, "spaceblock: interrupted\n")


def in_a_block(finished: list[str]) -> None:
    with Postponed():
        os.kill(os.getpid(), signal.SIGINT)
        finished.append("the block")
    finished.append("what follows")


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    finished: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        in_a_block(finished)
    assert finished == ["the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_signals_have_the_effect_of_one() -> None:
    with Postponed() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.release()
        signals.release()


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Postponed():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_handlers_that_the_block_sets_stay() -> None:
    arrived: list[int] = []

    def other(number: int, frame: object) -> None:
        arrived.append(number)

    with Postponed():
        signal.signal(signal.SIGTERM, other)
        os.kill(os.getpid(), signal.SIGTERM)
    assert arrived == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is other


def test_a_benchmark_leaves_no_folder_behind(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", BEGUN_TO_REMOVE, str(tmp_path)], capture_output=True)
    assert ended.returncode == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []
