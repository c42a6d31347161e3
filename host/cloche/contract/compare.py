"""Are two types the same? Structure decides, names of types do not, and a resource is the one with the same name. Pure.

The engine does not check the types of host functions when it links, so a difference that is missed here reaches a
capability as a wrong value. Records, variants, enums and flags are closed: one field or case more is another type.
Source: component-model Subtyping.md, of which only equality is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

from cloche.contract.providers import unversioned, version_of
from cloche.contract.show import show
from cloche.contract.versions import is_same_track
from cloche.wit.types import (
    BorrowType,
    Case,
    EnumType,
    Field,
    FlagsType,
    Function,
    FutureType,
    Interface,
    ListType,
    MapType,
    OptionType,
    OwnType,
    RecordType,
    ResourceType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    VariantType,
)


class Side(Enum):
    """Which side of the component an interface is on: the words for what it does with parameters and results."""

    IMPORT = ("the component passes", "the component expects")
    EXPORT = ("the component takes", "the component returns")

    @property
    def of_parameters(self) -> str:
        """What the component does with a parameter."""
        return self.value[0]

    @property
    def of_results(self) -> str:
        """What the component does with a result."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One difference. `path` leads to it (``function `open` ``, ``parameter 1 `name` ``), `message` says what it is.

    `unknown` is the name of a function that the host's interface does not have at all.
    """

    path: tuple[str, ...]
    message: str
    unknown: str | None = None

    def __str__(self) -> str:
        return ": ".join((*self.path, self.message))


def is_same_resource(expected: ResourceType, found: ResourceType) -> bool:
    """Whether two resource types go by the same name, in interchangeable versions of the same interface."""
    one, other = expected.name, found.name
    if one.name != other.name:
        return False
    if one.interface is None or other.interface is None:
        return one.interface is other.interface
    return unversioned(one.interface) == unversioned(other.interface) and is_same_track(
        version_of(one.interface), version_of(other.interface)
    )


def compare_types(
    expected: Type | None, found: Type | None, verb: str = "found", path: tuple[str, ...] = ()
) -> Iterator[Mismatch]:
    """Every place where two types differ; nothing when they are the same type.

    `verb` goes before what was found. None stands for no type at all: no result, or a case without payload.
    """
    match expected, found:
        case ListType(), ListType() if expected.length == found.length:
            yield from compare_types(expected.element, found.element, verb, (*path, "element"))
        case OptionType(), OptionType():
            yield from compare_types(expected.payload, found.payload, verb, (*path, "payload"))
        case ResultType(), ResultType():
            yield from compare_types(expected.ok, found.ok, verb, (*path, "ok"))
            yield from compare_types(expected.err, found.err, verb, (*path, "error"))
        case TupleType(), TupleType() if len(expected.items) == len(found.items):
            for number, (item, other) in enumerate(zip(expected.items, found.items, strict=True), 1):
                yield from compare_types(item, other, verb, (*path, f"item {number}"))
        case MapType(), MapType():
            yield from compare_types(expected.key, found.key, verb, (*path, "key"))
            yield from compare_types(expected.value, found.value, verb, (*path, "value"))
        case RecordType(), RecordType():
            yield from _compare_members("field", expected.fields, found.fields, verb, path)
        case VariantType(), VariantType():
            yield from _compare_members("case", expected.cases, found.cases, verb, path)
        case EnumType(), EnumType():
            yield from _compare_labels("case", expected.cases, found.cases, verb, path)
        case FlagsType(), FlagsType():
            yield from _compare_labels("flag", expected.flags, found.flags, verb, path)
        case OwnType(), OwnType():
            yield from _compare_resources(expected.resource, found.resource, verb, path)
        case BorrowType(), BorrowType():
            yield from _compare_resources(expected.resource, found.resource, verb, path)
        case StreamType(), StreamType():
            yield from compare_types(expected.element, found.element, verb, (*path, "element"))
        case FutureType(), FutureType():
            yield from compare_types(expected.payload, found.payload, verb, (*path, "payload"))
        case _ if expected != found:
            # What comes here: primitives, error-context, nothing, and two of different kinds or lengths.
            yield Mismatch(path, f"expected {show(expected)}, {verb} {show(found)}")


def compare_functions(expected: Function, found: Function, side: Side) -> Iterator[Mismatch]:
    """Every difference in parameters (their names and order included), result and asynchrony."""
    path = (f"function `{expected.name}`",)
    if expected.is_async != found.is_async:
        words = ("a synchronous", "an async")
        message = f"expected {words[expected.is_async]} function, the component has {words[found.is_async]} one"
        yield Mismatch(path, message)
    if len(expected.params) != len(found.params):
        names = ", ".join(param.name for param in expected.params[:8])
        count = len(expected.params)
        wanted = f"{count} parameter{'s' if count > 1 else ''} ({names})" if count else "no parameters"
        yield Mismatch(path, f"expected {wanted}, {side.of_parameters} {len(found.params)}")
    else:
        for number, (param, other) in enumerate(zip(expected.params, found.params, strict=True), 1):
            where = (*path, f"parameter {number} `{param.name}`")
            if param.name != other.name:
                yield Mismatch(where, f"the component calls it `{other.name}`")
            yield from compare_types(param.type, other.type, side.of_parameters, where)
    yield from compare_types(expected.result, found.result, side.of_results, (*path, "result"))


def compare_interfaces(
    expected: Interface, found: Interface, side: Side, *, may_lack: bool = True, may_add: bool = False
) -> Iterator[Mismatch]:
    """Every difference between the host's interface `expected` and the component's `found`.

    `may_lack` says whether the component may have fewer functions (an import uses what it likes; an export of an older
    version lacks what was added), `may_add` whether it may have others (an export of a newer version does). Types that
    only one side declares do not matter, resources excepted.
    """
    for name, function in found.by_name.items():
        wanted = expected.by_name.get(name)
        if wanted is not None:
            yield from compare_functions(wanted, function, side)
        elif not may_add:
            yield Mismatch((f"function `{name}`",), f"{expected.id} has no such function", name)
    if not may_lack:
        for name in expected.by_name:
            if name not in found.by_name:
                yield Mismatch((f"function `{name}`",), "the component does not have it")
    declared = dict(expected.types)
    for name, other in found.types:
        path, known = (f"type `{name}`",), declared.get(name)
        if isinstance(known, ResourceType) and isinstance(other, ResourceType):
            yield from _compare_resources(known, other, "the component has", path)
        elif isinstance(known, ResourceType) or isinstance(other, ResourceType):
            if known is not None or not may_add:
                yield Mismatch(path, f"expected {show(known)}, the component has {show(other)}")
        elif known is not None:
            yield from compare_types(known, other, "the component has", path)


def _compare_resources(
    expected: ResourceType, found: ResourceType, verb: str, path: tuple[str, ...]
) -> Iterator[Mismatch]:
    if not is_same_resource(expected, found):
        yield Mismatch(path, f"expected resource {expected.name}, {verb} resource {found.name}")


def _compare_members(
    what: str,
    expected: Sequence[Field | Case],
    found: Sequence[Field | Case],
    verb: str,
    path: tuple[str, ...],
) -> Iterator[Mismatch]:
    labels = tuple(member.name for member in expected)
    others = tuple(member.name for member in found)
    if labels != others:
        yield from _compare_labels(what, labels, others, verb, path)
        return
    for member, other in zip(expected, found, strict=True):
        yield from compare_types(member.type, other.type, verb, (*path, f"{what} `{member.name}`"))


def _compare_labels(
    what: str, expected: tuple[str, ...], found: tuple[str, ...], verb: str, path: tuple[str, ...]
) -> Iterator[Mismatch]:
    """The first place where two lists of names part: their order is part of the type."""
    for number, (label, other) in enumerate(zip_longest(expected, found), 1):
        if label != other:
            wanted = f"`{label}`" if label is not None else f"no {what} {number}"
            yield Mismatch(path, f"{what} {number}: expected {wanted}, {verb} {f'`{other}`' if other else 'none'}")
            return
