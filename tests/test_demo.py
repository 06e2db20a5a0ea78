"""The demonstration: it works, its checks see what is wrong, and it leaves nothing behind however it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


@contextmanager
def demo(folder: Path, size: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demonstration as a process whose temporary files are in ``folder``."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it heeds Ctrl-C also where this process ignores it
    try:
        process = subprocess.Popen(
            [sys.executable, str(DEMO), "--size", str(size)],
            env={**os.environ, "TMPDIR": str(folder), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        yield process
        process.kill()


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_arrives_and_every_check_passes(tmp_path: Path) -> None:
    with demo(tmp_path, 1) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "sent 202 items, 2.44 MB in " in out
    assert "received 202 items, 2.44 MB in " in out
    assert out.count(" says the sender\n") == out.count(" says the receiver\n") == 2
    checks = out.splitlines()[-6:]
    assert all(line.startswith("ok     ") for line in checks), out
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path, 64, SPACEBLOCK_ENGINE="aioquic") as process:  # slow enough to be interrupted
        assert process.stderr is not None
        while "MB/s" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(number)
        # Its processes share its standard error, so reading that to its end means that they have ended too.
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert os.listdir(tmp_path) == []


def test_the_checks_see_one_wrong_byte(module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outbox, inbox = tmp_path / "outbox", tmp_path / "inbox"
    for folder in (outbox, inbox):
        folder.mkdir()
        module.make_file(folder / "large.bin", 1)
        module.make_small_files(folder / "small")
    (inbox / "unnamed-0").write_bytes(module.buffer(1000))
    names = ["large.bin", *(str(path.relative_to(outbox)) for path in (outbox / "small").rglob("*.txt"))]
    items = [
        {"name": name, "path": name, "digest": module.blake3((outbox / name).read_bytes()).hexdigest()}
        for name in names
    ]
    items.append({"name": None, "path": "unnamed-0", "digest": module.blake3(module.buffer(1000)).hexdigest()})
    assert module.compare(outbox, inbox, 1000, items, items) == 0
    assert "FAILED" not in capsys.readouterr().out
    with open(inbox / "large.bin", "r+b") as file:
        file.seek(1000)
        file.write(b"!")
    wrong = [*items[:-1], {**items[-1], "digest": "00" * 32}]
    assert module.compare(outbox, inbox, 1000, items, wrong) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert failed == [
        "FAILED the large file: every byte is the same",
        "FAILED the unnamed buffer: both sides' digests are those of an independent BLAKE3",
    ]
