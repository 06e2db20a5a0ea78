"""What a file system keeps beside a file's bytes: modes, times and links, as far as they are safe to take over.

A peer's modes are met by this side's umask and never let a file run as somebody else. What the file system here cannot
keep is left out: the bytes are what counts. A folder's mode and time come last, as what is put into it would change the
one and could be forbidden by the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from ..display import shown
from ..errors import NameRejected
from ..wire.manifest import Entry, EntryKind, Manifest

MODE = 0o777
"""The bits of a mode that travel: reading, writing and running, for the owner, the group and all others."""

NO_TIME = -(2**63)
"""Stands for no time of change where times are numbers of 64 bits."""

_FAR = 9 * 10**18
"""Nanoseconds: from 1685 to 2255 the core reads the times that it writes."""

_NEW = 0o666
"""The mode of a new file that nobody chose one for, before the umask."""


class Metadata:
    """The modes, times and links of one transfer. Safe for several threads, as it is only read but for :meth:`made`."""

    def __init__(self, manifest: Manifest | None = None, umask: int = 0o022) -> None:
        """Raises :class:`NameRejected` for a link that could lead out of the folder, and for a file without bytes."""
        self._umask = umask
        self._files: dict[int, Entry] = {}
        self._folders: dict[str, Entry] = {}
        self._made: set[str] = set()
        self.links: list[Entry] = []
        for entry in manifest.entries if manifest is not None else ():
            if entry.kind is EntryKind.FOLDER:
                self._folders[entry.name] = entry
            elif entry.kind is EntryKind.FILE and entry.item is not None:
                self._files[entry.item] = entry
            elif entry.kind is EntryKind.LINK and entry.target is not None:
                _check_link(entry, entry.target)
                self.links.append(entry)
            else:
                raise NameRejected(f"{shown(entry.name)} has no content: leave it out and send again", name=entry.name)

    def apply_to_file(self, item: int, fd: int) -> None:
        """Give an open file whose bytes are all there its mode and time."""
        entry = self._files.get(item)
        if entry is not None:
            self._apply(entry, fd)

    def of_file(self, item: int) -> tuple[int, int]:
        """The mode to make a file with, and its time of change in nanoseconds, or :data:`NO_TIME`."""
        entry = self._files.get(item)
        if entry is None:
            return _NEW, NO_TIME
        mode, time = _NEW if entry.mode is None else entry.mode & MODE, _time_of(entry)
        return mode, NO_TIME if time is None else time

    def apply_to_folder(self, name: str, fd: int) -> None:
        """Give an open folder that was made for this transfer its mode and time."""
        entry = self._folders.get(name)
        if entry is not None:
            self._apply(entry, fd)

    def first_mode(self, name: str) -> int:
        """The mode with which a new folder is made: no more than it will have, but that things can be put into it."""
        entry = self._folders.get(name)
        return MODE if entry is None or entry.mode is None else entry.mode & MODE | 0o700

    def made(self, name: str) -> None:
        """The folder ``name`` was not there before."""
        self._made.add(name)

    def folders_made(self) -> Iterator[str]:
        """The folders that were made and have something to take over, those inside of others first."""
        yield from sorted(self._made & self._folders.keys(), key=lambda name: -name.count("/"))

    def _apply(self, entry: Entry, fd: int) -> None:
        if entry.mode is not None and hasattr(os, "fchmod"):
            with suppress(OSError):
                os.fchmod(fd, entry.mode & MODE & ~self._umask)
        time = _time_of(entry)
        if time is not None:
            with suppress(OSError, OverflowError):
                os.utime(fd, ns=(time, time))


def is_usual_time(time_ns: int) -> bool:
    """Whether a time in nanoseconds since 1970 is one that a journal can hold and 64 bits hold, too: the core knows no
    other."""
    return -_FAR <= time_ns <= _FAR


def leads_out(target: str, depth: int) -> bool:
    """Whether a link may lead out of a folder that is ``depth`` folders above the one it is in.

    Upward steps are allowed at the beginning alone: behind a name they would start from wherever that name, if it is a
    link itself, leads to.
    """
    if not target or target.startswith("/") or "\0" in target or "\\" in target or ":" in target.partition("/")[0]:
        return True
    up, down = steps_of(target)
    return up > depth or ".." in down


def steps_of(target: str) -> tuple[int, list[str]]:
    """How many folders a link's target goes up at its beginning, and the parts that follow."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return up, parts[up:]


def umask_of(folder: int) -> int:
    """The bits that a new file in ``folder``, a private one, does not get: asking for the umask would change it for all
    threads."""
    fd = os.open("umask", os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE, dir_fd=folder)
    try:
        return ~os.fstat(fd).st_mode & MODE
    finally:
        with suppress(OSError):
            os.close(fd)
        os.unlink("umask", dir_fd=folder)


def _time_of(entry: Entry) -> int | None:
    time = entry.mtime_ns
    return time if time is not None and is_usual_time(time) else None


def _check_link(entry: Entry, target: str) -> None:
    if leads_out(target, entry.name.count("/")):
        raise NameRejected(
            f"{shown(entry.name)} is a link that may lead out of the receiver's folder: leave it out and send again",
            name=entry.name,
        )
