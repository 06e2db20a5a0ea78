"""How much anonymous memory each side of a transfer takes beyond what its process had before.

``python bench/memory.py`` sends 1 GiB and then 8 GiB between two processes: a file of 512 MiB, again and again in one
transfer, to a receiver that keeps nothing. (A sparse file would not do: its holes are not sent.) Anonymous memory
(RssAnon) is what a process holds for itself; pages of files and of the page cache are not in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import ours
from processes import print_table, run_script, size_of
from spaceblock.cli.bench.measure import GIB, MIB
from spaceblock.cli.bench.pair import Pair, scratch_folder, write_source

PIECE = 512 * MIB


def measure(size: int, folder: Path, words: list[str]) -> Pair:
    """One transfer of ``size`` bytes, in whole pieces, looked at by both sides."""
    piece = min(size, PIECE)
    source = write_source(folder, piece)
    repeated = ["--file", str(source), "--repeat", str(size // piece)]
    return run_script(
        ours.SCRIPT, ["receive", "--discard", "--memory", *words], ["send", *repeated, "--memory", *words]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, nargs="+", default=[GIB, 8 * GIB], help="bytes to move, such as 2GiB")
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine")
    parser.add_argument("--folder", help="where the file goes; in memory by default, if there is room for that")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each size")
    arguments = parser.parse_args()
    words = ["--engine", arguments.engine] if arguments.engine else []
    rows = []
    for size in arguments.size:
        with scratch_folder(arguments.folder, PIECE) as folder:
            pair = measure(size, folder, words)
        if arguments.json:
            print(json.dumps({"size": size, "receiver": pair.receiver, "sender": pair.sender}), flush=True)
        for name, report in (("receiver", pair.receiver), ("sender", pair.sender)):
            before, peak = report["rss_before"], report["rss_peak"]
            row = [f"{size // MIB} MiB, {name}", f"{before / MIB:.1f}", f"{peak / MIB:.1f}"]
            rows.append([*row, f"{(peak - before) / MIB:.1f}"])
    if not arguments.json:
        print("RssAnon in MiB\n")
        print_table(["", "before", "greatest", "difference"], rows)


if __name__ == "__main__":
    main()
