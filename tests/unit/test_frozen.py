"""`cloche.frozen.dataclass` makes what `dataclasses.dataclass` makes of the same class."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from cloche import frozen
from cloche.frozen import as_dict
from cloche.model import Limits, Ok

T = TypeVar("T")


def point(make: Any, field: Any, **options: Any) -> Any:
    """A class with fields of every kind, by one decorator or the other."""

    class Point:
        """A point."""

        kind: ClassVar[str] = "point"
        x: int
        y: int = 2
        tags: list[str] = field(default_factory=list)
        note: str = field(default="", compare=False)
        secret: str = field(default="s", repr=False)

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("negative")

        @property
        def sum(self) -> int:
            """Both together."""
            return self.x + self.y

    return make(frozen=True, **options)(Point)


OURS, THEIRS = frozen.dataclass, dataclasses.dataclass


@pytest.fixture(params=[True, False], ids=["slots", "dict"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The same class of ours and of the standard library's."""
    return (
        point(OURS, frozen.field, slots=request.param),
        point(THEIRS, dataclasses.field, slots=request.param),
    )


def test_values_are_made_compared_and_shown_alike(pair: tuple[Any, Any]) -> None:
    """Positions, names, defaults, factories; equality and hash by the compared fields; the repr without hidden ones."""
    for made in pair:
        one, same, other = made(1), made(x=1, note="n"), made(1, 3)
        assert (one.x, one.y, one.tags, one.note, one.secret, one.sum) == (1, 2, [], "", "s", 3)
        assert one == same != other
        assert one.tags is not same.tags
        assert repr(one).endswith("Point(x=1, y=2, tags=[], note='')")
        assert made.__match_args__ == ("x", "y", "tags", "note", "secret")
        assert (made.__doc__, made.kind, made.__qualname__) == ("A point.", "point", "point.<locals>.Point")
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
            made()
        with pytest.raises(ValueError, match="negative"):
            made(-1)
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
            one.x = 5
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
            del one.x
    assert hasattr(pair[0](1), "__dict__") == hasattr(pair[1](1), "__dict__")
    assert pair[0](1) != pair[1](1)


def test_dataclasses_take_it_for_one_of_theirs(pair: tuple[Any, Any]) -> None:
    """`fields`, `is_dataclass`, `replace`, `asdict`, the signature, and a dataclass derived from it."""
    told = [
        [(f.name, f.type, f.default, f.default_factory, f.compare, f.repr, f.init) for f in dataclasses.fields(made)]
        for made in pair
    ]
    assert told[0] == told[1]
    assert inspect.signature(pair[0]) == inspect.signature(pair[1])
    for made in pair:
        is_one = dataclasses.is_dataclass(made)
        assert is_one
        assert dataclasses.replace(made(1), y=9) == made(1, 9)
        assert dataclasses.asdict(made(1, tags=["t"])) == as_dict(pair[0](1, tags=["t"]))
        bases: Any = (made,)
        derived: Any = dataclasses.make_dataclass("Derived", [("z", int, 0)], bases=bases, frozen=True)
        assert [field.name for field in dataclasses.fields(derived)] == ["x", "y", "tags", "note", "secret", "z"]
        assert (derived(1, z=4).z, derived(1).sum) == (4, 3)
    assert frozen.replace(pair[0](1), y=9) == pair[0](1, 9)


def test_fields_come_down_from_bases() -> None:
    """A class derived by the same decorator has the fields of both, in order; a plain one is made as its base is."""

    @frozen.dataclass(frozen=True, slots=True)
    class Base:
        a: int

    @frozen.dataclass(frozen=True, slots=True)
    class Derived(Base):
        b: int = 2

    class Plain(Base):
        """Has its own way to be made."""

        def __init__(self) -> None:
            super().__init__(7)

    assert as_dict(Derived(1)) == {"a": 1, "b": 2}
    assert (Base(1) == Base(1), Base(1) == Derived(1), hash(Base(1)) == hash(Base(1))) == (True, False, True)
    assert (Plain().a, [*inspect.signature(Plain).parameters]) == (7, [])
    assert [vars(made)["__slots__"] for made in (Base, Derived)] == [("a",), ("b",)]


def test_a_class_keeps_what_it_defines_itself() -> None:
    """A method of its own is not replaced, and with `eq=False` a value is equal to itself only."""

    @frozen.dataclass(frozen=True, slots=True, eq=False)
    class Own(Generic[T]):
        value: T

        def __repr__(self) -> str:
            return "own"

    one = Own(1)
    assert (repr(one), one == Own(1), one == one) == ("own", False, True)  # noqa: PLR0124
    assert len({one, Own(1)}) == 2


def test_names_that_are_none_are_refused() -> None:
    """Names become code: whatever is no name of a variable cannot stand there."""
    for name in ("a b", "class", "a=print()", ""):
        bad = type("Bad", (), {"__annotations__": {name: int}})
        with pytest.raises(TypeError, match="cannot name a field"):
            frozen.dataclass(frozen=True)(bad)
    made: Any = frozen.dataclass(frozen=True)(type("Good", (), {"__annotations__": {"self": int, "other": int}}))
    assert (made(1, 2).self, made(1, 2) == made(1, 2), made(1, 2) == made(1, 3)) == (1, True, False)


@pytest.mark.parametrize("value", [Limits(fuel=5), Ok(3)], ids=["limits", "ok"])
def test_values_can_be_pickled_and_copied(value: Any) -> None:
    """What processes hand to each other arrives equal."""
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert twin == value
        assert type(twin) is type(value)
