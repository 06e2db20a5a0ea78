"""Without an event loop: ``spaceblock.sync`` runs one transfer from its beginning to its end in a plain call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import spaceblock


def test_send_and_receive_without_an_event_loop(tmp_path: Path, downloads: Path) -> None:
    report = tmp_path / "report.pdf"
    report.write_bytes(b"plain calls" * 1000)
    tickets: Queue[str] = Queue()

    with ThreadPoolExecutor() as other_computer:
        receiving = other_computer.submit(spaceblock.sync.receive, downloads, on_ticket=tickets.put, host="127.0.0.1")
        sent = spaceblock.sync.send(tickets.get(timeout=60), report)
        received = receiving.result()

    assert (downloads / "report.pdf").read_bytes() == report.read_bytes()
    assert sent.items == received.items
