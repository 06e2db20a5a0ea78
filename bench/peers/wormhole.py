"""magic-wormhole, with a mailbox server of our own on loopback; the bytes go directly from side to side."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .contender import NotInstalled, Task
from .tool import Tool, free_ports, running

CODE = "7-one-two"
SERVED = "Starting factory"


class Wormhole(Tool):
    """Both programs' start is on the clock, for the sender says that it is ready too early."""

    name = "magic-wormhole"

    def prepare(self, python: str) -> None:
        for module in ("wormhole", "wormhole_mailbox_server"):
            if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
                raise NotInstalled(f"{python} has no module {module}")

    @contextmanager
    def helped(self, task: Task, place: Path) -> Iterator[None]:
        self._port = free_ports(1)
        address = f"--port=tcp:{self._port}:interface=127.0.0.1"
        command = [task.python, "-m", "twisted", "--log-format=text", "wormhole-mailbox", address]
        store = f"--channel-db={place / 'mailbox.db'}"
        with running([*command, store], place / "mailbox.log", SERVED, end=signal.SIGTERM):
            yield

    @contextmanager
    def serve(self, task: Task, place: Path) -> Iterator[Sequence[str]]:
        url = f"ws://127.0.0.1:{self._port}/v1"
        wormhole = [task.python, "-m", "wormhole", "--relay-url", url, "--transit-helper", ""]
        sender = [*wormhole, "send", "--hide-progress", "--no-qr", "--code", CODE, str(task.folder / "source")]
        with running(sender, place / "wormhole.log", "", end=None):
            yield [*wormhole, "receive", "--accept-file", "--hide-progress", "-o", str(place / "source"), CODE]
