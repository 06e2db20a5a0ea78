"""What a file system accepts as a name: asked of the real one, and of others as their drivers answer."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spaceblock.names import local_rules
from spaceblock.storage import probe
from spaceblock.storage.probe import rules_of
from spaceblock.wire.messages import NameUnit


@pytest.fixture
def own(tmp_path: Path) -> Iterator[int]:
    """An empty folder of our own."""
    path = tmp_path / "own"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)
    assert list(path.iterdir()) == [], "what was tried is gone again"


def test_the_real_file_system_is_asked(own: int, tmp_path: Path) -> None:
    rules = rules_of(own, own, str(tmp_path))
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    assert rules.name_limit == longest
    name = "e" * longest
    assert rules.fault(name) is None
    (tmp_path / name).touch()
    assert rules.fault(name + "e") is not None
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / (name + "e")).touch()
    assert caught.value.errno == errno.ENAMETOOLONG
    (tmp_path / "a").touch()
    assert rules.ignores_case == (tmp_path / "A").exists()


def test_the_longest_path_is_one_that_can_be_opened(own: int, tmp_path: Path) -> None:
    rules = rules_of(own, own, str(tmp_path))
    parents = ("y" * 199 + "/") * ((rules.path_limit - 1) // 200)
    longest = parents + "z" * (rules.path_limit - len(parents))
    assert rules.fault(longest) is None
    assert rules.fault(longest + "z") is not None
    with pytest.raises(FileNotFoundError):
        os.stat(tmp_path / longest)  # short enough to be looked for
    with pytest.raises(OSError, match="too long"):
        os.stat(tmp_path / (longest + "z"))


@dataclass
class Driver:
    """A file system of another system, in memory: what it refuses and which names it takes for the same."""

    refuses: Callable[[str], int | None]
    key: Callable[[str], str]
    files: set[str] = field(default_factory=set)

    def create(self, own: int, name: str) -> int | None:
        failure = self.refuses(name)
        if failure is None:
            self.files.add(self.key(name))
        return failure

    def exists(self, own: int, name: str) -> bool:
        return self.key(name) in self.files

    def remove(self, own: int, name: str) -> None:
        self.files.remove(self.key(name))


def longer_than(limit: int, length: Callable[[str], int]) -> Callable[[str], int | None]:
    return lambda name: errno.ENAMETOOLONG if length(name) > limit else None


def utf16(name: str) -> int:
    return len(name.encode("utf-16-le")) // 2


def vfat(name: str) -> int | None:
    return errno.EINVAL if any(ch in '<>:"|?*' for ch in name) else longer_than(255, utf16)(name)


DRIVERS = {
    "vfat": (Driver(vfat, lambda name: name.rstrip(". ").lower()), NameUnit.UTF16, True, True),
    "apfs": (
        Driver(longer_than(255, len), lambda name: unicodedata.normalize("NFD", name).casefold()),
        NameUnit.CODE_POINTS,
        True,
        False,
    ),
    "hfs+": (
        Driver(longer_than(255, utf16), lambda name: unicodedata.normalize("NFD", name)),
        NameUnit.UTF16,
        True,
        False,
    ),
    "ext4": (Driver(longer_than(255, lambda name: len(name.encode())), str), NameUnit.BYTES, False, False),
    "casefold": (
        Driver(longer_than(255, lambda name: len(name.encode())), lambda name: name.casefold()),
        NameUnit.BYTES,
        True,
        False,
    ),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_each_kind_of_file_system_shows_what_it_is(name: str, own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, unit, ignores_case, follows_windows = DRIVERS[name]
    monkeypatch.setattr(probe, "_create", driver.create)
    monkeypatch.setattr(probe, "_exists", driver.exists)
    monkeypatch.setattr(probe, "_remove", driver.remove)
    monkeypatch.setattr(probe, "_limit", lambda _, which: 255 if which == "PC_NAME_MAX" else 4096)
    rules = rules_of(own, own, "/mnt/disk")
    assert (rules.name_limit, rules.path_limit) == (255, 4096 - len("/mnt/disk/") - 1)
    assert (rules.name_unit, rules.ignores_case, rules.follows_windows) == (unit, ignores_case, follows_windows)
    assert driver.files == set()


def test_where_nothing_can_be_tried_the_system_is_believed(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_create", lambda *_: errno.ENOSPC)
    monkeypatch.setattr(probe, "_limit", lambda *_: 0)
    assert rules_of(own, own, "/mnt/disk") == local_rules()
