"""What is to be sent is looked at early, and what was seen is offered only as long as it is fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from spaceblock.errors import SourceMissing
from spaceblock.storage import glances
from spaceblock.storage.files import expand
from spaceblock.storage.glances import Glance
from spaceblock.storage.sources import Item, hold_buffers, prepare


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    for number in range(5):
        (tree / "inner" / str(number)).write_bytes(bytes(number))
    (tree / "link").symlink_to("inner/0")
    return tree


def test_a_glance_sees_what_a_look_does(tree: Path) -> None:
    worked = 0

    def on_work() -> None:
        nonlocal worked
        worked += 1

    for links in ("skip", "copy"):
        assert list(Glance(str(tree), links).take(links, on_work)) == list(expand(str(tree), None, None, links))
    prepared = prepare(hold_buffers([Glance(str(tree), "skip")]), on_work=on_work)
    assert prepared.entries == prepare(hold_buffers([str(tree)])).entries
    assert worked >= len(prepared.entries)


def test_what_was_seen_is_taken_once_and_for_the_same_links(tree: Path) -> None:
    glance = Glance(str(tree), "skip")
    before = list(glance.take("skip", lambda: None))
    (tree / "new").write_bytes(b"new")
    assert len(list(glance.take("skip", lambda: None))) == len(before) + 1, "a second time it looks again"
    other = Glance(str(tree), "skip")
    assert list(other.take("copy", lambda: None)) == list(expand(str(tree), None, None, "copy"))


def test_what_was_seen_too_long_ago_is_looked_at_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glance = Glance(str(tree), "skip")
    glance._thread.join()
    (tree / "new").write_bytes(b"new")
    monkeypatch.setattr(glances, "FRESH", 0.0)
    assert "tree/new" in {found.name for found in glance.take("skip", lambda: None)}


def test_what_cannot_be_looked_at_is_told_when_it_is_taken(tmp_path: Path) -> None:
    glance = Glance(str(tmp_path / "missing"), "skip")
    with pytest.raises(SourceMissing, match="missing"):
        list(glance.take("skip", lambda: None))


def test_another_name_or_a_range_is_looked_at_when_it_is_due(tree: Path) -> None:
    prepared = prepare(hold_buffers([Item(Glance(str(tree / "inner" / "4"), "skip"), name="part", range=(1, 3))]))
    (source,) = prepared.sources
    assert (source.name, source.request.length) == ("part", 2)


def test_without_a_thread_it_looks_when_it_is_taken(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", fail)
    glance = Glance(str(tree), "skip")
    assert list(glance.take("skip", lambda: None)) == list(expand(str(tree), None, None, "skip"))
