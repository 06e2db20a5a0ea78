"""Many clients at once against one: as many bytes to one listener, in one transfer or in one for each client.

``python bench/crowd.py`` moves 16 MiB for each of 100 clients, and then the same bytes as 100 items of one client, in
turn. The listener is one process. All clients are another one, each with an identity, a ticket, a socket and a
connection of its own, and nothing is kept of what arrives. The clock runs at the clients, from just before the first
handshake until the last has closed: handshakes, admission and offers are counted, interpreters, imports, keys and
tickets are not. CPU seconds are of both processes in that time. With ``--connected`` the clock starts when all of them
are connected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from statistics import median

from blake3 import blake3

from processes import TIMEOUT, print_table, size_of, spread
from spaceblock import DISCARD, Identity, Item, Options, Receipt, connect, listen
from spaceblock.cli.bench.measure import DATAGRAM, MIB, Meter, Report, content
from spaceblock.cli.bench.pair import Pair, check, run_pair
from spaceblock.cli.bench.side import run_side
from spaceblock.peer import Peer

SCRIPT = Path(__file__)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("role", nargs="?", choices=["receive", "send"], help=argparse.SUPPRESS)
    parser.add_argument("--to", help=argparse.SUPPRESS)
    parser.add_argument("--items", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=100, help="how many there are at once")
    parser.add_argument("--size", type=size_of, default=16 * MIB, help="bytes of each client, such as 16MiB")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, each of one crowd and of one client alone")
    parser.add_argument("--connected", action="store_true", help="leave the handshakes out")
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine")
    parser.add_argument("--json", action="store_true", help="print everything that was measured, as one object")
    arguments = parser.parse_args()
    if arguments.role is None:
        compare(arguments)
        return 0
    if arguments.role == "receive":
        return run_side(receive(arguments.clients, options_of(arguments), late=arguments.connected))
    clients = {ticket: options_of(arguments) for ticket in arguments.to.split(",")}
    return run_side(send(clients, arguments.items, arguments.size, late=arguments.connected))


def options_of(arguments: argparse.Namespace) -> Options:
    """Options of one side, with an identity of its own: a listener bounds the connections of one peer."""
    return Options(identity=Identity.ephemeral(), datagram_size=DATAGRAM, engine=arguments.engine)


def compare(arguments: argparse.Namespace) -> None:
    crowds: list[Pair] = []
    alone: list[Pair] = []
    for _ in range(arguments.pairs):
        crowds.append(move(arguments, arguments.clients, 1))
        alone.append(move(arguments, 1, arguments.clients))
    total = arguments.clients * arguments.size
    if arguments.json:
        print(json.dumps({"bytes": total, "crowd": crowds, "alone": alone}))
        return
    print(
        f"{arguments.clients} times {arguments.size // MIB} MiB, {arguments.pairs} rounds, median (least - greatest)\n"
    )
    rows = []
    for name, pairs in ((f"{arguments.clients} clients", crowds), ("one client", alone)):
        rates = [total / pair.sender["seconds"] / 1e6 for pair in pairs]
        rows.append([name, spread(rates, 0), f"{median(pair.cpu for pair in pairs):.2f}"])
    print_table(["", "MB/s", "CPU s"], rows)
    ratios = [one.sender["seconds"] / many.sender["seconds"] for many, one in zip(crowds, alone, strict=True)]
    print(f"\nthe crowd to one client: {spread(ratios, 2)}")


def move(arguments: argparse.Namespace, clients: int, items: int) -> Pair:
    words = ["--clients", str(clients), "--items", str(items), "--size", str(arguments.size)]
    words += ["--engine", arguments.engine] if arguments.engine else []
    words += ["--connected"] if arguments.connected else []
    command = [sys.executable, str(SCRIPT)]
    pair = run_pair([*command, "receive", *words], [*command, "send", *words], timeout=TIMEOUT)
    check(pair)
    return pair


async def receive(clients: int, options: Options, *, late: bool) -> Report:
    """Print a ticket for each client, and take what each of them offers; ``late``: measure once all are connected."""
    async with listen("127.0.0.1", options=options) as listener:
        print(",".join([listener.ticket, *listener.invite(clients - 1)]), flush=True)
        meter = Meter()
        meter.start()
        taken: list[asyncio.Task[list[Receipt]]] = []
        async for peer in listener.peers():
            taken.append(asyncio.create_task(take(peer)))
            if len(taken) == clients:
                break
        if late:
            meter.start()
        return report_of(meter, [receipt for receipts in await asyncio.gather(*taken) for receipt in receipts])


async def take(peer: Peer) -> list[Receipt]:
    return [await offer.accept(into=[DISCARD] * len(offer.items)) async for offer in peer.offers()]


async def send(clients: dict[str, Options], items: int, size: int, *, late: bool) -> Report:
    """Connect with every ticket at once, each with options of its own, and send so many items with each."""
    data = content(size)
    waiting = set(clients)
    all_connected = asyncio.Event()

    async def one(ticket: str) -> Receipt:
        async with connect(ticket, options=clients[ticket]) as peer:
            waiting.discard(ticket)
            if late and not waiting:
                meter.start()
                all_connected.set()
            if late:
                await all_connected.wait()
            return await peer.send(*[Item(data, name=str(number)) for number in range(items)])

    meter = Meter()
    meter.start()
    report = report_of(meter, await asyncio.gather(*map(one, clients)))
    if report["digest"] != blake3(data).hexdigest():
        raise SystemExit("what was sent is not what was to be sent")
    return report


def report_of(meter: Meter, receipts: list[Receipt]) -> Report:
    return meter.stop(" ".join(sorted({item.digest for receipt in receipts for item in receipt.items})))


if __name__ == "__main__":
    sys.exit(main())
