"""The floors of the house, as ``CONTRIBUTING.md`` has them: imports point down only, and some things have one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import spaceblock

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
PACKAGE = Path(spaceblock.__file__).parent
WAITING = {"asyncio", "concurrent", "os", "select", "selectors", "socket", "threading", "time"}
"""What waits, reads a clock or touches the system."""

# The first part of a module's name below the package, top floor first.
COMMAND_LINE = {"__main__", "cli", "bars", "sync"}
SHELL = {"api", "listener", "peer", "transfers"}
ROOMS = {"quic", "storage", "trust"}
PROTOCOL = {"protocol"}
VALUES = {"wire", "names", "blocks", "events", "errors", "limits", "options", "display"}
PROCESS = {"process"}
CORE = {"core", "_pyblock", "_pydeframer", "_pyfiles", "_pylists"}
FLOORS = (COMMAND_LINE, SHELL, ROOMS, PROTOCOL, VALUES, PROCESS, CORE)
RAISED_EVERYWHERE = {"errors"}


def name_of(path: Path) -> str:
    parts = ["spaceblock", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """The modules that one imports, at once or later, but not what only a type checker sees."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{start}.{alias.name}" if f"{start}.{alias.name}" in MODULES else start


def rooms_of(module: str) -> set[str]:
    """The parts of the package that a module imports."""
    return {name.split(".")[1] for name in imports(module) if name.startswith("spaceblock.")}


def test_no_two_modules_import_each_other() -> None:
    graph = {module: {name for name in imports(module) if name in MODULES} - {module} for module in MODULES}
    graph["spaceblock"] = set()  # what it exports it loads when asked for
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_every_module_has_one_floor_and_the_guide_names_it() -> None:
    found = {module.split(".")[1] for module in MODULES if "." in module}
    assert sorted(found) == sorted(room for floor in FLOORS for room in floor)
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)[2:]
    assert [set(re.findall(r"`(\w+)/?`", row)) for row in rows] == [floor - {"__main__"} for floor in FLOORS]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    room = module.split(".")[1] if "." in module else ""
    if not room:
        return  # the package itself, which loads what it exports when it is asked for
    (number,) = [number for number, floor in enumerate(FLOORS) if room in floor]
    above = set().union(*FLOORS[:number])
    assert not rooms_of(module) & above - RAISED_EVERYWHERE


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[1:2] == ["protocol"]])
def test_the_rules_of_the_wire_wait_for_nothing(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & WAITING


def test_aioquic_has_one_place() -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == "aioquic" for name in imports(module))}
    assert users
    assert {".".join(module.split(".")[:3]) for module in users} == {"spaceblock.quic.handshake"}
