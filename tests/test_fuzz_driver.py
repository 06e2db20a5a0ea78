"""What fuzzes the decoders finds a fault, keeps its input, and does the same again for the same seed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from random import Random

import fuzz
import pytest
from fuzz.choices import Choices, kind_of, large, piece
from fuzz.driver import Run, read_current
from fuzz.mutate import mutate

RUNS = 20_000


def target(tried: list[bytes]) -> fuzz.Target:
    """Breaks when three bytes are right, each of which it tells apart."""

    def broken(data: bytes) -> Hashable:
        tried.append(data)
        right = 0
        for wanted, byte in zip(b"\x00\xff\x40", data, strict=False):
            if wanted != byte:
                break
            right += 1
        assert right < 3, "found"
        return right

    return fuzz.Target("broken", broken, dict, 100)


def test_a_fault_is_found_and_its_input_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tried: list[bytes] = []
    run = Run(target(tried), 0, tmp_path, keep=False)
    assert not run.go(0, RUNS)
    out, err = capfd.readouterr()
    assert Path(out.strip()).read_bytes() == tried[-1]
    assert tried[-1].startswith(b"\x00\xff\x40")
    assert "AssertionError: found" in err


def test_the_same_seed_tries_the_same_inputs(tmp_path: Path) -> None:
    def inputs(seed: int) -> list[bytes]:
        tried: list[bytes] = []
        Run(target(tried), seed, tmp_path, keep=False).go(0, 100)
        return tried

    assert inputs(1) == inputs(1) != inputs(2)


def test_what_reached_something_new_is_kept_for_the_next_time(tmp_path: Path) -> None:
    run = Run(target([]), 0, tmp_path, keep=True)
    run.go(0, RUNS)
    kept = {path.read_bytes()[:1] for path in (tmp_path / "corpus" / "broken").iterdir()}
    assert b"\x00" in kept
    tried: list[bytes] = []
    Run(target(tried), 0, tmp_path, keep=True).go(0, 1)
    assert {data[:1] for data in tried} >= kept


def test_an_input_that_ends_the_process_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "fuzz_fatal.py").write_text(
        "import os, signal\n"
        "def fuzz(data): os.kill(os.getpid(), signal.SIGKILL) if data == b'fatal' else None\n"
        "def seeds(): return {}\n"
    )
    program = (
        f"import fuzz, sys; fuzz.__path__.append({str(tmp_path)!r}); fuzz.PLAIN += ('fatal',); "
        f"from fuzz import driver; sys.argv[1:] = ['fatal', '--seconds=0', '--runs=1', '--seed=0', '--keep', "
        f"'--out={tmp_path}']; driver.main()"
    )
    kept = tmp_path / "corpus" / "fatal"
    kept.mkdir(parents=True)
    (kept / "0").write_bytes(b"fatal")
    done = subprocess.run([sys.executable, "-c", program], cwd=fuzz.ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert read_current(tmp_path / "fatal.current") == b"fatal"


def test_each_command(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "fuzz", *words]
        return subprocess.run(command, cwd=fuzz.ROOT, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout

    assert run("list").split() == list(fuzz.names())
    assert "seed-encode: " in run("replay", "core")
    assert run("run", "core", "messages", "--runs=50", "--jobs=2", f"--out={tmp_path}") == ""


def test_no_target_leaves_anything_open_when_its_process_ends() -> None:
    command = [sys.executable, "-W", "always::ResourceWarning", "-m", "fuzz", "corpus"]
    done = subprocess.run(command, cwd=fuzz.ROOT, check=True, timeout=60, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""


def test_changed_inputs_stay_within_the_limit() -> None:
    random = Random(0)
    data = b"begin"
    for _ in range(2_000):
        data = mutate(data, [b"other", b""], 64, random)
        assert len(data) <= 64


def test_choices() -> None:
    choices = Choices(b"\x05" + large(300) + large(0) + piece(b"abc") + b"\x01\x02\x03")
    assert choices.byte() == 5
    assert (choices.large(), choices.large()) == (300, 0)
    assert choices.piece() == b"abc"
    assert choices.below(300) == 258
    assert choices
    assert choices.rest() == b"\x03"
    assert not choices
    assert (choices.byte(), choices.number(8), choices.large(), choices.piece(), choices.below(7)) == (0, 0, 0, b"", 0)


def test_errors_are_told_apart_by_their_kind() -> None:
    assert kind_of(ValueError("'a' has 3 of 0x4f")) == kind_of(ValueError("'b' has 17 of 0x50")) == "# has # of #"
