"""The folders inside a target: each name is resolved from the target's descriptor, part by part, and no part may be a
symbolic link, so that one that is planted between check and use leads nowhere."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..display import printable, shown
from ..errors import NameRejected, SpaceblockError, TargetMissing, storage_error
from ..events import Phase
from .metadata import Metadata

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NAME_ERRORS = frozenset({errno.ENAMETOOLONG, errno.EILSEQ})


class Inside:
    """What is inside of the folder ``path``; ``root`` is its descriptor. Folders that are made are made ``durable`` if
    that is wanted, and noted in ``metadata``. Raises :class:`StorageError`."""

    def __init__(self, path: str, *, durable: bool) -> None:
        self.path: str = path
        self.metadata: Metadata = Metadata()
        self._durable = durable
        try:
            self.root: int = os.open(path, _FOLDER)
        except OSError as error:
            raise storage_error(error, f"cannot receive into {printable(path)!r}", path=path) from error
        except ValueError:
            text = f"{printable(path)!r} is no path on this system: choose another"
            raise TargetMissing(text, path=path) from None

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.root)

    def folder(self, name: str) -> int:
        """A descriptor of the folder ``name`` below the target, made if missing; no part of it may be a link."""
        with disk_errors("create the folder", name or self.path):
            fd = os.dup(self.root)
            for depth, part in enumerate(name.split("/") if name else ()):
                try:
                    with suppress(FileExistsError):
                        own = "/".join(name.split("/")[: depth + 1])
                        os.mkdir(part, self.metadata.first_mode(own), dir_fd=fd)
                        self.metadata.made(own)
                        if self._durable:
                            os.fsync(fd)
                    inner = self._enter(name, depth, fd)
                finally:
                    leave(fd)
                fd = inner
        return fd

    def existing(self, name: str) -> int | None:
        """A descriptor of the folder ``name`` below the target, or None; no part of it may be a link."""
        with disk_errors("look into the folder", name or self.path):
            fd = os.dup(self.root)
            for depth in range(name.count("/") + 1 if name else 0):
                try:
                    inner = self._enter(name, depth, fd)
                except FileNotFoundError:
                    return None
                finally:
                    leave(fd)
                fd = inner
            return fd

    def has(self, name: str) -> bool:
        parent, _, last = name.rpartition("/")
        folder = self.existing(parent)
        if folder is None:
            return False
        try:
            with disk_errors("look at", name):
                os.lstat(last, dir_fd=folder)
        except TargetMissing:
            return False
        finally:
            leave(folder)
        return True

    def obstacle(self, name: str) -> tuple[str, str] | None:
        """What is in the way of the folder ``name``: its name and kind."""
        try:
            folder = self.existing(name)
        except _NotAFolder as error:
            return error.folder, error.kind
        if folder is not None:
            leave(folder)
        return None

    def flush_folder(self, name: str) -> None:
        folder = self.folder(name)
        try:
            os.fsync(folder)
        finally:
            leave(folder)

    def _enter(self, name: str, depth: int, fd: int) -> int:
        """A descriptor of the part of ``name`` at ``depth``, which is in the folder ``fd``."""
        parts = name.split("/")
        try:
            return os.open(parts[depth], _FOLDER | _NO_FOLLOW, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            kind = "a link" if stat.S_ISLNK(os.lstat(parts[depth], dir_fd=fd).st_mode) else "not a folder"
            raise _NotAFolder(name, "/".join(parts[: depth + 1]), kind) from None


def leave(folder: int) -> None:
    """Close what was only looked into; what was found or done there stands, whatever the disk says now."""
    with suppress(OSError):
        os.close(folder)


@contextmanager
def disk_errors(action: str, name: str, item: int | None = None, phase: Phase | None = None) -> Iterator[None]:
    """Say in words, of ``name`` and ``item``, what an :class:`OSError` inside means; raises :class:`StorageError`."""
    doing = None if phase is None else str(phase)
    try:
        yield
    except SpaceblockError:
        raise
    except OSError as error:
        path = name if os.path.isabs(name) else None
        if error.errno in _NAME_ERRORS and path is None:
            raise NameRejected(
                f"the name {shown(name)} cannot be had on the receiver's disk ({os.strerror(error.errno)}): "
                "rename it on the sending side and send again",
                item=item,
                name=name,
                errno=error.errno,
                phase=doing,
            ) from error
        what = f"cannot {action} {printable(name)!r}"  # a path in full, so that the peer can be told less
        raise storage_error(error, what, item=item, name=name, path=path, phase=doing) from error


class _NotAFolder(NameRejected):
    """Something else than a folder is where one is needed for ``name``."""

    def __init__(self, name: str, folder: str, kind: str) -> None:
        self.folder, self.kind = folder, kind
        super().__init__(
            f"the name {shown(name)} needs the folder {shown(folder)}, which is {kind} on the receiver's side: "
            "move that away or receive into another folder",
            name=name,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return NameRejected, (self.message,)
