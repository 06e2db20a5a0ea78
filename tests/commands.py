"""The ``spaceblock`` command as a process of its own, with pipes or on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from records import assert_promised
from spaceblock.process.interrupts import COMMAND_SIGNALS

PATIENCE = 60.0
"""Seconds after which a process that must end counts as hanging."""


@dataclass
class Ended:
    """How a process ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON, one object a line, each of them as it was promised."""
        return [_promised(line) for line in self.out.splitlines()]


class Command:
    """A process; ``read_line`` and ``read_until`` follow its standard output, ``end`` waits for it."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path, columns: int) -> None:
        self._terminal = Terminal(columns) if columns else None
        self._log = log
        self._read: list[str] = []
        how: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        if self._terminal is not None:
            self.process = self._terminal.run(arguments, **how)
        else:
            with open(log, "wb") as errors:
                self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=errors, **how)

    @property
    def terminal(self) -> Terminal:
        """The terminal it runs on."""
        assert self._terminal is not None
        return self._terminal

    def read_line(self) -> str:
        """The next line of standard output, or nothing at its end."""
        line = self._out.readline()
        self._read.append(line)
        return line.rstrip("\n")

    @property
    def read(self) -> str:
        """What was read of standard output so far."""
        return "".join(self._read)

    def read_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first JSON object of standard output that is ``wanted``."""
        while line := self.read_line():
            found = _promised(line)
            if wanted(found):
                return found
        raise AssertionError(f"the command ended early: {self.end()}")

    def end(self, number: signal.Signals | None = None) -> Ended:
        """Wait for the end, after sending the signal ``number`` if there is one."""
        if number is not None:
            self.process.send_signal(number)
        try:
            rest, _ = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        written = self._log.read_text(encoding="utf-8") if self._terminal is None else self._terminal.close()
        return Ended(self.process.returncode, "".join(self._read) + rest, written)

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


class Terminal:
    """A pseudo-terminal and what was written to it so far.

    It is the controlling terminal of the process that it runs, which ``^C`` and the end of the window interrupt.
    """

    def __init__(self, columns: int) -> None:
        self._outer, self.inner = pty.openpty()
        self._waker, self._wake = os.pipe()
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._written = b""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._follow, daemon=True)

    def run(self, arguments: Sequence[str], **how: Any) -> subprocess.Popen[str]:
        """Start a process, and leave the terminal to it.

        Who leads a session and opens a terminal gets it for the session, which a shell does here.
        """
        opening = ["sh", "-c", 'exec "$@" <>"$0" 2>&0', os.ttyname(self.inner), *arguments]
        process = subprocess.Popen(opening, stdin=self.inner, stderr=self.inner, start_new_session=True, **how)
        os.close(self.inner)
        self._reader.start()
        return process

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until ``text`` was written so many times."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._written.count(text.encode()) >= times, PATIENCE)
            assert found, f"{text!r} is not in {self._written.decode(errors='replace')!r}"

    @property
    def written(self) -> str:
        """What was written so far."""
        with self._changed:
            return self._written.decode(errors="replace")

    def type(self, text: str) -> None:
        """Press the keys; an unpaired surrogate is a byte that is no text."""
        os.write(self._outer, text.encode(errors="surrogateescape"))

    def hang_up(self) -> None:
        """Close the window that it is in."""
        os.write(self._wake, b"!")
        self._reader.join(PATIENCE)
        os.close(self._outer)
        self._outer = -1

    def close(self) -> str:
        """Everything that was written, once the process has ended."""
        self._reader.join(PATIENCE)
        for descriptor in (self._outer, self._waker, self._wake):
            if descriptor >= 0:
                os.close(descriptor)
        return self._written.decode(errors="replace")

    def _follow(self) -> None:
        while True:
            try:
                if self._waker in select.select([self._outer, self._waker], [], [])[0]:
                    return
                data = os.read(self._outer, 65_536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                return
            with self._changed:
                self._written += data
                self._changed.notify_all()


class Commands:
    """Starts commands for one test; each side has a home, and so an identity, of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Command] = []

    def start(
        self, *words: str | Path, home: str = "", terminal: bool | int = False, shell: str = "", **environment: str
    ) -> Command:
        """Start ``spaceblock WORDS``; ``home`` names the identity, by default one for each of send and receive.

        A ``terminal`` has as many columns as are given, or 100. A ``shell`` is a script to run that has the command as
        ``"$@"``.
        """
        names = ("NO_COLOR", "SPACEBLOCK_TICKET", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if name not in names}
        state = {
            "SPACEBLOCK_HOME": str(self._folder / f"home-{home or (words[0] if words else 'none')}"),
            "TERM": "xterm-256color",
        }
        before = ["sh", "-c", shell, "sh"] if shell else []
        arguments = [*before, sys.executable, "-m", "spaceblock", *map(str, words)]
        log = self._folder / f"stderr-{len(self._running)}"
        command = Command(arguments, {**kept, **state, **environment}, log, 100 if terminal is True else int(terminal))
        self._running.append(command)
        return command

    def run(self, *words: str | Path, home: str = "", terminal: bool | int = False, **environment: str) -> Ended:
        """Start a command and wait for its end."""
        return self.start(*words, home=home, terminal=terminal, **environment).end()

    def kill(self) -> None:
        """End what is left over."""
        for command in self._running:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
            if command.process.stdout is not None:
                command.process.stdout.close()


def _promised(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)
    assert_promised(found)
    return found


@contextmanager
def commands_in(folder: Path) -> Iterator[Commands]:
    """Commands that do not outlive the block. They heed Ctrl-C and the end of their terminal, also where this process
    was started to ignore it."""
    before = {number: signal.getsignal(number) for number in COMMAND_SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    commands = Commands(folder)
    try:
        yield commands
    finally:
        commands.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
