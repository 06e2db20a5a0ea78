"""The contract of what handles many small files at once; its twin ``_pyfiles`` keeps it by never doing any.

Each call does files in their order until one does not go smoothly, which it leaves as it was, and says how many those
were. Nothing is raised for a file; what is wrong with the next one its caller finds out by doing it alone. A name or
path is bytes as the system has them, or a string of ASCII characters.
"""

from collections.abc import Sequence

from _typeshed import ReadableBuffer, WriteableBuffer

def find_files(paths: Sequence[bytes | str]) -> list[tuple[int, tuple[int, int, int, int, int]]]:
    """Look at plain files that can be read, have no holes and a time of change that fits into 64 bits: the bits of each
    one's mode, and its device, inode, size, times of change and of status change in nanoseconds."""

def read_files(
    slot: WriteableBuffer,
    used: int,
    limit: int,
    block_type: int,
    end_type: int,
    files: Sequence[tuple[int, bytes | str, int, int, int, int, int]],
) -> tuple[int, list[tuple[int, bytes | None]]]:
    """Put whole files into ``slot`` behind ``used`` and before ``limit``, each as one ``Block`` and an ``ItemEnd``.

    A file is given as its item and path, and as device, inode, size above 0, times of change and of status change in
    nanoseconds, all of which it must have before it is read and after. Returns how much of the slot is used, and for
    each file that was read where its bytes begin and, if it is short, its BLAKE3 digest. ValueError for a number out of
    its range.
    """

def store_files(
    folder: int, flush: bool, files: Sequence[tuple[bytes | str, int, int, ReadableBuffer]]
) -> list[tuple[bytes | None, int, int]]:
    """Make new files in the open ``folder``, and with ``flush`` make their bytes durable.

    A file is given as its name, its mode under the umask, its time of change in nanoseconds (-2^63: none) and its
    bytes. Returns for each that was made its BLAKE3 digest, if it is short, its inode, and the time of change that it
    has.
    """

def place_files(staging: int, folder: int, files: Sequence[tuple[bytes | str, bytes | str]]) -> int:
    """Move files from one open folder into another, from one name to another that is free; returns how many."""

def is_in_memory(fd: int) -> bool:
    """Whether the open file is on a file system that has no disk, so that to read and to write it only copies memory;
    False where that cannot be known."""
