"""Dataclasses whose methods are made when one of them is first needed.

The standard library writes and compiles six functions for a frozen dataclass with slots, which takes more than half a
millisecond, and a command imports a hundred of which it uses few. :func:`dataclass` gives the same classes. A
constructor is compiled by its first call; all else the standard library makes when it is first asked for.
"""

from __future__ import annotations

import dataclasses
import inspect
import threading
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
else:

    def dataclass(*, frozen=False, eq=True, slots):
        """As :func:`dataclasses.dataclass`, of which these are the only choices."""
        if not slots:
            raise TypeError("a dataclass here has slots: say slots=True")
        return lambda plain: _slotted(plain, frozen, eq)


__all__ = ["dataclass"]

_making = threading.RLock()

_METHODS = ("__repr__", "__eq__", "__hash__")
_FACTS = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")
_ALL = ("__init__", *_METHODS, *_FACTS, "__replace__")
_made: set[type] = set()


def _slotted(plain: type, frozen: bool, eq: bool) -> Any:
    """The class with slots for the fields of ``plain``, which is kept for the standard library to work on."""
    own = vars(plain)
    names = [name for name, kind in plain.__annotations__.items() if not kind.startswith("ClassVar")]
    parts = {name: value for name, value in own.items() if name not in (*names, "__dict__", "__weakref__")}
    parts |= {"__slots__": tuple(names), "__qualname__": plain.__qualname__}
    missing = True

    def complete() -> Any:
        nonlocal missing
        with _making:
            if missing:
                full = vars(dataclasses.dataclass(frozen=frozen, eq=eq)(plain))
                for name in _ALL:
                    if name in full:
                        setattr(made, name, full[name])
                del made.__signature__
                missing = False
        return made

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        made.__init__ = constructor = _constructor(made, plain, names) or complete().__init__
        constructor(self, *args, **kwargs)

    parts["__init__"] = construct
    for name in _METHODS if eq else _METHODS[:1]:
        parts.setdefault(name, _method(name, complete))
    for name in _FACTS:
        parts[name] = _Fact(complete, attrgetter(name))
    parts["__signature__"] = _Fact(complete, inspect.signature)
    if frozen:
        parts |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
        parts |= {"__getstate__": _state, "__setstate__": _restore}
    elif eq:
        parts["__hash__"] = None
    made: Any = type(plain)(plain.__name__, plain.__bases__, parts)
    _made.add(made)
    return made


def _constructor(made: type, plain: type, names: list[str]) -> Any:
    """A constructor as the standard library writes it, for fields that have nothing but a default; None for others."""
    words, lines = ["self"], []
    known: dict[str, Any] = {"MISSING": dataclasses.MISSING}
    for name in names:
        default: Any = vars(plain).get(name, dataclasses.MISSING)
        make: Any = dataclasses.MISSING
        if isinstance(default, dataclasses.Field):
            if not default.init or default.kw_only is True:
                return None
            default, make = default.default, default.default_factory
        known |= {f"set_{name}": vars(made)[name].__set__, f"make_{name}": make, f"default_{name}": default}
        if make is not dataclasses.MISSING:
            words.append(f"{name}=MISSING")
            lines.append(f" set_{name}(self, make_{name}() if {name} is MISSING else {name})")
        else:
            words.append(name if default is dataclasses.MISSING else f"{name}=default_{name}")
            lines.append(f" set_{name}(self, {name})")
    if not _made.isdisjoint(plain.__mro__):
        return None  # its base has fields too
    if hasattr(plain, "__post_init__"):
        lines.append(" self.__post_init__()")
    exec(f"def __init__({', '.join(words)}):\n" + "\n".join(lines or [" pass"]), known)
    constructor = known["__init__"]
    constructor.__qualname__ = f"{made.__qualname__}.__init__"
    return constructor


def _method(name: str, complete: Callable[[], Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(complete(), name)(self, *args, **kwargs)

    method.__name__ = name
    return method


class _Fact:
    """What a class knows of its fields once it is complete."""

    def __init__(self, complete: Callable[[], Any], ask: Callable[[Any], Any]) -> None:
        self._complete = complete
        self._ask = ask

    def __get__(self, instance: object, owner: type) -> Any:
        return self._ask(self._complete())


def _refuse_to_set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
