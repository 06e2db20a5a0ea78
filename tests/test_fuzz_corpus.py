"""Every committed input of every fuzzing target, once; among them all that was ever found."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest

INPUTS = [(name, path) for name in fuzz.names() for path in fuzz.load(name).corpus()]


@pytest.mark.parametrize(("name", "path"), INPUTS, ids=[f"{name}-{path.name}" for name, path in INPUTS])
def test_an_input_keeps_the_invariant_of_its_target(name: str, path: Path) -> None:
    fuzz.load(name).fuzz(path.read_bytes())


@pytest.mark.parametrize("name", fuzz.names())
def test_what_a_target_begins_with_keeps_its_invariant(name: str) -> None:
    """``python -m fuzz seeds`` writes these inputs into the corpus."""
    target = fuzz.load(name)
    seeds = target.seeds()
    assert len(seeds) > 4
    assert len(target.corpus()) > 4
    for data in seeds.values():
        assert len(data) <= target.size_max
        target.fuzz(data)


@pytest.mark.parametrize("name", fuzz.names())
def test_a_target_says_its_invariant_first(name: str) -> None:
    source = Path(fuzz.__file__).with_name(f"fuzz_{name}.py").read_text(encoding="utf-8")
    assert source.startswith("# Invariant: ")
