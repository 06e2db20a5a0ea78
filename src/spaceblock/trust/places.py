"""Where a listener keeps its port and tickets, so that whoever is started again is found where it was.

1. A listener with a name or a fixed port has a place of its own. Nobody else may listen there meanwhile, and whatever
   it gave out stays good.
2. Any other has the place of its command: the same program, words and working folder. It does without one while
   another of the same command has it, or where nothing can be written.
3. What the command's listener gave out is good again if it was killed or interrupted, for the same command alone. It
   expires when the listener is left in order, and for any later one of the same process, which may be about something
   else. A peer that is not done comes back all the same, as with any ticket that has expired.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import ListenerBusy, SpaceblockError, StorageError
from ..limits import COMMANDS_KEPT
from ..options import Options
from ..process.lazily import dataclass
from .admission import LOCK_FILE, AdmissionBook, FileLock
from .identity import Identity

_log = logging.getLogger("spaceblock")

_COMMAND = "command-"

_used: set[Path] = set()
"""Places of commands that this process has had."""


@dataclass(frozen=True, slots=True)
class Place:
    """A listener's book, and whether it is that of its command."""

    book: AdmissionBook
    is_commands: bool

    def leave(self) -> None:
        """The listener is left in order: only what it has a place of its own for stays good."""
        if self.is_commands:
            try:
                self.book.expire(time.time())
            except SpaceblockError as error:
                _log.warning("tickets of this listener stay good for who gives the same command: %s", error)


def open_book(
    identity: Identity, host: str, port: int | range, options: Options, has_unfinished: Callable[[str], bool]
) -> Place:
    """The book of a listener.

    Raises :class:`StorageError`, and :class:`ListenerBusy` while another listener has the same name or fixed port.
    """

    def book(folder: Path | None) -> AdmissionBook:
        return AdmissionBook.open(folder, identity, options.trust, has_unfinished=has_unfinished)

    if identity.home is None:
        return Place(book(None), False)
    places = identity.home / "listeners"
    if options.name is not None:
        return Place(book(places / _hashed(f"name {options.name}")), False)
    if isinstance(port, int) and port:
        return Place(book(places / _hashed(f"address {host} {port}")), False)
    folder = _commands_place(places, host, port)
    if folder is not None:
        try:
            return Place(_opened_anew(folder, book(folder)), True)
        except (ListenerBusy, StorageError) as error:
            _log.info("this listener is not remembered: %s", error)
    return Place(book(None), False)


def _commands_place(places: Path, host: str, port: int | range) -> Path | None:
    try:
        words = [host, str(port), os.getcwd(), *sys.orig_argv]
    except OSError:  # a working folder that is gone
        return None
    return places / (_COMMAND + _hashed("\0".join(words)))


def _opened_anew(folder: Path, book: AdmissionBook) -> AdmissionBook:
    try:
        if folder in _used:
            book.expire(time.time())
        _used.add(folder)
        with contextlib.suppress(OSError):
            os.utime(folder / LOCK_FILE)
            _forget_oldest(folder.parent)
    except BaseException:
        book.close()
        raise
    return book


def _forget_oldest(places: Path) -> None:
    """Remove the places of commands that were not given for longest, and whose listener is not running."""
    names = [name for name in os.listdir(places) if name.startswith(_COMMAND)]
    if len(names) <= COMMANDS_KEPT:
        return
    for folder in sorted((places / name for name in names), key=_used_at)[: len(names) - COMMANDS_KEPT]:
        try:
            lock = FileLock(folder / LOCK_FILE)
        except (ListenerBusy, StorageError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _used_at(folder: Path) -> float:
    try:
        return (folder / LOCK_FILE).stat().st_mtime
    except OSError:
        return 0.0


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
