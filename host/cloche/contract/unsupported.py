"""Parts of the component model that this host does not offer: stream, future, async, fixed-length lists, and types that
are too deep or too large. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloche.contract.report import Finding, Severity
from cloche.contract.show import show
from cloche.errors import ContractError
from cloche.wit.carried import ensure_carried
from cloche.wit.types import (
    ErrorContextType,
    Function,
    FutureType,
    Interface,
    ListType,
    MapType,
    OptionType,
    RecordType,
    ResourceType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    VariantType,
)

CODE = "contract.unsupported"
_REMEDY = "build the plugin for synchronous interfaces with resources and lists of any length (WASI 0.2)"


def find_unsupported(found: Type | ResourceType | None) -> Type | None:
    """The first part of `found` that this host does not offer, itself included; None when there is none."""
    match found:
        case StreamType() | FutureType() | ErrorContextType():
            return found
        case ListType(length=int()):  # the engine's C API has no switch for them
            return found
        case ListType(element):
            return find_unsupported(element)
        case OptionType(payload):
            return find_unsupported(payload)
        case ResultType(ok, err):
            return find_unsupported(ok) or find_unsupported(err)
        case MapType(key, value):
            return find_unsupported(key) or find_unsupported(value)
        case TupleType(items):
            return _first(items)
        case RecordType(_, fields):
            return _first(field.type for field in fields)
        case VariantType(_, cases):
            return _first(case.type for case in cases)
        case _:
            return None


def unsupported_in(interface: Interface) -> Iterator[Finding]:
    """A finding for each function and type of `interface` that needs something that is not offered."""
    for function in interface.functions:
        yield from unsupported_in_function(interface.id, function)
    for name, declared in interface.types:
        if (problem := _problem(declared)) is not None:
            yield _finding(interface.id, f"type `{name}` {problem}")


def unsupported_in_function(subject: str, function: Function) -> Iterator[Finding]:
    """A finding for each way in which `function` needs something that is not offered."""
    where = f"function `{function.name}`"
    if function.is_async:
        yield _finding(subject, f"{where} is async")
    for number, param in enumerate(function.params, 1):
        if (problem := _problem(param.type)) is not None:
            yield _finding(subject, f"{where}: parameter {number} `{param.name}` {problem}")
    if (problem := _problem(function.result)) is not None:
        yield _finding(subject, f"{where}: the result {problem}")


def _problem(found: Type | ResourceType | None) -> str | None:
    """What is wrong with a type, to follow its name; None when its values can be carried."""
    if (part := find_unsupported(found)) is not None:
        return f"contains {show(part)}"
    if found is None or isinstance(found, ResourceType):
        return None
    try:
        ensure_carried(found)
    except ContractError as error:
        return f"is too deep or too large ({error.message})"
    return None


def _first(parts: Iterable[Type | None]) -> Type | None:
    return next((found for part in parts if (found := find_unsupported(part)) is not None), None)


def _finding(subject: str, message: str) -> Finding:
    return Finding(Severity.ERROR, CODE, subject, f"{message}, which this host does not offer", _REMEDY)
