"""The page of defences is true: each test that it names exists, and each number beside a constant is that constant."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "defences.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
NUMBERS = re.findall(r"(\d+) \(`(\w+)\.(\w+)`\)", PAGE)


def test_every_test_that_is_named_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"def (test_\w+)\(", sources))
    assert len(NAMED) > 40
    assert [name for name in NAMED if name not in existing] == []


@pytest.mark.skipif(find_spec("spaceblock.quic.native.engine") is None, reason="there is no native engine here")
@pytest.mark.parametrize(("number", "module", "constant"), NUMBERS, ids=[number[2] for number in NUMBERS])
def test_every_number_is_its_constant(number: str, module: str, constant: str) -> None:
    loaded = importlib.import_module(f"spaceblock.quic.native.{module}")
    assert int(getattr(loaded, constant)) == int(number)


def test_every_line_names_a_test() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith(("| What it tries", "| ---")):
            assert re.search(r"`test_\w+`", line), line
