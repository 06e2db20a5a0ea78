"""``spaceblock send``: offer files and folders to one peer, and end with the transfer."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Sequence

import click

from ..api import connect, listen
from ..display import printable
from ..errors import ConnectionLost, SpaceblockError, source_error
from ..events import Receipt
from ..interrupts import COMMAND_SIGNALS, run
from ..peer import Peer
from .choices import Choices
from .console import can_ask, open_console

ADVICE = "On the other computer run: spaceblock receive TICKET"


def send(choices: Choices, paths: Sequence[str], *, fix_names: bool = False) -> int:
    """Send ``paths`` and return the exit code; raises what is wrong before anything is tried."""
    if "-" in paths:
        raise click.UsageError("standard input cannot be sent yet: write it to a file and send that")
    ticket, address, options = choices.find_ticket(), choices.address(), choices.options()
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    asks = fix_names or (can_ask() and not choices.json)
    for name, count in Counter(names).items():
        if count > 1 and not asks:
            raise click.UsageError(f"{count} paths are called {printable(name)!r}: send them one after the other")
    for path in paths:
        _check_source(path)
    console = open_console(json=choices.json, quiet=choices.quiet)
    rename = console.renamer(fix_names) if asks else None

    async def to(peer: Peer) -> Receipt:
        return await console.follow(peer.send(*paths, rename=rename), names)

    async def work() -> Receipt:
        if ticket is not None:
            async with connect(ticket, options=options) as peer:
                return await to(peer)
        async with listen(*address, options=options) as listener:
            console.invite(listener.ticket, ADVICE)
            async for peer in listener.peers():
                return await to(peer)
        raise ConnectionLost("the listener ended before a peer came: send again")

    try:
        receipt = run(work(), COMMAND_SIGNALS, kill_next=True)
    except SpaceblockError as error:
        console.failed(error)
        return error.exit_code
    console.complete(receipt, "sent")
    return 0


def _check_source(path: str) -> None:
    """Find out what is missing before anybody is bothered; raises :class:`SourceError`."""
    try:
        os.stat(path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise source_error(error, f"cannot send {printable(path)!r}", name=path) from error
