"""Forty names of ten kinds that Linux takes and another system does not, as files in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

BAD = {
    "characters": ["less<than.txt", "what?.txt", "star*.txt", 'pipe|and"quote'],
    "streams and drives": ["a:b", "file.txt:stream", "C:drive", "x::$DATA"],
    "separators of another system": ["a\\b", "..\\up", "\\\\server\\share", "end\\"],
    "control characters": ["bell\x07.txt", "tab\there", "new\nline.txt", "escape\x1b[2J.txt"],
    "devices": ["con", "nul.txt", "COM1.tar.gz", "lpt\u00b9"],
    "dots at the end": ["dot.", "dots...", "name.txt.", ". . ."],
    "spaces at the end": ["space ", "spaces   ", "name.txt ", "\u00e9 "],
    "too long": ["long" * 30 + ".txt", "\u00e9" * 110, "\U0001f600" * 55 + ".jpeg", "x" * 101],
    "the same file twice": ["readme", "ReadMe", "stra\u00dfe", "caf\u00e9"],
    "no text": [os.fsdecode(name) for name in (b"caf\xe9.txt", b"\xff\xfe", b"a\x80b", b"\xc3")],
}
"""A hundred UTF-16 units are too long."""

GOOD = ["README", "STRASSE", "cafe\u0301", "ok too.txt", "bidi\u202egpj.exe"]
"""What is beside them; three mean the same as one of theirs where case and composition do not count."""

FORTY = [name for names in BAD.values() for name in names]


def write_forty(top: Path) -> Path:
    """The folder ``top`` with a file for each name, which has that name as its content."""
    top.mkdir()
    for name in (*FORTY, *GOOD):
        (top / name).write_bytes(os.fsencode(name))
    return top


def is_complete(copy: Path) -> bool:
    """Whether a copy has every file, under whatever name."""
    found = sorted(path.read_bytes() for path in copy.rglob("*") if path.is_file())
    return found == sorted(os.fsencode(name) for name in (*FORTY, *GOOD))


def leads_to_the_copy(renamed: Mapping[str, str], folder: Path, top: str) -> bool:
    """Whether a receipt's mapping tells of every bad name where its bytes are now."""
    return all((folder / renamed[f"{top}/{name}"]).read_bytes() == os.fsencode(name) for name in FORTY)
