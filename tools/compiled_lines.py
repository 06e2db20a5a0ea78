"""Counts lines of Cython for coverage: what gcov counted in the C files, told in lines of what they were made from.

Tracing compiled code line by line would take the interpreter's lock for every line and make the transport miss its
deadlines; gcov counts without either. Before each statement the C file names the line that it comes from, so a line
was run if any C line of one of its statements was.

``python tools/compiled_lines.py BUILD`` reads the counts below BUILD (``make coverage``) and writes them to a data file
of coverage's, to be combined with Python's. As a plugin of coverage's it says which lines there are to run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coverage import CoverageData, CoveragePlugin, FileReporter

if TYPE_CHECKING:
    from coverage.plugin_support import Plugins

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ROOT / "build" / "trace" / "lines.json"
"""Of each source the lines that have code, as the last collection found them."""

MARK = re.compile(r'^ */\* "(.+)":(\d+)$')


def main() -> int:
    """Collect what is below the folder that is named; returns the exit status."""
    build = Path(sys.argv[1]).resolve()
    counts = collect(build)
    if not counts:
        print(f"nothing was counted below {build}; build with SPACEBLOCK_TRACE=1", file=sys.stderr)
        return 1
    KNOWN.write_text(json.dumps({path: sorted(lines) for path, lines in counts.items()}))
    data = CoverageData(str(ROOT / ".coverage"), suffix="compiled")
    data.erase()
    data.add_arcs({path: [(-1, line) for line, count in lines.items() if count] for path, lines in counts.items()})
    data.add_file_tracers(dict.fromkeys(counts, f"{Path(__file__).stem}.CompiledLines"))
    data.write()
    return 0


def collect(build: Path) -> dict[str, dict[int, int]]:
    """How often each line of each source was run, by all processes together."""
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for notes in sorted(build.rglob("*.gcno")):
        command = ["gcov", "--json-format", "--stdout", str(notes)]
        for report in subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
        ).stdout.splitlines():
            for file in json.loads(report)["files"]:
                if file["file"].endswith(".c"):
                    in_c = {line["line_number"]: line["count"] for line in file["lines"]}
                    for number, (source, line) in origins((ROOT / file["file"]).read_text()):
                        if number in in_c:
                            counts[source][line] = max(counts[source][line], in_c[number])
    return {source: dict(lines) for source, lines in counts.items()}


def origins(text: str) -> Iterator[tuple[int, tuple[str, int]]]:
    """The lines of a C file that belong to a statement, each with the source and line that it comes from."""
    origin: tuple[str, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = MARK.match(line)
        if mark is not None:
            source = ROOT / "src" / mark[1]
            origin = (str(source), int(mark[2])) if source.is_file() else None
        elif line == "}":
            origin = None
        elif origin is not None:
            yield number, origin


class CompiledLines(CoveragePlugin):
    """Reports on sources of compiled modules."""

    def file_reporter(self, filename: str) -> FileReporter:
        return CompiledFile(filename)


class CompiledFile(FileReporter):
    """The lines of one source that have code, but for those that are excluded by a comment."""

    def lines(self) -> set[int]:
        return set(json.loads(KNOWN.read_text())[self.filename])

    def excluded_lines(self) -> set[int]:
        lines = self.source().splitlines()
        return {number for number, line in enumerate(lines, 1) if line.rstrip().endswith("# pragma: no cover")}


def coverage_init(registry: Plugins, options: dict[str, str]) -> None:
    """Coverage's way to ask for the plugin."""
    registry.add_file_tracer(CompiledLines())


if __name__ == "__main__":
    sys.exit(main())
