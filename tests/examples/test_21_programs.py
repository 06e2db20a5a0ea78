"""The programs in ``examples``: replicating a folder, uploads by HTTP, arrays from process to process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from blake3 import blake3

from engines import Engines

from .pages import ROOT, computer, end, first_line


def program(name: str, folder: Path, engine: str, *arguments: str) -> subprocess.Popen[str]:
    """Run one of the examples in ``folder``."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPACEBLOCK_HOME": str(folder / "home"), "SPACEBLOCK_ENGINE": engine},
    )


@contextmanager
def killed_at_last(*processes: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_folder_is_replicated_and_only_what_changed_travels(engines: Engines, tmp_path: Path) -> None:
    here, there = computer(tmp_path, "here"), computer(tmp_path, "there")
    source, copy = here / "source", there / "copy"
    (source / "deep").mkdir(parents=True)
    copy.mkdir()
    for name in ("a", "b", "deep/c"):
        (source / name).write_text(f"first {name}")
    keeper = program("replicate.py", there, engines.server, "keep", "copy")
    with killed_at_last(keeper):
        ticket = first_line(keeper)

        def push() -> str:
            return end(program("replicate.py", here, engines.client, "push", "source", ticket))

        assert push() == "3 new, 0 replaced\n"
        assert push() == "0 new, 0 replaced\n"
        (source / "b").write_text("second b")
        (source / "deep" / "d").write_text("first d")
        assert push() == "1 new, 1 replaced\n"
    copied = {str(path.relative_to(copy)): path.read_text() for path in copy.rglob("*") if path.is_file()}
    copied.pop(".replicated")
    assert copied == {"a": "first a", "b": "second b", "deep/c": "first deep/c", "deep/d": "first d"}


def test_an_upload_is_on_the_other_machine_when_it_is_answered(engines: Engines, tmp_path: Path) -> None:
    there, here = computer(tmp_path, "there"), computer(tmp_path, "here")
    receive = [sys.executable, "-m", "spaceblock", "receive", "--yes", "--dir", ".", "--listen", "127.0.0.1:0", "-q"]
    store = subprocess.Popen(
        receive,
        cwd=there,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPACEBLOCK_HOME": str(there / "home"), "SPACEBLOCK_ENGINE": engines.server},
    )
    service = program("upload.py", here, engines.client, first_line(store), "--port", "0")
    with killed_at_last(store, service):
        address = listening_at(service)

        def pieces() -> Iterator[bytes]:
            for number in range(20):
                yield bytes([number]) * 50_000

        whole = b"".join(pieces())
        answer = httpx.post(f"{address}/files/in/a.bin", content=pieces())
        assert answer.status_code == 201
        assert answer.json() == {"path": "in/a.bin", "size": len(whole), "blake3": blake3(whole).hexdigest()}
        assert (there / "in" / "a.bin").read_bytes() == whole

        refused = httpx.post(f"{address}/files/..%2Fb.bin", content=b"data")
        assert (refused.status_code, refused.json()["error"]) == (422, "name")
        service.send_signal(signal.SIGINT)
        service.communicate(timeout=60)
    assert sorted(path.name for path in there.rglob("*.bin")) == ["a.bin"]


def listening_at(service: subprocess.Popen[str]) -> str:
    """Where the HTTP server says that it is."""
    assert service.stderr is not None
    for line in service.stderr:
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    pytest.fail("the service never started")


def test_arrays_arrive_batch_after_batch(engines: Engines, tmp_path: Path) -> None:
    consumer = program("arrays.py", computer(tmp_path, "there"), engines.server, "consume")
    producer = program(
        "arrays.py", computer(tmp_path, "here"), engines.client, "produce", first_line(consumer), "--batches", "2"
    )
    assert end(producer) == f"{2 * (32 * 64 * 64 * 4 + 32 * 8)} bytes arrived\n"
    lines = end(consumer).splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"images \(32, 64, 64\) mean 0\.\d+ labels \(32,\) mean \d\.\d+", line) for line in lines)
