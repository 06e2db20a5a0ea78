"""A tree of many small files, sent by our command and by ``rsync -a`` over ssh, in turn: ``python bench/trees.py``.

Both are measured as users have them: from the start of the command that sends to its end, interpreter, handshake and
all, to a receiver (here ``spaceblock receive``, there sshd) that listens already. CPU seconds are those of all
processes that took part. What we deliver is compared with what was sent, contents, modes and times. rsync trusts the
disk's cache; with ``--fsync`` it flushes what it writes, as we always do.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from peers.ssh import ssh_server
from peers.tool import cpu_of_children, execute, find, needed
from processes import size_of
from spaceblock.cli.bench.pair import SIDE, scratch_folder

COMMAND = (*SIDE[:-2], "-m", "spaceblock")


@dataclass(frozen=True, slots=True)
class Run:
    """One transfer, in seconds."""

    wall: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many; 10000 if not given")
    parser.add_argument("--size", type=size_of, default=4096, help="bytes of each; 4096 if not given")
    parser.add_argument("--pairs", type=int, default=5, help="how often each is run; 5 if not given")
    parser.add_argument("--folder", help="where the files are; in memory if not given and there is room")
    parser.add_argument("--fsync", action="store_true", help="let rsync flush what it writes too")
    parser.add_argument("--json", action="store_true", help="print everything that was measured, as one object")
    arguments = parser.parse_args()
    # What arrives stays until the end: a file system may be slow to use again what was given free just before.
    trees = 2 + 2 * arguments.pairs
    with scratch_folder(arguments.folder, trees * arguments.files * max(arguments.size, 4096)) as folder:
        tree = make_tree(folder / "tree", arguments.files, arguments.size)
        contenders: dict[str, Callable[[Path, Path], Run]] = {"spaceblock": by_spaceblock}
        if all(find(name) for name in ("rsync", "ssh", "sshd", "ssh-keygen")):
            contenders["rsync -a over ssh"] = lambda tree, place: by_rsync(tree, place, fsync=arguments.fsync)
        else:
            print("rsync, ssh and sshd are not all installed: only our own side is measured", file=sys.stderr)
        runs: dict[str, list[Run]] = {name: [] for name in contenders}
        compile_modules(folder)
        for number in range(arguments.pairs):
            for name in sorted(contenders, reverse=number % 2 == 1):
                place = Path(tempfile.mkdtemp(dir=folder))
                runs[name].append(contenders[name](tree, place))
                if number == 0 and name == "spaceblock":
                    check_same(tree, place / "received" / "tree")
    if arguments.json:
        measured = {name: [asdict(run) for run in mine] for name, mine in runs.items()}
        print(json.dumps({"files": arguments.files, "size": arguments.size, "runs": measured}))
    else:
        report(runs, arguments.files, arguments.size)
    return 0


def make_tree(top: Path, files: int, size: int) -> Path:
    """``files`` files of ``size`` random bytes in folders of a hundred."""
    source = random.Random(0)
    for number in range(files):
        path = top / f"{number // 100:04}" / f"{number:07}.bin"
        if number % 100 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(source.randbytes(size))
    os.sync()
    return top


def compile_modules(folder: Path) -> None:
    """Have our modules compiled before the clock starts, as they are wherever Spaceblock is installed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(folder / "modules"))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "file").write_bytes(b"anything")
        by_spaceblock(Path(place) / "file", Path(place))


def by_spaceblock(tree: Path, place: Path) -> Run:
    """Our two commands."""
    target = place / "received"
    target.mkdir()
    before = cpu_of_children()
    words = ["receive", "--listen", "127.0.0.1:0", "--dir", str(target), "--yes", "--once", "--quiet"]
    with _homes(place) as (here, there):
        receiver = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True, env=there)
        try:
            assert receiver.stdout is not None
            ticket = receiver.stdout.readline().strip()
            began = time.monotonic()
            subprocess.run([*COMMAND, "send", "--quiet", "--to", ticket, str(tree)], env=here, check=True)
            wall = time.monotonic() - began
            if receiver.wait(60):
                raise RuntimeError(f"receiving ended with {receiver.returncode}")
        finally:
            receiver.kill()
            receiver.wait()
            if receiver.stdout is not None:
                receiver.stdout.close()
    return Run(wall, cpu_of_children() - before)


def by_rsync(tree: Path, place: Path, *, fsync: bool) -> Run:
    """``rsync -a`` to an sshd of our own."""
    (place / "received").mkdir()
    before = cpu_of_children()
    with ssh_server(place) as options:
        shell = " ".join([needed("ssh"), *options])
        target = f"{getpass.getuser()}@127.0.0.1:{place / 'received'}"
        flush: Sequence[str] = ["--fsync"] if fsync else []
        command = [needed("rsync"), "-a", *flush, "-e", shell, f"--rsync-path={needed('rsync')}", str(tree), target]
        began = time.monotonic()
        execute(command, place)
        wall = time.monotonic() - began
    return Run(wall, cpu_of_children() - before)


def check_same(tree: Path, copy: Path) -> None:
    """Raise unless both have the same names, contents, modes and times."""
    for here, there in zip(_walk(tree), _walk(copy), strict=True):
        status, other = here.stat(), there.stat()
        same = (here.relative_to(tree), status.st_mode, status.st_mtime_ns) == (
            there.relative_to(copy),
            other.st_mode,
            other.st_mtime_ns,
        )
        if not same or (here.is_file() and here.read_bytes() != there.read_bytes()):
            raise RuntimeError(f"{there} is not what was sent: {status} is now {other}")


def report(runs: dict[str, list[Run]], files: int, size: int) -> None:
    """Medians and spreads, and the ratio of each pair's times."""
    print(f"{files} files of {size} bytes, {len(next(iter(runs.values())))} runs each")
    for name, mine in runs.items():
        walls = sorted(run.wall for run in mine)
        print(
            f"{name:<20} {median(walls):6.2f} s ({walls[0]:.2f} - {walls[-1]:.2f}), "
            f"{files / median(walls):8.0f} files/s, {median(run.cpu for run in mine):5.2f} CPU s"
        )
    if len(runs) == 2:
        ours, theirs = runs.values()
        ratios = sorted(other.wall / mine.wall for mine, other in zip(ours, theirs, strict=True))
        print(f"{'ratio':<20} {median(ratios):6.2f}   ({ratios[0]:.2f} - {ratios[-1]:.2f})")


def _walk(top: Path) -> list[Path]:
    return sorted([top, *top.rglob("*")])


@contextmanager
def _homes(place: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The environments of two users."""
    folders = [place / "here", place / "there"]
    try:
        here, there = ({**os.environ, "SPACEBLOCK_HOME": str(folder)} for folder in folders)
        yield here, there
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
