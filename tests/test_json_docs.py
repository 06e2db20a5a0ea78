"""The page about ``--json``: every object is on it, with an example that is what the command line promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from records import assert_promised, kinds
from spaceblock.cli.records import line_of
from spaceblock.events import Phase

PAGE = (Path(__file__).parents[1] / "docs" / "json.md").read_text()
SECTIONS = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_has_every_object_and_no_other() -> None:
    assert sorted(name for name, _ in SECTIONS) == sorted(kinds())


@pytest.mark.parametrize(("name", "text"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_the_example_is_what_is_promised(name: str, text: str) -> None:
    (example,) = re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert "\n" not in example
    found = json.loads(example)
    assert found["type"] == name
    assert_promised(found)
    assert line_of({name: value for name, value in found.items() if name != "version"}) == example


def test_the_page_names_every_phase() -> None:
    words = " ".join(PAGE.split())
    assert [str(phase) for phase in Phase if f"`{phase}`" not in words] == []


def test_what_is_not_promised_is_found() -> None:
    good = {"type": "identity", "version": 1, "peer": "abc"}
    assert_promised(good)
    for bad in ({**good, "peer": 1}, {**good, "more": 1}, {**good, "version": 2}, {"type": "identity", "version": 1}):
        with pytest.raises(AssertionError):
            assert_promised(bad)
