"""Signals that end a coroutine: it cleans up, and the program's own handlers are as before."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spaceblock.process.interrupts import COMMAND_SIGNALS, Interrupted, run

STUBBORN = """
import asyncio, signal
from spaceblock.process.interrupts import run

async def stubborn():
    try:
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        print("cleaning up", flush=True)
        await asyncio.Event().wait()

run(stubborn(), [signal.SIGTERM], kill_next=True)
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers that a program has when it starts, whatever this one was started with."""
    before = {number: signal.getsignal(number) for number in COMMAND_SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in COMMAND_SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in COMMAND_SIGNALS[1:])
    for number, handler in before.items():
        signal.signal(number, handler)


async def interrupted_by(number: signal.Signals, cleaned: list[str]) -> None:
    try:
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        cleaned.append("up")


@pytest.mark.parametrize("number", COMMAND_SIGNALS)
def test_a_signal_cancels_and_waits_for_the_cleaning_up(number: signal.Signals) -> None:
    cleaned: list[str] = []
    with pytest.raises(Interrupted) as caught:
        run(interrupted_by(number, cleaned), COMMAND_SIGNALS)
    assert caught.value.signal is number
    assert cleaned == ["up"]


def test_an_interrupt_is_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(interrupted_by(signal.SIGINT, []), [signal.SIGINT])


def test_without_a_signal_results_and_errors_pass() -> None:
    async def work() -> int:
        return 7

    async def fail() -> None:
        raise LookupError("nothing")

    assert run(work(), COMMAND_SIGNALS) == 7
    with pytest.raises(LookupError, match="nothing"):
        run(fail(), COMMAND_SIGNALS)


def test_what_was_finished_in_spite_of_the_signal_counts() -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done"
        raise AssertionError

    assert run(work(), COMMAND_SIGNALS) == "done"


def test_an_ignored_signal_stays_ignored() -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        return "undisturbed"

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(work(), COMMAND_SIGNALS) == "undisturbed"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_it_runs_in_a_thread_where_no_signals_come() -> None:
    async def work() -> int:
        return 7

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: run(work(), COMMAND_SIGNALS)).result() == 7


def test_a_second_signal_is_not_kept_waiting() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
