"""The command line: ``python -m simulation [--seeds N] [--first SEED] [--jobs N]``; see ``docs/simulation.md``."""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from .batch import Result, run
from .network import Fate
from .seeds import scenario
from .transfers import Outcome, simulate

CHUNK = 20
"""Seeds that a process takes at a time."""

PATIENCE = 300
"""Seconds of processor time after which a chunk is taken to hang."""


def main() -> int:
    """Run the simulations; the exit status is 1 when one went wrong."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description="Transfers on a simulated network.")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (default: 1)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first one (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: 1)")
    arguments = parser.parse_args()
    if arguments.seeds == 1:
        return _show(arguments.first)
    stop = arguments.first + arguments.seeds
    chunks = [range(start, min(start + CHUNK, stop)) for start in range(arguments.first, stop, CHUNK)]
    began = time.monotonic()
    total = Result()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for chunk, future in [(chunk, pool.submit(_run, chunk)) for chunk in chunks]:
            try:
                result = future.result()
            except BrokenProcessPool:
                print(f"a process died on one of the next {arguments.jobs * CHUNK} seeds from {chunk.start} on")
                return 1
            total.add(result)
            for failure in result.failures.values():
                print(failure, flush=True)
    _report(total, arguments.seeds, time.monotonic() - began)
    return 1 if total.failures else 0


def _run(seeds: range) -> Result:
    """In a process of the pool, which says where it is and dies when something keeps it for ever."""
    faulthandler.register(signal.SIGVTALRM, chain=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    return run(seeds)


def _show(seed: int) -> int:
    """Run one seed and tell of it."""
    what = scenario(seed)
    print(what)
    try:
        outcome = simulate(what)
    except Exception:
        traceback.print_exc()
        return 1
    _tell(outcome)
    return 0


def _tell(outcome: Outcome) -> None:
    print(f"over after {outcome.seconds:.3f} s of virtual time: {_counts(outcome.ends)}")
    print(f"datagrams: {_counts(Counter({fate.value: outcome.fates[fate] for fate in Fate}))}")
    print(f"trace: {outcome.trace}")


def _report(total: Result, count: int, seconds: float) -> None:
    print(f"{count} simulations in {seconds:.0f} s, {len(total.failures)} went wrong")
    print(f"{total.complete} without a stream lost; the longest took {total.slowest[0]:.1f} s of virtual time ", end="")
    print(f"(seed {total.slowest[1]})")
    print(f"streams: {_counts(total.ends)}")
    print(f"datagrams: {_counts(total.fates)}")
    print(f"sides, client to server: {_counts(total.pairs)}")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counter.items()) if count)


if __name__ == "__main__":
    sys.exit(main())
