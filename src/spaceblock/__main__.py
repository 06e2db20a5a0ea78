"""``python -m spaceblock`` is the ``spaceblock`` command."""

from __future__ import annotations

import os
import sys

try:
    from .postponed import Postponed
except KeyboardInterrupt:
    os._exit(130)  # nothing was begun, and a picture of half imported modules helps nobody


def main() -> int:
    """Run the command that the process was started for, and return its exit code.

    Signals are seen to before anything else is imported, so that Ctrl-C has its answer from the first moment on.
    """
    with Postponed() as signals:
        from .unneeded import STANDARD, uncompiled

        with uncompiled(*STANDARD):
            from .cli import main as run

        return run(ready=signals.release)


if __name__ == "__main__":
    sys.exit(main())
