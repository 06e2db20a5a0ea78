"""What a program waits for before it begins: starting the interpreter alone, importing the package, printing the help.

``python bench/start_up.py`` runs each in turn, again and again, and prints the least and the median in milliseconds.
What a start may import is not a matter of time, and is tested (``tests/test_programs.py``).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from time import perf_counter

PROGRAMS = {
    "the interpreter alone": ["-c", "pass"],
    "import spaceblock": ["-c", "import spaceblock"],
    "spaceblock --help": ["-m", "spaceblock", "--help"],
    "spaceblock send --help": ["-m", "spaceblock", "send", "--help"],
    "import of the transport": ["-c", "import spaceblock; spaceblock.connect"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long starting takes.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    took: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, arguments in PROGRAMS.items():
            started = perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            took[name].append((perf_counter() - started) * 1000)
    for name, each in took.items():
        print(f"{name:26} {min(each):6.0f} ms, median {statistics.median(each):.0f}")


if __name__ == "__main__":
    main()
