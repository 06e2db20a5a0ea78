"""What a file system keeps of a file beside its bytes: modes, times and links, as far as they are safe to take over.

A peer's modes are met by this side's umask, and never make a file another user's or a group's when it is run. What the
file system here cannot keep is left out; the bytes are what counts.
"""

from __future__ import annotations

import os
from contextlib import suppress

_MODE = 0o777


def leads_out(target: str, depth: int) -> bool:
    """Whether a link may lead out of a folder that is ``depth`` folders above the one it is in.

    Upward steps are allowed at the beginning alone: behind a name they would start from wherever that name, if it is a
    link itself, leads to.
    """
    if not target or target.startswith("/") or "\0" in target or "\\" in target or ":" in target.partition("/")[0]:
        return True
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return ups > depth or ".." in parts[ups:]


def apply_mode(fd: int, mode: int | None, umask: int) -> None:
    """Give an open file or folder the permissions of ``mode`` that ``umask`` leaves."""
    if mode is not None and hasattr(os, "fchmod"):
        with suppress(OSError):
            os.fchmod(fd, mode & _MODE & ~umask)


def apply_time(target: int | str, mtime_ns: int | None, *, folder: int | None = None) -> None:
    """Set when ``target``, a descriptor or a name in ``folder`` that is not followed, was last changed."""
    if mtime_ns is None:
        return
    with suppress(OSError, OverflowError, ValueError, NotImplementedError):
        if isinstance(target, int):
            os.utime(target, ns=(mtime_ns, mtime_ns))
        else:
            os.utime(target, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)
