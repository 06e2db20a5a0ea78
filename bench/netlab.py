"""Spaceblock against TCP between two network namespaces, over a link of a given size, rate and round-trip time.

``python bench/netlab.py --netlab PATH --mtu 1500`` needs root, and a program that makes the link: called as ``PATH
--mtu N --rate-mbit N --rtt-ms N -- COMMAND``, it runs the command in one of two namespaces, with what starts a command
in the other one in NETLAB_B. Spaceblock and iperf3, where that is installed, take turns, both from memory to memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from processes import TIMEOUT, print_table, size_of, spread
from spaceblock.cli.bench.measure import GIB, MIB
from spaceblock.cli.bench.pair import SIDE, check, run_pair

SCRIPT = Path(__file__)
OVERHEAD = 28
"""Bytes of the headers of IPv4 and UDP."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--netlab", metavar="PATH", help="the program that makes the link")
    parser.add_argument("--mtu", type=int, default=1500, help="bytes of a packet on the link")
    parser.add_argument("--rate-mbit", type=float, default=0, help="the link's rate; 0: as fast as it goes")
    parser.add_argument("--rtt-ms", type=float, default=0, help="the link's round-trip time")
    parser.add_argument("--queue-ms", type=float, default=0, help="how long its queue holds a packet; 0: its own")
    parser.add_argument("--loss", type=float, default=0, help="the share of packets that the link loses")
    parser.add_argument("--size", type=size_of, default=GIB, help="bytes of each transfer, such as 1GiB")
    parser.add_argument("--pairs", type=int, default=7, help="rounds, each of one transfer and one of iperf3")
    parser.add_argument("--datagram", type=int, help="bytes of a datagram; 1452, or what the link carries")
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine")
    parser.add_argument("--address", default="10.99.0.2", help="the address in the other namespace")
    parser.add_argument("--json", action="store_true", help="print everything that was measured, as one object")
    arguments = parser.parse_args()
    other = os.environ.get("NETLAB_B")
    if other is not None:
        print(json.dumps(measure(arguments, shlex.split(other))))
        return
    if arguments.netlab is None:
        parser.error("--netlab is needed")
    results = in_namespaces(arguments)
    show(arguments, results)


def link_of(arguments: argparse.Namespace) -> dict[str, float]:
    """What the link is to be like; what is not said is the program's own."""
    names = ("mtu", "rate_mbit", "rtt_ms", *(name for name in ("queue_ms", "loss") if getattr(arguments, name)))
    return {name: getattr(arguments, name) for name in names}


def in_namespaces(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """What :func:`measure` finds between the namespaces."""
    words: list[str] = []
    for name, value in link_of(arguments).items():
        words += ["--" + name.replace("_", "-"), str(value)]
    ended = subprocess.run(
        [arguments.netlab, *words, "--", sys.executable, str(SCRIPT), *sys.argv[1:]], stdout=subprocess.PIPE, text=True
    )
    if ended.returncode:
        raise SystemExit(f"{arguments.netlab} ended with status {ended.returncode}")
    found: dict[str, list[float]] = json.loads(ended.stdout.splitlines()[-1])
    return found


def measure(arguments: argparse.Namespace, other: Sequence[str]) -> dict[str, list[float]]:
    """Bytes a second of all rounds; called in one namespace, ``other`` starts a command in the other one."""
    has_iperf = shutil.which("iperf3") is not None
    results: dict[str, list[float]] = {"spaceblock": [], **({"iperf3": []} if has_iperf else {})}
    for _ in range(arguments.pairs):
        results["spaceblock"].append(spaceblock_rate(arguments, other))
        if has_iperf:
            results["iperf3"].append(iperf_rate(arguments, other))
    return results


def spaceblock_rate(arguments: argparse.Namespace, other: Sequence[str]) -> float:
    datagram = arguments.datagram or min(1452, arguments.mtu - OVERHEAD)
    words = ["--size", str(arguments.size), "--datagram", str(datagram)]
    words += ["--engine", arguments.engine] if arguments.engine else []
    receiver = [*other, *SIDE, "receive", "--host", arguments.address, *words]
    pair = run_pair(receiver, [*SIDE, "send", *words], timeout=TIMEOUT)
    check(pair)
    return float(arguments.size / pair.sender["seconds"])


def iperf_rate(arguments: argparse.Namespace, other: Sequence[str]) -> float:
    server = [*other, "iperf3", "--server", "--one-off", "--forceflush", "--bind", arguments.address]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            while "listening" not in (line := process.stdout.readline()):
                if not line:
                    raise SystemExit("iperf3 does not listen")
            client = ["iperf3", "--client", arguments.address, "--bytes", str(arguments.size), "--json"]
            ended = subprocess.run(client, capture_output=True, text=True, timeout=TIMEOUT)
        finally:
            process.kill()
    found = json.loads(ended.stdout)
    if "error" in found:
        raise SystemExit(f"iperf3: {found['error']}")
    return float(found["end"]["sum_received"]["bits_per_second"]) / 8


def show(arguments: argparse.Namespace, results: dict[str, list[float]]) -> None:
    if arguments.json:
        print(json.dumps({"size": arguments.size, **link_of(arguments), "rates": results}))
        return
    rate = f"{arguments.rate_mbit:g} Mbit/s" if arguments.rate_mbit else "no limit of rate"
    print(f"{arguments.size // MIB} MiB, {arguments.pairs} rounds, median (least - greatest);", end=" ")
    print(f"MTU {arguments.mtu}, {rate}, {arguments.rtt_ms:g} ms of round trip, {arguments.loss:.2%} lost\n")
    print_table(["", "MB/s"], [[name, spread([each / 1e6 for each in rates], 1)] for name, rates in results.items()])
    if "iperf3" in results:
        pairs = zip(results["spaceblock"], results["iperf3"], strict=True)
        print(f"\nspaceblock to iperf3: {spread([ours / theirs for ours, theirs in pairs], 2)}")


if __name__ == "__main__":
    main()
