"""What every contender has: a name, what it can move, whether it is installed, and one measured transfer."""

from __future__ import annotations

import abc
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import TIMEOUT
from spaceblock.cli.bench.pair import Kind, Pair, check, move, run_pair


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be moved: ``size`` bytes, for the kind ``file`` those of ``folder / "source"``."""

    kind: Kind
    size: int
    folder: Path
    datagram: int
    python: str
    """The interpreter that has the peers that are Python packages."""


@dataclass(frozen=True, slots=True)
class Result:
    """One transfer whose bytes were compared at the receiver; all figures in seconds."""

    seconds: float
    cpu: float
    """Of all processes that took part."""
    receiver: float | None = None
    """Of ``cpu``, where the two sides can be told apart."""
    sender: float | None = None


class NotInstalled(Exception):
    """This computer cannot run a contender; the text says what is missing."""


class Contender(abc.ABC):
    """One way of moving bytes. ``slow`` ones are given fewer of them."""

    name: str
    kinds: Sequence[Kind]
    slow = False

    @abc.abstractmethod
    def prepare(self, python: str) -> None:
        """Find what is needed; raises :class:`NotInstalled`."""

    @abc.abstractmethod
    def run(self, task: Task) -> Result:
        """Move it once, in processes of its own; raises where that fails or other bytes arrived."""


class Ours(Contender):
    """Spaceblock, with the engine and the AEAD back-end of its name."""

    kinds = ("memory", "file")

    def __init__(self, name: str, engine: str, aead: str | None) -> None:
        self.name, self._engine, self._aead = name, engine, aead
        self.slow = engine == "aioquic"

    def prepare(self, python: str) -> None:
        if self._engine != "native":
            return
        try:
            from spaceblock.quic.native.protection import backends
        except ImportError:
            raise NotInstalled("this build has no native engine") from None
        if self._aead not in backends():
            raise NotInstalled(f"this build, or this processor, has no {self._aead}")

    def run(self, task: Task) -> Result:
        words = ["--engine", self._engine, "--datagram", str(task.datagram)]
        environment = {} if self._aead is None else {"SPACEBLOCK_AEAD": self._aead}
        pair = move(task.kind, task.size, task.folder, words, environment=environment)
        told = pair.sender["engine"], pair.sender["aead"]
        assert told == (self._engine, self._aead or "evp"), f"{self.name} ran with {told}"
        check(pair)
        return result_of(pair)


class Script(Contender):
    """A script of two sides that speaks as :mod:`spaceblock.cli.bench.side` does; in memory only."""

    kinds = ("memory",)

    def __init__(
        self, name: str, script: Path, module: str | None, words: Callable[[Task], Sequence[str]], *, slow: bool
    ) -> None:
        """``module`` is what the script needs from the peers' interpreter; None: it runs in this one."""
        self.name, self.slow = name, slow
        self._script, self._module, self._words = script, module, words

    def prepare(self, python: str) -> None:
        if self._module is None:
            return
        try:
            found = subprocess.run([python, "-c", f"import {self._module}"], capture_output=True)
        except OSError as error:
            raise NotInstalled(f"{python} cannot be run: {error.strerror}") from None
        if found.returncode:
            raise NotInstalled(f"{python} has no module {self._module}")

    def run(self, task: Task) -> Result:
        command = [sys.executable if self._module is None else task.python, str(self._script)]
        words = ["--size", str(task.size), *self._words(task)]
        pair = run_pair([*command, "receive", *words], [*command, "send", *words], timeout=TIMEOUT)
        check(pair)
        return result_of(pair)


def result_of(pair: Pair) -> Result:
    """The sender's clock, and the CPU seconds of both."""
    return Result(pair.sender["seconds"], pair.cpu, pair.receiver["cpu"], pair.sender["cpu"])
