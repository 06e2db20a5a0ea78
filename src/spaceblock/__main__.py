"""``python -m spaceblock`` is the ``spaceblock`` command."""

from __future__ import annotations

import os
import sys

try:
    from contextlib import suppress

    from .process.postponed import Postponed
except KeyboardInterrupt:
    os._exit(130)  # nothing was begun, and a picture of half imported modules helps nobody


def main() -> int:
    """Run the command that the process was started for, and end the process with its exit code; where that is not
    possible at once, the code is returned.

    Signals are seen to before anything else is imported, so that Ctrl-C has its answer from the first moment on.
    """
    if sys.getfilesystemencoding() == "ascii":
        _start_with_all_letters()
    with Postponed() as signals:
        from .process.unneeded import STANDARD, uncompiled

        with uncompiled(*STANDARD):
            from .cli import main as run

        code = run(ready=signals.release)
    _leave(code)
    return code


def _start_with_all_letters() -> None:
    """Start once more as Python does by itself in the locale C or POSIX, unless it was told not to: names are UTF-8.

    Otherwise no name but those in ASCII could be read or written. Returns where that is not possible.
    """
    chosen = ["-X", "utf8"]
    if sys.executable and sys.orig_argv[1:3] != chosen:
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *chosen, *sys.orig_argv[1:]])


def _leave(code: int) -> None:
    """Do what the interpreter does at its end but for taking everything apart, which the system does faster.

    Returns where something is wrong, so that the interpreter comes upon it and tells.
    """
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]  # ends pools' threads too, as nothing public does
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BaseException:
        return
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
