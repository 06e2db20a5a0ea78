"""A tree through pipes, ``tar c | spaceblock send - ... receive --dir - | tar x``, against the same bytes from a file.

``python bench/pipes.py`` packs a tree once. Then, round after round, that archive goes from file to file, the tree
through two pipelines of tar, and the tree once more in three steps: packed into a file, sent, and unpacked. A way's
time is that of the sender's own receipt, from the offer to the receiver's verdict, and for the steps that of tar beside
it. What was unpacked is compared with what was packed.

Where all cores are busy the pipes cannot be as fast as the file alone, as both tars then work while the bytes move; the
CPU seconds of our two processes tell what the pipes cost them. With ``--spare-core`` both processes of ours share one
core, whatever moves the bytes, and tar has the others: so much of a machine as a transfer leaves to it on a network.

On a disk the file is durable when its transfer ends, and what tar unpacked is not: it flushes nothing.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from processes import print_table, size_of, spread
from spaceblock.cli.bench.measure import MIB, content
from spaceblock.cli.bench.pair import cpu_per_gib, scratch_folder, warm_pages

SPACEBLOCK = (sys.executable, "-m", "spaceblock")
LOCAL = ("--listen", "127.0.0.1:0", "--json")
PACK = ["tar", "c", "tree"]
UNPACK = ["tar", "x"]


class Measured(NamedTuple):
    """One transfer: its seconds, and the CPU seconds of both our processes from their start to their end."""

    seconds: float
    cpu: float


@dataclass(slots=True)
class Place:
    """Where everything is, and the cores that our processes may use; None: all."""

    folder: Path
    cores: set[int] | None = None

    @property
    def target(self) -> Path:
        """Where bytes arrive."""
        return self.folder / "target"


def write_tree(folder: Path, size: int, file_size: int) -> None:
    """A tree of ``size`` bytes in files of ``file_size``, thirty-two to a folder."""
    data = content(size)
    for number, start in enumerate(range(0, size, file_size)):
        place = folder / "tree" / f"part-{number // 32}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file-{number}").write_bytes(data[start : start + file_size])


def start(place: Place, words: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    """One side of ours, with an identity of its own."""
    environment = {**os.environ, "SPACEBLOCK_HOME": str(place.folder / words[0])}
    process = subprocess.Popen([*SPACEBLOCK, *words], env=environment, stderr=subprocess.DEVNULL, **streams)
    if place.cores is not None:
        os.sched_setaffinity(process.pid, place.cores)
    return process


def through_pipes(place: Place) -> Measured:
    """The tree from tar to tar."""
    with ExitStack() as running:
        pack = running.enter_context(subprocess.Popen(PACK, cwd=place.folder, stdout=subprocess.PIPE))
        sender = running.enter_context(start(place, ["send", "-", *LOCAL], stdin=pack.stdout, stdout=subprocess.PIPE))
        close(pack.stdout)
        words = ["receive", ticket_of(sender), "--yes", "--dir", "-"]
        receiver = running.enter_context(start(place, words, stdout=subprocess.PIPE))
        unpack = running.enter_context(subprocess.Popen(UNPACK, cwd=place.target, stdin=receiver.stdout))
        close(receiver.stdout)
        measured = finish(sender, receiver)
        if pack.wait() or unpack.wait():
            raise SystemExit("tar failed")
        return measured


def from_file(place: Place) -> Measured:
    """The packed tree from file to file."""
    with ExitStack() as running:
        words = ["send", str(place.folder / "tree.tar"), *LOCAL]
        sender = running.enter_context(start(place, words, stdout=subprocess.PIPE))
        words = ["receive", ticket_of(sender), "--yes", "--dir", str(place.target)]
        receiver = running.enter_context(start(place, words, stdout=subprocess.DEVNULL))
        return finish(sender, receiver)


def in_three_steps(place: Place) -> Measured:
    """The tree, packed into a file, sent and unpacked."""
    began = time.monotonic()
    subprocess.run([*PACK, "-f", "tree.tar"], cwd=place.folder, check=True)
    packed = time.monotonic() - began
    sent = from_file(place)
    began = time.monotonic()
    with (place.target / "tree.tar").open("rb") as archive:
        subprocess.run(UNPACK, cwd=place.target, stdin=archive, check=True)
    return Measured(packed + sent.seconds + time.monotonic() - began, sent.cpu)


WAYS = {"from file to file": from_file, "tar c | ... | tar x": through_pipes, "tar, send, tar": in_three_steps}


def ticket_of(sender: subprocess.Popen[bytes]) -> str:
    """What the sender printed for the receiver."""
    assert sender.stdout is not None
    return str(json.loads(sender.stdout.readline())["ticket"])


def finish(*sides: subprocess.Popen[bytes]) -> Measured:
    """Wait for both sides of ours, the sender first; raises where one failed."""
    assert sides[0].stdout is not None
    last = json.loads(sides[0].stdout.readlines()[-1])
    cpu = 0.0
    for side in sides:
        _, status, usage = os.wait4(side.pid, 0)
        side.returncode = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
    if any(side.returncode for side in sides):
        raise SystemExit(f"a transfer failed: {last}")
    return Measured(float(last["seconds"]), cpu)


def close(pipe: IO[bytes] | None) -> None:
    """Leave a pipe to the programs at its ends."""
    assert pipe is not None
    pipe.close()


def arrived(place: Place) -> bool:
    """Whether the target has the tree, or the archive of it, with the same names and bytes."""
    folder, target = place.folder, place.target
    if not (target / "tree").exists():
        return filecmp.cmp(folder / "tree.tar", target / "tree.tar", shallow=False)
    one, other = folder / "tree", target / "tree"
    names = sorted(path.relative_to(one) for path in one.rglob("*"))
    if names != sorted(path.relative_to(other) for path in other.rglob("*")):
        return False
    return all((one / name).is_dir() or filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=512 * MIB, help="bytes of the tree, such as 64MiB")
    parser.add_argument("--file-size", type=size_of, default=4 * MIB, help="bytes of each of its files")
    parser.add_argument("--pairs", type=int, default=7, help="rounds, each of all ways")
    parser.add_argument(
        "--folder", "--dir", help="where the files go, such as one on a disk; in memory if not given and there is room"
    )
    parser.add_argument("--spare-core", action="store_true", help="our processes share one core; tar has the others")
    parser.add_argument("--json", action="store_true", help="print what was measured, as one object")
    arguments = parser.parse_args()
    measured: dict[str, list[Measured]] = {name: [] for name in WAYS}
    with scratch_folder(arguments.folder, 5 * arguments.size) as folder:
        write_tree(folder, arguments.size, arguments.file_size)
        subprocess.run([*PACK, "-f", "tree.tar"], cwd=folder, check=True)
        size = (folder / "tree.tar").stat().st_size
        place = Place(folder, {0} if arguments.spare_core else None)
        for number in range(1, arguments.pairs + 1):
            for name, move in WAYS.items():
                warm_pages(folder, 2 * size)
                os.sync()  # what was written before is not charged to this transfer
                place.target.mkdir()
                found = move(place)
                if not arrived(place):
                    raise SystemExit("what arrived is not what was sent")
                shutil.rmtree(place.target)
                measured[name].append(found)
                print(f"{number}/{arguments.pairs}  {name}: {size / found.seconds / 1e6:.0f} MB/s", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"size": size, "ways": {name: [each._asdict() for each in measured[name]] for name in WAYS}}))
    else:
        show(measured, size)


def show(measured: dict[str, list[Measured]], size: int) -> None:
    """A table of medians, each with the least and the greatest round; ratios are those within a round."""
    base = measured["from file to file"]
    rows = []
    for name, found in measured.items():
        ratios = [one.seconds / other.seconds for one, other in zip(base, found, strict=True)]
        cpu = [cpu_per_gib(each.cpu, size) for each in found]
        rows.append([name, spread([size / each.seconds / 1e6 for each in found], 0), spread(ratios, 2), spread(cpu, 2)])
    print_table(["", "MB/s", "to the file", "our CPU s/GiB"], rows)


if __name__ == "__main__":
    main()
