"""No name, however made, leads outside of the folder: any names, any links in the folder, planted at any time.

All of it runs against the real file system, with the sink that every transfer uses.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from spaceblock.errors import LocalProtocolError, SpaceblockError
from spaceblock.options import Conflict
from spaceblock.storage.folder import FolderSink
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from support import requests_of

DATA = b"from elsewhere"

PARTS = [
    "a",
    "b",
    "c",
    "secret",
    "target",
    "..",
    ".",
    "",
    "~",
    "C:",
    "nul",
    "a.",
    "a ",
    "\0",
    "\\",
    "..\\b",
    "\u2024\u2024",
]
NAMES = (
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join)
    | st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join)
    | st.text(st.sampled_from("ab./\\:~\0 \u202e\ud800\u00e9") | st.characters(), min_size=1, max_size=12)
)
TARGETS = st.lists(st.sampled_from(["..", ".", "a", "b", "c", "", "outside", "secret"]), min_size=1, max_size=5).map(
    "/".join
) | st.sampled_from(["/", "/etc/passwd", "../outside/secret", "\\..\\outside", "C:\\outside", "a/../../outside"])
PLANTED = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["OUTSIDE", "OUTSIDE/secret", "..", "../outside", ".", "b", "nowhere", "/"]),
    ),
    max_size=3,
)


@dataclass(frozen=True)
class Offer:
    """What a hostile sender offers: files, folders and links."""

    files: list[str]
    folders: list[str]
    links: list[tuple[str, str]]

    def manifest(self) -> Manifest | None:
        entries = [Entry(EntryKind.FOLDER, name, mode=0o777) for name in self.folders]
        entries += [Entry(EntryKind.LINK, name, target=target) for name, target in self.links]
        entries += [Entry(EntryKind.FILE, name, item) for item, name in enumerate(self.files)]
        try:
            return Manifest(tuple(entries), len(self.files))
        except LocalProtocolError:  # a name twice, which is refused before a sink sees it
            return None


OFFERS = st.builds(
    Offer,
    st.lists(NAMES, min_size=1, max_size=3),
    st.lists(NAMES, max_size=2),
    st.lists(st.tuples(NAMES, TARGETS), max_size=2),
)


def real(path: Path) -> Path:
    """Where ``path`` leads; a link that leads to itself leads nowhere else."""
    return Path(os.path.realpath(path))


@dataclass(frozen=True)
class World:
    """A target folder, and beside it what nobody may touch."""

    target: Path
    outside: Path

    def plant(self, links: list[tuple[str, str]]) -> None:
        """Put links into the target, as somebody on the receiver's side may at any time."""
        for name, leads_to in links:
            place = self.target / name
            if real(place.parent) != place.parent:
                continue  # the way leads through another one
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                place.unlink(missing_ok=True)
                place.symlink_to(leads_to.replace("OUTSIDE", str(self.outside)))
            except OSError:
                continue  # there is a file on the way

    def others(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Everything that lies beside the target, with what would tell of a change."""
        found = {}
        for top, folders, files in os.walk(self.outside.parent):
            for name in (*folders, *files):
                path = Path(top, name)
                if path == self.target or self.target in path.parents:
                    continue
                status = path.lstat()
                data = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, data)
        return found

    def links(self) -> set[str]:
        """The links in the target."""
        return {str(path.relative_to(self.target)) for path in self.target.rglob("*") if path.is_symlink()}

    def is_inside(self, path: Path) -> bool:
        """Whether ``path`` leads to the target or something in it."""
        place = real(path)
        return place == self.target or self.target in place.parents


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        (top / "target").mkdir()
        (top / "outside").mkdir()
        (top / "outside" / "secret").write_text("mine")
        (top / "outside" / "a").mkdir()
        yield World(top / "target", top / "outside")


def receive(world: World, offer: Offer, on_conflict: Conflict, meanwhile: list[tuple[str, str]]) -> None:
    """Take an offer as far as it goes, with links planted between the checks and the writing."""
    manifest = offer.manifest()
    if manifest is None:
        return
    before, links = world.others(), world.links()
    sink = FolderSink(world.target, on_conflict, "none")
    try:
        skip = sink.prepare(requests_of(*[len(DATA)] * len(offer.files)), manifest)
        world.plant(meanwhile)
        links |= world.links()
        for item in range(len(offer.files)):
            if item not in skip:
                sink.begin(item)
                sink.write(item, 0, memoryview(DATA))
                sink.finish(item)
                (placed,) = sink.place([item])
                if isinstance(placed, str):
                    place = world.target / placed
                    assert not place.is_symlink()
                    assert real(place) == place, "no part of the way is a link"
                    assert place.read_bytes() == DATA
    except SpaceblockError:
        pass
    finally:
        sink.close()
    assert world.others() == before, "nothing outside of the folder is touched"
    for name in world.links() - links:
        assert world.is_inside(world.target / name), f"the link {name} leads out"
    assert [name for name in os.listdir(world.target) if name.startswith(".spaceblock-")] == []


@settings(max_examples=200)
@given(
    st.lists(st.tuples(OFFERS, PLANTED), min_size=1, max_size=2),
    PLANTED,
    st.sampled_from(["rename", "skip", "overwrite", "error"]),
)
@example([(Offer(["../outside/secret"], [], []), [])], [], "overwrite")
@example([(Offer(["a/secret"], [], []), [])], [("a", "OUTSIDE")], "overwrite")
@example([(Offer(["a/secret"], ["a"], []), [("a", "OUTSIDE")])], [], "overwrite")
@example([(Offer(["x"], ["a"], [("a/b", "..")]), []), (Offer(["a/b/secret"], [], []), [])], [], "overwrite")
@example([(Offer(["x"], [], [("c", "a/outside")]), [])], [("a", "..")], "rename")
@example([(Offer(["secret"], [], []), [("secret", "OUTSIDE/secret")])], [], "overwrite")
def test_whatever_is_offered_and_planted_nothing_leads_out(
    rounds: list[tuple[Offer, list[tuple[str, str]]]], planted: list[tuple[str, str]], on_conflict: Conflict
) -> None:
    with world() as here:
        here.plant(planted)
        for offer, meanwhile in rounds:
            receive(here, offer, on_conflict, meanwhile)
