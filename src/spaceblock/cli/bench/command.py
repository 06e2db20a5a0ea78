"""``spaceblock bench``: how fast this computer moves bytes to itself, from memory to memory and from file to file."""

from __future__ import annotations

import sys
import textwrap

import click

from ...bars import columns_of, size_text
from ...errors import LocalProtocolError
from ...options import Engine, Options
from ..console import Console, open_console
from ..output import print_out
from ..quantities import parse_size
from ..records import print_record
from .measure import DATAGRAM
from .pair import KINDS, Kind, Pair, available_memory, check, cpu_per_gib, move, scratch_folder, write_source

_TITLES = {"memory": "memory to memory", "file": "file to file"}


def bench(size: str, datagram: int | None, engine: Engine | None, *, json: bool) -> int:
    """Measure both kinds and return the exit code; raises ``click.UsageError`` and what a transfer raises."""
    count = _count_of(size)
    datagram = DATAGRAM if datagram is None else datagram
    try:
        options = Options(datagram_size=datagram, engine=engine)
    except LocalProtocolError as error:
        raise click.UsageError(error.message) from None
    words = ["--engine", options.chosen_engine(), "--datagram", str(datagram)]
    console = open_console(json=json, quiet=json)
    console.say(f"moving {size_text(count)} between two processes, in datagrams of {datagram} bytes")
    with scratch_folder(None, 2 * count) as folder:
        for kind in KINDS:
            if kind == "file":
                console.say(f"files in {folder}")
                write_source(folder, count)
            pair = move(kind, count, folder, words)
            _show(console, kind, count, datagram, pair, json=json)
            check(pair)
    return 0


def _count_of(size: str) -> int:
    try:
        count = parse_size(size)
    except ValueError as error:
        raise click.UsageError(f"--size: {error}") from None
    if count < 1:
        raise click.UsageError("--size: nothing can be measured without bytes: write 1GiB, or less to be quick")
    available = available_memory()
    if available is not None and 2 * count > available:
        raise click.UsageError(
            f"--size: both sides together need {size_text(2 * count)} of memory and {size_text(available)} are free: "
            "choose less"
        )
    return count


def _show(console: Console, kind: Kind, size: int, datagram: int, pair: Pair, *, json: bool) -> None:
    receiver, sender = pair
    rate = size / sender["seconds"]
    costs = {name: cpu_per_gib(side["cpu"], size) for name, side in (("receiver", receiver), ("sender", sender))}
    if json:
        print_record(
            {
                "type": "bench",
                "kind": kind,
                "bytes": size,
                "seconds": sender["seconds"],
                "rate": rate,
                "cpu_per_gib": sum(costs.values()),
                "cpu_per_gib_receiver": costs["receiver"],
                "cpu_per_gib_sender": costs["sender"],
                "engine": sender["engine"],
                "aead": sender["aead"],
                "datagram": datagram,
                "digest": sender["digest"],
                "agreed": pair.agreed,
            }
        )
        return
    parts = [
        f"{rate / 1e6:.0f} MB/s",
        f"{sum(costs.values()):.2f} CPU s/GiB (receiver {costs['receiver']:.2f}, sender {costs['sender']:.2f})",
        f"{sender['engine']} engine, AEAD {sender['aead']}",
        "digests agree" if pair.agreed else "DIGESTS DIFFER",
    ]
    line = f"{_TITLES[kind]:<16}  {', '.join(parts)}"
    if sys.stdout.isatty():
        line = textwrap.fill(line, max(columns_of(sys.stdout) - 1, 40), subsequent_indent=" " * 18)
    print_out(line)
