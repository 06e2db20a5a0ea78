"""The core, compiled where it can be: one set of names, from two extensions or from their twins in Python.

``_fastblock`` and its twin ``_pyblock`` write blocks, ``_fastdeframer`` and ``_pydeframer`` read them; ``_fastlists``
and ``_pylists`` make and read many short messages at once; ``_fastfiles`` handles many small files at once where the
system has what that takes, and ``_pyfiles`` none.
``SPACEBLOCK_NO_EXTENSION=1`` in the environment chooses the twins. Extensions that are absent mean the twins as well;
one that is present and does not load is an error. :data:`IMPLEMENTATION` says which it is.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

__all__ = [
    "BLOCK_TYPE",
    "HEADER_ROOM",
    "IMPLEMENTATION",
    "MESSAGE_DATA_MAX",
    "UINT_VAR_MAX",
    "Deframer",
    "decode_uint_var",
    "encode_uint_var",
    "fill_blocks",
    "find_files",
    "frame_blocks",
    "frame_digests",
    "is_in_memory",
    "make_records",
    "parse_digests",
    "place_files",
    "read_files",
    "read_rows",
    "short_digests",
    "slice_range",
    "store_files",
    "write_all",
    "write_rows",
    "write_uint_var",
]

IMPLEMENTATION: str
"""``"cython"`` or ``"python"``."""

if TYPE_CHECKING:
    from ._fastblock import (
        BLOCK_TYPE,
        HEADER_ROOM,
        MESSAGE_DATA_MAX,
        UINT_VAR_MAX,
        decode_uint_var,
        encode_uint_var,
        fill_blocks,
        frame_blocks,
        slice_range,
        write_all,
        write_uint_var,
    )
    from ._fastdeframer import Deframer
    from ._fastfiles import find_files, is_in_memory, place_files, read_files, store_files
    from ._fastlists import frame_digests, make_records, parse_digests, read_rows, short_digests, write_rows
else:

    def _choose():
        if os.environ.get("SPACEBLOCK_NO_EXTENSION") != "1":
            try:
                return "cython", _load("_fastblock", "_fastdeframer", "_fastlists", _FILES)
            except ModuleNotFoundError as error:
                if error.name != f"{__package__}._fastblock":
                    raise
        return "python", _load("_pyblock", "_pydeframer", "_pylists", "_pyfiles")

    def _load(*names):
        return [importlib.import_module(f"{__package__}.{name}") for name in names]

    _FILES = "_pyfiles" if sys.platform == "win32" else "_fastfiles"
    IMPLEMENTATION, _modules = _choose()
    for _module in _modules:
        globals().update({name: getattr(_module, name) for name in __all__ if hasattr(_module, name)})
