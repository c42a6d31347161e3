"""Where handles stand inside a value: for whoever must find the instance of one, or close those that nobody took."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from cloche.engine.codec.budget import Budget
from cloche.engine.codec.compounds import ListPlan, MapPlan, OptionPlan, RecordPlan, ResultPlan, TuplePlan, VariantPlan
from cloche.engine.codec.plan import Plan
from cloche.engine.codec.scalars import HandlePlan

Finder = Callable[[Any], Iterator[tuple[Any, bool]]]
"""What stands at the places of handles, and whether the place is an `own`, in order. Never raises an Exception: what
has not the form of its type is left out."""


def finder(plan: Plan, most: int = sys.maxsize) -> Finder | None:
    """What finds the handles in values of `plan`; None where its type has none.

    A list or map of more than `most` items is left out, and one that gives more items than it says that it has.
    """

    def room(value: Any) -> Budget:
        budget = Budget()
        budget.left = min(len(value), most)
        return budget

    match plan:
        case HandlePlan():
            return lambda value: iter(((value, plan.is_own),))
        case ListPlan():
            inner = finder(plan.element, most)
            return inner and _finder(inner, lambda value: plan.items(value, room(value), 1))
        case MapPlan():
            inner = finder(plan.value, most)
            return inner and _finder(inner, lambda value: [item for _, item in plan.items(value, room(value), 1)])
        case OptionPlan():
            inner = finder(plan.payload, most)
            return inner and _finder(inner, lambda value: () if value is None else (plan.some(value),))
        case RecordPlan() | TuplePlan():
            return _choice(plan.parts, most, lambda value: enumerate(plan.split(value)))
        case VariantPlan():
            return _choice(plan.parts, most, lambda value: (plan.split(value),))
        case ResultPlan():
            return _choice((plan.err, plan.ok), most, lambda value: (plan.split(value),))
        case _:
            return None


def _finder(inner: Finder, items: Callable[[Any], Any]) -> Finder:
    """Looks into all the items alike."""

    def find(value: Any) -> Iterator[tuple[Any, bool]]:
        for item in _tried(items, value):
            yield from inner(item)

    return find


def _choice(parts: tuple[Plan | None, ...], most: int, split: Callable[[Any], Any]) -> Finder | None:
    """Looks into each pair (number of the part, its value) in its own way."""
    finders = tuple(None if part is None else finder(part, most) for part in parts)
    if not any(finders):
        return None

    def find(value: Any) -> Iterator[tuple[Any, bool]]:
        for number, item in _tried(split, value):
            inner = finders[number]
            if inner is not None:
                yield from inner(item)

    return find


def _tried(items: Callable[[Any], Any], value: Any) -> Any:
    try:
        return items(value)
    except Exception:  # the caller's code may fail in any way, and says so when the value is lowered
        return ()
