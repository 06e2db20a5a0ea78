"""The ``spaceblock`` command as a process that is watched, and killed without warning."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .support import Disproved

PATIENCE = 300.0
"""Seconds after which something that must happen counts as not happening."""

_UNASSIGNED = (10_000, 30_000)
"""Ports below those that systems give to whoever asks for any."""


class Command:
    """A running command with ``--json``; a thread keeps what it printed."""

    def __init__(self, words: Sequence[str | Path], home: Path, log: Path) -> None:
        self.records: list[dict[str, Any]] = []
        """What it has printed until now, the oldest first."""
        self._words = list(map(str, words))
        self._changed = threading.Condition()
        self._read_all = False
        environment = {**os.environ, "SPACEBLOCK_HOME": str(home), "NO_COLOR": "1"}
        environment.pop("SPACEBLOCK_TICKET", None)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spaceblock", *self._words, "--json"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def last(self, kind: str) -> dict[str, Any] | None:
        """The newest object of this ``type``."""
        return next((record for record in reversed(self.records) if record["type"] == kind), None)

    def wait_for(self, kind: str) -> dict[str, Any]:
        """The newest object of this ``type``, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self.last(kind) is not None or self._read_all, PATIENCE)
        found = self.last(kind)
        if found is None:
            raise Disproved(f"{self} never printed {kind!r}, but {self._told()}")
        return found

    def kill(self) -> None:
        """End it without warning, and take in what it had printed."""
        self.process.kill()
        self.wait()

    def end(self) -> int:
        """Ask it to end; its exit code. It heeds this also where it was started to ignore Ctrl-C."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Disproved(f"{self} did not end within {PATIENCE:g} s, and had printed {self._told()}") from None
        finally:
            self._reader.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
        return code

    def __str__(self) -> str:
        return f"'spaceblock {self._words[0]}' (process {self.process.pid})"

    def _told(self) -> str:
        return " ".join(str(record)[:200] for record in self.records[-3:]) or "nothing"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):  # what a killed process had begun to print is no line
                with self._changed:
                    self.records.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._read_all = True
            self._changed.notify_all()


def free_port() -> int:
    """A UDP port on the loopback interface that nobody has now, nor is given unasked while its listener is dead."""
    while True:
        port = random.randrange(*_UNASSIGNED)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
