"""What a terminal shows, drawn by an emulator: bars and questions in 60, 80 and 120 columns."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import pyte
import pytest

from commands import Commands
from spaceblock.bars import BAR_MIN, Bar, Bars, fit, ranked_figures
from spaceblock.events import ItemProgress, Phase, Progress

WIDTHS = [60, 80, 120]
MOVIE = ItemProgress(3, "holiday/the whole way down the mountain, filmed.mov", 34_000_000, 90_000_000, 13.2e6, 4.0)


def progress(phase: Phase = Phase.MOVING, item: ItemProgress | None = MOVIE, **changes: object) -> Progress:
    values: dict[str, object] = {
        "phase": phase,
        "bytes_done": 113_000_000,
        "bytes_total": 268_000_000,
        "rate": 27_100_000.0,
        "eta": 5.2,
        "verified": 0,
        "durable": 0,
        "items_done": 3,
        "items_total": 7,
        "current": None,
        "item": item,
    }
    return Progress(**{**values, **changes})  # type: ignore[arg-type]


class Terminal(io.StringIO):
    """A screen of ``columns``, to write to."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.screen = pyte.Screen(columns, 24)
        self._stream = pyte.Stream(self.screen)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]


def opened(monkeypatch: pytest.MonkeyPatch, columns: int) -> Terminal:
    """A terminal for standard error."""
    terminal = Terminal(columns)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    return terminal


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_whole_and_the_item_have_a_line_each(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = opened(monkeypatch, columns)
    row = Bars().row("holiday")
    row.update(progress())
    whole, item = terminal.lines
    assert whole.startswith("holiday ")
    assert " 42%" in whole
    assert "0:05 left" in whole
    assert item.startswith("  the ")
    assert item.index("━") == whole.index("━")
    assert item.rindex("━") == whole.rindex("━")
    assert " 37%" in item
    assert "0:04 left" in item
    assert max(map(len, terminal.lines)) < terminal.screen.columns
    row.close()
    assert terminal.lines == []
    assert not terminal.screen.cursor.hidden


@pytest.mark.parametrize("columns", WIDTHS)
def test_two_transfers_and_a_sentence(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = opened(monkeypatch, columns)
    display = Bars()
    first, second = display.row("写真と動画のフォルダー" * 3), display.row("report.pdf")
    first.update(progress(Phase.DISK, bytes_total=None))
    second.update(progress(item=None, items_total=1))
    display.print("something happened")
    assert terminal.lines[0] == "something happened"
    assert len(terminal.lines) == 3
    assert "waiting for the receiver's disk" in terminal.lines[1]
    second.close()
    assert len(terminal.lines) == 2
    first.close()
    assert terminal.lines == ["something happened"]


def test_what_is_said_between_two_drawings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = opened(monkeypatch, 80)
    display = Bars()
    row = display.row("holiday")
    row.update(progress())
    with display.paused():
        display.print("Accept? [y/N] y")
    row.update(progress())
    assert len(terminal.lines) == 3
    row.close()
    assert terminal.lines == ["Accept? [y/N] y"]


@pytest.mark.parametrize("width", range(8, 200, 3))
@pytest.mark.parametrize("title", ["a", "photos", "x" * 300, "写" * 40])
def test_a_line_fills_its_width_and_no_more(title: str, width: int) -> None:
    from rich.cells import cell_len

    bars = [Bar(title, 1, 2, ranked_figures(progress())), Bar("b", 1, 2, ranked_figures(progress(Phase.DISK)))]
    for shown, columns, text in fit(bars, width):
        assert cell_len(shown) + (1 + columns if columns else 0) + 1 + len(text) <= width + 1
        assert columns == 0 or columns >= BAR_MIN
        assert text


def dropped(width: int) -> Sequence[str]:
    full = [text for _, text in ranked_figures(progress())]
    return [text for text in full if text not in fit([Bar("photos", 1, 2, ranked_figures(progress()))], width)[0][2]]


def test_what_is_left_out_first_where_there_is_little_room() -> None:
    assert dropped(100) == []
    assert dropped(70) == ["3 of 7 items"]
    assert dropped(52) == ["113 MB of 268 MB", "3 of 7 items"]
    assert dropped(36) == ["113 MB of 268 MB", "27.1 MB/s", "3 of 7 items"]
    assert dropped(24) == ["113 MB of 268 MB", "27.1 MB/s", "0:05 left", "3 of 7 items"]


@pytest.mark.parametrize("columns", WIDTHS)
def test_what_both_sides_see_from_the_first_line_to_the_last(commands: Commands, tmp_path: Path, columns: int) -> None:
    photos, inbox = tmp_path / "holiday photos", tmp_path / "inbox"
    photos.mkdir()
    inbox.mkdir()
    for number in range(30):
        (photos / f"{number}.jpg").write_bytes(bytes(3_000))
    receiver = commands.start("receive", "--listen", "127.0.0.1:0", "--dir", inbox, "--once", terminal=columns)
    sender = commands.start("send", "--to", receiver.read_line(), photos, terminal=columns)
    receiver.terminal.wait_for("list all]")
    sender.terminal.wait_for("waiting for the receiver's user")
    receiver.terminal.type("y\n")
    sent, received = sender.end(), receiver.end()
    assert (sent.code, received.code) == (0, 0)
    sender_id = commands.run("id", home="send").out.strip()
    shown = screen_of(received.err, columns)
    place = f"Into  {inbox} ("
    assert shown[1:3] == [f"From  {sender_id}", "What  30 items, 90.0 kB"]
    assert "".join(shown).replace("\n", "").count(place) == 1
    assert "   90.0 kB  holiday photos/  30 items" in [f" {line}" for line in shown]
    assert "Accept? [y/N, l: list all] y" in shown
    for side, verb in ((screen_of(sent.err, columns), "sent"), (shown, "received")):
        last = " ".join(line.strip() for line in side[-2:])
        assert re.search(rf"{verb} 30 items, 90.0 kB in [\d.]+ s \([\d.]+ \w+/s\), verified on both ends$", last)
        assert not any("━" in line for line in side), "the bars are gone"


def screen_of(written: str, columns: int) -> list[str]:
    """The lines of a terminal after all that was written to it."""
    screen = pyte.Screen(columns, 24)
    pyte.Stream(screen).feed(written)
    return [line.rstrip() for line in screen.display if line.strip()]
