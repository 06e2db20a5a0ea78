"""What a command tells, to people on standard error or to programs as JSON on standard output.

Text from elsewhere is printed through :func:`spaceblock.display.printable` only; JSON has the real names, escaped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, Any

from ..bars import Row, columns_of, open_display, size_text, title_of, wrapped
from ..display import address_text, printable, shortened, shown
from ..errors import NameRejected, SpaceblockError, TransferCancelled
from ..events import ItemProgress, OfferItem, Phase, Progress, Receipt, ReceiptItem
from .output import print_out
from .records import ArrivedItem, MovingItem, error_record, print_record

if TYPE_CHECKING:
    from ..listener import Listener
    from ..names import BadName
    from ..options import Options
    from ..peer import Peer
    from ..transfers.asking import Rename
    from ..transfers.offer import Offer
    from ..transfers.transfer import Transfer

DIGESTS_SHOWN = 20
"""Items whose digests are printed; of more there is a summary for people, and JSON has them all."""

LINES_LISTED = 20
"""Lines about an offer's contents before the user is asked, who may then ask for all of them."""

WARNINGS_SHOWN = 20
"""Warnings about one transfer that are printed; of more there is the number. A folder may be full of links."""

LISTED_MAX = 500
"""Characters of a name in a list."""

INTERVAL = 0.25
"""Seconds between two looks at a transfer: drawing takes time from it."""


_AGAIN = "; give the same command again when the other side is ready"

OUTPUT = "-"
"""The folder that stands for standard output."""


def can_ask() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def open_console(
    *,
    json: bool,
    quiet: bool,
    verbose: bool = False,
    data_on_output: bool = False,
    known: Mapping[str, str] | None = None,
) -> Console:
    """The console that the command's options ask for; what the library logs is told through it.

    With ``data_on_output`` standard output carries what is received, and so nothing else. ``known`` are the names of
    peer IDs.
    """
    kind = JsonConsole if json else Console
    console = kind(quiet=quiet, verbose=verbose, data_on_output=data_on_output, known=known or {})
    logger = logging.getLogger("spaceblock")
    if verbose:
        logger.setLevel(logging.DEBUG)
    logger.addHandler(_Warnings(console, logging.DEBUG if verbose else logging.WARNING))
    logger.propagate = False
    return console


class Console:
    """Tells people. Tickets alone go to standard output, unless that carries data."""

    def __init__(self, *, quiet: bool, verbose: bool, data_on_output: bool, known: Mapping[str, str]) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._data_on_output = data_on_output
        self._known = known
        self._display = open_display(quiet=quiet)
        self._warnings = 0
        self._question = asyncio.Lock()
        self._keyboard = _Keyboard()

    def say(self, text: str) -> None:
        """A sentence that helps but is not needed."""
        if not self._quiet:
            self._display.print(text, wrap=True)

    def copyable(self, lines: Iterable[str]) -> None:
        """The same of lines that are for copying, and so are not broken."""
        if not self._quiet:
            for line in lines:
                self._display.print(line)

    def detail(self, text: str) -> None:
        """A sentence for who wants to know more."""
        if self._verbose:
            self._display.print(text, wrap=True)

    def warn(self, text: str) -> None:
        """Something that the user should know; the work goes on."""
        self._warnings += 1
        if self._verbose or self._warnings <= WARNINGS_SHOWN:
            self._display.print(f"spaceblock: {printable(text)}", wrap=True)

    def invite(self, ticket: str, advice: str) -> None:
        """The ticket for the other side, alone on its line, and what to do with it."""
        self.say(advice)
        if self._data_on_output:
            print(ticket, file=sys.stderr, flush=True)
        else:
            print_out(ticket)

    def listening(self, listener: Listener, advice: str) -> None:
        """This side waits for another, which needs the ticket."""
        where = ", ".join(address_text(host, port) for host, port in listener.addresses)
        self.detail(f"listening at {where} as {listener.peer_id}")
        self.invite(listener.ticket, advice)

    def connected(self, peer: Peer, options: Options) -> None:
        """The other side is there."""
        software = "" if peer.hello is None else f", which runs {printable(peer.hello.software)}"
        self.detail(f"connected to {self.name_of(peer.peer_id)}{software}; {options.chosen_engine()} engine")

    def offer(self, offer: Offer, folder: str) -> None:
        """Somebody wants to send."""
        self.copyable(self._heading(offer, folder))

    def row(self, title: str, transfer_id: str | None) -> Row:
        """Where the progress of one transfer goes."""
        return self._display.row(title)

    def complete(self, receipt: Receipt, done: str) -> None:
        """Everything is verified; ``done`` is what was done with it: sent or received."""
        most = sys.maxsize if self._verbose else DIGESTS_SHOWN
        if len(receipt.items) <= most:
            self.copyable(line for item in receipt.items for line in _digest_lines(item))
        if len(receipt.renamed) <= most:
            self.copyable(f"renamed {shown(name)} to {shown(place)}" for name, place in receipt.renamed.items())
        else:
            self.say(f"renamed {len(receipt.renamed)} files and folders")
        moved = [item for item in receipt.items if not item.skipped]
        skipped = len(receipt.items) - len(moved)
        seconds = max(receipt.seconds, 1e-6)
        before = f", {size_text(receipt.resumed)} of it before" if receipt.resumed else ""
        again = f", {size_text(receipt.repaired)} of it sent once more to mend it" if receipt.repaired else ""
        rate = size_text((receipt.bytes - receipt.resumed) / seconds)
        self.say(
            f"{done} {_count(len(moved))}{f' and skipped {skipped}' if skipped else ''}, {size_text(receipt.bytes)} in "
            f"{seconds:.1f} s ({rate}/s){before}{again}, verified on both ends"
        )

    def failed(self, error: SpaceblockError, transfer_id: str | None = None, *, kept: bool = True) -> None:
        """One transfer failed; called while its error is handled. For ``kept`` see :meth:`follow`."""
        message = error.message
        if isinstance(error, TransferCancelled) and error.remote and ": " not in message:  # which begins an advice
            message += f"{_AGAIN}{', and it goes on from what arrived' if kept else ''}"
        with self._display.paused():
            print_error(message)
            if error.receipt is not None and error.receipt.items:
                count = len(error.receipt.items)
                self.say(f"{_count(count)} of the transfer arrived and {'stays' if count == 1 else 'stay'}")

    async def follow(
        self, transfer: Transfer, names: Sequence[str | None], transfer_id: str | None = None, *, kept: bool = True
    ) -> Receipt:
        """Show the progress of ``transfer`` until its end; returns, raises and cancels what awaiting it does.

        It looks also when there is no news, so that the rate of a transfer that stands still falls to nothing. ``kept``
        says whether what arrived of an interrupted transfer is there for another attempt.
        """
        outcome = asyncio.ensure_future(transfer)
        try:
            with closing(self.row(title_of(names), transfer_id)) as row:
                while not outcome.done():
                    row.update(transfer.progress)
                    await asyncio.wait({outcome}, timeout=INTERVAL)
                row.update(transfer.progress)
            return outcome.result()
        finally:
            self._count_warnings()
            if not outcome.done():
                seen = transfer.progress
                outcome.cancel()
                await asyncio.wait({outcome})
                if kept and seen.bytes_done and seen.phase is not Phase.CLOSING:
                    self.say("what arrived is kept: send the same again to go on from there")

    def _count_warnings(self) -> None:
        """How many were not printed of those that came since this was last told."""
        more = self._warnings - WARNINGS_SHOWN
        self._warnings = 0
        if more > 0 and not self._verbose:
            self._display.print(f"spaceblock: and {_count(more, 'more warning')}: --verbose prints all", wrap=True)

    async def confirm(self, offer: Offer, folder: str) -> bool:
        """Ask on the terminal whether to take ``offer``; anything but yes is no.

        An offer that is gone meanwhile is not asked about any more, and taken: that tells what happened.
        """
        async with self._asking():
            self._keyboard.forget()
            if self._quiet:
                print(*self._heading(offer, folder), sep="\n", file=sys.stderr)
            lines = _listing(offer)
            is_whole = len(lines) == _lines_of(offer)
            print(*lines, sep="\n", file=sys.stderr)
            while True:
                question = "Accept? [y/N] " if is_whole else "Accept? [y/N, l: list all] "
                print(question, end="", file=sys.stderr, flush=True)
                answer = await _before(offer.withdrawn(), self._line())
                if answer is None:
                    print(file=sys.stderr)
                    return True
                answer = answer.strip().lower()
                if answer != "l" or is_whole:
                    return answer in ("y", "yes")
                print(*_all_of(offer), sep="\n", file=sys.stderr)

    def renamer(self, take_all: bool) -> Rename:
        """Who is asked for other names: the user, on the terminal, or nobody where ``take_all`` takes every proposal.

        An empty answer takes the proposal, ``!`` that and all further ones, and the end of what is typed ends the
        transfer. A name without folders stays in the folder that is proposed.
        """

        async def ask(item: OfferItem, bad: BadName) -> str | None:
            nonlocal take_all
            async with self._asking():
                if take_all:
                    return bad.proposal or None
                print(wrapped(f"{shown(bad.name)} {printable(bad.reason)}"), file=sys.stderr)
                print(wrapped(_name_question(bad)), end=" ", file=sys.stderr, flush=True)
                line = await self._line()
            answer = line.rstrip("\r\n")
            if not line:
                raise NameRejected(f"{bad}, and no other was given: answer, or use --fix-names", name=bad.name)
            if answer == "!" or not answer:
                take_all = take_all or answer == "!"
                return bad.proposal or None
            folder, slash, _ = bad.proposal.rpartition("/")
            return answer if "/" in answer else f"{folder}{slash}{answer}"

        return ask

    def name_of(self, peer: str) -> str:
        """A peer ID, with the name that this computer's user gave it."""
        return f"{self._known[peer]} ({peer})" if peer in self._known else peer

    def _heading(self, offer: Offer, folder: str) -> list[str]:
        """From whom, how much and where to."""
        total = "of unknown size" if offer.total_size is None else size_text(offer.total_size)
        return [
            f"From  {self.name_of(offer.peer)}",
            f"What  {_contents(offer)}, {total}",
            f"Into  {_place(offer, folder)}",
        ]

    async def _line(self) -> str:
        """What is typed. At its end it is empty, and what was asked stays above what is said next."""
        line = await self._keyboard.read_line()
        if not line:
            with suppress(OSError):
                print(file=sys.stderr, flush=True)
        return line

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """One question at a time, and nothing drawn meanwhile."""
        async with self._question:
            with self._display.paused():
                try:
                    yield
                except asyncio.CancelledError:
                    print(file=sys.stderr)  # what was asked stays above what is said next
                    raise


class JsonConsole(Console):
    """Tells programs, one object a line. People still get warnings and errors in words."""

    def __init__(self, *, quiet: bool, verbose: bool, data_on_output: bool, known: Mapping[str, str]) -> None:
        super().__init__(quiet=True, verbose=verbose, data_on_output=data_on_output, known=known)

    def invite(self, ticket: str, advice: str) -> None:
        print_record({"type": "ticket", "ticket": ticket})

    def offer(self, offer: Offer, folder: str) -> None:
        print_record(
            {
                "type": "offer",
                "transfer": offer.uuid,
                "peer": offer.peer,
                "peer_name": self._known.get(offer.peer),
                "dir": folder,
                "total_size": offer.total_size,
                "items": [{"index": item.index, "name": item.name, "size": item.size} for item in offer.items],
                "links": [{"name": name, "target": target} for name, target in offer.links.items()],
                "folders": list(offer.folders),
            }
        )

    def row(self, title: str, transfer_id: str | None) -> Row:
        return _JsonRow(transfer_id)

    def complete(self, receipt: Receipt, done: str) -> None:
        print_record(
            {
                "type": "complete",
                "transfer": receipt.uuid,
                "peer": receipt.peer,
                "bytes": receipt.bytes,
                "seconds": receipt.seconds,
                "items": [_json_item(item) for item in receipt.items],
                "renamed": dict(receipt.renamed),
                "resumed": receipt.resumed,
                "repaired": receipt.repaired,
            }
        )

    def failed(self, error: SpaceblockError, transfer_id: str | None = None, *, kept: bool = True) -> None:
        record = error_record(error.code, error.message, error.exit_code)
        items = [] if error.receipt is None else [_json_item(item) for item in error.receipt.items]
        record |= {"transfer": transfer_id, "name": error.name, "phase": error.phase, "remote": error.remote}
        print_record({**record, "items": items})
        super().failed(error, kept=kept)


class _JsonRow(Row):
    def __init__(self, transfer_id: str | None) -> None:
        self._transfer_id = transfer_id

    def update(self, progress: Progress) -> None:
        item = progress.item
        print_record(
            {
                "type": "progress",
                "transfer": self._transfer_id,
                "phase": progress.phase.value,
                "bytes_done": progress.bytes_done,
                "bytes_total": progress.bytes_total,
                "rate": progress.rate,
                "eta": progress.eta,
                "verified": progress.verified,
                "durable": progress.durable,
                "items_done": progress.items_done,
                "items_total": progress.items_total,
                "current": progress.current,
                "item": None if item is None else _json_moving(item),
                "resumed": progress.resumed,
            }
        )

    def close(self) -> None:
        return


class _Warnings(logging.Handler):
    """What the library logs, told like everything else."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.warn(record.getMessage())


def print_error(message: str) -> None:
    """The sentence that every failure ends with; with SPACEBLOCK_DEBUG=1 also where it came from."""
    if os.environ.get("SPACEBLOCK_DEBUG") == "1":
        traceback.print_exc()
    print(wrapped(f"spaceblock: {printable(message)}"), file=sys.stderr, flush=True)


def _json_moving(item: ItemProgress) -> MovingItem:
    return {
        "index": item.index,
        "name": item.name,
        "bytes_done": item.bytes_done,
        "bytes_total": item.bytes_total,
        "rate": item.rate,
        "eta": item.eta,
    }


def _json_item(item: ReceiptItem) -> ArrivedItem:
    return {
        "name": item.name,
        "path": item.path,
        "size": item.size,
        "digest": item.digest,
        "skipped": item.skipped,
    }


def _count(number: int, kind: str = "item") -> str:
    return f"1 {kind}" if number == 1 else f"{number} {kind}s"


def _digest_lines(item: ReceiptItem) -> list[str]:
    """What became of an item; on a terminal with no room for a digest and a name, a line for each."""
    name = _listed(item.path or item.name or f"unnamed item {item.index}")
    if item.skipped:
        return [f"skipped, {'it was there already' if item.digest else 'something else has its name'}: {name}"]
    digest = f"BLAKE3 {item.digest}"
    if sys.stderr.isatty():
        from rich.cells import cell_len

        if len(digest) + 2 + cell_len(name) > columns_of(sys.stderr):
            return [digest, f"  {name}"]
    return [f"{digest}  {name}"]


def _name_question(bad: BadName) -> str:
    if not bad.proposal:
        return "New name:"
    return f"New name (Enter: {shown(bad.proposal)}, !: that and all further proposals):"


def _contents(offer: Offer) -> str:
    """How many of each kind there is, such as ``2 items, 1 symbolic link and 3 empty folders``."""
    kinds = {"item": offer.items, "symbolic link": offer.links, "empty folder": _empty_folders(offer)}
    counts = [_count(len(things), kind) for kind, things in kinds.items() if things] or [_count(0)]
    return " and ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))


def _empty_folders(offer: Offer) -> list[str]:
    """The folders that no line about an item, a link or another folder tells of."""
    names = [item.name or "" for item in offer.items]
    filled = {name.rpartition("/")[0] for name in (*names, *offer.links, *offer.folders)}
    return [name for name in offer.folders if name not in filled]


def _lines_of(offer: Offer) -> int:
    """The lines of a list of everything."""
    return len(offer.items) + len(offer.links) + len(_empty_folders(offer))


def _place(offer: Offer, folder: str) -> str:
    """Where it would go, and whether there is room for it."""
    if folder == OUTPUT:
        return "standard output"
    place = printable(os.path.abspath(folder))
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
        lacks = offer.total_size is not None and offer.total_size > free
        return f"{place} ({'only ' if lacks else ''}{size_text(free)} free)"
    return place


def _listed(name: str) -> str:
    """A name on a line of its own, which it must not fill with whatever a sender likes."""
    return shortened(printable(name), LISTED_MAX)


def _listing(offer: Offer) -> list[str]:
    """What is offered, one line an item, or where those are too many one for each folder and file at the top."""
    if _lines_of(offer) <= LINES_LISTED:
        return list(_all_of(offer))
    tops: dict[str, list[OfferItem]] = {}
    for item in offer.items:
        tops.setdefault("" if item.name is None else item.name.partition("/")[0], []).append(item)
    lines = []
    for top, items in tops.items():
        is_file = len(items) == 1 and items[0].name == top
        sizes = [item.size for item in items]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        what = f"{_count(len(items))} without a name" if not top else f"{_listed(top)}/  {_count(len(items))}"
        lines.append(_line(total, _listed(top) if is_file else what))
    if folders := _empty_folders(offer):
        lines.insert(0, f"{'folder':>9}  {_count(len(folders), 'empty folder')}")
    if offer.links:
        lines.insert(0, f"{'link':>9}  {_count(len(offer.links), 'symbolic link')}")
    if len(lines) > LINES_LISTED:
        lines[LINES_LISTED - 1 :] = [f"{'':>9}  ... and {len(lines) - LINES_LISTED + 1} more"]
    return lines


def _all_of(offer: Offer) -> Iterator[str]:
    for item in offer.items:
        yield _line(item.size, f"(unnamed item {item.index})" if item.name is None else _listed(item.name))
    for name, target in offer.links.items():
        yield f"{'link':>9}  {_listed(name)} -> {_listed(target)}"
    for name in _empty_folders(offer):
        yield f"{'folder':>9}  {_listed(name)}/"


def _line(size: int | None, name: str) -> str:
    return f"{'?' if size is None else size_text(size):>9}  {name}"


async def _before(end: Coroutine[Any, Any, None], answer: Coroutine[Any, Any, str]) -> str | None:
    """What ``answer`` gives, or None where ``end`` comes first."""
    waiting = [asyncio.ensure_future(answer), asyncio.ensure_future(end)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return waiting[0].result() if waiting[0].done() else None
    finally:
        for each in waiting:
            each.cancel()


class _Keyboard:
    """Lines from the terminal, one at a time.

    The thread that waits for one is a daemon and reads the descriptor itself, so that Ctrl-C need not wait for Enter.
    Where nobody wants the line any more that it waits for, it is there for the next who does.
    """

    def __init__(self) -> None:
        self._wanted: asyncio.Future[bytes] | None = None
        self._early: bytes | None = None
        self._reading = False

    async def read_line(self) -> str:
        """The next line; empty at the end. What the locale has no letter for is one that no name can have."""
        loop = asyncio.get_running_loop()
        self._wanted = loop.create_future()
        if self._early is not None:
            self._wanted.set_result(self._early)
            self._early = None
        elif not self._reading:
            self._reading = True
            threading.Thread(target=self._read, args=(loop,), name="spaceblock-prompt", daemon=True).start()
        return (await self._wanted).decode(sys.getfilesystemencoding(), "surrogateescape")

    def forget(self) -> None:
        """What was typed so far answers no question that is yet to be asked."""
        self._early = None
        try:
            import termios
        except ImportError:  # Windows
            return
        with suppress(termios.error):
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            data = os.read(sys.stdin.fileno(), 1024)
        except OSError:
            data = b""
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(self._give, data)

    def _give(self, data: bytes) -> None:
        self._reading = False
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(data)
        else:
            self._early = data
