"""Symbolic links: they come when everything else is in place, and none leads through a link that was there before."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from ..errors import NameRejected, TargetExists
from ..names import NameRules, alternatives
from ..options import Conflict
from ..wire.manifest import Entry
from .inside import Inside, leave
from .metadata import steps_of


class SymbolicLinks:
    """The links of one transfer; ``staging`` is the descriptor of its hidden folder."""

    def __init__(self, inside: Inside, staging: int, limits: NameRules, on_conflict: Conflict) -> None:
        self._inside = inside
        self._staging = staging
        self._limits = limits
        self._on_conflict = on_conflict
        self._made: set[str] = set()

    def place(self, link: Entry, *, is_unseen: bool = False) -> None:
        """Make a link, under another name if its own is taken, which is not overwritten where it ``is_unseen``; raises
        :class:`StorageError` and :class:`OSError`."""
        assert link.target is not None
        if not all(map(self._limits.can_write, link.target)):
            raise NameRejected(f"this locale ({self._limits.letters}) cannot write where it leads", name=link.name)
        parent, _, _ = link.name.rpartition("/")
        if self._leads_elsewhere(parent, link.target):
            raise NameRejected("it leads through a link that was there before", name=link.name)
        folder = self._inside.folder(parent)
        overwrites = self._on_conflict == "overwrite" and not is_unseen
        try:
            for name in alternatives(link.name, self._limits):
                if self._try_link(link.target, name.rpartition("/")[2], folder, overwrites=overwrites):
                    self._made.add(name)
                    break
                if self._on_conflict == "skip":
                    return
            else:
                raise TargetExists("every name for it is taken", name=link.name)
            if link.mtime_ns is not None:
                with suppress(OSError, OverflowError, NotImplementedError):
                    times = (link.mtime_ns, link.mtime_ns)
                    os.utime(name.rpartition("/")[2], ns=times, dir_fd=folder, follow_symlinks=False)
        finally:
            leave(folder)

    def _try_link(self, target: str, last: str, folder: int, *, overwrites: bool) -> bool:
        """Make a link, unless another thing has its name; what is the same link already will do."""
        with suppress(OSError):
            if os.readlink(last, dir_fd=folder) == target:
                return True
        if not overwrites:
            try:
                os.symlink(target, last, dir_fd=folder)
            except FileExistsError:
                return False
            return True
        os.symlink(target, "link", dir_fd=self._staging)
        try:
            os.replace("link", last, src_dir_fd=self._staging, dst_dir_fd=folder)
        except BaseException:
            os.unlink("link", dir_fd=self._staging)
            raise
        return True

    def _leads_elsewhere(self, parent: str, target: str) -> bool:
        """Whether the way to a link's target passes a link that is not of this transfer, and so leads anywhere."""
        up, down = steps_of(target)
        parts = parent.split("/") if parent else []
        parts = parts[: len(parts) - up]
        for part in down:
            folder = self._inside.existing("/".join(parts))
            if folder is None:
                return False
            try:
                mode = os.lstat(part, dir_fd=folder).st_mode
            except FileNotFoundError:
                return False
            finally:
                leave(folder)
            parts.append(part)
            if stat.S_ISLNK(mode):
                return "/".join(parts) not in self._made
            if not stat.S_ISDIR(mode):
                return False
        return False
