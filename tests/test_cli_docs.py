"""The commands in the README and in the guide: each is one that there is, with options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from spaceblock.cli import spaceblock
from spaceblock.errors import SpaceblockError

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]


def commands_on(page: str) -> list[list[str]]:
    """The words behind ``spaceblock`` of every line of a shell block."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        for line in block.splitlines():
            plain = line.partition(" #")[0].replace('eval "$(', "").replace(')"', "")
            for part in plain.split("|"):
                words = [word for word in shlex.split(part) if not word.startswith("SPACEBLOCK_")]
                if words and words[0] == "spaceblock":
                    stop = words.index(">") if ">" in words else len(words)
                    found.append(words[1:stop])
    return found


COMMANDS = [(page, words) for page in PAGES for words in commands_on(page)]


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[" ".join(words) for _, words in COMMANDS])
def test_the_command_is_understood(page: str, words: list[str], tmp_path: Path) -> None:
    if "--ticket-file" in words:
        words = [str(tmp_path / word) if word == "ticket.txt" else word for word in words]
        (tmp_path / "ticket.txt").touch()
    command = spaceblock.commands[words[0]]
    with command.make_context(words[0], list(words[1:])) as context:
        job = command.invoke(context)  # parses and checks; what it returns would do the work
    assert callable(job)


def test_there_are_commands_to_understand() -> None:
    used = {words[0] for _, words in COMMANDS}
    assert used == set(spaceblock.commands)


def test_the_page_has_every_exit_code() -> None:
    page = (ROOT / "docs/command-line.md").read_text()

    def kinds(kind: type[SpaceblockError]) -> list[type[SpaceblockError]]:
        return [kind, *(each for sub in kind.__subclasses__() for each in kinds(sub))]

    codes = {kind.exit_code for kind in kinds(SpaceblockError)} | {0, click.UsageError.exit_code, 130}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
