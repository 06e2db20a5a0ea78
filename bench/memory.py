"""How much anonymous memory each side of a transfer takes beyond what its process had before.

``python bench/memory.py`` sends a sparse file of 2 GiB into a folder, in two processes. Anonymous memory (RssAnon) is
what a process holds for itself: pages of files and of the page cache are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import ours
from processes import MIB, Report, print_table, run_pair, scratch_folder, size_of


def measure(size: int, folder: Path) -> tuple[Report, Report]:
    """The receiver's and the sender's report of one transfer of ``size`` bytes."""
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        os.truncate(file.fileno(), size)
    target.mkdir()
    return run_pair(
        ours.SCRIPT,
        ["receive", "--folder", str(target), "--interval", "0.25", "--memory"],
        ["send", "--file", str(source), "--memory"],
        timeout=3600.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=2048 * MIB, help="bytes to move, such as 2GiB")
    parser.add_argument("--folder", help="where the files go; in memory by default, if there is room for that")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with scratch_folder(arguments.folder, arguments.size) as folder:
        receiver, sender = measure(arguments.size, folder)
    if arguments.json:
        print(json.dumps({"size": arguments.size, "receiver": receiver, "sender": sender}))
        return
    rows = []
    for name, report in (("receiver", receiver), ("sender", sender)):
        before, peak = report["rss_before"], report["rss_peak"]
        rows.append([name, f"{before / MIB:.1f}", f"{peak / MIB:.1f}", f"{(peak - before) / MIB:.1f}"])
    print(f"{arguments.size // MIB} MiB from file to file; RssAnon in MiB\n")
    print_table(["", "before", "greatest", "difference"], rows)


if __name__ == "__main__":
    main()
