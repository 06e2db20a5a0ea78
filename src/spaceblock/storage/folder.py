"""A target folder: where files are received, under partial names first and under their own only when verified.

Rules: every path is resolved from the descriptor of the target folder, part by part, and no part may be a symbolic
link; a name appears only by linking or renaming a finished file; without ``overwrite`` nothing that exists is ever
replaced. Unfinished files live in a hidden folder inside the target (see :mod:`.staging`), so on its file system; with
a keeper they stay there when a transfer breaks off, for another attempt.
Symbolic links, and the modes and times of new folders, come when all files are in place.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count, groupby, islice

from blake3 import blake3

from ..blocks import Full, Had, SpaceblockRequest, SpaceblockRequests
from ..core import is_in_memory, make_records, place_files, store_files, write_all
from ..display import printable, shown
from ..errors import (
    FREE_SPACE,
    NoSpace,
    SpaceblockError,
    StorageError,
    TargetExists,
    TargetMissing,
)
from ..events import Phase
from ..limits import NAME_PROBLEMS_MAX
from ..names import NameRules, Problem, alternatives, find_problems, local_rules, refusal
from ..options import Conflict, Durability
from ..wire.manifest import Entry, EntryKind, Manifest
from ..wire.messages import NameRule
from .barrier import BATCH, flush_all
from .files import raw
from .inside import Inside, disk_errors, leave
from .journal import INODE_MAX, Keeper, Part, Placing, inode_of, item_keys
from .linking import SymbolicLinks
from .metadata import Metadata, umask_of
from .mounts import mounts_below
from .probe import rules_of
from .rereading import PORTION, FileBytes, Reread
from .sinks import Mark, Sink
from .staging import Staging, partial_name, sweep

logger: logging.Logger = logging.getLogger("spaceblock")

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_OLD_FILE = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0)


class FolderSink(Sink):
    """Files below one folder. Safe for several threads as long as each item has one at a time."""

    repairable = True
    _errors = staticmethod(disk_errors)

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_conflict: Conflict = "rename",
        durability: Durability = "fsync",
        keeper: Keeper | None = None,
    ):
        super().__init__()
        self.path: str = os.path.abspath(os.fspath(path))
        self.place_of_all: str = self.path
        self.durable: bool = durability == "fsync"
        self._on_conflict = on_conflict
        self.limits: NameRules = local_rules()
        self._sound: Manifest | None = None  # the names that were found to be usable
        self._lock = threading.Lock()
        self._opened_inside: Inside | None = None
        self._keeper = keeper
        self._staged_in: Staging | None = None
        self._keys: list[bytes] = []
        self._unnamed: set[int] = set()
        self._set_aside: set[int] = set()
        self._rewritten: set[int] = set()  # whose bytes are put between others, so that holes have to be written
        self._open: dict[int, int] = {}
        self._is_in_memory = False
        self._staged: set[int] = set()
        self._made: dict[int, tuple[int, int, int]] = {}  # of files made whole: inode, size and time of change
        self._names: list[str] = []
        self._starts: list[int] = []
        self._lengths: list[int | None] = []
        self._read_once: set[int] = set()
        self._folders: list[str] = []
        self._metadata = Metadata()
        self._to_come: set[int] = set()
        self._links_left: list[Entry] = []

    def prepare(self, requests: SpaceblockRequests, manifest: Manifest | None) -> set[int]:
        if self._opened_inside is None or manifest is not self._sound:
            problems = self.name_problems(requests, manifest)
            if problems:
                raise refusal(manifest.entries if manifest is not None else (), problems)
        self._learn(requests, manifest)
        self._find_had(requests)
        skip = self._taken_names()
        self._check_space(
            sum(
                # Of holes nothing is told: what is had may be one, or all that takes space.
                max(request.space - (self.had[item].offset - request.start if item in self.had else 0), 0)
                for item, request in enumerate(requests.items)
                if item not in skip
            )
        )
        for name in self._folders:
            leave(self._inside.folder(name))
            self.on_work()
        self._note_folders()
        self._to_come = set(range(len(requests.items))) - skip
        self._settle()
        return skip

    def name_problems(self, requests: SpaceblockRequests, manifest: Manifest | None) -> list[Problem]:
        if self._opened_inside is None:
            self._open_target(requests)
            self.limits = rules_of(self._inside.root, self._staging.fd, self.path)
        entries = manifest.entries if manifest is not None else ()
        problems = find_problems(self.limits, entries)
        known = {problem.entry for problem in problems}
        problems += islice(self._obstructed(entries, known), NAME_PROBLEMS_MAX - len(problems))
        self._sound = None if problems else manifest
        return sorted(problems, key=lambda problem: problem.entry)

    def name_of(self, item: int) -> str:
        return self._names[item]

    def digest(self, item: int) -> Iterator[int | bytes]:
        """Hash the file that is there under the name of an item: yields the length of each portion, and at last the
        digest; raises :class:`StorageError`.

        Of a file that grows meanwhile the beginning will do: it is another one.
        """
        parent, _, last = self._names[item].rpartition("/")
        with self._errors("read", self._names[item], item):
            folder = self._inside.existing(parent)
            if folder is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            try:
                fd = os.open(last, _OLD_FILE, dir_fd=folder)
            finally:
                leave(folder)
        length = self._lengths[item] or 0
        hasher, buffer, left = blake3(), bytearray(min(length + 1, PORTION)), length
        try:
            with self._errors("read", self._names[item], item):
                while left >= 0 and (count := os.readv(fd, [buffer])):
                    hasher.update(memoryview(buffer)[:count])
                    left -= count
                    yield count
        finally:
            leave(fd)
        yield hasher.digest()

    def memory(self, item: int, offset: int, length: int) -> memoryview | None:
        return None

    def never_waits(self, item: int) -> bool:
        return self._is_in_memory and item in self._open

    def begin(self, item: int) -> None:
        with self._errors("create a file in", self.path, item, Phase.MOVING):
            if item in self.had:
                self._forget(item)
            fd = os.open(self._partial(item), _NEW_FILE, 0o666, dir_fd=self._staging.fd)
        self._opened(item, fd)

    def resume(self, item: int) -> None:
        length = self.had[item].offset - self._starts[item]
        with self._errors("open the unfinished file of", self._names[item], item, Phase.MOVING):
            fd = self._staging.open_part(self._keys[item], length)
        self._opened(item, fd)

    def reopen(self, item: int) -> None:
        with self._errors("open the unfinished file of", self._names[item], item, Phase.VERIFYING):
            fd = self._staging.open_part(self._keys[item])
        self._rewritten.add(item)
        self._made.pop(item, None)
        self._opened(item, fd)

    def reread(self, item: int) -> Reread:
        with self._errors("read", self._names[item], item, Phase.VERIFYING):
            return FileBytes(self._staging.read_part(self._keys[item]), self._starts[item])

    def checkpoint(self, marks: Sequence[Mark]) -> dict[int, StorageError]:
        journal = self._staging.journal
        assert journal is not None
        durable: list[tuple[bytes, Part]] = []
        failed: dict[int, StorageError] = {}
        for mark in marks:
            key = self._keys[mark.item]
            try:
                with self._errors("flush", self._names[mark.item], mark.item, Phase.MOVING):
                    inode = self._staging.flush(key, durable=self.durable)
            except StorageError as error:
                failed[mark.item] = error
            else:
                if inode is not None:
                    durable.append((key, Part(inode, mark.offset, mark.checked, mark.digest)))
                elif mark.item in self._open:  # so it was neither put into its place nor given up
                    failed[mark.item] = self._removed(mark.item)
        with self._errors("write the journal in", self.path, phase=Phase.MOVING):
            if self.durable:
                self._staging.flush_names()
            journal.durable_up_to(durable)
        return failed

    def store_whole(self, items: Sequence[tuple[int, memoryview]]) -> list[bytes]:
        files = [(partial_name(self._keys[item]), *self._metadata.of_file(item), data) for item, data in items]
        stored = store_files(self._staging.fd, False, files)
        digests = []
        with self._lock:
            for (item, data), (digest, inode, modified) in zip(items, stored, strict=False):
                self._staged.add(item)
                self._made[item] = inode & INODE_MAX, len(data), modified
                digests.append(blake3(data).digest() if digest is None else digest)
            self._staging.named()
        return digests

    def write(self, item: int, offset: int, data: memoryview) -> None:
        with self._errors("write", self._names[item], item, Phase.MOVING):
            write_all(self._open[item], data, offset - self._starts[item])

    def hole(self, item: int, offset: int, length: int) -> None:
        with self._errors("write", self._names[item], item, Phase.MOVING):
            if item not in self._rewritten:
                os.ftruncate(self._open[item], offset - self._starts[item] + length)
                return
            for start in range(0, length, len(_ZEROS)):
                piece = _ZEROS[: length - start]
                write_all(self._open[item], piece, offset - self._starts[item] + start)

    def finish(self, item: int) -> None:
        with self._lock:
            fd = self._open.pop(item)
        with self._errors("finish", self._names[item], item, Phase.VERIFYING):
            try:
                self._metadata.apply_to_file(item, fd)
            finally:
                os.close(fd)

    def place(self, items: Sequence[int], digests: Mapping[int, bytes] | None = None) -> list[str | SpaceblockError]:
        results: dict[int, str | SpaceblockError] = dict(self._flush(items))
        ready = [item for item in items if item not in results]
        try:
            self._announce({item: self._names[item] for item in ready}, digests or {})
        except SpaceblockError as error:
            results.update(dict.fromkeys(ready, error))
            ready = []
        parents = {item: self._parent(item) for item in ready}
        ready.sort(key=parents.__getitem__)
        by_folder = [(parent, list(group)) for parent, group in groupby(ready, parents.__getitem__)]
        for parent, group in by_folder:
            results.update(self._place_into(parent, group, digests or {}, at_once=len(by_folder) >= BATCH))
        if self.durable and len(by_folder) >= BATCH:
            self._flush_names(results)
        self._settle(*items)
        return [results[item] for item in items]

    def confirmed(self, item: int) -> None:
        self._settle(item)

    def discard(self, item: int) -> None:
        self._drop(item)
        self._settle(item)

    def set_aside(self, item: int) -> str:
        with self._lock:
            self._set_aside.add(item)
        self._settle(item)
        return os.path.join(self.path, self._staging.name, self._partial(item))

    def _drop(self, item: int) -> None:
        with self._lock:
            fd = self._open.pop(item, -1)
            staged = item in self._staged
            self._staged.discard(item)
            aside = item in self._set_aside
        with suppress(OSError):
            if fd >= 0:
                os.close(fd)
        if not aside and (staged or item in self.had):
            with suppress(OSError):
                self._forget(item)

    def conclude(self) -> None:
        self._settle(*self._to_come)

    def tidy(self) -> None:
        self._close_staging(lost=False, over=True)

    def close(self, *, lost: bool = False, over: bool = True) -> bool:
        keep = self._close_staging(lost, over)
        if self._opened_inside is not None:
            self._opened_inside.close()
            self._opened_inside = None
        return keep

    def _close_staging(self, lost: bool, over: bool) -> bool:
        """Remove what is unfinished unless it is of use for another attempt: then this is true."""
        staging, self._staged_in = self._staged_in, None
        if staging is None:
            return False
        contents = staging.journal.contents if staging.journal is not None else None
        may_return = self._to_come or not (self._read_once or over)
        kept = {*contents.parts, *contents.placings} if contents and may_return else set()
        kept -= {self._keys[item] for item in (self._read_once if lost else self._read_once | self._unnamed)}
        for fd in self._open.values():
            with suppress(OSError):
                os.close(fd)
        self._open.clear()
        for item in {*self._staged, *self.had} - self._set_aside:
            if self._keys[item] not in kept:
                with suppress(OSError):
                    os.unlink(self._partial(item), dir_fd=staging.fd)
        self._staged.clear()
        is_of_use = bool(kept) or (contents is not None and may_return and bool(contents.folders))
        staging.close(keep=is_of_use or bool(self._set_aside))
        return is_of_use

    @property
    def _inside(self) -> Inside:
        assert self._opened_inside is not None
        return self._opened_inside

    @property
    def _staging(self) -> Staging:
        assert self._staged_in is not None
        return self._staged_in

    def _partial(self, item: int) -> str:
        return partial_name(self._keys[item])

    def _opened(self, item: int, fd: int) -> None:
        with self._lock:
            self._open[item] = fd
            self._staged.add(item)
            self._staging.named()

    def _forget(self, item: int) -> None:
        """What there is of an item, if anything, is not the beginning of anything any more."""
        journal = self._staging.journal
        if journal is not None:
            journal.dropped(self._keys[item])
        with suppress(FileNotFoundError):
            os.unlink(self._partial(item), dir_fd=self._staging.fd)

    def _find_had(self, requests: SpaceblockRequests) -> None:
        """Learn what earlier attempts left of the items."""
        journal = self._staging.journal
        if journal is None or not journal.contents:
            return
        self._staging.keep_only(frozenset(self._keys))
        for item, request in enumerate(requests.items):
            found = None
            if request.rereadable and request.stop is not None:
                found = self._find_placed(item, request) or self._staging.part(self._keys[item], request)
            if found is not None:
                self.had[item] = found
            elif self._staging.speaks_of(self._keys[item]):
                # What is not believed now must not be believed of the file that takes its place.
                with self._errors("remove an unfinished file in", self.path, item):
                    self._forget(item)

    def _note_folders(self) -> None:
        """Remember for another attempt which folders are new, and learn that of earlier ones."""
        journal = self._staging.journal
        if journal is None:
            return
        for name in journal.contents.folders:
            self._metadata.made(name)
        with self._errors("write the journal in", self.path):
            journal.made(self._metadata.folders_made())

    def _find_placed(self, item: int, request: SpaceblockRequest) -> Had | None:
        """An item that an earlier attempt had put into its place, where nobody has changed it since."""
        placing = self._staging.placing(self._keys[item])
        if placing is None or placing.size != request.length or request.stop is None:
            return None
        parent, _, last = placing.name.rpartition("/")
        try:
            folder = self._inside.existing(parent)
            if folder is None:
                return None
            try:
                status = os.lstat(last, dir_fd=folder)
            finally:
                leave(folder)
        except (OSError, SpaceblockError):
            return None
        if (inode_of(status), status.st_size, status.st_mtime_ns) != (placing.inode, placing.size, placing.mtime_ns):
            return None
        with suppress(OSError):
            os.unlink(self._partial(item), dir_fd=self._staging.fd)
        return Had(request.stop, request.stop, placing.digest, placing.name)

    def _flush(self, items: Sequence[int]) -> dict[int, SpaceblockError]:
        """Make the bytes of finished items durable, if that is wanted; returns what could not be."""
        if not self.durable:
            return {}
        failed: dict[int, SpaceblockError] = {}
        try:
            if len(items) >= BATCH and flush_all(self._staging.fd):
                return {}
        except OSError:
            pass  # which of the files it was is found below
        for item in items:
            try:
                with self._errors("flush", self._names[item], item, Phase.VERIFYING):
                    fd = self._staging.read_part(self._keys[item])
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
            except SpaceblockError as error:
                failed[item] = error
        return failed

    def _flush_names(self, results: dict[int, str | SpaceblockError]) -> None:
        """Make the names of what was just placed durable, in all folders at once."""
        placed = [item for item, result in results.items() if isinstance(result, str)]
        try:
            with self._errors("flush", self.path):
                if not flush_all(self._inside.root):
                    for parent in {self._parent(item) for item in placed}:
                        self._inside.flush_folder(parent)
        except SpaceblockError as error:
            error.phase = error.phase or str(Phase.VERIFYING)
            results.update(dict.fromkeys(placed, error))

    def _announce(self, names: Mapping[int, str], digests: Mapping[int, bytes]) -> None:
        """Note in the journal which names are about to be taken."""
        journal = self._staging.journal
        if journal is None:
            return
        with self._errors("write the journal in", self.path, phase=Phase.VERIFYING):
            keys, rows = [], []
            for item, name in names.items():
                made = self._made.get(item) or self._staging.made(self._keys[item])
                if made is not None and item in digests:
                    keys.append(self._keys[item])
                    rows.append((*made, digests[item], name))
            if rows:
                if self.durable:
                    self._staging.flush_names()
                journal.placing(zip(keys, make_records(Placing, rows), strict=True))

    def _learn(self, requests: SpaceblockRequests, manifest: Manifest | None) -> None:
        with self._errors("create a file in", self.path):
            umask = umask_of(self._staging.fd)
        self._metadata = self._inside.metadata = Metadata(manifest, umask)
        self._links = SymbolicLinks(self._inside, self._staging.fd, self.limits, self._on_conflict)
        self._links_left = list(self._metadata.links)
        given: list[str | None] = [None] * len(requests.items)
        for entry in manifest.entries if manifest is not None else ():
            if entry.kind is EntryKind.FOLDER:
                self._folders.append(entry.name)
            elif entry.item is not None:
                given[entry.item] = entry.name
        names = _all_named(given, [*self._folders, *(link.name for link in self._links_left)], self.limits)
        self._names = names
        self._unnamed = {item for item, name in enumerate(given) if name is None}
        self._keys = item_keys(zip(count(), given, requests.items))
        plain = all(type(request.range) is Full for request in requests.items)  # as nearly always
        self._lengths = [request.size if plain else request.length for request in requests.items]
        self._read_once = {item for item, request in enumerate(requests.items) if not request.rereadable}
        self._starts = [0 if plain else request.start for request in requests.items]

    def _check_space(self, needed: int) -> None:
        """Refuse before data moves; a file system that reports no blocks at all does not tell and is believed."""
        if not hasattr(os, "fstatvfs"):
            return
        with self._errors("look at", self.path):
            status = os.fstatvfs(self._inside.root)
        free = status.f_bavail * status.f_frsize
        if status.f_blocks and free < needed:
            raise NoSpace(
                f"the receiver's folder has room for {free} bytes and the offer has {needed}: {FREE_SPACE}",
                errno=errno.ENOSPC,
            )

    def _open_target(self, requests: SpaceblockRequests) -> None:
        """Open the folder, and make one of our own in it."""
        self._opened_inside = Inside(self.path, durable=self.durable)
        with self._errors("create files in", self.path):
            self._staged_in = Staging.make(self._inside.root, requests.uuid, self._keeper, self.durable)
            if self._keeper is not None:
                sweep(self._inside.root)
        self._is_in_memory = is_in_memory(self._staging.fd)
        journal = self._staging.journal
        self.keeps: bool = journal is not None

    def _obstructed(self, entries: Sequence[Entry], known: Container[int]) -> Iterator[Problem]:
        """Entries whose folders are here something else than folders of this disk; where an entry names the folder,
        that one alone.

        Entries that are ``known`` to have no usable name are not looked for.
        """
        named = {entry.name for entry in entries if entry.kind is EntryKind.FOLDER}
        folders = [entry.name if entry.kind is EntryKind.FOLDER else entry.name.rpartition("/")[0] for entry in entries]
        mounts = mounts_below(self._inside.root)
        found: dict[str, tuple[str, str] | None] = {"": None}
        wanted = set(folders) if not known else {name for index, name in enumerate(folders) if index not in known}
        for folder in sorted(wanted - {""}):
            found[folder] = self._inside.obstacle(folder) or _mounted(folder, mounts)
            self.on_work()
        if not any(found.values()):
            return
        for index, (entry, folder) in enumerate(zip(entries, folders, strict=True)):
            is_folder = entry.kind is EntryKind.FOLDER
            obstacle = None if index in known else found[folder]
            if obstacle is None or (folder in named and not is_folder):
                continue
            name, kind = obstacle
            if name not in named or name == folder:
                yield Problem(
                    index, NameRule.EXISTS, f"needs the folder {shown(name)}, which is {kind} on the receiver's side"
                )

    def _taken_names(self) -> set[int]:
        """The items to skip because their names are taken; raises :class:`TargetExists` where that is an error."""
        if self._on_conflict not in ("skip", "error"):
            return set()
        had = {item for item, had in self.had.items() if had.place is not None}
        for link in self._links_left if self._on_conflict == "error" else ():
            if self._inside.has(link.name):
                raise self._taken(link.name)
        taken = {}
        for parent, group in groupby(sorted(set(range(len(self._names))) - had, key=self._parent), key=self._parent):
            folder = self._inside.existing(parent)
            if folder is not None:
                try:
                    found = {item: self._status(item, folder) for item in group}
                finally:
                    leave(folder)
                taken.update({item: status for item, status in found.items() if status is not None})
        if taken and self._on_conflict == "error":
            raise self._taken(self._names[min(taken)], min(taken))
        self.comparable: frozenset[int] = frozenset(
            item
            for item, status in taken.items()
            if stat.S_ISREG(status.st_mode) and status.st_size == self._lengths[item]
        )
        return set(taken)

    def _status(self, item: int, folder: int) -> os.stat_result | None:
        """What is there under the name of ``item``, or None."""
        self.on_work()
        try:
            with self._errors("look at", self._names[item], item):
                return os.lstat(self._names[item].rpartition("/")[2], dir_fd=folder)
        except TargetMissing:
            return None

    def _place_into(
        self, parent: str, items: Sequence[int], digests: Mapping[int, bytes], *, at_once: bool
    ) -> dict[int, str | SpaceblockError]:
        """Place items of one folder, which is flushed once for them all, unless all folders are flushed ``at_once``."""
        results: dict[int, str | SpaceblockError] = {}
        try:
            folder = self._inside.folder(parent)
            try:
                self._place_many(items, folder, results)
                for item in items[len(results) :]:
                    self.on_work()
                    try:
                        results[item] = self._place(item, folder, digests)
                    except SpaceblockError as error:
                        results[item] = error
                if self.durable and not at_once:
                    with self._errors("flush", parent or self.path):
                        os.fsync(folder)
            finally:
                leave(folder)
        except SpaceblockError as error:
            error.phase = error.phase or str(Phase.VERIFYING)
            results.update({item: error for item in items if isinstance(results.get(item, ""), str)})
        return results

    def _place_many(self, items: Sequence[int], folder: int, results: dict[int, str | SpaceblockError]) -> None:
        """Give items of one folder their names as long as these are free, all at once."""
        if self._on_conflict == "overwrite":
            return
        files = [(partial_name(self._keys[item]), raw(self._names[item].rpartition("/")[2])) for item in items]
        placed = items[: place_files(self._staging.fd, folder, files)]
        self.on_work()
        with self._lock:
            self._staged.difference_update(placed)
        results.update({item: self._names[item] for item in placed})

    def _place(self, item: int, folder: int, digests: Mapping[int, bytes]) -> str:
        wanted = self._names[item]
        for name in alternatives(wanted, self.limits):
            if name != wanted:
                if self._inside.has(name):
                    continue
                self._announce({item: name}, digests)
            if self._try_place(item, folder, name):
                with self._lock:
                    self._staged.discard(item)
                return name
            if self._on_conflict == "error":
                break
        raise self._taken(wanted, item)

    def _settle(self, *done: int) -> None:
        """When nothing is to come any more, make the links, and then give the new folders their modes and times."""
        with self._lock:
            self._to_come.difference_update(done)
            if self._to_come:
                return
            links, self._links_left = self._links_left, []
        for link in links:
            self.on_work()
            try:
                self._links.place(link, is_unseen=link.name in self.unseen)
            except (SpaceblockError, OSError) as error:
                logger.warning("left out the link %s: %s", shown(link.name), error)
        for name in self._metadata.folders_made():
            self.on_work()
            with suppress(SpaceblockError, OSError):
                folder = self._inside.existing(name)
                if folder is not None:
                    try:
                        self._metadata.apply_to_folder(name, folder)
                        if self.durable:
                            os.fsync(folder)
                    finally:
                        leave(folder)

    def _parent(self, item: int) -> str:
        return self._names[item].rpartition("/")[0]

    def _taken(self, name: str, item: int | None = None) -> TargetExists:
        return TargetExists(
            f"{printable(name)!r} is already there: move it away or let it be renamed",
            errno=errno.EEXIST,
            item=item,
            name=name,
        )

    def _removed(self, item: int) -> StorageError:
        name = self._names[item]
        return StorageError(
            f"what had arrived of {printable(name)!r} was removed from the hidden folder meanwhile: send again",
            errno=errno.ENOENT,
            item=item,
            phase=str(Phase.MOVING),
            name=name,
        )

    def _try_place(self, item: int, folder: int, name: str) -> bool:
        source, staging, last = self._partial(item), self._staging.fd, name.rpartition("/")[2]
        with self._errors("create", name, item, Phase.VERIFYING):
            if self._on_conflict == "overwrite" and self._names[item] not in self.unseen:
                os.replace(source, last, src_dir_fd=staging, dst_dir_fd=folder)
                return True
            try:
                os.link(source, last, src_dir_fd=staging, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return self._place_by_rename(source, folder, last)
            os.unlink(source, dir_fd=staging)
        return True

    def _place_by_rename(self, source: str, folder: int, last: str) -> bool:
        """Where there are no hard links: reserve the name with an empty file of our own, then replace that."""
        try:
            os.close(os.open(last, _NEW_FILE, 0o666, dir_fd=folder))
        except FileExistsError:
            return False
        try:
            os.replace(source, last, src_dir_fd=self._staging.fd, dst_dir_fd=folder)
        except BaseException:
            os.unlink(last, dir_fd=folder)
            raise
        return True


def _mounted(folder: str, mounts: Container[str]) -> tuple[str, str] | None:
    """The part of the way to ``folder`` that is another disk, and what to call it."""
    parts = folder.split("/")
    ways = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return next(((way, "another disk") for way in ways if way in mounts), None)


def _all_named(given: Sequence[str | None], folders: Sequence[str], limits: NameRules) -> list[str]:
    """The items' names; those without one get one that no other item or folder of the transfer has."""
    if None not in given:
        return [name for name in given if name is not None]
    fold = limits.fold
    taken = {fold(name.partition("/")[0]) for name in (*given, *folders) if name is not None}
    names = []
    for item, name in enumerate(given):
        number = item
        while name is None and fold(f"unnamed-{number}") in taken:
            number += len(given)
        names.append(f"unnamed-{number}" if name is None else name)
    return names


_ZEROS = memoryview(bytes(PORTION))
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
