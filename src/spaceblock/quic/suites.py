"""Which of TLS 1.3's cipher suites this machine is fastest with."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

AES_FIRST = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
CHACHA_FIRST = ("CHACHA20_POLY1305_SHA256", "AES_128_GCM_SHA256", "AES_256_GCM_SHA384")


@cache
def preferred_suites() -> tuple[str, ...]:
    """All suites, the fastest first: AES where the processor has instructions for it, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return AES_FIRST
    return suites_for(text)


def suites_for(cpuinfo: str) -> tuple[str, ...]:
    """The same for the text of ``/proc/cpuinfo``; without a list of features in it, AES is taken to be there."""
    features = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return CHACHA_FIRST if features is not None and "aes" not in features[1].split() else AES_FIRST
