"""The host functions that a plugin may call, or is denied: what an import says, and the table of their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloche.frozen import dataclass, field
from cloche.model import Err
from cloche.values import Case
from cloche.wit.types import EnumType, Function, Prim, ResourceType, ResultType, VariantType

# How an interface says «no» in its own words.
DENIED_CASES = ("denied", "access-denied", "access", "not-permitted")
DENIED_TEXT = "not granted"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported interface that the host defines. `name` is as the component spells it.

    `resources` are the resource types that the interface exports, by the name they have there. A closed interface is
    linked, but each of its functions denies: with its value in `answers`, by its name there, else in its own words.
    """

    name: str
    capability: str
    functions: tuple[Function, ...]
    resources: tuple[tuple[str, ResourceType], ...] = ()
    closed: bool = False
    answers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Denial:
    """What a closed function answers, as a value to lower."""

    value: object


@dataclass(frozen=True, slots=True)
class HostSlot:
    """One host function: its place among the instance's targets, its plan, and what it belongs to."""

    position: int
    interface: str
    capability: str
    function: Function
    plan: Any
    """How its values cross between the engine and this process; None where they do not."""
    closed: bool
    denial: Denial | None
    """What a closed function answers, or None when it must trap."""

    @property
    def label(self) -> str:
        """How messages name the function."""
        return label(self.interface, self.function.name)


def denial_of(function: Function, answers: Mapping[str, object]) -> Denial | None:
    """What this function answers while its interface is closed: its own «denied» where its result has such a case."""
    if function.name in answers:
        return Denial(answers[function.name])
    error = function.result.err if isinstance(function.result, ResultType) else None
    words: Mapping[str, object] = {}
    if isinstance(error, EnumType):
        words = {name: name for name in error.cases}
    elif isinstance(error, VariantType):
        words = {
            case.name: Case(case.name, DENIED_TEXT if case.type is Prim.STRING else None)
            for case in error.cases
            if case.type in (None, Prim.STRING)
        }
    return next((Denial(Err(words[name])) for name in DENIED_CASES if name in words), None)


def host_slots(
    imports: Sequence[Import], first: int = 0, plan: Callable[[Function], object] = lambda _: None
) -> list[HostSlot]:
    """The host functions of these imports, numbered from `first` on; `plan` makes their plans."""
    return [
        HostSlot(
            position=position,
            interface=item.name,
            capability=item.capability,
            function=function,
            plan=plan(function),
            closed=item.closed,
            denial=denial_of(function, item.answers) if item.closed else None,
        )
        for position, (item, function) in enumerate(
            ((item, function) for item in imports for function in item.functions), first
        )
    ]


def label(interface: str | None, name: str) -> str:
    """How messages name a function."""
    return f"{interface}.{name}" if interface else name
