"""Fuzzing: one small target for each decoder and each kind of operation sequence, and what runs them.

A target is a module ``fuzz_NAME.py``. Its first comment is its invariant; ``fuzz(data)`` raises when ``data`` breaks
it, and otherwise returns what happened in a few words, by which inputs are told apart where lines of compiled code
cannot be seen. ``seeds()`` gives the inputs to begin with. See ``docs/fuzzing.md``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORPUS = Path(__file__).parent / "corpus"

PLAIN = (
    "deframer",
    "rooms",
    "core",
    "messages",
    "pages",
    "transfer",
    "resume",
    "journal",
    "tickets",
    "admission",
    "names",
    "first_packets",
    "handshake",
)
"""Targets that run everywhere."""

NATIVE = ("acks", "packets", "frames", "updates", "streams", "intake", "pump", "link", "handover", "connections")
"""Targets of the native engine."""

SIZE_MAX = 4_096
"""Bytes of an input, unless a target's ``SIZE_MAX`` says otherwise."""

# The tests' helpers make packets, engines and links; the targets use the same ones.
for _folder in (ROOT / "tests" / "native", ROOT / "tests"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))


@dataclass(frozen=True, slots=True)
class Target:
    """A target that is ready to run."""

    name: str
    fuzz: Callable[[bytes], Hashable]
    seeds: Callable[[], dict[str, bytes]]
    size_max: int

    def corpus(self) -> list[Path]:
        """The committed inputs, in a fixed order."""
        return sorted((CORPUS / self.name).glob("*"))


def names() -> tuple[str, ...]:
    """The targets that this build can run; aioquic 1.3, which is what Python 3.10 has, hands nothing over."""
    has_native = find_spec("spaceblock.quic.native.engine") is not None and sys.version_info >= (3, 11)
    return PLAIN + (NATIVE if has_native else ())


def load(name: str) -> Target:
    """The target called ``name``; ValueError when there is none."""
    if name not in PLAIN + NATIVE:
        raise ValueError(f"no target is called {name!r}; choose from {', '.join(PLAIN + NATIVE)}")
    module = importlib.import_module(f"{__name__}.fuzz_{name}")
    return Target(name, module.fuzz, module.seeds, getattr(module, "SIZE_MAX", SIZE_MAX))
