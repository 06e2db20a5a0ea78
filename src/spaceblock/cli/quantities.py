"""How a command is told sizes, rates and ports."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}IB": 1024**_power, f"{_letter}B": 1000**_power}


def parse_size(text: str) -> int:
    """``1GiB`` (or ``1G``), ``500MB`` or a plain number as bytes; raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    unit = None if found is None else _UNITS.get(found[2].upper())
    if found is None or unit is None:
        raise ValueError(f"{text!r} is not a size: write 1GiB, 500MB or a number of bytes")
    return int(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def parse_ports(text: str) -> int | range:
    """``4000`` as a port, ``4000-4010`` as a range of them, both ends included; raises ValueError."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last <= 65_535 or (first == 0 and last):
        raise ValueError(f"{text!r} is not a port: write 4000, or a range such as 4000-4010")
    return range(first, last + 1) if last > first else first
