"""Draw docs/terminal.svg from a real transfer: ``python tools/terminal_picture.py [FILE]``.

Two commands run on terminals of their own, one beside the other in time, and what their screens show is drawn frame by
frame. Nothing in the picture is invented; only the waits between frames are made even.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from xml.sax.saxutils import escape

import pyte

COLUMNS, ROWS = 96, 13
INTERVAL = 0.25
"""Seconds between two looks at the screens."""
PATIENCE = 60
FRAMES_MAX = 24
FRAME_SECONDS, LAST_SECONDS = 0.4, 4.0
CELL_WIDTH, CELL_HEIGHT, FONT_SIZE, MARGIN = 8.4, 18, 14, 12
COLOURS = {
    "default": "#d6d9dd",
    "black": "#5c6370",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#ffffff",
}
Line = tuple[tuple[str, str], ...]
"""Runs of one colour."""
Frame = tuple[tuple[Line, ...], tuple[Line, ...]]
"""What both screens show at one time."""


class Screen:
    """A command on a terminal, and what it shows."""

    def __init__(self, title: str, folder: Path, words: list[str]) -> None:
        self.title = title
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = threading.Condition()
        self.shown = "spaceblock " + " ".join(words)
        self._outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spaceblock", *words],
            cwd=folder,
            env={**environment, "SPACEBLOCK_HOME": str(folder / ".home"), "TERM": "xterm-256color"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._stream.feed(f"\x1b[32m$\x1b[0m {_shortened(self.shown)}\r\n".encode())
        self._reader.start()

    def wait_for(self, text: str) -> str:
        """Wait until ``text`` is on the screen; gives its line."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._line_with(text) is not None, PATIENCE), self._screen.display
            return self._line_with(text) or ""

    def type(self, text: str) -> None:
        os.write(self._outer, text.encode())

    def lines(self) -> tuple[Line, ...]:
        """What it shows now."""
        with self._changed:
            return tuple(self._coloured(row) for row in range(ROWS))

    def text(self) -> str:
        """What it shows now, without colours and line breaks."""
        with self._changed:
            return "".join(self._screen.display)

    def end(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self._screen.display
        self._reader.join(PATIENCE)

    def _line_with(self, text: str) -> str | None:
        return next((line for line in self._screen.display if text in line), None)

    def _coloured(self, row: int) -> Line:
        runs: list[tuple[str, str]] = []
        for column in range(COLUMNS):
            cell = self._screen.buffer[row][column]
            colour = COLOURS.get(cell.fg) or (f"#{cell.fg}" if len(cell.fg) == 6 else COLOURS["default"])
            if runs and runs[-1][0] == colour:
                runs[-1] = (colour, runs[-1][1] + cell.data)
            else:
                runs.append((colour, cell.data))
        return tuple(runs)

    def _follow(self) -> None:
        while True:
            try:
                data = os.read(self._outer, 65_536)
            except OSError:
                return
            with self._changed:
                self._stream.feed(data)
                self._changed.notify_all()


@dataclass(frozen=True)
class Scene:
    """The frames of both screens."""

    titles: tuple[str, str]
    frames: tuple[Frame, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the README's picture from a real transfer.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).parents[1] / "docs" / "terminal.svg")
    parser.add_argument("--size", type=int, default=160, metavar="MB", help="of the largest file; 160 if not given")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spaceblock-") as folder:
        scene = record(Path(folder), chosen.size * 1_000_000)
    chosen.file.write_text(drawn(scene), encoding="utf-8")
    print(f"{chosen.file}: {len(scene.frames)} frames")


def record(folder: Path, size: int) -> Scene:
    """Send a folder and a file from one command to another, and look at both screens meanwhile."""
    there, here = folder / "there", folder / "here"
    (here / "photos").mkdir(parents=True)
    there.mkdir()
    for number in range(3):
        (here / "photos" / f"{number + 1:02}.jpg").write_bytes(os.urandom(size // 40))
    (here / "weights.safetensors").write_bytes(os.urandom(size))
    receiver = Screen("the computer that can be reached", there, ["receive", "--once", "--listen", "127.0.0.1:0"])
    ticket = _ticket_on(receiver)
    words = ["send", "--limit", f"{max(size // 5_000_000, 1)}MB", "--to", ticket, "photos", "weights.safetensors"]
    sender = Screen("the other one", here, words)
    frames = [(receiver.lines(), sender.lines())]
    receiver.wait_for("?")
    frames.append((receiver.lines(), sender.lines()))
    receiver.type("y\n")
    deadline = monotonic() + PATIENCE
    while sender.process.poll() is None and monotonic() < deadline:
        frames.append((receiver.lines(), sender.lines()))
        _wait(sender.process, INTERVAL)
    sender.end()
    receiver.end()
    frames.append((receiver.lines(), sender.lines()))
    return Scene((receiver.title, sender.title), _thinned(frames))


def drawn(scene: Scene) -> str:
    """The frames as an SVG that shows one after the other; without animation the last one."""
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    pane = (ROWS + 1.5) * CELL_HEIGHT + MARGIN
    count = len(scene.frames)
    total = (count - 1) * FRAME_SECONDS + LAST_SECONDS
    share = FRAME_SECONDS / total * 100
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {2 * pane:.0f}" xml:space="preserve"'
        ' role="img" aria-label="spaceblock send and receive on two terminals">',
        f"<style>text{{font:{FONT_SIZE}px ui-monospace,Menlo,Consolas,monospace;white-space:pre}}",
        "g.f{visibility:hidden}g.f:last-of-type{visibility:visible}",
        f"@keyframes one{{0%{{visibility:visible}}{share:.3f}%,100%{{visibility:hidden}}}}",
        f"@keyframes last{{0%{{visibility:visible}}{LAST_SECONDS / total * 100:.3f}%,100%{{visibility:hidden}}}}",
        "@media(prefers-reduced-motion:no-preference){",
        f"g.f{{animation:one {total:.2f}s step-end infinite}}",
        "g.f:last-of-type{animation-name:last}}</style>",
        '<rect width="100%" height="100%" rx="8" fill="#1d2025"/>',
    ]
    for index, title in enumerate(scene.titles):
        parts.append(_text(MARGIN, index * pane + CELL_HEIGHT + 4, ((COLOURS["black"], f"── {title} ──"),)))
    for number, screens in enumerate(scene.frames):
        parts.append(f'<g class="f" style="animation-delay:{number * FRAME_SECONDS - total:.2f}s">')
        for index, lines in enumerate(screens):
            for row, line in enumerate(lines):
                if any(text.strip() for _, text in line):
                    parts.append(_text(MARGIN, index * pane + (row + 2.5) * CELL_HEIGHT, line))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, line: Line) -> str:
    spans = "".join(f'<tspan fill="{colour}">{escape(text)}</tspan>' for colour, text in _trimmed(line))
    return f'<text x="{x:g}" y="{y:g}">{spans}</text>'


def _trimmed(line: Line) -> Line:
    runs = list(line)
    while runs and not runs[-1][1].strip():
        runs.pop()
    if runs:
        runs[-1] = (runs[-1][0], runs[-1][1].rstrip())
    return tuple(runs)


def _thinned(frames: list[Frame]) -> tuple[Frame, ...]:
    """Each frame once, and of many only every so many; the last one always."""
    distinct = [frame for before, frame in zip([None, *frames], frames, strict=False) if frame != before]
    step = -(-len(distinct) // FRAMES_MAX)
    return (*distinct[:-1:step], distinct[-1])


def _ticket_on(receiver: Screen) -> str:
    """The ticket, which the terminal may have broken into lines."""
    receiver.wait_for("sb2")
    while True:
        text = receiver.text()
        start = text.index("sb2")
        end = text.find(" ", start)
        if end > 0:
            return text[start:end]


def _shortened(command: str) -> str:
    """The command with as much of the ticket as anybody wants to see."""
    return " ".join(f"{word[:10]}…" if len(word) > 40 else word for word in command.split())


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    main()
