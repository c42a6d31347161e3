"""JSON to WIT values and back, by the function's own types: how `cloche call` reads arguments and prints results.

| WIT | JSON |
| --- | --- |
| integers, floats, bool, string | as themselves; floats also `"NaN"`, `"Infinity"`, `"-Infinity"` |
| char | a string of one character |
| `list<u8>` | text in base64; an array of numbers is accepted too |
| other lists, tuples | an array |
| record | an object with the WIT names as keys |
| variant | `{"case": payload}`; a case without payload is `"case"` |
| enum | a string |
| flags | an array of strings |
| option | `null` or the value; an option inside an option is `null` or `{"some": value}` |
| result | `{"ok": value}` or `{"err": value}` |
| map | an object when keys are strings, else an array of `[key, value]` |
| resource | cannot be written; results show `{"resource": "its name"}` |

Ranges are checked where the values enter the engine. Here a value of the wrong shape is refused with the path to it,
and so is what JSON readers change silently: a key that is given twice, a number with a fraction or an exponent that is
not exact as an integer (2^53 and more), or too large to be finite.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import functools
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from cloche.contract.show import show
from cloche.errors import UsageError
from cloche.files import read_regular
from cloche.model import Err, Ok, Some
from cloche.values import Case as CaseValue
from cloche.values import Variant, class_for, member_name
from cloche.wit.names import snake
from cloche.wit.types import (
    BorrowType,
    EnumType,
    ErrorContextType,
    FlagsType,
    Function,
    FutureType,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Param,
    Prim,
    RecordType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    VariantType,
)

MAX_FILE_BYTES = 1 << 30  # the largest payload limit that a plugin can have (`model.BOUNDS`)

_FLOATS = frozenset({Prim.F32, Prim.F64})
_TEXTS = frozenset({Prim.STRING, Prim.CHAR})
_CASE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_EXACT_BELOW = 1 << 53  # from here on two whole numbers may be one float
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Json = None | bool | int | float | str | list[Any] | dict[str, Any]


class _Repeating(dict[str, Any]):
    """A JSON object in which the key `repeated` stands twice."""

    repeated: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    repeating = _Repeating(made)
    repeating.repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeating


def arguments(texts: Sequence[str], function: Function) -> list[Any]:
    """The arguments of `function` from the words of a command line, one word for each parameter.

    A word is JSON. For a string, char or enum parameter a word that is not a JSON string is taken as it stands, and so
    is the name of a variant's case without payload. `@FILE` stands for the content of FILE: text for a string, bytes
    for `list<u8>`, JSON for anything else.
    Raises: UsageError (`usage.argument` for the wrong number of words, `usage.value` for the rest).
    """
    params = function.params
    if len(texts) != len(params):
        wanted = ", ".join(f"{param.name}: {show(param.type)}" for param in params)
        counted = "1 argument" if len(params) == 1 else f"{len(params)} arguments"
        raise UsageError(f"{function.name}({wanted}) takes {counted}, not {len(texts)}")
    return [_argument(text, param) for text, param in zip(texts, params, strict=True)]


def _argument(text: str, param: Param) -> Any:
    is_text = param.type in _TEXTS or isinstance(param.type, EnumType)
    if text.startswith("@"):
        content = _read_file(text[1:], param)
        if param.type == ListType(Prim.U8):
            return content
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise _refuse(param.name, f"{text[1:]} is not UTF-8 text") from error
        if is_text:
            return from_json(text, param.type, param.name)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        if is_text:
            return from_json(text, param.type, param.name)
        if isinstance(param.type, VariantType) and _CASE_NAME.fullmatch(text):
            return from_json(text, param.type, param.name)
        raise _refuse(
            param.name,
            f"{text[:60]!r} is not JSON ({error}); a {show(param.type)} is written as {_form(param.type)}",
        ) from error
    if (is_text or _is_bare_case(text, param.type)) and not isinstance(value, str):
        value = text
    return from_json(value, param.type, param.name)


def _is_bare_case(text: str, type_: Type) -> bool:
    """Whether `text` names a case without payload of a variant: `true` and `null` are names, too."""
    return isinstance(type_, VariantType) and any(case.name == text and case.type is None for case in type_.cases)


def _read_file(name: str, param: Param) -> bytes:
    try:
        content = read_regular(name, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"argument {param.name}: cannot read {name}: {error.strerror}", code="usage.not-found"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise _refuse(param.name, f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB")
    return content


def from_json(value: object, type_: Type, path: str = "value") -> Any:
    """The Python value of WIT type `type_` that the plain JSON value `value` stands for.

    Raises: UsageError (`usage.value`) with the path of the first part that does not fit.
    """
    if isinstance(value, _Repeating):
        raise _refuse(path, f"has the key {_shown(value.repeated)} twice")
    match type_:
        case Prim():
            return _prim_from_json(value, type_, path)
        case ListType(element=Prim.U8) if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError) as error:
                raise _refuse(path, f"is not base64 ({error})") from error
        case ListType(element=Prim.U8):
            octets = _array(value, path, "base64 text or an array of numbers")
            if not all(type(octet) is int and 0 <= octet <= 255 for octet in octets):
                raise _refuse(path, "must hold whole numbers from 0 to 255")
            return bytes(octets)
        case ListType(element=element):
            return [
                from_json(item, element, f"{path}[{at}]") for at, item in enumerate(_array(value, path, "an array"))
            ]
        case TupleType(items=items):
            parts = _array(value, path, f"an array of {len(items)}")
            if len(parts) != len(items):
                raise _refuse(path, f"must have {len(items)} items, not {len(parts)}")
            return tuple(
                from_json(part, item, f"{path}[{at}]") for at, (part, item) in enumerate(zip(parts, items, strict=True))
            )
        case RecordType():
            return _record_from_json(value, type_, path)
        case VariantType():
            return _variant_from_json(value, type_, path)
        case EnumType(cases=cases):
            if not isinstance(value, str) or value not in cases:
                raise _refuse(path, _one_of(value, cases))
            return class_for(type_)(value)
        case FlagsType(flags=flags):
            names = _array(value, path, "an array of strings")
            for name in names:
                if name not in flags:
                    raise _refuse(path, _one_of(name, flags))
            members = class_for(type_)
            return functools.reduce(operator.or_, (_member(members, name) for name in names), members(0))
        case OptionType(payload=OptionType() as inner):
            if value is None:
                return None
            return Some(from_json(_only(value, path, {"some": inner})[1], inner, f"{path}.some"))
        case OptionType(payload=payload):
            return None if value is None else from_json(value, payload, path)
        case ResultType(ok=ok, err=err):
            name, payload_json = _only(value, path, {"ok": ok, "err": err})
            payload_type = ok if name == "ok" else err
            wrap: Callable[[Any], Any] = Ok if name == "ok" else Err
            return wrap(_payload_from_json(payload_json, payload_type, f"{path}.{name}"))
        case MapType(key=key, value=item_type):
            return _map_from_json(value, key, item_type, path)
        case OwnType() | BorrowType() | StreamType() | FutureType() | ErrorContextType():
            raise _refuse(path, f"a {show(type_)} cannot be written as JSON; call this function from Python")
        case _:
            assert_never(type_)


def to_json(value: Any, type_: Type | None) -> Json:
    """The plain JSON value of a result `value` of WIT type `type_` (None: the function returns nothing)."""
    match type_:
        case None:
            return None
        case Prim() if type_ in _FLOATS:
            number = float(value)
            return number if math.isfinite(number) else str(json.dumps(number))
        case Prim.BOOL:
            return bool(value)
        case Prim():
            return str(value) if type_ in _TEXTS else int(value)
        case ListType(element=Prim.U8):
            return base64.b64encode(bytes(value)).decode()
        case ListType(element=element):
            return [to_json(item, element) for item in value]
        case TupleType(items=items):
            return [to_json(part, item) for part, item in zip(value, items, strict=True)]
        case RecordType(fields=fields):
            return {field.name: to_json(_field(value, field.name), field.type) for field in fields}
        case VariantType(cases=cases):
            assert isinstance(value, (Variant, CaseValue))
            name, payload = (value.case, value.value) if isinstance(value, Variant) else (value.name, value.payload)
            payload_type = next(case.type for case in cases if case.name == name)
            return name if payload_type is None else {name: to_json(payload, payload_type)}
        case EnumType():
            return str(value)
        case FlagsType(flags=flags):
            return [name for name in flags if _member(type(value), name) in value]
        case OptionType(payload=OptionType() as inner):
            return None if value is None else {"some": to_json(value.value, inner)}
        case OptionType(payload=payload_type):
            return None if value is None else to_json(value, payload_type)
        case ResultType(ok=ok, err=err):
            return {"err": to_json(value.value, err)} if isinstance(value, Err) else {"ok": to_json(value.value, ok)}
        case MapType(key=key, value=item_type):
            if key == Prim.STRING:
                return {str(one): to_json(two, item_type) for one, two in value.items()}
            return [[to_json(one, key), to_json(two, item_type)] for one, two in value.items()]
        case OwnType(resource=resource) | BorrowType(resource=resource):
            return {"resource": str(resource.name)}
        case StreamType() | FutureType() | ErrorContextType():
            return {"unsupported": show(type_)}
        case _:
            assert_never(type_)


def signature(function: Function) -> str:
    """`greet(name: string) -> string`."""
    params = ", ".join(f"{param.name}: {show(param.type)}" for param in function.params)
    result = f" -> {show(function.result)}" if function.result is not None else ""
    return f"{function.name}({params}){result}"


def _prim_from_json(value: object, prim: Prim, path: str) -> Any:
    if prim in _FLOATS:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if isinstance(value, float) and not math.isfinite(value):
            raise _refuse(path, f'must be a number in the range of {prim.value}, or "Infinity", "-Infinity" or "NaN"')
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    elif prim is Prim.BOOL:
        if isinstance(value, bool):
            return value
    elif prim in _TEXTS:
        if isinstance(value, str):
            return value
    elif type(value) is int:
        return value
    elif isinstance(value, float) and value.is_integer():
        if abs(value) >= _EXACT_BELOW:
            raise _refuse(path, f"must be written with all its digits and no fraction or exponent for {prim.value}")
        return int(value)  # JSON writers of other languages print 3.0 for 3
    raise _refuse(path, f"must be {_form(prim)} for {prim.value}, not {_shown(value)}")


def _record_from_json(value: object, type_: RecordType, path: str) -> Any:
    names = [field.name for field in type_.fields]
    if not isinstance(value, dict):
        raise _refuse(path, f"must be an object with the keys {', '.join(names)}, not {_shown(value)}")
    for key in value:
        if key not in names:
            raise _refuse(path, _one_of(key, names))
    missing = [name for name in names if name not in value]
    absent = {field.name for field in type_.fields if isinstance(field.type, OptionType)}
    if any(name not in absent for name in missing):
        raise _refuse(path, f"has no {', '.join(name for name in missing if name not in absent)}")
    parts = {
        snake(field.name): from_json(value.get(field.name), field.type, f"{path}.{field.name}")
        for field in type_.fields
    }
    return class_for(type_)(**parts)


def _map_from_json(value: object, key: Type, item: Type, path: str) -> dict[Any, Any]:
    pairs = list(value.items()) if isinstance(value, dict) and key == Prim.STRING else _pairs(value, path)
    made: dict[Any, Any] = {}
    for one, two in pairs:
        name = from_json(one, key, f"{path} key")
        if name in made:
            raise _refuse(path, f"has the key {_shown(one)} twice")
        made[name] = from_json(two, item, f"{path}[{str(one)[:40]}]")
    return made


def _variant_from_json(value: object, type_: VariantType, path: str) -> CaseValue:
    types = {case.name: case.type for case in type_.cases}
    if isinstance(value, str) and types.get(value, type_) is None:
        return CaseValue(value, None)
    if isinstance(value, str):
        known = value in types
        raise _refuse(path, f'{value} carries a value; write {{"{value}": …}}' if known else _one_of(value, types))
    name, payload = _only(value, path, types)
    return CaseValue(name, _payload_from_json(payload, types[name], f"{path}.{name}"))


def _payload_from_json(value: object, type_: Type | None, path: str) -> Any:
    if type_ is not None:
        return from_json(value, type_, path)
    if value is not None:
        raise _refuse(path, f"carries no value; write null, not {_shown(value)}")
    return None


def _only(value: object, path: str, types: Mapping[str, Type | None]) -> tuple[str, object]:
    """The one key of `value` and what stands under it; the key must be in `types`."""
    if not isinstance(value, dict) or len(value) != 1:
        forms = " or ".join(f'{{"{name}": …}}' for name in list(types)[:6])
        raise _refuse(path, f"must be {forms}, not {_shown(value)}")
    ((name, payload),) = value.items()
    if name not in types:
        raise _refuse(path, _one_of(name, types))
    return name, payload


def _array(value: object, path: str, form: str) -> list[Any]:
    if not isinstance(value, list):
        raise _refuse(path, f"must be {form}, not {_shown(value)}")
    return value


def _pairs(value: object, path: str) -> list[Any]:
    pairs = _array(value, path, "an array of [key, value]")
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise _refuse(path, "must be an array of [key, value]")
    return pairs


def _field(value: Any, name: str) -> Any:
    """One field of a record: of a row of a numpy structured array, or of a generated class."""
    return value[snake(name)] if isinstance(value, np.void) else getattr(value, snake(name))


def _member(flags: Any, name: str) -> Any:
    return flags[member_name(name)]


def _one_of(value: object, names: Sequence[str] | Mapping[str, object]) -> str:
    near = difflib.get_close_matches(value, list(names), n=1) if isinstance(value, str) else []
    if near:
        return f"{_shown(value)} is unknown; did you mean {near[0]!r}?"
    return f"must be one of {', '.join(list(names)[:12])}, not {_shown(value)}"


def _form(type_: Type) -> str:
    if type_ in _FLOATS:
        return "a number"
    if isinstance(type_, Prim):
        return {Prim.BOOL: "true or false", Prim.STRING: "a string", Prim.CHAR: "a one-character string"}.get(
            type_, "a whole number"
        )
    match type_:
        case ListType(element=Prim.U8):
            return "base64 text, an array of numbers, or @FILE"
        case VariantType():
            return "the name of a case, or a JSON object"
        case OptionType(payload=payload):
            return f"null or {_form(payload)}"
        case RecordType() | ResultType():
            return "a JSON object"
        case ListType() | TupleType() | FlagsType() | MapType():
            return "a JSON array"
        case _:
            return "JSON"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _refuse(path: str, problem: str) -> UsageError:
    return UsageError(f"{path}: {problem}", code="usage.value")
