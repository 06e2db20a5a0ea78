"""How to show text that came from elsewhere: what would mislead a reader or command a terminal becomes an escape."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """``text`` with everything escaped that a terminal would act on or that would mislead a reader: control characters,
    line separators, bidirectional marks, unpaired surrogates, invisible formatting."""
    return "".join(ch if _is_plain(ch) else ch.encode("unicode_escape").decode("ascii") for ch in text)


def _is_plain(ch: str) -> bool:
    return unicodedata.category(ch) not in _HIDDEN_CATEGORIES


_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
