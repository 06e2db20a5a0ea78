"""Commands are for throughput, and so are the threads that they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import Commands

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system knows these policies")

_TELL = """
import os, threading
from spaceblock.cli.scheduling import prefer_long_turns

def tell():
    print(os.sched_getscheduler(0))

{before}
prefer_long_turns()
tell()
thread = threading.Thread(target=tell)
thread.start()
thread.join()
"""


def policies(before: str) -> list[int]:
    """Those of the main thread and of a thread that it starts."""
    words = [sys.executable, "-c", _TELL.format(before=before)]
    return [int(line) for line in subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.split()]


def test_every_thread_has_long_turns() -> None:
    assert policies("") == [os.SCHED_BATCH] * 2


def test_a_policy_that_somebody_chose_stays() -> None:
    assert policies("os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))") == [os.SCHED_IDLE] * 2


@pytest.mark.parametrize(
    "before",
    [
        "def forbidden(*_): raise PermissionError\nos.sched_setscheduler = forbidden",
        "del os.sched_setscheduler",
    ],
)
def test_a_system_that_forbids_it_or_cannot_is_left_as_it_is(before: str) -> None:
    assert policies(before) == [os.sched_getscheduler(0)] * 2


def test_a_command_that_waits_for_peers_has_them(commands: Commands, inbox: Path) -> None:
    receiver = commands.start("receive", "--listen", "127.0.0.1:0", "--dir", inbox, "--yes")
    receiver.read_line()
    assert os.sched_getscheduler(receiver.process.pid) == os.SCHED_BATCH
