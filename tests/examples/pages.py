"""Programs on the pages of the README and the guide, run as they stand there, each as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 60

NAMED = re.compile(r"^`(?P<name>\w+\.py)`(?:(?!```).)*?:\n\n```python\n(?P<program>.*?)```", re.DOTALL | re.MULTILINE)
"""A paragraph that begins with the program's name and ends with a colon, and the program."""


def programs_on(page: str) -> dict[str, str]:
    """The named programs of ``page``, a path from the project's root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {found["name"]: found["program"] for found in NAMED.finditer(text)}


def computer(tmp_path: Path, name: str) -> Path:
    """A working directory with an identity of its own."""
    folder = tmp_path / name
    folder.mkdir()
    return folder


def start(program: str, folder: Path, engine: str, *arguments: str) -> subprocess.Popen[str]:
    """Run ``program`` in ``folder``, as the file that a reader would make of it."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "program.py", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPACEBLOCK_HOME": str(folder / "home"), "SPACEBLOCK_ENGINE": engine},
    )


def first_line(process: subprocess.Popen[str]) -> str:
    """What it prints first, such as a ticket."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for its end; what else it printed."""
    printed, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, complaints
    return printed
