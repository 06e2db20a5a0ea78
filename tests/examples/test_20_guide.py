"""The guide's programs, run as they stand on its pages; each page is a scene of its own."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from blake3 import blake3

from engines import Engines

from .pages import ROOT, computer, end, first_line, programs_on, start

ELSEWHERE = {"docs/simulation.md"}
"""Pages whose few lines are run by tests of their own."""

PROGRAMS = {
    "docs/quick-start.md": {"receive.py", "send.py"},
    "docs/how-to/checkpoints.md": {"keep.py", "train.py"},
    "docs/how-to/shared-memory.md": {"produce.py", "consume.py"},
    "docs/how-to/firewall.md": {"advertise.py"},
    "docs/how-to/service.md": {"service.py", "client.py"},
}


def test_there_is_no_program_on_a_page_that_is_not_run_here() -> None:
    for path in (path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts):
        page = path.relative_to(ROOT).as_posix()
        if page in ELSEWHERE:
            continue
        blocks = re.findall(r"```(?:python|py|pycon)\b", path.read_text(encoding="utf-8"))
        assert set(programs_on(page)) == PROGRAMS.get(page, set()), page
        assert len(blocks) == len(PROGRAMS.get(page, set())), page


def test_the_quick_start_brings_a_file_over(engines: Engines, tmp_path: Path) -> None:
    programs = programs_on("docs/quick-start.md")
    here, there = computer(tmp_path, "here"), computer(tmp_path, "there")
    (here / "photo.jpg").write_bytes(b"a photo" * 1000)
    receiver = start(programs["receive.py"], there, engines.server)
    sender = start(programs["send.py"], here, engines.client, first_line(receiver), "photo.jpg")
    assert end(sender) == f"verified {blake3(b'a photo' * 1000).hexdigest()}\n"
    assert end(receiver) == "received photo.jpg\n"
    assert (there / "photo.jpg").read_bytes() == b"a photo" * 1000


def test_checkpoints_arrive_while_the_training_goes_on(engines: Engines, tmp_path: Path) -> None:
    programs = programs_on("docs/how-to/checkpoints.md")
    here, there = computer(tmp_path, "here"), computer(tmp_path, "there")
    keeper = start(programs["keep.py"], there, engines.server, ".")
    trainer = start(programs["train.py"], here, engines.client, first_line(keeper))
    assert end(trainer) == "verified final.bin\n"
    assert end(keeper) == "kept step-1.bin\nkept step-2.bin\nkept final.bin\n"
    for number, name in enumerate(("step-1.bin", "step-2.bin", "final.bin"), 1):
        assert (there / name).read_bytes() == bytes([number]) * 1_000_000


def test_an_array_arrives_in_memory_that_another_process_sees(engines: Engines, tmp_path: Path) -> None:
    programs = programs_on("docs/how-to/shared-memory.md")
    consumer = start(programs["consume.py"], computer(tmp_path, "there"), engines.server)
    producer = start(programs["produce.py"], computer(tmp_path, "here"), engines.client, first_line(consumer))
    assert end(producer) == ""
    assert end(consumer) == "the last value is 307199.0\n"


def test_tickets_carry_the_address_that_was_chosen(engines: Engines, tmp_path: Path) -> None:
    program = programs_on("docs/how-to/firewall.md")["advertise.py"]
    printed = end(start(program, computer(tmp_path, "there"), engines.server))
    assert printed == "('files.example', 4000)\n"


def test_the_service_outlives_its_clients_mistakes_and_ends_in_order(engines: Engines, tmp_path: Path) -> None:
    programs = programs_on("docs/how-to/service.md")
    here, other, there = (computer(tmp_path, name) for name in ("here", "other", "there"))
    (here / "a.bin").write_bytes(b"data")
    service = start(programs["service.py"], there, engines.server, ".")
    first, second = first_line(service).split()

    assert end(start(programs["client.py"], other, engines.client, first, "missing.bin"), code=6) == ""
    assert end(start(programs["client.py"], here, engines.client, second, "a.bin")) == "stored as a.bin\n"
    service.send_signal(signal.SIGTERM)
    _, log = service.communicate(timeout=60)
    assert service.returncode == 0, log
    assert "INFO:uploads:4 bytes from" in log
    assert log.endswith("INFO:uploads:ended in order\n")
