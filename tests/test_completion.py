"""What Tab does in the shells that there are, set up as the guide says, at their own prompts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import Commands, Terminal

SHELLS = ["bash", "zsh", "fish"]
PROMPT = "ready>"
DESK = "tvrqinl3jc33ghavk3ekxbq7rknyebrbdvwud6yft6wnzkvjws2a"
GUIDE = Path(__file__).parents[1] / "docs" / "command-line.md"


def line_for(shell: str) -> str:
    """What the guide has the users of ``shell`` do."""
    (line,) = [line for line in GUIDE.read_text().splitlines() if f"spaceblock completion {shell}" in line]
    return line.partition("  #")[0]


@contextmanager
def prompt(shell: str, home: Path) -> Iterator[Terminal]:
    """An interactive ``shell`` of a user whose home is ``home``, at its first prompt."""
    programs = home / "programs"
    programs.mkdir()
    (programs / "spaceblock").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spaceblock "$@"\n')
    (programs / "spaceblock").chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "TERM": "xterm",
        "PS1": f"{PROMPT} ",
    }
    if shell == "fish":
        (home / ".config/fish/completions").mkdir(parents=True)
        (home / ".config/fish/config.fish").write_text(f"function fish_prompt; echo -n '{PROMPT} '; end\n")
        subprocess.run(["sh", "-c", line_for(shell)], env=environment, check=True)
    else:
        (home / f".{shell}rc").write_text(f"PS1='{PROMPT} '\n{line_for(shell)}\n")

    terminal = Terminal(100)
    process = terminal.run([shell, "-i"], cwd=home, env=environment, stdout=terminal.inner)
    try:
        terminal.wait_for(PROMPT)
        yield terminal
    finally:
        process.kill()
        process.wait()
        terminal.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(commands: Commands, shell: str) -> None:
    ended = commands.run("completion", shell)
    assert ended.code == 0
    assert f"_SPACEBLOCK_COMPLETE={shell}_complete" in ended.out


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nothing_is_said_in_the_line_of_a_user_who_typed_on(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    asked = {"_SPACEBLOCK_COMPLETE": "fish_complete", "COMP_WORDS": "spaceblock re", "COMP_CWORD": "re"}
    asked["PYTHONUNBUFFERED"] = unbuffered
    ended = subprocess.run(
        [sys.executable, "-m", "spaceblock"], stdout=writer, stderr=subprocess.PIPE, env={**os.environ, **asked}
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("spaceblock rec", "receive"),
        ("spaceblock receive --ski", "--skip"),
        ("spaceblock receive --dir dow", "downloads"),
        ("spaceblock send --to de", "desk"),
        ("spaceblock send rep", "report.pdf"),
    ],
)
def test_tab_completes(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, typed: str, completed: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    home = tmp_path / "user"
    (home / "downloads").mkdir(parents=True)
    (home / "report.pdf").touch()
    commands.run("trust", DESK, "--name", "desk", home="shell")
    monkeypatch.setenv("SPACEBLOCK_HOME", str(tmp_path / "home-shell"))
    with prompt(shell, home) as terminal:
        terminal.type(f"{typed}\t")
        terminal.wait_for(completed)
        assert "not found" not in terminal.written
