"""The Python names of an interface's functions: each function keeps one, and the object keeps its own."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.errors import UsageError
from cloche.runtime.plugin import ExtensionPoint
from cloche.wit.types import Function, FunctionKind, Interface, ResourceType, TypeName

COUNTER = ResourceType(TypeName("test:names/names", "counter"))
RES, RES_X = (ResourceType(TypeName("test:names/names", name)) for name in ("res", "res-x"))


def function(name: str, kind: FunctionKind = FunctionKind.FREE, resource: ResourceType | None = None) -> Function:
    return Function(name, kind, (), None, resource)


def point(*functions: Function) -> ExtensionPoint:
    class Backend:
        limits = None

    backend: Any = Backend()
    return ExtensionPoint(backend, Interface("test:names/names", functions), None)


STATIC_FIND = function("[static]counter.find", FunctionKind.STATIC, COUNTER)


@pytest.mark.parametrize(
    ("functions", "names"),
    [
        ((STATIC_FIND, function("counter-find")), ["counter_find", "counter_find_"]),
        ((function("counter-find"), STATIC_FIND), ["counter_find", "counter_find_"]),
        (
            (
                function("[static]res-x.y", FunctionKind.STATIC, RES_X),
                function("[static]res.x-y", FunctionKind.STATIC, RES),
            ),
            ["res_x_y", "res_x_y_"],
        ),
        ((function("wit"), function("class")), ["wit_", "class_"]),
        ((function("[constructor]counter", FunctionKind.CONSTRUCTOR, COUNTER), function("next")), ["counter", "next"]),
    ],
)
def test_no_function_hides_another(functions: tuple[Function, ...], names: list[str]) -> None:
    """Two functions with one Python name, and one named like the object's own, all stay reachable, in WIT order."""
    made = point(*functions)
    assert [bound.wit for bound in made] == list(functions)
    assert dir(made) == sorted(names)
    for name, each in zip(names, functions, strict=True):
        assert getattr(made, name).wit is each
        assert made[name].wit is each
        assert made[each.name].wit.item_name == each.item_name
    assert made.wit.functions == functions


def test_a_wit_name_always_works() -> None:
    """Whatever its Python name became, a function is found by the name that its author wrote."""
    made = point(STATIC_FIND, function("counter-find"), function("wit"))
    assert made["[static]counter.find"].wit is STATIC_FIND
    assert made["counter-find"].wit.name == "counter-find"
    assert made["wit"].wit.name == "wit"
    for name in ("find", "_bound", "counter_find__"):
        with pytest.raises(UsageError):
            made[name]
    with pytest.raises(AttributeError):
        _ = made.find
