"""Types as short WIT text, for messages. Pure."""

from __future__ import annotations

from typing import assert_never

from cloche.wit.types import (
    BorrowType,
    EnumType,
    ErrorContextType,
    FlagsType,
    FutureType,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    VariantType,
)

MAX_TYPE_CHARS = 120


def show(found: Type | ResourceType | None) -> str:
    """`found` as WIT writes it, with named types by their name, cut to 120 characters. None is `nothing`."""
    text = "nothing" if found is None else _show(found)
    return text if len(text) <= MAX_TYPE_CHARS else text[: MAX_TYPE_CHARS - 1] + "…"


def _show(found: Type | ResourceType) -> str:
    match found:
        case Prim():
            return found.value
        case ListType(element, length):
            return f"list<{_show(element)}>" if length is None else f"list<{_show(element)}, {length}>"
        case OptionType(payload):
            return f"option<{_show(payload)}>"
        case ResultType(ok, err):
            if ok is None and err is None:
                return "result"
            head = "_" if ok is None else _show(ok)
            return f"result<{head}>" if err is None else f"result<{head}, {_show(err)}>"
        case TupleType(items):
            return f"tuple<{', '.join(_show(item) for item in items)}>"
        case MapType(key, value):
            return f"map<{_show(key)}, {_show(value)}>"
        case RecordType(name):
            return f"record {name.name}"
        case VariantType(name):
            return f"variant {name.name}"
        case EnumType(name):
            return f"enum {name.name}"
        case FlagsType(name):
            return f"flags {name.name}"
        case ResourceType(name):
            return f"resource {name.name}"
        case OwnType(resource):
            return f"own<{resource.name.name}>"
        case BorrowType(resource):
            return f"borrow<{resource.name.name}>"
        case StreamType(element):
            return "stream" if element is None else f"stream<{_show(element)}>"
        case FutureType(payload):
            return "future" if payload is None else f"future<{_show(payload)}>"
        case ErrorContextType():
            return "error-context"
        case _:
            assert_never(found)
