"""``spaceblock receive``: take offers into one folder, from whoever comes or from the ticket's listener."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator

import click

from ..api import connect, listen
from ..display import printable
from ..errors import ConnectionLost, SpaceblockError, TransferRefused, storage_error
from ..options import Conflict
from ..process.interrupts import COMMAND_SIGNALS, run
from ..transfers.asking import Rename
from ..transfers.offer import Offer
from ..transfers.transfer import Transfer
from .choices import Choices
from .console import OUTPUT, Console, can_ask, open_console
from .lan import announcing
from .prompts import confirmed

PATIENCE = 5.0
"""Seconds without an offer after which somebody who came with a ticket wants to know why nothing happens."""

ADVICE = "On the other computer run: spaceblock send --to TICKET PATH"


def receive(
    choices: Choices, folder: str, *, yes: bool, once: bool, on_conflict: Conflict, fix_names: bool = False
) -> int:
    """Receive into ``folder`` and return the exit code of the first offer that failed, or 0.

    "-" is standard output, which takes one offer of one item; what is said goes to standard error then.
    Raises what is wrong before anything is tried, such as :class:`StorageError` for a folder that cannot be used.
    """
    ticket, address, options = choices.find_ticket(), choices.address(), choices.options()
    to_output = folder == OUTPUT
    if not to_output:
        if can_ask() and not choices.json and not os.path.lexists(folder):
            _offer_to_make(folder)
        _check_folder(folder)
    elif choices.json:
        raise click.UsageError("--json and --dir - both need standard output: leave one of them out")
    console = open_console(
        json=choices.json,
        quiet=choices.quiet,
        verbose=choices.verbose,
        data_on_output=to_output,
        known=choices.trusted().names,
    )
    asks = fix_names or (can_ask() and not choices.json and not yes)
    rename = console.renamer(fix_names) if asks else None
    once = once or to_output
    receiver = _Receiver(console, folder, yes=yes, once=once, on_conflict=on_conflict, rename=rename)

    async def work() -> int:
        if ticket is not None:
            async with connect(await choices.reach(ticket), options=options) as peer:
                console.connected(peer, options)
                hint = asyncio.get_running_loop().call_later(PATIENCE, receiver.wonder)
                try:
                    return await receiver.take_all(peer.offers())
                finally:
                    hint.cancel()
        async with listen(*address, options=options) as listener, announcing(listener, choices.announce, console):
            console.listening(listener, ADVICE)
            return await receiver.take_all(aiter(listener))

    try:
        return run(work(), COMMAND_SIGNALS, kill_next=True)
    except SpaceblockError as error:
        console.failed(error)
        return error.exit_code


class _Receiver:
    """Answers offers, each in a task of its own, so that a long transfer keeps nobody waiting."""

    def __init__(
        self, console: Console, folder: str, *, yes: bool, once: bool, on_conflict: Conflict, rename: Rename | None
    ) -> None:
        self._console = console
        self._folder = folder
        self._yes = yes
        self._once = once
        self._on_conflict = on_conflict
        self._rename = rename
        self._taken = 0

    def wonder(self) -> None:
        """Say what may be wrong where nothing was offered so far."""
        if not self._taken:
            self._console.say(
                "connected, and nothing is offered yet: see that the other side sends, and does not receive"
            )

    async def take_all(self, offers: AsyncIterator[Offer]) -> int:
        """Take offers until they end, or one; returns the first exit code that is not 0.

        Raises :class:`ConnectionLost` where no offer came at all.
        """

        async def next_offer() -> Offer | None:
            return await anext(offers, None)

        exit_code = 0
        expects_more = True
        coming = asyncio.create_task(next_offer())
        answers: set[asyncio.Task[int]] = set()
        try:
            while answers or expects_more:
                waited = answers | {coming} if expects_more else answers
                done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for answer in answers & done:
                    answers.discard(answer)
                    exit_code = exit_code or answer.result()
                if expects_more and coming in done:
                    offer = coming.result()
                    expects_more = offer is not None and not self._once
                    if offer is not None:
                        self._taken += 1
                        answers.add(asyncio.create_task(self._answer(offer)))
                    if expects_more:
                        coming = asyncio.create_task(next_offer())
        finally:
            unfinished = {coming, *answers}
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        if not self._taken:
            raise ConnectionLost("the sender ended the connection without an offer: ask what went wrong there")
        return exit_code

    async def _answer(self, offer: Offer) -> int:
        """Deal with one offer to its end; returns its exit code."""
        self._console.offer(offer, self._folder)
        kept = self._folder != OUTPUT and all(item.rereadable for item in offer.items)
        try:
            if not self._yes:
                await self._ask(offer)
            transfer = await self._accept(offer)
            names = [item.name for item in offer.items] or [*offer.links, *offer.folders]
            receipt = await self._console.follow(transfer, names, offer.uuid, kept=kept)
        except SpaceblockError as error:
            self._console.failed(error, offer.uuid, kept=kept)
            return error.exit_code
        self._console.complete(receipt, "received")
        return 0

    async def _accept(self, offer: Offer) -> Transfer:
        if self._folder != OUTPUT:
            return offer.accept(self._folder, on_conflict=self._on_conflict, rename=self._rename)
        if len(offer.items) != 1:
            await offer.decline("standard output takes one item")
            raise TransferRefused(f"{len(offer.items)} items were offered and standard output takes one: give a folder")
        return offer.accept(into=[sys.stdout.buffer])

    async def _ask(self, offer: Offer) -> None:
        """Decline and raise :class:`TransferRefused` unless the user wants the offer; one question at a time."""
        if not can_ask():
            await offer.decline("nobody is there to be asked; start it with --yes there")
            raise TransferRefused(
                "the offer was declined, as there is no terminal to ask on: use --yes to accept unasked"
            )
        if not await self._console.confirm(offer, self._folder):
            await offer.decline()
            raise TransferRefused("the offer was declined: answer y to accept the next")


def _offer_to_make(folder: str) -> None:
    """Make a folder that is missing, and those above it, if the user wants it; raises :class:`StorageError`."""
    if not confirmed(f"There is no folder {printable(folder)!r}. Make it?"):
        return
    try:
        os.makedirs(folder)
    except OSError as error:
        raise storage_error(error, f"cannot make the folder {printable(folder)!r}") from error


def _check_folder(folder: str) -> None:
    """Find out that the folder cannot be used before anybody sends; raises :class:`StorageError`."""
    try:
        if not os.path.isdir(folder):
            os.stat(folder)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            number = errno.EROFS if _is_read_only(folder) else errno.EACCES
            raise OSError(number, os.strerror(number))
    except OSError as error:
        raise storage_error(error, f"cannot receive into {printable(folder)!r}") from error


def _is_read_only(folder: str) -> bool:
    """Whether the file system is mounted for reading only, which no permission changes."""
    return sys.platform != "win32" and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
