"""What is left of a transfer's speed while the receiver's event loop is kept busy by other work in Python.

``python bench/busy_loop.py`` moves bytes from memory to memory between two processes, undisturbed and disturbed in
turn. Disturbed, a task on the receiver's loop computes for 5 ms, rests for 5 ms, and so on.
"""

from __future__ import annotations

import argparse
import json

import ours
from processes import print_table, run_script, size_of, spread
from spaceblock.cli.bench.measure import GIB, MIB
from spaceblock.cli.bench.pair import Pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=GIB, help="bytes of each transfer, such as 1GiB")
    parser.add_argument(
        "--pairs", type=int, default=7, help="rounds, each of one undisturbed and one disturbed transfer"
    )
    parser.add_argument(
        "--milliseconds", type=float, default=5.0, help="how long it computes, and then rests, each time"
    )
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine")
    parser.add_argument("--json", action="store_true", help="print everything that was measured, as one object")
    arguments = parser.parse_args()
    words = ["--size", str(arguments.size), *(["--engine", arguments.engine] if arguments.engine else [])]
    disturbances = {"undisturbed": [], "disturbed": ["--busy", str(arguments.milliseconds)]}
    runs: dict[str, list[Pair]] = {name: [] for name in disturbances}
    for _ in range(arguments.pairs):
        for name, disturbance in disturbances.items():
            runs[name].append(run_script(ours.SCRIPT, ["receive", *words, *disturbance], ["send", *words]))
    if arguments.json:
        print(json.dumps({"size": arguments.size, "milliseconds": arguments.milliseconds, "runs": runs}))
        return
    speeds = {name: [arguments.size / pair.sender["seconds"] / 1e6 for pair in pairs] for name, pairs in runs.items()}
    ratios = [busy / free for free, busy in zip(*speeds.values(), strict=True)]
    print(f"{arguments.size // MIB} MiB, {arguments.pairs} rounds, median (least - greatest)\n")
    rows = [[name, spread(found, 0)] for name, found in speeds.items()]
    print_table(["", "MB/s"], rows)
    print(f"\ndisturbed to undisturbed: {spread(ratios, 2)}")


if __name__ == "__main__":
    main()
