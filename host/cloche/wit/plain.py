"""WIT types as plain lists and back, for a process of ours that has to know the same types.

Written by `to_plain`, read by `from_plain`; the reader trusts what it is given, as only the host writes it.
"""

from __future__ import annotations

from typing import Any

from cloche.wit.types import (
    BorrowType,
    Case,
    EnumType,
    Field,
    FlagsType,
    Function,
    FunctionKind,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Param,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)


def to_plain(type_: Type | ResourceType | None) -> Any:
    """A type as nested lists of texts and numbers. Raises: AssertionError for stream, future and error-context."""
    match type_:
        case None:
            return None
        case Prim():
            return type_.value
        case ListType(element=element, length=length):
            return ["list", to_plain(element), length]
        case OptionType(payload=payload):
            return ["option", to_plain(payload)]
        case ResultType(ok=ok, err=err):
            return ["result", to_plain(ok), to_plain(err)]
        case TupleType(items=items):
            return ["tuple", [to_plain(item) for item in items]]
        case MapType(key=key, value=value):
            return ["map", to_plain(key), to_plain(value)]
        case RecordType(name=name, fields=fields):
            return ["record", *_name(name), [[field.name, to_plain(field.type)] for field in fields]]
        case VariantType(name=name, cases=cases):
            return ["variant", *_name(name), [[case.name, to_plain(case.type)] for case in cases]]
        case EnumType(name=name, cases=words):
            return ["enum", *_name(name), list(words)]
        case FlagsType(name=name, flags=words):
            return ["flags", *_name(name), list(words)]
        case ResourceType(name=name):
            return ["resource", *_name(name)]
        case OwnType(resource=resource):
            return ["own", *_name(resource.name)]
        case BorrowType(resource=resource):
            return ["borrow", *_name(resource.name)]
    raise AssertionError(f"{type_!r:.80} is refused before anything is written")


def from_plain(plain: Any) -> Any:
    """The type that `to_plain` wrote."""
    if plain is None:
        return None
    if isinstance(plain, str):
        return Prim(plain)
    word, *rest = plain
    match word:
        case "list":
            return ListType(from_plain(rest[0]), rest[1])
        case "option":
            return OptionType(from_plain(rest[0]))
        case "result":
            return ResultType(from_plain(rest[0]), from_plain(rest[1]))
        case "tuple":
            return TupleType(tuple(map(from_plain, rest[0])))
        case "map":
            return MapType(from_plain(rest[0]), from_plain(rest[1]))
    name = TypeName(rest[0], rest[1])
    match word:
        case "record":
            return RecordType(name, tuple(Field(field, from_plain(type_)) for field, type_ in rest[2]))
        case "variant":
            return VariantType(name, tuple(Case(case, from_plain(type_)) for case, type_ in rest[2]))
        case "enum":
            return EnumType(name, tuple(rest[2]))
        case "flags":
            return FlagsType(name, tuple(rest[2]))
        case "own":
            return OwnType(ResourceType(name))
        case "borrow":
            return BorrowType(ResourceType(name))
    return ResourceType(name)


def function_to_plain(function: Function) -> Any:
    """A function without its documentation."""
    return [
        function.name,
        function.kind.value,
        [[param.name, to_plain(param.type)] for param in function.params],
        to_plain(function.result),
        to_plain(function.resource),
    ]


def function_from_plain(plain: Any) -> Function:
    """The function that `function_to_plain` wrote."""
    name, kind, params, result, resource = plain
    return Function(
        name,
        FunctionKind(kind),
        tuple(Param(word, from_plain(type_)) for word, type_ in params),
        from_plain(result),
        from_plain(resource),
    )


def _name(name: TypeName) -> tuple[str | None, str]:
    return name.interface, name.name
