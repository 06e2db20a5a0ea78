"""Build the wheel for this Python, and try it as whoever installs it gets it: ``make wheel``.

The source archive is built first and the wheel from that, so what is missing from the archive is missed. The wheel is
repaired (``repair_wheel.py``) and installed into an empty environment with no compiler on the path; then the archive's
tests run against it, beside no sources. A wheel of Python alone is built as well, and tried by sending through it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "wheel"
COMPILERS = re.compile(
    r"(.*-)?(cc|c\+\+|c[89]9|cpp|gcc|g\+\+|clang|clang\+\+|ld|as|tcc|cython|cythonize)(-[0-9.]+)?|pkg-config"
)
"""Programs that an empty machine does not have."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheel for this Python and run the tests against it.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the archive and the wheels go")
    parser.add_argument("tests", nargs="*", help="what pytest is given; everything if not named")
    chosen = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)

    archive, wheel = build(WORK / "built")
    wheel = repaired(wheel, chosen.out)
    suite = unpacked_tests(archive)
    say(f"{wheel.name}: installed without a compiler, and tested without sources")
    python = environment("native", [f"{wheel}", "--group", f"{suite}/pyproject.toml:test"])
    where = run([python, "-c", "import spaceblock; print(spaceblock.__file__)"], suite, capture=True)
    assert "site-packages" in where, f"the tests would run against {where}"
    run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *chosen.tests], suite)

    pure = build_pure(archive, WORK / "pure")
    say(f"{pure.name}: the fallback, which says once that it is one")
    try_fallback(environment("pure", [f"{pure}"]))
    for built in (archive, pure):
        shutil.copy(built, chosen.out)
    say(f"all is well; {chosen.out} has the archive and both wheels")


def build(folder: Path) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it alone."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], ROOT)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return archive, wheel


def build_pure(archive: Path, folder: Path) -> Path:
    """The wheel that has nothing compiled in it and is for every system."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(archive)]
    run(command, WORK, SPACEBLOCK_NO_EXTENSION="1")
    (wheel,) = folder.glob("*-py3-none-any.whl")
    return wheel


def repaired(wheel: Path, folder: Path) -> Path:
    """The wheel with the libraries that it links to in it; elsewhere than on Linux, where none are, the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux":
        return Path(shutil.copy(wheel, folder))
    run([sys.executable, str(ROOT / "tools" / "repair_wheel.py"), str(WORK / "repaired"), str(wheel)], WORK)
    (found,) = (WORK / "repaired").glob("*.whl")
    return Path(shutil.copy(found, folder))


def unpacked_tests(archive: Path) -> Path:
    """The archive's contents without its sources."""
    shutil.unpack_archive(archive, WORK)
    (suite,) = (path for path in WORK.glob("spaceblock-*") if path.is_dir())
    shutil.rmtree(suite / "src")
    (suite / "setup.py").unlink()
    return suite


def environment(name: str, wanted: list[str]) -> str:
    """The Python of a new environment with ``wanted`` installed, from wheels alone; the path has no compiler on it."""
    folder = WORK / name
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    run([python, "-m", "pip", "install", "-q", "--upgrade", "pip>=25.1"], WORK)
    run([python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *wanted], WORK)
    return python


def path_without_compilers() -> str:
    """A path to everything that this one leads to, but compilers and what belongs to them."""
    folder = WORK / "bin"
    if not folder.exists():
        folder.mkdir()
        for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
            for program in Path(place).glob("*"):
                if not COMPILERS.fullmatch(program.name) and not (folder / program.name).exists():
                    (folder / program.name).symlink_to(program)
    assert shutil.which("cc", path=str(folder)) is None
    return str(folder)


def try_fallback(python: str) -> None:
    """Send twice with nothing compiled: it works, and is told of once."""
    done = subprocess.run(
        [python, str(ROOT / "tests" / "round_trip.py")], cwd=WORK, env=surroundings(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" python\n"), done.stdout
    told = done.stderr.splitlines()
    assert len(told) == 1, told
    assert told[0].startswith("the native engine is not part of this build"), told
    print(told[0])


def surroundings() -> dict[str, str]:
    """The environment of a machine where nobody develops anything."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPACEBLOCK_"))}
    return {**kept, "SPACEBLOCK_HOME": str(WORK / "home"), "PATH": path_without_compilers()}


def run(command: list[str], folder: Path, capture: bool = False, **environ: str) -> str:
    """Run a command; what compiles gets the path as it is."""
    builds = "build" in command or "wheel" in command
    env = {**os.environ, **environ} if builds else surroundings()
    done = subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}")
    return done.stdout or ""


def say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    main()
