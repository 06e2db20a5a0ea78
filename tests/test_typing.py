"""What type checkers see: every public name has a known type, programs pass them, and mistakes do not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from examples.pages import programs_on

ROOT = Path(__file__).parents[1]

needs_pyright = pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed (group lint)")
needs_mypy = pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed (group lint)")

GOOD = """
import asyncio
from typing import assert_type

import spaceblock
from rich.progress import Progress as Bars


def show(progress: spaceblock.Progress) -> None:
    assert_type(progress.bytes_total, int | None)


async def ask(item: spaceblock.OfferItem, problem: spaceblock.BadName) -> str | None:
    return problem.proposal


async def main(ticket: str) -> None:
    options = spaceblock.Options(engine="native", trust=["peer"], reports=spaceblock.Reports(interval=1.0))
    async with spaceblock.connect(ticket, options=options) as peer:
        assert_type(peer, spaceblock.Peer)
        transfer = peer.send("a.bin", spaceblock.Item(b"", range=(0, 1)), rename=ask, progress=show)
        assert_type(transfer, spaceblock.Transfer)
        async for progress in transfer:
            assert_type(progress, spaceblock.Progress)
        receipt = await transfer
        assert_type(receipt, spaceblock.Receipt)
        assert_type(receipt.items[0].digest, str)
    async with spaceblock.listen() as listener:
        assert_type(listener.invite(2), list[str])
        async for offer in listener:
            assert_type(await offer.accept("downloads", on_conflict="skip", progress=Bars), spaceblock.Receipt)
        async for peer in listener.peers():
            async for offer in peer.offers():
                await offer.decline("no")


def blocking(ticket: str) -> None:
    with Bars() as bars:
        assert_type(spaceblock.sync.send(ticket, "a.bin", progress=bars), spaceblock.Receipt)
    try:
        assert_type(spaceblock.sync.receive("downloads", on_ticket=print, progress=show), spaceblock.Receipt)
    except spaceblock.SpaceblockError as error:
        assert_type(error.code, str)
        assert_type(error.receipt, spaceblock.Receipt | None)


asyncio.run(main(""))
"""
BAD = """
import spaceblock


async def main() -> None:
    spaceblock.Options(engine="fast")
    async with spaceblock.connect(7) as peer:
        peer.send("a", links="follow")
        peer.send("a", progress="bar")
    async with spaceblock.listen() as listener:
        async for offer in listener:
            await offer.accept("in", on_conflict="ask")
            offer.total_size + 1
    spaceblock.sync.send("ticket", "a.bin").digest
"""
MISTAKES = 7


def strict_folder(folder: Path) -> None:
    """Have pyright be strict with what is in ``folder``, and read Spaceblock as an installed library."""
    settings = {"typeCheckingMode": "strict", "include": ["."]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))


def pyright(folder: Path, *arguments: str) -> dict[str, object]:
    """What pyright says of the programs in ``folder``; where packages are it asks the ``python`` that is on PATH."""
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def complaints(folder: Path) -> list[str]:
    """Pyright's errors for the programs in ``folder``, checked strictly."""
    strict_folder(folder)
    found = pyright(folder)["generalDiagnostics"]
    assert isinstance(found, list)
    return [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in found
        if each["severity"] == "error"
    ]


@needs_pyright
def test_pyright_knows_the_type_of_everything_that_is_exported(tmp_path: Path) -> None:
    report = pyright(tmp_path, "--verifytypes", "spaceblock", "--ignoreexternal")["typeCompleteness"]
    assert isinstance(report, dict)
    unknown = [
        f"{symbol['name']}: {'; '.join(each['message'] for each in symbol['diagnostics'])}"
        for symbol in report["symbols"]
        if symbol["isExported"] and symbol["diagnostics"] and (symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    ]
    assert unknown == []
    assert report["completenessScore"] == 1


@needs_pyright
def test_pyright_takes_a_program_strictly(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(GOOD)
    assert complaints(tmp_path) == []


@needs_pyright
def test_pyright_takes_every_example_strictly(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)):
        (tmp_path / f"readme_{number}.py").write_text(f'ticket = ""\n{block}')
    for page in sorted((ROOT / "docs").rglob("*.md")):
        folder = tmp_path / re.sub(r"\W", "_", page.stem)
        for name, program in programs_on(page.relative_to(ROOT).as_posix()).items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(program)
    assert {"readme_2.py", "quick_start", "shared_memory"} <= {path.name for path in tmp_path.iterdir()}
    assert complaints(tmp_path) == []


@needs_pyright
def test_pyright_finds_mistakes(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(BAD)
    lines = {found.split(":")[1] for found in complaints(tmp_path)}
    assert len(lines) == MISTAKES, lines


def mypy(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What mypy says of ``program``, as strictly as it can."""
    (folder / "program.py").write_text(program)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    cache = ROOT / ".mypy_cache" / "programs"
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@needs_mypy
def test_mypy_takes_a_program_strictly(tmp_path: Path) -> None:
    done = mypy(GOOD, tmp_path)
    assert done.returncode == 0, done.stdout


@needs_mypy
def test_mypy_finds_mistakes(tmp_path: Path) -> None:
    done = mypy(BAD, tmp_path)
    assert f"Found {MISTAKES} errors" in done.stdout, done.stdout
