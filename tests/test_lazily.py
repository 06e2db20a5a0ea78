"""Dataclasses whose methods are made late are the standard library's in all that can be seen."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import Any, ClassVar

import pytest

from spaceblock.core import make_records
from spaceblock.process.lazily import dataclass


class Base:
    __slots__ = ()
    KIND: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Late(Base):
    """A value."""

    KIND: ClassVar[int] = 7
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("it is negative")

    @property
    def double(self) -> int:
        return 2 * self.first


@dataclasses.dataclass(frozen=True, slots=True)
class Early(Base):
    """A value."""

    KIND: ClassVar[int] = 7
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list, compare=False, repr=False)


@dataclass(slots=True)
class Changing:
    number: int = 1


@dataclass(slots=True, eq=False)
class Itself:
    number: int


@dataclass(frozen=True, slots=True)
class Empty(Base):
    pass


@dataclass(frozen=True, slots=True)
class Inner(Late):
    fourth: int = 4


@pytest.fixture(params=["at once", "after another"])
def fresh(request: pytest.FixtureRequest) -> Any:
    """A class of which nothing was asked yet, or one that has all of its methods."""

    @dataclass(frozen=True, slots=True)
    class Fresh:
        first: int
        second: str = "two"

    if request.param == "after another":
        Fresh(0)
    return Fresh


@pytest.mark.parametrize(
    "ask",
    [
        lambda cls: repr(make_records(cls, [(1, "a")])[0]).rpartition(".")[2],
        lambda cls: make_records(cls, [(1, "a")]) == make_records(cls, [(1, "a")]),
        lambda cls: make_records(cls, [(1, "a")]) == make_records(cls, [(2, "a")]),
        lambda cls: hash(make_records(cls, [(1, "a")])[0]),
        lambda cls: hash(cls(1, second="a")),
        lambda cls: [each.name for each in dataclasses.fields(cls)],
        lambda cls: dataclasses.asdict(make_records(cls, [(1, "a")])[0]),
        lambda cls: dataclasses.is_dataclass(cls),
        lambda cls: dataclasses.replace(make_records(cls, [(1, "a")])[0], first=5).first,
        lambda cls: cls.__match_args__,
        lambda cls: str(inspect.signature(cls)),
        lambda cls: copy.deepcopy(make_records(cls, [(1, "a")])[0]).second,
        lambda cls: cls.__slots__,
        lambda cls: hasattr(cls(1), "__dict__"),
    ],
)
def test_the_first_question_is_answered_as_the_standard_library_does(fresh: Any, ask: Callable[[Any], object]) -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Fresh:
        first: int
        second: str = "two"

    assert ask(fresh) == ask(Fresh)


def test_the_same_fields_make_the_same_class() -> None:
    assert str(inspect.signature(Late)) == str(inspect.signature(Early))
    assert repr(Late(1)).replace("Late", "Early") == repr(Early(1))
    assert Late(1, third=[1]) == Late(1, third=[2]), "the third does not count"
    assert Late(1) != Late(2)
    other: object = Early(1)
    assert Late(1) != other
    assert len({Late(1), Late(1, "two"), Late(2)}) == 2
    assert Late(1).third == []
    assert Late(1).third is not Late(1).third
    assert (Late.KIND, Late.__doc__, Late(4).double) == (7, "A value.", 8)
    assert pickle.loads(pickle.dumps(Late(3, "x"))) == Late(3, "x")


def test_what_is_wrong_is_refused(fresh: Any) -> None:
    with pytest.raises(TypeError, match="first"):
        fresh()
    with pytest.raises(TypeError, match="third"):
        fresh(1, third=3)
    with pytest.raises(ValueError, match="negative"):
        Late(-1)
    value = make_records(fresh, [(1, "a")])[0]
    with pytest.raises(FrozenInstanceError, match="first"):
        value.first = 2
    with pytest.raises(FrozenInstanceError, match="second"):
        del value.second
    with pytest.raises(AttributeError):
        value.other = 1
    assert (value.first, value.second) == (1, "a")


def test_what_is_not_frozen_changes_and_has_no_hash() -> None:
    changing = Changing()
    changing.number = 2
    assert changing == Changing(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(changing)
    one = Itself(1)
    assert one != Itself(1), "each is equal to itself alone"
    assert one in {one}


def test_a_class_may_have_another_as_its_base() -> None:
    assert dataclasses.astuple(Inner(1, fourth=5)) == (1, "two", [], 5)
    assert Inner(1).double == 2
    assert Empty() == Empty()


def test_methods_are_not_made_before_they_are_needed() -> None:
    script = (
        "import dataclasses\nmade = []\noriginal = dataclasses._process_class\n"
        "dataclasses._process_class = lambda cls, *rest: made.append(cls) or original(cls, *rest)\n"
        "import spaceblock.wire.messages as module\n"
        "print(*(cls.__name__ for cls in made if cls.__module__ == module.__name__))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.strip() == ""
