"""Looking at what is to be sent before there is anybody to send it to: what makes the connection leaves a processor
idle meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from time import monotonic

from ..errors import SpaceblockError
from ..manifest import Entry
from ..options import Links
from .files import FileSource, expand

FRESH = 5.0
"""Seconds after which what was seen is too old to be offered."""

_INTERVAL = 0.2
"""Seconds between two looks at how far a look has come."""


class Glance(os.PathLike[str]):
    """A path that is looked at from now on, in a thread of its own, for whoever takes it in time."""

    def __init__(self, path: str, links: Links) -> None:
        self._path = path
        self._links = links
        self._found: list[FileSource | Entry] = []
        self._error: SpaceblockError | None = None
        self._is_whole = False
        self._began = monotonic()
        self._thread = Thread(target=self._look, name="spaceblock-glance", daemon=True)
        with suppress(RuntimeError):  # no thread can be had
            self._thread.start()

    def __fspath__(self) -> str:
        return self._path

    def take(self, links: Links, on_work: Callable[[], None]) -> Iterator[FileSource | Entry]:
        """What is there, as :func:`.files.expand` tells it; looks once more where it was too long ago, was about other
        ``links``, or was taken before. ``on_work`` is called while something is found."""
        began, self._began = self._began, -FRESH
        if monotonic() - began < FRESH and links == self._links:
            count = 0
            while self._thread.is_alive():
                self._thread.join(_INTERVAL)
                if len(self._found) > count:
                    count = len(self._found)
                    on_work()
            if self._error is not None:
                raise self._error
            if self._is_whole:
                found, self._found = self._found, []
                return iter(found)
        return expand(self._path, None, None, links)

    def _look(self) -> None:
        try:
            self._found.extend(expand(self._path, None, None, self._links))
            self._is_whole = True
        except SpaceblockError as error:
            self._error = error
