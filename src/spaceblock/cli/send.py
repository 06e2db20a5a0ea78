"""``spaceblock send``: offer files and folders to one peer, and end with the transfer."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import click

from ..api import connect, listen
from ..display import printable
from ..errors import ConnectionLost, NameRejected, SourceError, SpaceblockError, source_error
from ..names import WIRE_RULES
from ..options import Links
from ..peer import Peer
from ..process.interrupts import COMMAND_SIGNALS, run
from ..storage.sources import Item
from .choices import TICKET_VARIABLE, Choices
from .console import can_ask, open_console
from .lan import announcing

INPUT = "-"
"""The path that stands for standard input."""

ADVICE = "On the other computer run: spaceblock receive TICKET"


def send(choices: Choices, paths: Sequence[str], *, name: str | None, links: Links, fix_names: bool = False) -> int:
    """Send ``paths`` and return the exit code; raises what is wrong before anything is tried.

    "-" among them is standard input, offered under ``name``; then nothing can be asked there.
    """
    if name is not None and INPUT not in paths:
        raise click.UsageError('--name is for standard input: give "-" as a path')
    if INPUT in paths and choices.ticket == "-":
        raise click.UsageError(f'"-" cannot be both the ticket and a path: use --ticket-file or {TICKET_VARIABLE}')
    if name is not None and not fix_names:
        WIRE_RULES.check(name)
    ticket, address, options = choices.find_ticket(), choices.address(), choices.options()
    if paths.count(INPUT) > 1:
        raise click.UsageError("standard input can be sent once: leave the other away")
    names = [name if path == INPUT else os.path.basename(os.path.abspath(path)) for path in paths]
    asks = fix_names or (can_ask() and not choices.json and INPUT not in paths)
    for word, count in Counter(names).items():
        if count > 1 and not asks:
            raise click.UsageError(f"{count} paths are called {printable(word or '')!r}: send them one after the other")
    sources = [_source_of(path, name) for path in paths]
    kept = INPUT not in paths
    console = open_console(
        json=choices.json, quiet=choices.quiet, verbose=choices.verbose, known=choices.trusted().names
    )
    rename = console.renamer(fix_names) if asks else None

    async def to(peer: Peer) -> None:
        console.connected(peer, options)
        declining = asyncio.create_task(_decline_all(peer))
        try:
            sending = peer.send(*sources, links=links, rename=rename)
            receipt = await console.follow(sending, names, kept=kept)
        finally:
            declining.cancel()
        console.complete(receipt, "sent")  # at once: until it is said, the same command hears of it once more

    async def work() -> None:
        if ticket is not None:
            async with connect(await choices.reach(ticket), options=options) as peer:
                await to(peer)
                return
        async with listen(*address, options=options) as listener, announcing(listener, choices.announce, console):
            console.listening(listener, ADVICE)
            async for peer in listener.peers():
                await to(peer)
                return
        raise ConnectionLost("the listener ended before a peer came: send again")

    try:
        run(work(), COMMAND_SIGNALS, kill_next=True)
    except SpaceblockError as error:
        console.failed(error, kept=kept)
        if isinstance(error, NameRejected) and not fix_names:
            console.say("with --fix-names what is proposed is taken for every such name")
        return error.exit_code
    return 0


async def _decline_all(peer: Peer) -> None:
    """Tell a peer that wants to send, too, that nobody here takes anything, instead of letting both wait."""
    with suppress(SpaceblockError):
        async for offer in peer.offers():
            await offer.decline("it sends, too; run spaceblock receive on one of the two")


def _source_of(path: str, name: str | None) -> str | Item:
    """What to send for a word of the command; finds out what is missing before anybody is bothered.

    Raises :class:`SourceError`.
    """
    if path == INPUT:
        if sys.stdin is None:
            raise click.UsageError("there is no standard input: give a path")
        return Item(sys.stdin.buffer, name=name)
    try:
        mode = os.stat(path).st_mode
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise source_error(error, f"cannot send {printable(path)!r}", name=path) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        text = f'{printable(path)!r} is neither a file nor a folder: redirect it into standard input and send "-"'
        raise SourceError(text, name=path)
    return path
