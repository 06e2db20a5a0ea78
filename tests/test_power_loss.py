"""The power-loss proof in short: the disk is made anew as it may be after a loss of power, at some moments of each kind
of transfer. ``python -m proofs power`` tries them all."""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from proofs import power
from proofs.crash_disk import Kind
from proofs.recorded import SCENARIOS
from proofs.support import Disproved

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler to record a program"
)
DISKS = 12


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="power-", dir=power.QUICK) as folder:
        yield Path(folder)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_after_a_loss_of_power_the_same_again_ends_in_the_same_files(scenario: str, folder: Path) -> None:
    figures = power.try_all(power.record(scenario, folder), samples=2, states=DISKS, seed=0)
    assert f"{DISKS} disks" in figures


@pytest.mark.parametrize("left_out", ["files", "folders"])
def test_a_receiver_that_does_not_flush_is_found_out(left_out: str, folder: Path) -> None:
    recording = power.record("large", folder)
    is_left_out = stat.S_ISREG if left_out == "files" else stat.S_ISDIR
    log = [done for done in recording.log if done.kind is not Kind.SYNC or not is_left_out(done.mode)]
    with pytest.raises(Disproved):
        power.try_all(replace(recording, log=log), samples=2, states=60, seed=0)
