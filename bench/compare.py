"""Spaceblock against whatever else is installed here: throughput, CPU seconds for each GiB, and ratios.

``python bench/compare.py`` moves bytes from memory to memory and from file to file, all contenders in turn, round
after round, and compares within each round, so that what disturbs the machine for a while disturbs everybody. Nobody
has to be installed; who is missing is named at the end. Whatever arrived is compared with what was sent. Only
Spaceblock and bare aioquic hash while the clock runs (and sendme, croc and rsync, as they always do).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import bare_aioquic
from peers.certificate import write_certificate
from peers.contender import Contender, NotInstalled, Ours, Result, Script, Task
from peers.croc import Croc
from peers.roofline import Roofline
from peers.sendme import Sendme
from peers.ssh import Rsync, Scp
from peers.wormhole import Wormhole
from processes import print_table, size_of, spread
from spaceblock.cli.bench.measure import GIB, MIB
from spaceblock.cli.bench.pair import KINDS, Kind, cpu_per_gib, scratch_folder, write_source

FOREIGN = Path(__file__).parent / "foreign"
"""Scripts that run in the peers' interpreter."""

TITLES = {"memory": "From memory to memory", "file": "From file to file"}
BASELINES: dict[Kind, Sequence[str]] = {"memory": ("quic-portal", "bare aioquic"), "file": ("roofline",)}
"""What the others' throughput is divided by."""

Rounds = dict[str, list[Result | None]]
"""For each contender what each round gave; None where it failed."""


def contenders(roofline: str | None) -> list[Contender]:
    """All that there are, in the order in which they run."""
    return [
        Ours("spaceblock, evp", "native", "evp"),
        Ours("spaceblock, ipsec-mb", "native", "ipsec-mb"),
        Script("quic-portal", FOREIGN / "portal.py", "quic_portal", lambda task: [], slow=False),
        Roofline(roofline),
        Script("bare aioquic", bare_aioquic.SCRIPT, None, lambda task: [], slow=True),
        Script("bare aioquic, in batches", bare_aioquic.SCRIPT, None, lambda task: ["--batch", "64"], slow=True),
        Ours("spaceblock, aioquic", "aioquic", None),
        Script("qh3", FOREIGN / "qh3_stream.py", "qh3", qh3_words, slow=True),
        *[Scp(), Rsync(), Croc(), Sendme(), Wormhole()],
    ]


def qh3_words(task: Task) -> list[str]:
    return ["--datagram", str(task.datagram), "--certificate", str(task.folder)]


def installed(candidates: Sequence[Contender], python: str) -> tuple[list[Contender], dict[str, str]]:
    """Who can run, and why the others cannot."""
    found, missing = [], {}
    for contender in candidates:
        try:
            contender.prepare(python)
        except NotInstalled as error:
            missing[contender.name] = str(error)
        else:
            found.append(contender)
    return found, missing


def measure(kind: Kind, found: Sequence[Contender], tasks: dict[bool, Task], rounds: int) -> Rounds:
    """All contenders in turn, again and again; ``tasks`` has one for those that are slow and one for the others."""
    chosen = [contender for contender in found if kind in contender.kinds]
    results: Rounds = {contender.name: [] for contender in chosen}
    for number in range(1, rounds + 1):
        for contender in chosen:
            task = tasks[contender.slow]
            try:
                result = contender.run(task)
            except Exception as error:
                tell(f"{kind} {number}/{rounds}  {contender.name} failed: {error}")
                results[contender.name].append(None)
                continue
            tell(f"{kind} {number}/{rounds}  {contender.name}: {task.size / result.seconds / 1e6:.0f} MB/s")
            results[contender.name].append(result)
    return results


def ratios(results: Rounds, sizes: dict[str, int], name: str, baseline: str) -> list[float]:
    """For each round that both finished, the throughput of ``name`` in that of ``baseline``."""
    return [
        (sizes[name] / ours.seconds) / (sizes[baseline] / theirs.seconds)
        for ours, theirs in zip(results[name], results[baseline], strict=True)
        if ours is not None and theirs is not None
    ]


def show(kind: Kind, results: Rounds, sizes: dict[str, int]) -> None:
    """A table of medians, each with the least and the greatest round."""
    baselines = [name for name in BASELINES[kind] if any(results.get(name, []))]
    rows = []
    for name, rounds in results.items():
        done, size = [result for result in rounds if result is not None], sizes[name]
        if not done:
            rows.append([name, "failed", *[""] * (4 + len(baselines))])
            continue
        failed = len(rounds) - len(done)
        row = [f"{name} ({failed} failed)" if failed else name]
        row.append(spread([size / result.seconds / 1e6 for result in done], 0))
        row.append(spread([cpu_per_gib(result.cpu, size) for result in done], 2))
        for sides in ([result.receiver for result in done], [result.sender for result in done]):
            known = [cpu_per_gib(seconds, size) for seconds in sides if seconds is not None]
            row.append(f"{median(known):.2f}" if known else "")
        row.append(str(size // MIB))
        for baseline in baselines:
            found = ratios(results, sizes, name, baseline)
            row.append("1" if name == baseline else spread(found, 2) if found else "")
        rows.append(row)
    print(f"\n{TITLES[kind]}, median (least - greatest); CPU in seconds for each GiB\n")
    print_table(["", "MB/s", "CPU", "receiver", "sender", "MiB", *(f"to {name}" for name in baselines)], rows)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=GIB, help="bytes of each transfer, such as 1GiB")
    parser.add_argument("--slow-size", type=size_of, default=64 * MIB, help="the same for aioquic and the like")
    parser.add_argument("--pairs", type=int, default=7, help="rounds, each of all contenders")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what to move from and to")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="contenders whose name contains one of these")
    parser.add_argument("--datagram", type=int, default=1452, help="bytes of a datagram, of those that let one choose")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers in Python")
    parser.add_argument("--roofline", metavar="PATH", help="called as PATH SOURCE TARGET --datagram N --runs 1")
    parser.add_argument("--folder", help="where the files go; in memory by default, if there is room for that")
    parser.add_argument("--json", action="store_true", help="print everything that was measured, as one object")
    arguments = parser.parse_args()
    words = arguments.only or [""]
    candidates = [each for each in contenders(arguments.roofline) if any(word in each.name for word in words)]
    found, missing = installed(candidates, arguments.python)
    sizes = {each.name: min(arguments.size, arguments.slow_size) if each.slow else arguments.size for each in found}
    measured: dict[str, Rounds] = {}
    with scratch_folder(arguments.folder, 3 * arguments.size) as folder:
        write_certificate(folder)
        for kind in arguments.kinds:
            tasks = {}
            for slow in (False, True):
                size = min(arguments.size, arguments.slow_size) if slow else arguments.size
                place = folder if kind == "memory" else folder / str(size)
                tasks[slow] = Task(kind, size, place, arguments.datagram, arguments.python)
                if not place.exists():
                    place.mkdir()
                    write_source(place, size)
            measured[kind] = measure(kind, found, tasks, arguments.pairs)
    if arguments.json:
        runs = {
            kind: {name: [each and asdict(each) for each in rounds] for name, rounds in results.items()}
            for kind, results in measured.items()
        }
        print(json.dumps({"sizes": sizes, "datagram": arguments.datagram, "missing": missing, "runs": runs}))
        return
    for kind in arguments.kinds:
        show(kind, measured[kind], sizes)
    if missing:
        print("\nNot measured:", *(f"- {name}: {why}" for name, why in missing.items()), sep="\n")


if __name__ == "__main__":
    main()
