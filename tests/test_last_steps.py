"""A command ends its process at once, but not before what every process does at its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENDING = """
import atexit, sys, threading
from spaceblock.__main__ import main

def work():
    ended.wait()
    print("a thread ends")

class Last:
    def __del__(self):
        print("taken apart")

last = Last()
ended = threading.Event()
atexit.register(print, "at exit")
threading._register_atexit(ended.set)
threading.Thread(target=work).start()
sys.exit(main())
"""


def test_threads_end_and_all_is_said(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING, "id", "--identity", tmp_path], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[1:] == ["a thread ends", "at exit"]
    assert ended.stderr == ""


def test_what_cannot_be_flushed_is_told_by_the_interpreter(tmp_path: Path) -> None:
    script = "import atexit\nfrom spaceblock.__main__ import main\natexit.register(print, 'at exit')\nmain()"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    source, sink = os.pipe()
    os.close(source)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", f"{script}\nprint('went on')", "trust", "--identity", tmp_path],
            stdout=sink,
            stderr=subprocess.PIPE,
            text=True,
            env=buffered,
        )
    finally:
        os.close(sink)
    assert ended.returncode == 120
    assert "BrokenPipeError" in ended.stderr
