"""Whether the bytes of a buffer are in memory, or may first have to be read from a disk."""

from __future__ import annotations

import mmap


def is_resident(view: memoryview) -> bool:
    """False for a mapped file, and for what was made from one: touching its bytes may wait for a disk.

    Follows the ``base`` of arrays to the object that owns the memory.
    """
    owner: object = view.obj
    for _ in range(_BASES_MAX):
        if isinstance(owner, mmap.mmap):
            return False
        if isinstance(owner, memoryview):
            owner = owner.obj
        else:
            base = getattr(owner, "base", None)
            if base is None:
                return True
            owner = base
    return False


_BASES_MAX = 100
"""An owner that is further away than this is not looked for."""
