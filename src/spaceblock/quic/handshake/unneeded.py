"""Modules that another one imports and Spaceblock never uses: they are imported when somebody asks for their contents.

aioquic judges certificates by the web's rules with three packages. Spaceblock judges them by their keys alone, so all
that these packages do for it is to take a seventh of the time in which a command starts.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def put_off(*names: str) -> Iterator[None]:
    """What is imported inside gets stand-ins for these modules; a package stands before what is in it.

    They are in place only where no other thread could come upon them, and only for modules that are not there yet.
    """
    if threading.active_count() > 1 or any(name in sys.modules for name in names):
        yield
        return
    for name in names:
        package, _, last = name.rpartition(".")
        sys.modules[name] = later = _Later(name)
        if package:
            setattr(sys.modules[package], last, later)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class _Later(ModuleType):
    """Stands for the module of its name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for such names, and does without
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)
