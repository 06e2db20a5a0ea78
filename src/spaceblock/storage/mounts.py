"""Other disks below a folder: a file cannot be moved from one to another in one step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_TABLE = "/proc/self/mountinfo"


def mounts_below(folder: int) -> frozenset[str]:
    """The names of what is mounted below the open folder ``folder``, parts joined by ``/``; empty where the system does
    not tell.

    The same disk mounted a second time counts, as nothing can be moved there either.
    """
    try:
        top = os.readlink(f"/proc/self/fd/{folder}").rstrip("/") + "/"
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as table:
            return frozenset(_names_below(top, table))
    except (OSError, ValueError):
        return frozenset()


def _names_below(top: str, table: Iterator[str]) -> Iterator[str]:
    for line in table:
        place = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4])
        if place.startswith(top) and place != top:
            yield place[len(top) :]


_ESCAPE = re.compile(r"\\([0-7]{3})")
