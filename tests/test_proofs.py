"""The proofs that take real processes, each for a few seconds; docs/reliability.md tells of the long runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from proofs import kill, resume, soak
from proofs.soak_listener import Figures
from proofs.support import MIB, Disproved

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by their files in /proc")

STEADY = Figures(
    connections=0,
    ends={},
    memory=60_000,
    heap=9_000,
    blocks=9_000,
    descriptors=9,
    threads=2,
    pool=4,
    tasks=2,
    names=0,
    kept=30,
)


def run(proof: ModuleType, folder: Path, *words: str) -> str:
    """What a proof reports."""
    parser = argparse.ArgumentParser()
    proof.configure(parser)
    report: str = proof.prove(parser.parse_args(["--folder", str(folder), *words]))
    assert list(folder.iterdir()) == []
    return report


@pytest.mark.slow
def test_whoever_is_killed_the_same_commands_complete(tmp_path: Path) -> None:
    assert int(run(kill, tmp_path, "--times", "4", "--largest", "8").split()[0]) >= 4


@pytest.mark.slow
def test_a_large_file_that_is_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    report = run(resume, tmp_path, "--size", "64", "--nearly", "64", "--limit", "32")
    assert "131072 bytes were sent once more" in report


def test_a_case_is_the_same_for_the_same_numbers() -> None:
    cases = [kill.draw(1, number, 8 * MIB) for number in range(200)]
    assert cases == [kill.draw(1, number, 8 * MIB) for number in range(200)]
    kills = [each for case in cases for each in case.kills]
    assert {case.kind for case in cases} == set(kill.KINDS)
    assert {(each.victim, each.moment) for each in kills} == {(a, b) for a in kill.VICTIMS for b in kill.MOMENTS}


@pytest.mark.parametrize("wrong", ["a part", "other bytes", "a second copy"])
def test_the_kill_test_notices(wrong: str, tmp_path: Path) -> None:
    case = next(case for case in (kill.draw(1, at, MIB) for at in range(100)) if case.kind == "file")
    trial = kill.Trial(case, tmp_path, kill.Tally())
    trial.make_files()
    source, inbox = trial.source.read_bytes(), trial.inbox
    (inbox / case.top).write_bytes(source)
    trial.check_end()
    if wrong == "a part":
        (inbox / case.top).write_bytes(source[:-1])
    elif wrong == "other bytes":
        (inbox / case.top).write_bytes(source[:-1] + bytes([source[-1] ^ 1]))
    else:
        (inbox / f"{case.top} (1)").write_bytes(source)
    with pytest.raises(Disproved):
        trial.check_end()


@pytest.mark.slow
def test_a_listener_that_was_used_a_while_holds_no_more_than_before(tmp_path: Path) -> None:
    words = ["--transfers", "150", "--seconds", "0", "--rounds", "2", "--warm-up", "0", "--killed", "0"]
    report = run(soak, tmp_path, *words, "--growth", "48")  # a few transfers are no warm-up for an allocator
    assert "held after the warm-up" in report


@pytest.mark.parametrize("name", soak.STEADY)
def test_the_soak_test_notices_what_is_not_given_back(name: str) -> None:
    more = replace(STEADY, **{name: getattr(STEADY, name) + 1})
    soak.judge([STEADY, more, STEADY], 100, 1.0)
    with pytest.raises(Disproved, match=name):
        soak.judge([STEADY, STEADY, more], 100, 1.0)


NOISE = [0, 900, 200, 700, 100, 800, 300, 600, 0, 500]


def test_the_soak_test_takes_noise_for_noise() -> None:
    soak.judge([replace(STEADY, memory=60_000 + 9 * each, heap=10_000 + each) for each in NOISE], 100, 1.0)
    soak.judge([replace(STEADY, blocks=100_000 + each) for each in NOISE], 100, 1.0)


@pytest.mark.parametrize(
    ("name", "base", "step"), [("memory", 60_000, 300), ("heap", 9_000, 300), ("blocks", 9_000, 600)]
)
def test_the_soak_test_notices_memory_that_grows(name: str, base: int, step: int) -> None:
    figures: list[dict[str, Any]] = [{name: base + each + step * at} for at, each in enumerate(NOISE)]
    growing = [replace(STEADY, **figure) for figure in figures]
    with pytest.raises(Disproved, match="memory"):
        soak.judge(growing, 100, 1.0)


def test_the_soak_test_notices_what_is_left_behind() -> None:
    with pytest.raises(Disproved, match="left in the folder"):
        soak.judge([STEADY, replace(STEADY, names=1000)], 100, 1.0)
