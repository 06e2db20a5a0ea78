"""How to show text that came from elsewhere, so that none misleads a reader or commands a terminal, and addresses."""

from __future__ import annotations

import unicodedata

SHOWN_MAX = 200
"""Characters of a name in a sentence; a longer one loses its middle."""


def printable(text: str) -> str:
    """``text`` with everything escaped that a terminal would act on or that would mislead a reader: control characters,
    line separators, bidirectional marks, unpaired surrogates, invisible letters and formatting, marks that would pile
    up on their neighbours."""
    shown = []
    marks = _MARKS_MAX  # at the start there is nothing for a mark to belong to
    for ch in text:
        category = unicodedata.category(ch)
        marks = marks + 1 if category in _MARKS else 0
        plain = category not in _HIDDEN_CATEGORIES and ch not in _INVISIBLE and marks <= _MARKS_MAX
        shown.append(ch if plain else ch.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def shown(name: str, limit: int = SHOWN_MAX) -> str:
    """``name`` in quotes, printable, and with its middle left out where it is longer than ``limit`` characters."""
    return repr(shortened(printable(name), limit))


def shortened(text: str, limit: int) -> str:
    """``text`` with at most ``limit`` characters, of which the first and the last stay."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half]}…{text[-half:]}"


def kind_of(thing: object) -> str:
    """What a program gave that will not do, such as ``an int``; it goes by the first letter."""
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def address_text(host: str, port: int) -> str:
    """An address as people write it; an IPv6 one has brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})
_MARKS_MAX = 4
"""Marks on one letter: as many as the languages that have the most of them use."""

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that are drawn as nothing: fillers, the blank of Braille, the grapheme joiner."""
