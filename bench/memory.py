"""How much anonymous memory each side of a transfer takes beyond what its process had before.

``python bench/memory.py`` sends sparse files of 1 GiB and of 8 GiB into a folder, each in two processes. Anonymous
memory (RssAnon) is what a process holds for itself: pages of files and of the page cache are not in it, so it does not
matter where the files lie.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import ours
from processes import print_table, run_script, size_of
from spaceblock.cli.bench.measure import GIB, MIB
from spaceblock.cli.bench.pair import Pair, scratch_folder


def measure(size: int, folder: Path, words: list[str]) -> Pair:
    """One transfer of ``size`` bytes, looked at by both sides."""
    source = folder / "source"
    with source.open("wb") as file:
        os.truncate(file.fileno(), size)
    with TemporaryDirectory(dir=folder) as target:
        return run_script(
            ours.SCRIPT,
            ["receive", "--folder", target, "--memory", *words],
            ["send", "--file", str(source), "--memory", *words],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, nargs="+", default=[GIB, 8 * GIB], help="bytes to move, such as 2GiB")
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine")
    parser.add_argument("--folder", help="where the files go; in memory by default, if there is room for that")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each size")
    arguments = parser.parse_args()
    words = ["--engine", arguments.engine] if arguments.engine else []
    rows = []
    for size in arguments.size:
        with scratch_folder(arguments.folder, size) as folder:
            pair = measure(size, folder, words)
        if arguments.json:
            print(json.dumps({"size": size, "receiver": pair.receiver, "sender": pair.sender}), flush=True)
        for name, report in (("receiver", pair.receiver), ("sender", pair.sender)):
            before, peak = report["rss_before"], report["rss_peak"]
            row = [f"{size // MIB} MiB, {name}", f"{before / MIB:.1f}", f"{peak / MIB:.1f}"]
            rows.append([*row, f"{(peak - before) / MIB:.1f}"])
    if not arguments.json:
        print("From file to file; RssAnon in MiB\n")
        print_table(["", "before", "greatest", "difference"], rows)


if __name__ == "__main__":
    main()
