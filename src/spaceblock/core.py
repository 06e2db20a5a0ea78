"""The core, compiled where it can be: one set of names, from ``_fastblock`` or from its twin ``_pyblock``.

``SPACEBLOCK_NO_EXTENSION=1`` in the environment chooses the twin. An extension that is absent means the twin as well;
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
        Deframer,
        decode_uint_var,
        encode_uint_var,
        fill_blocks,
        frame_blocks,
        slice_range,
        write_all,
        write_uint_var,
    )
else:

    def _choose():
        if os.environ.get("SPACEBLOCK_NO_EXTENSION") != "1":
            name = f"{__package__}._fastblock"
            try:
                return "cython", importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name:
                    raise
        return "python", importlib.import_module(f"{__package__}._pyblock")

    IMPLEMENTATION, _module = _choose()
    globals().update({name: getattr(_module, name) for name in __all__ if name != "IMPLEMENTATION"})
