"""Progress for people: the words, the bars and the plain lines."""

from __future__ import annotations

import io
from typing import Any

import pytest

from spaceblock.bars import LINE_TITLE_MAX, Bars, Lines, duration_text, figures, fit, open_display, size_text, title_of
from spaceblock.cli.console import Console
from spaceblock.errors import TransferCancelled
from spaceblock.events import Phase, Progress, Receipt, ReceiptItem


def progress(phase: Phase = Phase.MOVING, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "phase": phase,
        "bytes_done": 113_000_000,
        "bytes_total": 268_000_000,
        "rate": 27_100_000.0,
        "eta": 5.2,
        "verified": 0,
        "durable": 0,
        "items_done": 0,
        "items_total": 1,
        "current": None,
    }
    return Progress(**{**values, **changes})


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_999, "10.0 kB"),
        (99_960, "100 kB"),
        (268_435_456, "268 MB"),
        (999_499_999, "999 MB"),
        (999_600_000, "1.00 GB"),
        (2.5e12, "2.50 TB"),
        (2**62, "4612 PB"),
    ],
)
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("the sender cancelled the transfer", "; give the same command again when the other side is ready\n"),
        ("the peer closed the connection: connect and send again", "closed the connection: connect and send again\n"),
    ],
)
def test_a_cancel_by_the_other_side_has_one_advice(message: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=False, verbose=False, data_on_output=False, known={})
    console.failed(TransferCancelled(message, remote=True), kept=False)
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (7, "0:07"), (754, "12:34"), (3_723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_figures() -> None:
    assert figures(progress()) == "42%  113 MB of 268 MB  27.1 MB/s  0:05 left"
    assert figures(progress(items_done=3, items_total=7)).endswith("  3 of 7 items")
    assert figures(progress(Phase.DISK)) == "waiting for the receiver's disk  42%  113 MB of 268 MB"
    assert figures(progress(Phase.OFFERING, bytes_done=0, bytes_total=None)) == "waiting for the answer"
    assert figures(progress(bytes_total=None, eta=None)) == "113 MB  27.1 MB/s"
    assert figures(progress(Phase.DONE, bytes_done=0, bytes_total=0)) == "0 B of 0 B"


def test_titles() -> None:
    assert title_of(["a.bin"]) == "a.bin"
    assert title_of(["photos/1.jpg", "photos/2.jpg"]) == "photos"
    assert title_of(["a.bin", "photos/1.jpg", None]) == "a.bin and 2 more"
    assert title_of([None]) == "unnamed"
    assert title_of([]) == "nothing"


def test_lines_come_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr("spaceblock.bars.monotonic", lambda: now)
    row = Lines().row("evil\x1b[2J")
    for tenth in range(25):
        now = 100 + tenth / 10
        row.update(progress(bytes_done=tenth * 1_000_000))
    row.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.partition(" of ")[0] for line in shown.err.splitlines()] == [
        "evil\\x1b[2J: 0%  0 B",
        "evil\\x1b[2J: 3%  10.0 MB",
        "evil\\x1b[2J: 7%  20.0 MB",
    ]


def test_a_long_name_does_not_fill_line_after_line(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().row("begin" + "n" * 4000 + "end").update(progress())
    title = capsys.readouterr().err.partition(": ")[0]
    assert (len(title), title[:6], title[-4:]) == (LINE_TITLE_MAX, "beginn", "nend")


def test_no_bars_fit_into_any_terminal() -> None:
    assert fit([], 0) == fit([], 9) == fit([], 200) == []


@pytest.mark.parametrize(("resumed", "text"), [(0, "150 MB/s)"), (50_000_000, "100 MB/s), 50.0 MB of it before")])
def test_what_was_there_before_is_told(capsys: pytest.CaptureFixture[str], resumed: int, text: str) -> None:
    receipt = Receipt("", "", (ReceiptItem(0, "a", "a", 150_000_000, "", False),), 150_000_000, 1.0, resumed=resumed)
    Console(quiet=False, verbose=False, data_on_output=False, known={}).complete(receipt, "sent")
    assert f"sent 1 item, 150 MB in 1.0 s ({text}, verified on both ends\n" in capsys.readouterr().err


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_escape_names_and_leave_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Tty()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "101")
    display = open_display()
    assert isinstance(display, Bars)
    first, second = display.row("evil\x1b[2J[red]"), display.row("x" * 100)
    first.update(progress())
    display.print("[bold]a sentence")
    with display.paused():
        screen.write("a question")
    second.close()
    first.close()
    first.close()
    shown = screen.getvalue()
    assert "evil\\x1b[2J[red]" in shown
    assert "x" * 16 + "…" + "x" * 15 in shown
    assert "42%  113 MB of 268 MB" in shown
    assert "[bold]a sentence" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 2


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_draw_has_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setattr("sys.stderr", Tty())
    monkeypatch.setenv("TERM", term)
    assert isinstance(open_display(), Lines)


def test_a_quiet_display_has_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    display = open_display(quiet=True)
    row = display.row("a.bin")
    row.update(progress())
    row.close()
    display.print("spaceblock: an error")
    assert capsys.readouterr().err == "spaceblock: an error\n"
