"""QUIC stacks of others, as programs that do what they are told; docs/interop.md has their language.

Rules: a program is built once a session, from the sources beside this file, into ``build/interop``. Every wait has a
limit, and a program never outlives the test that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from spaceblock.quic import HandshakeConfig
from spaceblock.quic.interface import ALPN

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "interop"

PATIENCE = 20.0
"""Seconds after which whatever is waited for has failed."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One implementation of QUIC, and how its program is made and started: ``{output}`` stands for :data:`BUILD`,
    ``{here}`` for the folder of this file."""

    name: str
    tool: str
    build: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    program: tuple[str, ...]
    lacks: tuple[tuple[str, str], ...] = ()
    """Cases that it has no means for, and why."""

    def __str__(self) -> str:
        return self.name


STACKS = (
    Stack("quic-go", "go", ("go", "build", "-o", "{output}/quic-go", "."), (), ("{output}/quic-go",)),
    Stack(
        "quinn",
        "cargo",
        ("cargo", "build", "--quiet", "--release"),
        (("CARGO_TARGET_DIR", "{output}/quinn"),),
        ("{output}/quinn/release/interop-quinn",),
    ),
    Stack(
        "qh3",
        "python3",
        ("sh", "-c", "python3 -m venv {output}/qh3 && {output}/qh3/bin/python -m pip install -q -r requirements.txt"),
        (),
        ("{output}/qh3/bin/python", "{here}/qh3/peer.py"),
        (
            ("more streams than the peer allows at once", "qh3 cannot be told how many streams to allow"),
            ("the peers own interval of keys", "qh3 updates its keys by command only"),
            ("a client that moves", "qh3's client stays where it is"),
            ("a peer that forgot us", "qh3 makes no stateless resets"),
        ),
    ),
)


@cache
def build(stack: Stack) -> str:
    """Make the stack's program, if it has to be; returns why that is not possible, or nothing."""
    if shutil.which(stack.tool) is None:
        return f"{stack.tool} is not installed"
    BUILD.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {name: value.format(output=BUILD) for name, value in stack.environment}
    command = [word.format(output=BUILD) for word in stack.build]
    done = subprocess.run(command, cwd=HERE / stack.name, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{stack.tool} failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[-1]}"
    return ""


class Peer:
    """One running program; made by :func:`start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[list[str]] = []
        """What it said and nobody asked for yet, in words."""

        self._process = process
        self._changed = asyncio.Event()
        self._over = False
        self._listening = asyncio.ensure_future(self._listen())

    async def heard(self, *words: object) -> list[str]:
        """Wait for the first event that begins with these words, take it, and return the rest of its words.

        Raises :class:`AssertionError` when it does not come.
        """
        wanted = [str(word) for word in words]
        try:
            return await asyncio.wait_for(self._find(wanted), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"the peer never said {' '.join(wanted)!r}, but {self.events}") from None

    async def listening(self) -> int:
        """The port of a server, once it has it."""
        return int((await self.heard("listening"))[0])

    async def open(self, kind: str, size: int, end: str = "fin") -> int:
        """Have it open a stream (``uni`` or ``bidi``) and send so much of the pattern; returns the stream's ID."""
        self.tell("open", kind, size, end)
        return int((await self.heard("opened"))[0])

    def tell(self, *words: object) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    async def kill(self) -> None:
        """End it without a word to its peer."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._listening

    async def _find(self, wanted: list[str]) -> list[str]:
        while True:
            for event in self.events:
                if event[: len(wanted)] == wanted:
                    self.events.remove(event)
                    return event[len(wanted) :]
            assert not self._over, f"the peer ended without saying {' '.join(wanted)!r}, but {self.events}"
            self._changed.clear()
            await self._changed.wait()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.events.append(line.decode().split())
            self._changed.set()
        self._over = True
        self._changed.set()


@contextlib.asynccontextmanager
async def start(stack: Stack, **options: object) -> AsyncIterator[Peer]:
    """Run a stack's program with these options, ``_`` standing for ``-``."""
    words = [f"--{name.replace('_', '-')}={_word(value)}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(
        *(word.format(output=BUILD, here=HERE) for word in stack.program),
        f"--alpn={ALPN}",
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    peer = Peer(process)
    try:
        yield peer
    finally:
        await peer.kill()


def write_identity(folder: Path, identity: HandshakeConfig) -> dict[str, Path]:
    """Write certificate and key as PEM; returns the options that name the files."""
    assert identity.certificate is not None
    assert identity.private_key is not None
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"certificate": certificate, "key": key}


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
