"""What is given to others: the archive, the wheel without anything compiled, licences, and how wheels are built."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from support import uncounted

ROOT = Path(__file__).parents[1]

needs_sources = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the tests of a wheel have no sources")
needs_builder = pytest.mark.skipif(
    find_spec("setuptools") is None or find_spec("Cython") is None, reason="nothing to build with (group package)"
)
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone of the repository")


def build(folder: Path, *command: str) -> None:
    """Run setup.py with nothing to compile; everything that it makes goes to ``folder``."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(folder), *command],
        cwd=ROOT,
        env={**os.environ, "SPACEBLOCK_NO_EXTENSION": "1"},
        check=True,
        capture_output=True,
    )


@needs_sources
@needs_builder
@needs_git
def test_the_archive_has_what_the_repository_has_and_nothing_that_was_made_from_it(tmp_path: Path) -> None:
    build(tmp_path, "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        files = {name.partition("/")[2] for name in packed.getnames() if packed.getmember(name).isfile()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wanted = {name for name in tracked.splitlines() if Path(name).name != ".gitignore" and (ROOT / name).exists()}
    assert wanted - files == set()
    assert [name for name in files - wanted if re.search(r"\.(so|pyd|pyc|c|o)$|__pycache__|\.venv", name)] == []


@needs_sources
@needs_builder
def test_with_nothing_compiled_it_works_and_says_once_what_is_missing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build(tmp_path, "build", "--build-base", str(tmp_path / "b"), "bdist_wheel", "--dist-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("spaceblock-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert not [name for name in packed.namelist() if re.search(r"\.(so|pyx|pxd|c)$", name)]
        assert "spaceblock/py.typed" in packed.namelist()
        packed.extractall(site)
    kept = {name: value for name, value in uncounted().items() if not name.startswith("SPACEBLOCK_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "round_trip.py")],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(site), "SPACEBLOCK_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(site / "spaceblock" / "__init__.py"), "python"]
    (told,) = done.stderr.splitlines()
    assert re.match(r"the native engine (is not part of this build|needs Python 3\.11)", told)
    assert told.endswith("transfers run on aioquic, more slowly")


@pytest.fixture
def repair() -> ModuleType:
    """The program that puts libraries and their licences into a wheel."""
    spec = importlib.util.spec_from_file_location("repair_wheel", ROOT / "tools" / "repair_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_wheel(path: Path, *libraries: str) -> Path:
    """A wheel as auditwheel leaves it."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a-1.dist-info/METADATA", "Name: a\n")
        packed.writestr("a.libs/", "")
        for library in libraries:
            packed.writestr(f"a.libs/{library}", b"\x7fELF")
        packed.writestr("a-1.dist-info/RECORD", "a-1.dist-info/METADATA,,\na-1.dist-info/RECORD,,\n")
    return path


def test_each_bundled_library_comes_with_its_licence(repair: ModuleType, tmp_path: Path) -> None:
    source = made_wheel(tmp_path / "a.whl", "libcrypto-1a2b.so.3", "libIPSec_MB-3c4d.so.1.3.0")
    repair.with_licences(source, tmp_path / "b.whl")
    with zipfile.ZipFile(tmp_path / "b.whl") as packed:
        record = list(csv.reader(packed.read("a-1.dist-info/RECORD").decode().splitlines()))
        listed = {name: (digest, size) for name, digest, size in record}
        for name, words in (("OpenSSL", b"Apache License"), ("intel-ipsec-mb", b"reproduce the above copyright")):
            path = f"a-1.dist-info/licenses/bundled/{name}.txt"
            text = packed.read(path)
            assert words in text
            digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
            assert listed[path] == (f"sha256={digest}", str(len(text)))
        assert "a.libs/libcrypto-1a2b.so.3" in packed.namelist()


def test_a_library_without_a_known_licence_is_never_given_on(repair: ModuleType, tmp_path: Path) -> None:
    source = made_wheel(tmp_path / "a.whl", "libsecret-1a2b.so.1")
    with pytest.raises(SystemExit, match="no licence is known for libsecret"):
        repair.with_licences(source, tmp_path / "b.whl")


@needs_sources
@pytest.mark.skipif(find_spec("cibuildwheel") is None, reason="cibuildwheel is not installed (group package)")
@pytest.mark.parametrize(
    ("platform", "arch", "suffixes"),
    [
        ("linux", "x86_64", ["manylinux_x86_64", "musllinux_x86_64"]),
        ("linux", "aarch64", ["manylinux_aarch64", "musllinux_aarch64"]),
        ("macos", "arm64", ["macosx_arm64"]),
        ("windows", "AMD64", ["win_amd64"]),
    ],
    ids=str,
)
def test_wheels_are_built_for_every_python_that_counts(platform: str, arch: str, suffixes: list[str]) -> None:
    command = ["-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", arch, str(ROOT)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pythons = ["cp310", "cp311", "cp312", "cp313", "cp314", "cp314t"]
    assert sorted(done.stdout.split()) == sorted(f"{python}-{suffix}" for python in pythons for suffix in suffixes)


@pytest.mark.skipif(not (ROOT / ".github").exists(), reason="the tests of a wheel have no workflows")
def test_workflows_use_exact_commits_and_hold_no_secret() -> None:
    workflows = list((ROOT / ".github" / "workflows").glob("*.yml"))
    assert workflows
    for workflow in workflows:
        text = workflow.read_text()
        used = re.findall(r"uses: (.*)", text)
        assert used
        assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", each)] == []
        assert "secrets." not in text
        assert "permissions:\n  contents: read" in text
