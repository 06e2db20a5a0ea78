"""Whether a JSON object is what the command line promises: every field there, each of its type, and no other."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from spaceblock.cli.records import VERSION, Record


def kinds() -> dict[str, Any]:
    """The promised objects by their ``type``."""
    return {get_args(get_type_hints(kind)["type"])[0]: kind for kind in get_args(Record)}


def assert_promised(found: dict[str, Any]) -> None:
    """``found`` is one of the promised objects, exactly."""
    assert found["version"] == VERSION
    kind = kinds()[found["type"]]
    rest = {name: value for name, value in found.items() if name != "version"}
    assert list(found)[:2] == ["type", "version"]
    assert _fits(rest, kind), f"{found} is not {kind.__name__}: {get_type_hints(kind)}"


def _fits(value: Any, kind: Any) -> bool:
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        if not isinstance(value, dict):
            return False
        return value.keys() == hints.keys() and all(_fits(value[name], hints[name]) for name in hints)
    origin = get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(_fits(each, get_args(kind)[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(each, get_args(kind)[1]) for each in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
