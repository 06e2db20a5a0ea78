"""These benchmarks run where the native engine was built, and borrow its tests' link between two engines."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("spaceblock.quic.native.engine") is None:
    collect_ignore_glob = ["bench_*.py"]  # without libcrypto's headers there is no native engine

sys.path.append(str(Path(__file__).parents[2] / "tests" / "native"))
