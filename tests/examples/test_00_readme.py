"""The README's code, run as it stands there: each program as a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

from blake3 import blake3

from engines import Engines

from .pages import PATIENCE, ROOT, computer, start

README = ROOT / "README.md"


def programs() -> list[str]:
    """The README's Python, one string a block."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def program_named(name: str) -> str:
    """The block behind the mention of ``name``."""
    found = re.search(rf"`{re.escape(name)}`:\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None, f"the README has no {name}"
    return found[1]


def test_the_readmes_two_programs_work_together(engines: Engines, tmp_path: Path) -> None:
    here, there = computer(tmp_path, "here"), computer(tmp_path, "there")
    report = here / "report.pdf"
    report.write_bytes(b"%PDF" + bytes(500_000))
    downloads = there / "downloads"
    downloads.mkdir()

    receiver = start(program_named("receive.py"), there, engines.server)
    assert receiver.stdout is not None
    ticket = receiver.stdout.readline().strip()
    sender = start(program_named("send.py"), here, engines.client, ticket)
    sent, progress = sender.communicate(timeout=PATIENCE)
    received, complaints = receiver.communicate(timeout=PATIENCE)

    assert (sender.returncode, receiver.returncode) == (0, 0), progress + complaints
    assert complaints == ""
    assert sent == received, "both sides print the same names, sizes and digests"
    assert f"report.pdf 500004 {blake3(report.read_bytes()).hexdigest()}" in sent
    assert (downloads / "report.pdf").read_bytes() == report.read_bytes()
    assert "bytes" in progress


def test_the_readmes_call_without_an_event_loop_works(engines: Engines, tmp_path: Path) -> None:
    here, there = computer(tmp_path, "here"), computer(tmp_path, "there")
    (here / "report.pdf").write_bytes(b"%PDF")
    (there / "downloads").mkdir()
    (program,) = [program for program in programs() if "spaceblock.sync" in program]

    receiver = start(program_named("receive.py"), there, engines.server)
    assert receiver.stdout is not None
    ticket = receiver.stdout.readline().strip()
    sender = start(f"ticket = {ticket!r}\n{program}", here, engines.client)
    printed, complaints = sender.communicate(timeout=PATIENCE)
    receiver.communicate(timeout=PATIENCE)

    assert complaints == ""
    assert printed.strip() == blake3(b"%PDF").hexdigest()
