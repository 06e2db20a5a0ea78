"""The README's picture is drawn from a real transfer, and what it shows is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def frames_of(picture: Path) -> list[list[str]]:
    """The lines of each frame, from top to bottom."""
    root = ElementTree.parse(picture).getroot()
    assert root.tag == f"{SVG}svg"
    return [["".join(text.itertext()) for text in group.iter(f"{SVG}text")] for group in root.iter(f"{SVG}g")]


def assert_shows_a_transfer(frames: list[list[str]]) -> None:
    assert len(frames) > 2
    assert any("spaceblock receive" in line for line in frames[0])
    assert any("Accept?" in line for frame in frames for line in frame)
    assert any("%" in line for frame in frames for line in frame), "bars"
    digests = re.findall(r"BLAKE3 (\w{64})\s+weights", "\n".join(frames[-1]))
    assert len(digests) == 2
    assert digests[0] == digests[1], "both sides have the same"


def test_the_picture_in_the_readme_shows_a_transfer() -> None:
    assert "](docs/terminal.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert_shows_a_transfer(frames_of(ROOT / "docs" / "terminal.svg"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs terminals")
def test_the_script_draws_it_anew(tmp_path: Path) -> None:
    picture = tmp_path / "terminal.svg"
    script = ROOT / "tools" / "terminal_picture.py"
    subprocess.run([sys.executable, str(script), "--size", "4", str(picture)], check=True, timeout=100)
    assert_shows_a_transfer(frames_of(picture))
