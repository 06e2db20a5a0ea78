"""How the system shares processors with a command: for throughput."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def prefer_long_turns() -> None:
    """Have the threads that this process starts, and this one, not take a processor from another because they wake up.

    On Linux that is ``SCHED_BATCH`` (sched(7)). Sender and receiver wake each other for each train of packets, and a
    program's threads each other for each buffer; whoever is awake then keeps its processor, with what it has in the
    cache. A policy that somebody chose stays, and so does everything where the system knows no such thing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a sandbox forbids it, or the C library has no such call
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
