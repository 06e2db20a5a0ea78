"""What other packages do when they are imported and Spaceblock does not need, or not yet.

aioquic judges certificates by the web's rules with three packages, and asyncio has its own TLS. Spaceblock judges keys
alone and uses neither, so these are imported when somebody asks for their contents. And what is compiled for later,
regular expressions and the methods of dataclasses, is compiled when it is first used. Together that would be a quarter
of the time in which a command starts.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

STANDARD = ("email", "gettext", "json", "locale", "logging", "platform", "shlex", "string", "textwrap")
"""Modules and packages of the standard library that have many regular expressions."""


@contextmanager
def put_off(*names: str, **values: Any) -> Iterator[None]:
    """What is imported inside gets stand-ins for these modules; a package stands before what is in it.

    They are in place only where no other thread could come upon them, and only for modules that are not there yet.
    ``values`` are what all stand-ins know of their modules' contents without importing them.
    """
    if threading.active_count() > 1 or any(name in sys.modules for name in names):
        yield
        return
    for name in names:
        package, _, last = name.rpartition(".")
        sys.modules[name] = later = _Later(name)
        vars(later).update(values)
        if package in sys.modules:
            setattr(sys.modules[package], last, later)
    try:
        yield
    finally:
        for name in names:
            if isinstance(sys.modules[name], _Later):
                del sys.modules[name]


def called_later(module: str, function: str) -> Callable[..., Any]:
    """Stands for a function of a module that is imported when the function is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*args, **kwargs)

    return call


@contextmanager
def uncompiled(*packages: str) -> Iterator[None]:
    """The modules of ``packages`` that are imported inside compile regular expressions and dataclasses later.

    Where another thread could import something meanwhile, everything is as ever.
    """
    if threading.active_count() > 1:
        yield
        return
    compile_now, decorate_now = re.compile, dataclasses.dataclass

    def is_meant() -> bool:
        name = sys._getframe(2).f_globals.get("__name__", "")
        return any(name == package or name.startswith(f"{package}.") for package in packages)

    def compile_later(*args: Any, **kwargs: Any) -> Any:
        return _Pattern(args, kwargs) if is_meant() else compile_now(*args, **kwargs)

    def decorate_later(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or "__init__" in vars(args[0]) or not is_meant():
            return decorate_now(*args, **kwargs)
        return _complete_later(args[0], decorate_now)

    re.compile, dataclasses.dataclass = compile_later, decorate_later
    try:
        yield
    finally:
        re.compile, dataclasses.dataclass = compile_now, decorate_now


def catch_up() -> None:
    """Compile the dataclasses that wait for it: whoever waits for others has the time now, and not when these come."""
    while _waiting:
        _waiting.pop()()


class _Later(ModuleType):
    """Stands for the module of its name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for such names, and does without
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Pattern:
    """Stands for a regular expression, which ``re`` keeps once it is compiled."""

    __slots__ = ("_args", "_kwargs")

    def __init__(self, args: Any, kwargs: Any) -> None:
        self._args = args
        self._kwargs = kwargs

    def __getattr__(self, name: str) -> Any:
        return getattr(re.compile(*self._args, **self._kwargs), name)


_completing = threading.RLock()
_waiting: list[Callable[[], None]] = []


def _complete_later(plain: Any, decorate: Callable[[Any], Any]) -> Any:
    """``plain``, which becomes a dataclass when the first is made or somebody asks for its fields."""
    missing = True

    def complete() -> None:
        # On a twin, so that no other thread ever sees the class without a constructor.
        nonlocal missing
        with _completing:
            if missing:
                missing = False
                own = {name: value for name, value in vars(plain).items() if name not in _NOT_OWN}
                full = vars(decorate(type(plain)(plain.__name__, plain.__bases__, dict(own))))
                for name, value in full.items():
                    if name not in _INSTANCES and own.get(name, _waiting) is not value:
                        setattr(plain, name, value)
                for name in own.keys() - full.keys():
                    delattr(plain, name)  # a field whose default is made anew each time

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        complete()
        self.__init__(*args, **kwargs)

    stubs: dict[str, Any] = {"__init__": construct, **{name: _Fact(name, complete) for name in _FACTS}}
    for name, stub in stubs.items():
        setattr(plain, name, stub)
    _waiting.append(complete)
    return plain


_FACTS = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")
_INSTANCES = ("__dict__", "__weakref__")
_NOT_OWN = ("__init__", *_FACTS, *_INSTANCES)


class _Fact:
    """What a class has once it is complete."""

    def __init__(self, name: str, complete: Callable[[], None]) -> None:
        self._name = name
        self._complete = complete

    def __get__(self, instance: object, owner: type) -> Any:
        self._complete()
        return getattr(owner, self._name)
