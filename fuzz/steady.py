"""Chance that is the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random


@contextmanager
def steady() -> Iterator[None]:
    """What engines draw by chance is the same each time, so that an input does the same when it is tried again."""
    real, os.urandom = os.urandom, Random(1).randbytes
    try:
        yield
    finally:
        os.urandom = real
