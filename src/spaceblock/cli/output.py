"""Standard output, of which everything that fails is told apart from other failures."""

from __future__ import annotations

import errno
import os
import sys

from ..process.descriptors import silence


class OutputFailed(Exception):
    """Standard output takes no more; the message says why, and what to do."""


def print_out(text: str) -> None:
    """A line on standard output, written at once; raises :class:`OutputFailed`."""
    try:
        print(text, flush=True)
    except OSError as error:
        raise output_failed(error) from error


def output_failed(error: OSError) -> OutputFailed:
    """What to raise where writing to standard output fails.

    Nobody can be told the rest, which the interpreter would try once more at its end.
    """
    silence(1)
    if error.errno in (errno.EPIPE, errno.EBADF):
        return OutputFailed("standard output was closed before the end: keep its reader running")
    reason = os.strerror(error.errno or 0)
    return OutputFailed(f"standard output cannot be written to: {reason[:1].lower()}{reason[1:]}; direct it elsewhere")


def fill_gaps() -> None:
    """Give the process the standard streams that it was started without.

    A descriptor that is free would be taken by the next file or socket, and be written to by mistake. Nothing can be
    written to a missing standard output; what is told on a missing standard error is told to nobody.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)  # which gives the lowest that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
