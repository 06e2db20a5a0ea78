"""Run every case with every stack that can be built here, in both roles and on both engines, and print a table.

What pytest understands may follow: ``python interop/run.py -k quinn``. Ends with 1 if a case failed that is not known
to fail.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent

MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "-", "xfailed": "known", "xpassed": "ok now"}

SOMETIMES = "now and then: "
"""How the reason of a case begins that is known to fail, but not every time."""


class Table:
    """A pytest plugin: a row for each case, a column for each side, and the reasons below."""

    def __init__(self) -> None:
        self._outcomes: dict[str, dict[tuple[str, ...], str]] = {}
        self._reasons: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        told = dict(report.user_properties)
        if "case" not in told or (report.when != "call" and report.outcome == "passed"):
            return
        case, outcome = told["case"], report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
            if report.passed and report.wasxfail.startswith(SOMETIMES):
                outcome = "passed"
            else:
                self._reasons[f"{MARKS[outcome]}, {case}: {report.wasxfail}"] = None
        elif report.skipped:
            self._reasons[f"{MARKS[outcome]}, {case}: {report.longrepr[2].removeprefix('Skipped: ')}"] = None
        self._outcomes.setdefault(case, {})[told["side"]] = MARKS[outcome]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        sides = list(dict.fromkeys(side for row in self._outcomes.values() for side in row))
        if not sides:
            return
        terminalreporter.section("interoperation: our engine, our role, and whom it met")
        width = max(map(len, self._outcomes)) + 2
        for words in zip(*sides, strict=True):
            terminalreporter.write_line(_row("", words, width))
        for case, row in self._outcomes.items():
            terminalreporter.write_line(_row(case, [row.get(side, "") for side in sides], width))
        for reason in self._reasons:
            terminalreporter.write_line(reason)


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return (name.ljust(width) + "".join(cell.ljust(9) for cell in cells)).rstrip()


def main(arguments: list[str]) -> int:
    sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent)]
    from foreign import STACKS, build

    for stack in STACKS:
        print(f"{stack}: {build(stack) or 'built'}", flush=True)
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-r", "f"]
    return int(pytest.main([*options, str(HERE), *arguments], plugins=[Table()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
