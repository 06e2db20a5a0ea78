"""The core, compiled where it can be: one set of names, from two extensions or from their twins in Python.

``_fastblock`` and its twin ``_pyblock`` write blocks, ``_fastdeframer`` and ``_pydeframer`` read them.
``SPACEBLOCK_NO_EXTENSION=1`` in the environment chooses the twins. Extensions that are absent mean the twins as well;
one that is present and does not load is an error. :data:`IMPLEMENTATION` says which it is.
"""

from __future__ import annotations

import importlib
import os
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
    "frame_blocks",
    "slice_range",
    "write_all",
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
else:

    def _choose():
        if os.environ.get("SPACEBLOCK_NO_EXTENSION") != "1":
            try:
                return "cython", _load("_fastblock", "_fastdeframer")
            except ModuleNotFoundError as error:
                if error.name != f"{__package__}._fastblock":
                    raise
        return "python", _load("_pyblock", "_pydeframer")

    def _load(*names):
        return [importlib.import_module(f"{__package__}.{name}") for name in names]

    IMPLEMENTATION, (_blocks, _deframer) = _choose()
    globals().update({name: getattr(_blocks, name) for name in __all__ if hasattr(_blocks, name)})
    Deframer = _deframer.Deframer
