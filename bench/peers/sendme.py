"""sendme (iroh), without a relay."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .contender import Task
from .tool import Tool, needed, running

OPTIONS = ("--relay", "disabled", "--no-progress", "--magic-ipv4-addr", "127.0.0.1:0")


class Sendme(Tool):
    """The sender hashes the file before it prints its ticket, which is not on the clock."""

    name = "sendme"
    programs = ("sendme",)

    @contextmanager
    def serve(self, task: Task, place: Path) -> Iterator[Sequence[str]]:
        log = place / "sendme.log"
        sender = [needed("sendme"), "send", *OPTIONS, "--ticket-type", "addresses", str(task.folder / "source")]
        with running(sender, log, "sendme receive blob", end=signal.SIGINT):
            ticket = re.search("sendme receive (blob[a-z0-9]+)", log.read_text())
            assert ticket is not None
            yield [needed("sendme"), "receive", *OPTIONS, ticket[1]]
