"""JSON to WIT values and back, by type."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloche.cli.jsonvalues import arguments, from_json, signature, to_json
from cloche.errors import UsageError
from cloche.model import Err, Ok, Some
from cloche.values import Case as CaseValue
from cloche.values import class_for, dtype_for
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
    StreamType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)


def named(name: str) -> TypeName:
    return TypeName("t:p/i", name)


POINT = RecordType(named("point"), (Field("x-at", Prim.S32), Field("note", OptionType(Prim.STRING))))
PAIR = RecordType(named("pair"), (Field("item", Prim.U8), Field("size", Prim.F64)))
SHAPE = VariantType(
    named("shape"),
    (Case("circle", Prim.F64), Case("none", None), Case("dot", POINT), Case("maybe", OptionType(Prim.U8))),
)
ODD = VariantType(named("odd"), (Case("true", None), Case("null", Prim.U8)))
COLOUR = EnumType(named("colour"), ("dark-red", "none"))
MODES = FlagsType(named("modes"), ("read-only", "class", "x"))
RESOURCE = ResourceType(named("bucket"))

ROUND_TRIPS: list[tuple[Type, Any]] = [
    (Prim.BOOL, True),
    (Prim.U64, 2**64 - 1),
    (Prim.S64, -(2**63)),
    (Prim.F64, 0.1),
    (Prim.F32, "NaN"),
    (Prim.F64, "-Infinity"),
    (Prim.CHAR, "\U0001f600"),
    (Prim.STRING, 'a"\n€'),
    (ListType(Prim.U8), "AAH/"),
    (ListType(Prim.U8), ""),
    (ListType(Prim.U16), [0, 65535]),
    (ListType(Prim.STRING), ["", "b"]),
    (ListType(ListType(Prim.BOOL)), [[], [True]]),
    (TupleType((Prim.U8, Prim.STRING)), [1, "a"]),
    (POINT, {"x-at": -1, "note": None}),
    (PAIR, {"item": 3, "size": 0.5}),
    (SHAPE, {"circle": 1.5}),
    (SHAPE, "none"),
    (SHAPE, {"dot": {"x-at": 2, "note": "n"}}),
    (SHAPE, {"maybe": None}),
    (COLOUR, "dark-red"),
    (MODES, ["read-only", "class"]),
    (MODES, []),
    (OptionType(Prim.U8), None),
    (OptionType(Prim.U8), 7),
    (OptionType(OptionType(Prim.U8)), None),
    (OptionType(OptionType(Prim.U8)), {"some": None}),
    (OptionType(OptionType(Prim.U8)), {"some": 7}),
    (ResultType(Prim.STRING, COLOUR), {"ok": "yes"}),
    (ResultType(Prim.STRING, COLOUR), {"err": "none"}),
    (ResultType(None, None), {"ok": None}),
    (MapType(Prim.STRING, Prim.U8), {"a": 1}),
    (MapType(Prim.U8, Prim.STRING), [[1, "a"], [2, "b"]]),
]


@pytest.mark.parametrize(
    ("type_", "value"),
    ROUND_TRIPS,
    ids=str,
)
def test_json_survives_the_way_in_and_out(type_: Type, value: Any) -> None:
    """What the command line reads is what it would print, as strict JSON."""
    out = to_json(from_json(value, type_), type_)
    assert value == out
    assert value == json.loads(json.dumps(out, allow_nan=False))


PYTHON_VALUES: list[tuple[Type, Any, Any]] = [
    (ListType(Prim.U8), [0, 255], b"\x00\xff"),
    (POINT, {"x-at": 1}, class_for(POINT)(x_at=1, note=None)),
    (COLOUR, "none", class_for(COLOUR)("none")),
    (SHAPE, {"circle": 1}, CaseValue("circle", 1)),
    (SHAPE, {"none": None}, CaseValue("none", None)),
    (OptionType(OptionType(Prim.U8)), {"some": 1}, Some(1)),
    (ResultType(Prim.U8, None), {"ok": 1}, Ok(1)),
    (ResultType(Prim.U8, None), {"err": None}, Err(None)),
    (TupleType((Prim.U8,)), [1], (1,)),
    (Prim.U8, 3.0, 3),
    (Prim.F32, "Infinity", math.inf),
]


@pytest.mark.parametrize(("type_", "value", "expected"), PYTHON_VALUES, ids=str)
def test_the_python_value_is_the_one_the_api_takes(type_: Type, value: Any, expected: Any) -> None:
    """Records and enums become their generated classes, bytes become bytes."""
    assert expected == from_json(value, type_)


def test_results_of_every_python_form_become_json() -> None:
    """Generated variants and rows of numpy arrays print like their plain forms, also with awkward field names."""
    shape = class_for(SHAPE)
    assert to_json(shape.Circle(2.0), SHAPE) == {"circle": 2.0}  # type: ignore[attr-defined]
    rows = np.zeros(2, dtype=dtype_for(PAIR))
    rows["item"] = [1, 2]
    assert to_json(rows, ListType(PAIR)) == [{"item": 1, "size": 0.0}, {"item": 2, "size": 0.0}]
    assert to_json(np.array([1, 2], "<u4"), ListType(Prim.U32)) == [1, 2]
    assert to_json(object(), OwnType(RESOURCE)) == {"resource": "t:p/i.bucket"}
    assert to_json(None, None) is None


BAD: list[tuple[Type, Any, str]] = [
    (Prim.U8, "1", "whole number"),
    (Prim.U8, True, "whole number"),
    (Prim.U8, 1.5, "whole number"),
    (Prim.BOOL, 1, "true or false"),
    (Prim.F64, True, "a number"),
    (Prim.F64, "nan", "a number"),
    (Prim.STRING, None, "a string"),
    (ListType(Prim.U8), "not base64!", "base64"),
    (ListType(Prim.U8), [256], "0 to 255"),
    (ListType(Prim.U8), [True], "0 to 255"),
    (ListType(Prim.STRING), "abc", "an array"),
    (ListType(Prim.U16), [1, "x"], "value[1]"),
    (TupleType((Prim.U8, Prim.U8)), [1], "2 items"),
    (POINT, {"note": "n"}, "has no x-at"),
    (POINT, {"x_at": 1}, "did you mean 'x-at'"),
    (POINT, [1], "object with the keys x-at, note"),
    (POINT, {"x-at": "1"}, "value.x-at"),
    (SHAPE, "circle", '{"circle": …}'),
    (SHAPE, {"circel": 1}, "did you mean 'circle'"),
    (SHAPE, {"none": 1}, "carries no value"),
    (SHAPE, {"circle": 1, "none": None}, "must be"),
    (COLOUR, "red", "dark-red"),
    (COLOUR, 1, "must be one of"),
    (MODES, ["read"], "read-only"),
    (MODES, [["x"]], "must be one of"),
    (MODES, "x", "array of strings"),
    (ResultType(Prim.U8, None), 1, '{"ok": …}'),
    (MapType(Prim.U8, Prim.U8), [[1]], "[key, value]"),
    (MapType(Prim.STRING, Prim.U8), {"a": "x"}, "value[a]"),
    (OwnType(RESOURCE), 1, "from Python"),
    (BorrowType(RESOURCE), 1, "from Python"),
    (StreamType(None), [], "from Python"),
]


@pytest.mark.parametrize(("type_", "value", "words"), BAD, ids=str)
def test_what_does_not_fit_is_refused_with_its_path(type_: Type, value: Any, words: str) -> None:
    """Each misfit is `usage.value`, says where it stands and what is accepted."""
    with pytest.raises(UsageError) as caught:
        from_json(value, type_)
    assert (caught.value.code, words in str(caught.value)) == ("usage.value", True), str(caught.value)


def function(*types: Type) -> Function:
    return Function("f", FunctionKind.FREE, tuple(Param(f"p{at}", type_) for at, type_ in enumerate(types)), None)


WORDS: list[tuple[Type, str, Any]] = [
    (Prim.STRING, "Ada", "Ada"),
    (Prim.STRING, '"Ada"', "Ada"),
    (Prim.STRING, "42", "42"),
    (Prim.STRING, "null", "null"),
    (Prim.STRING, "", ""),
    (Prim.CHAR, "x", "x"),
    (COLOUR, "none", class_for(COLOUR)("none")),
    (SHAPE, "none", CaseValue("none", None)),
    (SHAPE, '"none"', CaseValue("none", None)),
    (ODD, "true", CaseValue("true", None)),
    (ODD, '{"null": 1}', CaseValue("null", 1)),
    (Prim.U32, "42", 42),
    (OptionType(Prim.STRING), '"a"', "a"),
    (ListType(Prim.U8), '"AA=="', b"\0"),
    (Prim.U64, "9007199254740993", 9007199254740993),
    (Prim.S64, "-9007199254740991.0", -9007199254740991),
    (Prim.F64, "1e300", 1e300),
    (Prim.STRING, '{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
]


@pytest.mark.parametrize(("type_", "word", "expected"), WORDS, ids=str)
def test_words_of_the_command_line(type_: Type, word: str, expected: Any) -> None:
    """Text parameters need no quotes; everything else is JSON."""
    assert [expected] == arguments([word], function(type_))


def test_files_as_arguments(tmp_path: Path) -> None:
    """`@FILE` gives text, bytes or JSON by the parameter's type."""
    file = tmp_path / "in put"
    file.write_text("[1, 2]")
    wanted = function(Prim.STRING, ListType(Prim.U8), ListType(Prim.U16))
    assert arguments([f"@{file}"] * 3, wanted) == [
        "[1, 2]",
        b"[1, 2]",
        [1, 2],
    ]


@pytest.mark.parametrize(
    ("words", "types", "code", "text"),
    [
        (["1"], (), "usage.argument", "takes 0 arguments, not 1"),
        ([], (Prim.U8,), "usage.argument", "f(p0: u8) takes 1 argument, not 0"),
        (["{"], (Prim.U8,), "usage.value", "whole number"),
        (["x"], (ListType(Prim.U8),), "usage.value", "@FILE"),
        (["nome"], (SHAPE,), "usage.value", "did you mean 'none'"),
        (["circle"], (SHAPE,), "usage.value", 'circle carries a value; write {"circle": …}'),
        (["x"], (OptionType(Prim.STRING),), "usage.value", "null or a string"),
        (["[" * 100_000], (ListType(Prim.U16),), "usage.value", "p0"),
        (["@/does/not/exist"], (Prim.STRING,), "usage.not-found", "/does/not/exist"),
        (['{"x-at": 1, "x-at": 2}'], (POINT,), "usage.value", 'p0: has the key "x-at" twice'),
        (
            ['[{"x-at": 1}, {"note": "a", "x-at": 1, "note": "b"}]'],
            (ListType(POINT),),
            "usage.value",
            "p0[1]: has the key",
        ),
        (['{"ok": 1, "ok": 2}'], (ResultType(Prim.U8, None),), "usage.value", 'p0: has the key "ok" twice'),
        (['{"a": 1, "b": 2, "a": 3}'], (MapType(Prim.STRING, Prim.U8),), "usage.value", 'p0: has the key "a" twice'),
        (["[[1, 2], [1.0, 3]]"], (MapType(Prim.U8, Prim.U8),), "usage.value", "p0: has the key 1.0 twice"),
        (["9007199254740993.0"], (Prim.U64,), "usage.value", "p0: must be written with all its digits"),
        (["[0, -1e18]"], (ListType(Prim.S64),), "usage.value", "p0[1]: must be written with all its digits"),
        (["1e400"], (Prim.F64,), "usage.value", "p0: must be a number in the range of f64"),
        (["[1, -1e400]"], (ListType(Prim.F32),), "usage.value", "p0[1]: must be a number in the range of f32"),
        (["NaN"], (Prim.F64,), "usage.value", '"Infinity"'),
        (["1e400"], (Prim.U64,), "usage.value", "whole number"),
    ],
)
def test_bad_words(words: list[str], types: tuple[Type, ...], code: str, text: str) -> None:
    """Wrong counts, broken JSON, hostile nesting and missing files each have their code."""
    with pytest.raises(UsageError) as caught:
        arguments(words, function(*types))
    assert (code, True) == (caught.value.code, text in str(caught.value)), str(caught.value)


def test_a_binary_file_is_no_text(tmp_path: Path) -> None:
    """A file that is not UTF-8 cannot be a string argument."""
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        arguments([f"@{file}"], function(Prim.STRING))


def test_signatures_read_like_wit() -> None:
    """A function is shown with the types that its author wrote."""
    greet = Function(
        "greet", FunctionKind.FREE, (Param("who", ListType(OptionType(POINT))),), ResultType(None, Prim.STRING)
    )
    assert signature(greet) == "greet(who: list<option<record point>>) -> result<_, string>"
