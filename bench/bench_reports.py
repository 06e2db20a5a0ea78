"""What progress reports cost, and how far they let the sender's figure lie behind the receiver's.

For each way of reporting, ``python bench/bench_reports.py`` moves a buffer between two processes that both note their
own ``bytes_done`` again and again on the clock that they share. Afterwards both are laid side by side: the gap at a
moment is the receiver's figure less the sender's, and the greatest one is what a user could see at worst.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import NamedTuple

import ours
from processes import print_table, run_script, size_of
from spaceblock.cli.bench.measure import MIB, Report

WAYS: dict[str, list[str]] = {
    "never": ["--silent"],
    "4 a second": ["--interval", "0.25"],
    "every 64 blocks": ["--silent", "--blocks", "64"],
    "every 8 blocks": ["--silent", "--blocks", "8"],
    "every block": ["--silent", "--blocks", "1"],
}


class Gap(NamedTuple):
    """Bytes by which the sender's figure lay behind the receiver's."""

    greatest: int
    mean: float
    """Averaged over the time from the receiver's first byte to the sender's last figure."""


def gap_of(receiver: Report, sender: Report) -> Gap:
    """Lay both sides' samples side by side; each figure holds until the next one of its side."""
    marks = [(at, 0, done) for at, done in receiver["samples"]] + [(at, 1, done) for at, done in sender["samples"]]
    figures = [0, 0]
    greatest, area, began, before = 0, 0, 0, 0
    stop = sender["samples"][-1][0]
    for at, side, done in sorted(marks):
        if at > stop:
            break
        gap = abs(figures[0] - figures[1])
        if began:
            area += gap * (at - before)
        figures[side] = done
        began = began or (at if figures[0] else 0)
        greatest = max(greatest, abs(figures[0] - figures[1]))
        before = at
    return Gap(greatest, area / max(stop - began, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=64 * MIB, help="bytes of each transfer, such as 64MiB")
    parser.add_argument("--rounds", type=int, default=5, help="transfers of each way, in turn")
    parser.add_argument("--sample", type=float, default=0.005, help="seconds between two looks at each side's figure")
    parser.add_argument("--json", action="store_true", help="print everything but the samples")
    arguments = parser.parse_args()
    size = ["--size", str(arguments.size)]
    looks = ["--sample", str(arguments.sample)]
    found: dict[str, list[tuple[float, float, Gap]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, reports in WAYS.items():
            pair = run_script(ours.SCRIPT, ["receive", *size, *looks, *reports], ["send", *size, *looks])
            speed = arguments.size / pair.sender["seconds"] / 1e6
            found[way].append((speed, pair.cpu, gap_of(*pair)))
    if arguments.json:
        print(json.dumps({"size": arguments.size, "runs": found}))
        return
    rows = [
        [
            way,
            f"{median(speed for speed, _, _ in runs):.1f}",
            f"{median(seconds for _, seconds, _ in runs):.2f}",
            f"{median(gap.greatest for _, _, gap in runs) / MIB:.2f}",
            f"{max(gap.greatest for _, _, gap in runs) / MIB:.2f}",
            f"{median(gap.mean for _, _, gap in runs) / MIB:.2f}",
        ]
        for way, runs in found.items()
    ]
    print(f"{arguments.size // MIB} MiB, {arguments.rounds} rounds, medians; gaps in MiB\n")
    print_table(["reports", "MB/s", "CPU s", "greatest gap", "worst round", "mean gap"], rows)


if __name__ == "__main__":
    main()
