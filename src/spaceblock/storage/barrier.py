"""Making many files durable at once: one barrier for a whole file system is cheaper than one for each of many files.

The promise is the same: ``syncfs`` writes out all data and all names, and since Linux 5.8 it tells of every write that
failed. Elsewhere, and where it is missing, each file is flushed for itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

BATCH = 16
"""Files from which on one barrier for all is cheaper than one for each."""


def flush_all(fd: int) -> bool:
    """Flush the whole file system that ``fd`` is on; False where that cannot be done or trusted. Raises
    :class:`OSError` when something could not be written."""
    call = _syncfs()
    if call is None:
        return False
    if call(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


@cache
def _syncfs() -> Any:
    if sys.platform != "linux" or _kernel() < (5, 8):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int]
    return call


def _kernel() -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])
    except ValueError:
        return (0,)
