"""croc, directly from sender to receiver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .contender import Task
from .tool import Tool, free_ports, needed, running

SECRET = {"CROC_SECRET": "one-two-three-four"}


class Croc(Tool):
    """The sender hashes the file before it says that it is ready, which is not on the clock."""

    name = "croc"
    programs = ("croc",)

    @contextmanager
    def serve(self, task: Task, place: Path) -> Iterator[Sequence[str]]:
        port = free_ports(5)
        croc = [needed("croc"), "--local", "--ignore-stdin", "--disable-clipboard"]
        own = {**SECRET, "HOME": str(place)}  # it keeps settings there
        sender = [*croc, "send", "--port", str(port), str(task.folder / "source")]
        with running(sender, place / "croc.log", "Code is", end=None, environment=own):
            words = [*croc, "--ip", f"127.0.0.1:{port}", "--yes", "--overwrite", "--out", str(place)]
            yield ["/usr/bin/env", *(f"{name}={value}" for name, value in own.items()), *words]
