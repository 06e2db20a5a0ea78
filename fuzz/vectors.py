"""The golden vectors of the protocol's specification, which are what the corpora of the wire begin with."""

from __future__ import annotations

import re

from . import ROOT

_DUMP = re.compile(r"```hex ([^\n]+)\n(.*?)```", re.DOTALL)


def wire_vectors() -> dict[str, bytes]:
    """Each hex dump of a whole message in ``docs/protocol.md``, by its name in lower case with dashes."""
    document = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    found = {}
    for name, dump in _DUMP.findall(document):
        if name[0].isupper():
            lines = (line.partition("#")[0] for line in dump.splitlines())
            found[name.lower().replace(" ", "-")] = bytes.fromhex(" ".join(lines))
    return found
