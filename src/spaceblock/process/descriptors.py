"""What becomes of descriptors that nobody reads any more."""

from __future__ import annotations

import os


def silence(*numbers: int) -> None:
    """Let nobody be told what is still written to these descriptors."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    for number in numbers:
        os.dup2(nobody, number)
    os.close(nobody)
