"""The conformance table: every WIT type with edge values, good and bad, as data for guests of any toolchain.

`ROWS` is the table; `wit_text()` declares `echo-<row>: func(x: T) -> T` for each row, for toolchains that bind from
WIT; `HANDLE_ROWS` (support/cells.py) are its rows about handles. `markdown()` renders the users' page docs/values.md:
`python -m support.conformance` prints it, with what each language's toolchain takes, refuses and changes.
"""

from __future__ import annotations

import array
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from cloche.model import Err, Ok, Some
from cloche.values import Case, Variant, brief, class_for, dtype_for
from cloche.wit.carried import children
from cloche.wit.types import Case as CaseType
from cloche.wit.types import (
    EnumType,
    Field,
    FlagsType,
    ListType,
    MapType,
    OptionType,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)
from support.cells import HANDLE_ROWS
from support.toolchains import EXPECTED_DIFFERENCES, LANGUAGES, REFUSED_AT_BUILD, UNSUPPORTED, Language

INTERFACE = "test:values/echo"


@dataclass(frozen=True)
class Good:
    """A value that passes, and what comes back (the same unless told otherwise)."""

    given: Any
    back: Any = ...

    @property
    def expected(self) -> Any:
        """What comes back."""
        return self.given if self.back is ... else self.back


@dataclass(frozen=True)
class Bad:
    """A value that is refused before the call: the path inside the argument, and words of the message."""

    given: Any
    path: str = ""
    words: str = "expected"


@dataclass(frozen=True)
class Row:
    """One type: its name in the table, the Python type, what else is accepted, and edge values."""

    name: str
    type: Type
    python: str
    accepts: str
    good: tuple[Good, ...]
    bad: tuple[Bad, ...]


def _named(name: str) -> TypeName:
    return TypeName(INTERFACE, name)


def _good(*values: Any) -> tuple[Good, ...]:
    return tuple(value if isinstance(value, Good) else Good(value) for value in values)


def _bad(*values: Any) -> tuple[Bad, ...]:
    return tuple(value if isinstance(value, Bad) else Bad(value) for value in values)


SIGNALLING_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF800000000BEEF))[0]
F32_MAX = float(np.finfo(np.float32).max)

POINT = RecordType(_named("point"), (Field("x", Prim.F32), Field("y", Prim.F32)))
PIXEL = RecordType(
    _named("pixel"), (Field("on", Prim.BOOL), Field("at", POINT), Field("depth", Prim.S64), Field("tag", Prim.U8))
)
OPTIONS = RecordType(
    _named("options"),
    (Field("max-read-bytes", Prim.U32), Field("class", Prim.STRING), Field("comment", OptionType(Prim.STRING))),
)
DIGITS = RecordType(_named("digits"), (Field("part-1", Prim.U8), Field("part-2-b", Prim.U16)))
WIDE = RecordType(_named("wide"), tuple(Field(f"field{index}", Prim.U64) for index in range(40)))
COLOR = EnumType(_named("color"), ("red", "deep-blue", "none"))
MANY_SHAPES = VariantType(
    _named("many-shapes"),
    tuple(CaseType(f"case{index}", (None, Prim.U16, Prim.STRING)[index % 3]) for index in range(300)),
)
MANY_CASES = EnumType(_named("many-cases"), tuple(f"case{index}" for index in range(300)))
ACCESS = FlagsType(_named("access"), ("read", "write-all", "execute"))
FLAGS_32 = FlagsType(_named("flags-thirty-two"), tuple(f"flag{index}" for index in range(32)))
FLAGS_AT_SIZES = tuple(
    FlagsType(_named(f"flags-{word}"), tuple(f"flag{index}" for index in range(count)))
    for word, count in (("eight", 8), ("nine", 9), ("sixteen", 16), ("seventeen", 17))
)
"""As many flags as fit one or two bytes, and one more."""
SHAPE = VariantType(
    _named("shape"),
    (
        CaseType("circle", Prim.F64),
        CaseType("nothing", None),
        CaseType("options", OPTIONS),
        CaseType("maybe", OptionType(Prim.U8)),
        CaseType("bytes", ListType(Prim.U8)),
    ),
)
TREE = VariantType(_named("tree"), (CaseType("leaf", None), CaseType("shapes", ListType(SHAPE))))
Point, Pixel, Options, Wide = (class_for(type_) for type_ in (POINT, PIXEL, OPTIONS, WIDE))
Color, Access, Flags32 = (class_for(type_) for type_ in (COLOR, ACCESS, FLAGS_32))
Shape: Any = class_for(SHAPE)
Tree: Any = class_for(TREE)
DEEP: Type = Prim.U8
for _ in range(12):
    DEEP = ListType(OptionType(DEEP)) if isinstance(DEEP, TupleType) else TupleType((DEEP, Prim.CHAR))


def _deep(type_: Type) -> Any:
    if isinstance(type_, ListType):
        return [_deep(type_.element)] * 2
    if isinstance(type_, OptionType):
        return _deep(type_.payload)
    if isinstance(type_, TupleType):
        return _deep(type_.items[0]), "ß"
    return 7


def _integer(prim: Prim, least: int, most: int) -> Row:
    middle = -1 if least else most // 2 + 1
    good = _good(0, 1, middle, least, most, Good(np.int64(5), 5), Good(np.uint8(5), 5))
    bad = _bad(least - 1, most + 1, True, 1.0, "1", None, np.True_, [1], b"1")
    return Row(str(prim), prim, "int", "int and numpy integer in range; no bool, no float", good, bad)


def _numbers(prim: Prim) -> Row:
    dtype = dtype_for(prim)
    assert dtype is not None
    info: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    edges = np.array([0, 1, info.min, info.max], dtype)
    good = _good(
        Good([], np.array([], dtype)),
        edges,
        Good(edges.tolist(), edges),
        Good(tuple(edges.tolist()), edges),
        Good(np.arange(20, dtype=np.int64)[::2], np.arange(0, 20, 2).astype(dtype)),
        Good(memoryview(edges.data), edges),
        Good(range(3), np.arange(3).astype(dtype)),
        Good([np.uint8(3), 4], np.array([3, 4], dtype)),
    )
    bad: tuple[Bad, ...] = _bad(
        "12", 5, None, {1, 2}, Bad([[1]], "[0]"), np.zeros((2, 2), dtype), np.array([True]), np.array(["a"])
    )
    if dtype.kind in "iu":
        most = int(info.max)
        bad += _bad(Bad([1, most + 1], "[1]"), Bad([0, 1, True], "[2]"), Bad([1.0], "[0]"), np.array([1.5]))
        if dtype.itemsize < 8:
            bad += _bad(Bad(np.array([1, 2, most + 1]), "[2]"))
        else:
            bad += _bad(
                Bad(np.array([0, 1 << 63], np.uint64), "[1]") if dtype.kind == "i" else Bad(np.array([3, -1]), "[1]")
            )
    else:
        good += _good(
            np.array([math.nan, math.inf, -math.inf, -0.0, info.tiny], dtype),
            Good([0.5, 1, 2**53], np.array([0.5, 1, 2**53], dtype)),
        )
        bad += _bad(Bad([1.0, "2"], "[1]"), Bad([1.0, 10**400], "[1]"), Bad([True], "[0]"))
        if prim is Prim.F32:
            bad += _bad(Bad([0.0, 1e39], "[1]"), Bad(np.array([0.0, 1e39]), "[1]"))
    kind = "integers" if dtype.kind in "iu" else "numbers"
    accepts = f"arrays and buffers of {kind} of any width, sequences of {kind}; each element in range, one dimension"
    return Row(f"list-{prim}", ListType(prim), f"numpy.ndarray of {dtype.name}", accepts, good, bad)


_INTS: dict[Prim, tuple[int, bool]] = {
    Prim.S8: (8, True),
    Prim.U8: (8, False),
    Prim.S16: (16, True),
    Prim.U16: (16, False),
    Prim.S32: (32, True),
    Prim.U32: (32, False),
    Prim.S64: (64, True),
    Prim.U64: (64, False),
}


def _rows() -> Iterator[Row]:
    yield Row(
        "bool",
        Prim.BOOL,
        "bool",
        "True, False and numpy bools",
        _good(True, False, Good(np.True_, True)),
        _bad(0, 1, "", None),
    )
    for prim, (bits, signed) in _INTS.items():
        yield _integer(prim, -(1 << bits - 1) if signed else 0, (1 << (bits - 1 if signed else bits)) - 1)
    yield Row(
        "f32",
        Prim.F32,
        "float",
        "float, int and numpy number, rounded to the nearest f32; refused when that would be infinite",
        _good(0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, F32_MAX, -F32_MAX, 2.0**-149, Good(1, 1.0))
        + _good(Good(0.1, float(np.float32(0.1))), Good(np.float64(2.5), 2.5), Good(2**24 + 1, 16777216.0)),
        _bad(True, "1", None, 3.5e38, 10**400, 1j, [1.0]),
    )
    yield Row(
        "f64",
        Prim.F64,
        "float",
        "float, int and numpy number, ints rounded to the nearest f64",
        _good(0.0, -0.0, 0.1, math.nan, SIGNALLING_NAN, math.inf, -math.inf, 5e-324, sys.float_info.max)
        + _good(Good(2**53 + 1, 2.0**53), Good(np.float32(0.5), 0.5)),
        _bad(False, "1.0", None, 10**400, 1j),
    )
    yield Row(
        "char",
        Prim.CHAR,
        "str of one character",
        "one Unicode scalar value; a lone surrogate is refused",
        _good("a", "\0", "\ud7ff", "\ue000", "\uffff", "\U0001f98a", "\U0010ffff"),
        _bad("", "ab", "\ud800", "\udfff", 97, None, b"a"),
    )
    yield Row(
        "string",
        Prim.STRING,
        "str",
        "any str without lone surrogates",
        _good("", "a", "Ada", "naïve – 日本語 🦊", "a\0b", "x" * 100_000, "🦊" * 20_000),
        _bad(Bad("ab\ud800", words="character 2"), b"x", None, 1, ["a"]),
    )
    yield Row(
        "list-u8",
        ListType(Prim.U8),
        "bytes",
        "any buffer of one-byte items, arrays and sequences of numbers 0 to 255",
        _good(
            b"",
            b"\0\xff",
            bytes(range(256)) * 64,
            bytes(range(256)) * 4096,
            Good(bytearray(b"ab"), b"ab"),
            Good(memoryview(b"abcd")[::2], b"ac"),
            Good([1, 2, 255], b"\x01\x02\xff"),
            Good(range(4), b"\0\x01\x02\x03"),
            Good(np.array([1, 2], np.int64), b"\x01\x02"),
            Good(array.array("b", [-1, 1]), b"\xff\x01"),
            Good(array.array("H", [7, 8]), b"\x07\x08"),
            Good((np.uint8(3), 4), b"\x03\x04"),
        ),
        _bad("text", 5, None, Bad([1, 256], "[1]"), Bad([0, -1], "[1]"), Bad([True], "[0]"), Bad([1.0], "[0]"))
        + _bad(Bad(np.array([1, 300]), "[1]"), np.array([1.0]), array.array("d", [1.0]), {1}),
    )
    for prim in (*(prim for prim in _INTS if prim is not Prim.U8), Prim.F32, Prim.F64):
        yield _numbers(prim)
    yield Row(
        "list-bool",
        ListType(Prim.BOOL),
        "list[bool]",
        "sequences and arrays of bools",
        _good([], [True, False], Good((True,), [True]), Good(np.array([True, False]), [True, False])),
        _bad("x", None, Bad([True, 1], "[1]"), {True}),
    )
    yield Row(
        "list-char",
        ListType(Prim.CHAR),
        "list[str]",
        "sequences of characters",
        _good([], ["a", "\U0010ffff"]),
        _bad("ab", Bad(["a", "bc"], "[1]")),
    )
    yield Row(
        "list-string",
        ListType(Prim.STRING),
        "list[str]",
        "sequences of strings",
        _good([], ["", "a", "é" * 1000], Good(("a", "b"), ["a", "b"]), [f"item {index}" for index in range(1000)]),
        _bad("ab", b"ab", None, Bad(["a", 1], "[1]"), Bad(["\udc00"], "[0]")),
    )
    point_dtype, pixel_dtype = dtype_for(POINT), dtype_for(PIXEL)
    points = np.array([(1.0, 2.0), (math.inf, -0.0)], point_dtype)
    pixels = np.array([(True, (1.0, 2.0), -(1 << 63), 255), (False, (0.0, 0.5), 1, 0)], pixel_dtype)
    other_order = np.array([(2.0, 1.0), (-0.0, math.inf)], [("y", "<f8"), ("x", "<f8")])
    yield Row(
        "list-point",
        ListType(POINT),
        "structured numpy.ndarray with the record's fields",
        "structured arrays with the same field names, sequences of records",
        _good(
            Good([], points[:0]),
            points,
            Good(other_order, points),
            Good([Point(1, 2), {"x": math.inf, "y": -0.0}], points),
            Good(list(points), points),
            Good(points[::-1], points[::-1].copy()),
            np.zeros(5000, point_dtype),
        ),
        _bad(None, "x", Bad([Point(1, 2), Point(1, "2")], "[1].y"), Bad([{"x": 1}], "[0]", "lacks y"), Bad([1], "[0]"))
        + _bad(Bad(np.zeros(2, [("x", "<f4")]), words="with the fields x, y"), Bad([Point(1e39, 0)], "[0].x"))
        + _bad(np.zeros((2, 2), point_dtype)),
    )
    yield Row(
        "list-pixel",
        ListType(PIXEL),
        "structured numpy.ndarray, rows inside rows",
        "the same, nested",
        _good(
            pixels, Good([Pixel(True, Point(1, 2), -(1 << 63), 255), Pixel(False, (0.0, 0.5), 1, 0)][:1], pixels[:1])
        ),
        _bad(Bad([Pixel(True, Point(1, 2), 1, 256)], "[0].tag"), Bad([Pixel(1, Point(1, 2), 1, 2)], "[0].on"))
        + _bad(Bad([Pixel(True, Point(1, None), 1, 2)], "[0].at.y")),
    )
    pair = TupleType((Prim.U16, Prim.BOOL))
    pairs = np.array([(1, True), (65535, False)], dtype_for(pair))
    yield Row(
        "list-pair",
        ListType(pair),
        "structured numpy.ndarray with fields f0, f1, …",
        "structured arrays, sequences of tuples",
        _good(pairs, Good([(1, True), [65535, False]], pairs)),
        _bad(Bad([(1, True), (1,)], "[1]"), Bad([(65536, True)], "[0].f0"), Bad([(1, 1)], "[0].f1")),
    )
    yield Row(
        "tuple",
        TupleType((Prim.U8, Prim.STRING, ListType(Prim.U8))),
        "tuple",
        "tuple or list of the exact length",
        _good((1, "a", b"b"), Good([255, "", []], (255, "", b""))),
        _bad((1, "a"), (1, "a", b"b", 2), "abc", None, Bad((1, 2, b""), "[1]"), Bad((1, "", [999]), "[2][0]")),
    )
    yield Row(
        "tuple-long",
        TupleType((Prim.U64,) * 17),
        "tuple",
        "more flat values than a call has parameters: crosses through memory",
        _good(tuple(range(17)), (2**64 - 1,) * 17),
        _bad(Bad((0,) * 16 + (-1,), "[16]"), (0,) * 18),
    )
    options = Options(1, "c", None)
    yield Row(
        "record",
        OPTIONS,
        "generated frozen dataclass, snake_case fields",
        "its class, a mapping by WIT or Python names, any dataclass with the same fields",
        _good(
            options,
            Options(2**32 - 1, "é", "text"),
            Good({"max-read-bytes": 1, "class": "c", "comment": None}, options),
            Good({"max_read_bytes": 1, "class_": "c", "comment": None}, options),
        ),
        _bad(
            None, (1, "c", None), Bad(Options(-1, "c", None), ".max_read_bytes"), Bad(Options(1, None, None), ".class_")
        )
        + _bad(Bad({"max-read-bytes": 1, "class": "c"}, words="lacks comment"), Bad(Options(1, "c", 5), ".comment"))
        + _bad(Bad({"max-read-bytes": 1, "class": "c", "comment": None, "coment": 1}, words="no field 'coment'"))
        + _bad(Bad({"class": "a", "class_": "b"}, words="given twice")),
    )
    digits: Any = class_for(DIGITS)
    yield Row(
        "record-digits",
        DIGITS,
        "generated frozen dataclass",
        "the same; words of its names begin with digits",
        _good(digits(1, 2), Good({"part-1": 255, "part_2_b": 0}, digits(255, 0))),
        _bad(Bad(digits(256, 0), ".part_1")),
    )
    wide = Wide(*range(40))
    yield Row(
        "record-wide",
        WIDE,
        "generated frozen dataclass",
        "the same",
        _good(wide),
        _bad(Bad(Wide(*[-1] * 40), ".field0")),
    )
    yield Row(
        "list-record",
        ListType(OPTIONS),
        "list of dataclasses",
        "sequences of records",
        _good([], [options, Options(2, "", "x")]),
        _bad(Bad([options, Options(1, 5, None)], "[1].class_"), Bad([None], "[0]")),
    )
    yield Row(
        "enum",
        COLOR,
        "generated StrEnum, the WIT spelling as value",
        "its members, or the WIT spelling",
        _good(*map(Color, COLOR.cases), Good("deep-blue", Color("deep-blue"))),
        _bad("DEEP_BLUE", "green", 0, None),
    )
    yield Row(
        "enum-large",
        MANY_CASES,
        "generated StrEnum",
        "the same",
        _good(class_for(MANY_CASES)("case299")),
        _bad("case300"),
    )
    access: Any = Access
    yield Row(
        "flags",
        ACCESS,
        "generated enum.Flag, in bit order",
        "its values, or a set or sequence of WIT names or members",
        _good(
            access(0),
            access(7),
            access.READ | access.WRITE_ALL,
            Good({"read", "execute"}, access.READ | access.EXECUTE),
            Good(["write-all"], access.WRITE_ALL),
            Good(set(), access(0)),
            Good([access.READ, "WRITE_ALL"], access.READ | access.WRITE_ALL),
        ),
        _bad(1, None, "read", {"fly"}, {1}, {"read": True}),
    )
    yield Row(
        "flags-full",
        FLAGS_32,
        "generated enum.Flag",
        "the same; a type with more than 32 flags is refused at load",
        _good(class_for(FLAGS_32)(0), class_for(FLAGS_32)((1 << 32) - 1), class_for(FLAGS_32)(1 << 31)),
        _bad(1 << 31),
    )
    for type_ in FLAGS_AT_SIZES:
        made: Any = class_for(type_)
        count = len(type_.flags)
        yield Row(
            type_.name.name,
            type_,
            "generated enum.Flag",
            "the same",
            _good(
                made(0),
                made((1 << count) - 1),
                made(1 << count - 1),
                Good({"flag0", f"flag{count - 1}"}, made(1 | 1 << count - 1)),
            ),
            _bad([f"flag{count}"], (1 << count) - 1),
        )
    yield Row(
        "variant",
        SHAPE,
        "generated base class with one frozen dataclass for each case; payload in `value`",
        "its cases, Case(name, payload), {name: payload}, or the name of a case without payload",
        _good(
            Shape.Circle(1.5),
            Shape.Nothing(),
            Shape.Options(options),
            Shape.Maybe(None),
            Shape.Maybe(3),
            Shape.Bytes(b"abc"),
            Good(Case("circle", 2.0), Shape.Circle(2.0)),
            Good({"circle": 2}, Shape.Circle(2.0)),
            Good("nothing", Shape.Nothing()),
            Good(Case("maybe"), Shape.Maybe(None)),
        ),
        _bad(None, 1, "circles", Bad("circle", words="needs a payload"), Bad(Case("nothing", 1), words="no payload"))
        + _bad(Bad(Shape.Circle("x"), ".value"), Bad(Shape.Options(Options(1, 2, None)), ".value.class_"))
        + _bad({"circle": 1.0, "nothing": None}, Tree.Leaf()),
    )
    yield Row(
        "variant-nested",
        TREE,
        "the same",
        "the same",
        _good(Tree.Leaf(), Tree.Shapes([]), Tree.Shapes([Shape.Nothing(), Shape.Bytes(b"x")])),
        _bad(Bad(Tree.Shapes([Shape.Nothing(), Shape.Maybe(256)]), ".value[1].value")),
    )
    many: Any = class_for(MANY_SHAPES)
    yield Row(
        "variant-large",
        MANY_SHAPES,
        "the same",
        "the same",
        _good(
            many.Case0(), many.Case1(65535), many.Case255(), many.Case256(256), many.Case257("text"), many.Case299("z")
        ),
        _bad("case300", Bad(many.Case298(65536), ".value"), Bad(Case("case299"), words="needs a payload")),
    )
    yield Row(
        "option",
        OptionType(Prim.U32),
        "None or the value",
        "None, the value, or Some(value)",
        _good(None, 0, 2**32 - 1, Good(Some(5), 5)),
        _bad(-1, "x", False),
    )
    yield Row(
        "option-nested",
        OptionType(OptionType(OptionType(Prim.STRING))),
        "None, Some(None), Some(Some(value)), …: only the innermost option has no Some",
        "exactly that",
        _good(None, Some(None), Some(Some(None)), Some(Some("a"))),
        _bad("a", Bad(Some("a"), ".value"), Bad(Some(Some(5)), ".value.value")),
    )
    for name, ok, err, good, bad in (
        (
            "result",
            Prim.U8,
            Prim.STRING,
            (Ok(1), Err("no")),
            (Bad(Ok("1"), ".value"), Bad(Err(None), ".value"), 1, None),
        ),
        (
            "result-ok-only",
            Prim.U8,
            None,
            (Ok(255), Err(None)),
            (Bad(Err(1), words="no payload"), Bad(Ok(None), ".value")),
        ),
        (
            "result-err-only",
            None,
            Prim.CHAR,
            (Ok(None), Err("x")),
            (Bad(Ok(1), words="no payload"), Bad(Err(""), ".value")),
        ),
        ("result-bare", None, None, (Ok(None), Err(None)), (Bad(Ok(1), words="no payload"), None, True)),
    ):
        yield Row(
            name,
            ResultType(ok, err),
            "Ok(value) or Err(value); a call of yours returns T or raises GuestError",
            "exactly that; None for a case without payload",
            _good(*good),
            _bad(*bad),
        )
    yield Row(
        "result-nested",
        ResultType(OptionType(ResultType(None, None)), COLOR),
        "the same",
        "the same",
        _good(Ok(None), Ok(Ok(None)), Ok(Err(None)), Err(Color("red"))),
        _bad(Bad(Ok(5), ".value"), Bad(Err("pink"), ".value")),
    )
    yield Row(
        "map",
        MapType(Prim.STRING, Prim.U32),
        "dict; of keys that a guest repeats the last counts",
        "any mapping",
        _good({}, {"a": 1, "": 2**32 - 1}, {f"key {index}": index for index in range(500)}),
        _bad(None, [("a", 1)], Bad({1: 1}, ".key"), Bad({"a": -1}, "['a']"), Bad({"ok": 1, "b": None}, "['b']")),
    )
    yield Row(
        "map-of-lists",
        MapType(Prim.U64, ListType(OPTIONS)),
        "dict",
        "any mapping",
        _good({2**64 - 1: [options], 0: []}),
        _bad(Bad({1: [None]}, "[1][0]"), Bad({-1: []}, ".key")),
    )
    yield Row(
        "map-bool",
        MapType(Prim.BOOL, Prim.STRING),
        "dict",
        "any mapping",
        _good({}, {True: "yes", False: "no"}, Good({np.True_: "yes"}, {True: "yes"})),
        _bad(Bad({1: "yes"}, ".key"), Bad({True: 1}, "[True]")),
    )
    yield Row(
        "map-char",
        MapType(Prim.CHAR, ListType(Prim.U8)),
        "dict",
        "any mapping",
        _good({"a": b"\0", "\U0001f98a": b""}),
        _bad(Bad({"ab": b""}, ".key"), Bad({"\ud800": b""}, ".key"), Bad({"a": [256]}, "['a'][0]")),
    )
    yield Row("deep", DEEP, "nested tuples, lists and options", "the same", _good(_deep(DEEP)), _bad(None))


ROWS: tuple[Row, ...] = tuple(_rows())


def agree(left: Any, right: Any) -> bool:
    """Whether two lifted values are the same, type for type: NaN equals NaN, and -0.0 differs from 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))
    if isinstance(left, np.ndarray):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        if left.dtype.names:
            return all(agree(left[name], right[name]) for name in left.dtype.names)
        if left.dtype.kind == "f":
            signs = np.array_equal(np.signbit(left), np.signbit(right))
            return bool(np.array_equal(left, right, equal_nan=True)) and signs
        return bool(np.array_equal(left, right))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(agree, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(agree, left.values(), right.values()))
    if is_dataclass(left):
        return all(agree(getattr(left, item.name), getattr(right, item.name)) for item in fields(left))
    return bool(left == right)


def wit_of(type_: Type) -> str:
    """A type as WIT text where it is used."""
    match type_:
        case Prim():
            return str(type_)
        case ListType(element=inner):
            return f"list<{wit_of(inner)}>"
        case OptionType(payload=inner):
            return f"option<{wit_of(inner)}>"
        case TupleType(items=items):
            return f"tuple<{', '.join(map(wit_of, items))}>"
        case MapType(key=key, value=value):
            return f"map<{wit_of(key)}, {wit_of(value)}>"
        case ResultType(ok=None, err=None):
            return "result"
        case ResultType(ok=ok, err=None):
            return f"result<{wit_of(ok)}>" if ok is not None else "result"
        case ResultType(ok=ok, err=err):
            return f"result<{'_' if ok is None else wit_of(ok)}, {wit_of(err) if err is not None else '_'}>"
        case RecordType(name=name) | VariantType(name=name) | EnumType(name=name) | FlagsType(name=name):
            return f"%{name.name}"
    raise AssertionError(type_)


def declarations(types: list[Type]) -> list[str]:
    """WIT declarations of the named types inside `types`, innermost first, each once."""
    seen: dict[Type, str] = {}

    def visit(type_: Type) -> None:
        for child in children(type_):
            visit(child)
        if type_ in seen:
            return
        match type_:
            case RecordType(name=name, fields=items):
                inner = ", ".join(f"%{item.name}: {wit_of(item.type)}" for item in items)
                seen[type_] = f"record %{name.name} {{ {inner} }}"
            case VariantType(name=name, cases=cases):
                inner = ", ".join(f"%{c.name}{'' if c.type is None else f'({wit_of(c.type)})'}" for c in cases)
                seen[type_] = f"variant %{name.name} {{ {inner} }}"
            case EnumType(name=name, cases=names):
                seen[type_] = f"enum %{name.name} {{ {', '.join(f'%{item}' for item in names)} }}"
            case FlagsType(name=name, flags=names):
                seen[type_] = f"flags %{name.name} {{ {', '.join(f'%{item}' for item in names)} }}"

    for type_ in types:
        visit(type_)
    return list(seen.values())


def wit_text(rows: tuple[Row, ...] = ROWS) -> str:
    """A WIT package whose interface `echo` has one function for each row, and a world that exports it."""
    lines = ["package test:values;", "", "interface echo {"]
    lines += [f"    {line}" for line in declarations([row.type for row in rows])]
    lines += [f"    echo-{row.name}: func(x: {wit_of(row.type)}) -> {wit_of(row.type)};" for row in rows]
    return "\n".join([*lines, "}", "", "world values {", "    export echo;", "}", ""])


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size <= 4 and value.dtype.names is None:
        text = f"array({value.tolist()})"
    elif isinstance(value, np.generic):
        text = f"numpy.{type(value).__name__}({value.item()!r})"
    elif isinstance(value, Variant) or not isinstance(value, bytes | bytearray) or len(value) > 8:
        text = brief(value) if not isinstance(value, memoryview | array.array | range) else type(value).__name__
    else:
        text = repr(value)
    text = ascii(text)[1:-1].replace("\\'", "'").replace("\\\\", "\\") if not text.isascii() else text
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def _shown(values: list[str]) -> str:
    return ", ".join(dict.fromkeys(values))


_INTRODUCTION = """\
# How WIT values look in Python

The Python type is a function of the WIT type alone, never of a value's size, of the tier or of how bytes cross.
Everything is checked both ways: a value of yours that does not fit raises `UsageError` (`usage.value`) before
the call and names the place, such as `argument 2 (options).items[3].size: expected u32 (0 to 4294967295), got
-1`; a value of a guest that breaks its type raises `GuestTrap` (`guest.invalid-value`); more bytes than the
limit `payload` raise `LimitError` (`limit.payload`) before anything is converted. Lists of bytes and numbers
cost this machine many times their size: see [limits](limits-and-usage.md#memory-of-the-host).

- Records, enums, flags and variants have generated classes (`cloche.values.class_for`); the same structure and
  name give the same class, in every thread, for as long as anybody uses it. Their `repr` shows the length of
  long payloads, never the bytes. They can be copied and pickled; whoever unpickles one needs Cloche.
- Values compare with `==`, also `Ok`, `Err`, `Some` and `Case`: arrays inside them as a whole (dtype, shape and
  items). NaN differs from itself, as everywhere in Python.
- A list, mapping, set or array of yours is read once, before the guest is called. What the code of your own
  objects raises meanwhile is `usage.value` with the place, and that error as its `__cause__`. Such code can
  neither close the plugin nor call the instance that it is read for (`usage.re-entry`).
- `result<T, E>` at the top level of a call returns T or raises `GuestError` with E in `payload`.
- Integers are accepted where floats are asked for and are rounded to the nearest one. A number that would
  become infinite as `f32` or `f64` is refused; infinities and NaN themselves pass (the bits of a NaN may
  change).
- Bools are not numbers, and numbers are not bools.
- `list<u8>` takes any buffer of one-byte items as it stands. The items of any other buffer are numbers like
  those of a list; to hand over an array's memory, cast it: `memoryview(a).cast("B")`.
- Sets, generators, strings and masked arrays are not accepted as lists.
- `own<r>` and `borrow<r>` of a capability's resource are the capability's own objects; those of a guest are
  handles (`GuestResource`, context managers), which cannot be copied or pickled. A handle passed as `own` has
  moved: using it again raises `UsageError` (`usage.closed`). What is lent in a call cannot move in the same
  call, and nothing can move twice.
- Of keys that a guest repeats in a map the last one counts; what the others owned is closed.
- A builtin plugin gets and gives the same values with the same errors, and its callers hold handles as well. The
  object itself gets its own Python objects back.
- Functions are called by their name in snake_case, static functions and methods of an interface by
  `resource_function`. Of two functions with one such name (`counter-find` and `counter.find`) the later one in
  the WIT gets a `_` at its end, as does a function that is named like something of the interface object's own
  (`wit_`). The WIT name always works, too: `point["[static]counter.find"]`.
- `stream`, `future`, `error-context`, fixed-length lists, more than 32 flags, more than 1024 fields or cases,
  and types of more than 64 levels or 10 000 parts are refused when the component is loaded
  (`contract.unsupported`). WIT has no empty records.

The last four columns say whether plugins of a language, built with its toolchain, take such a value and give it
back: numbers point to the notes below the table.

"""


class _Notes:
    """Numbered notes about what the toolchains refuse and change; the same words get the same number."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def cell(self, language: Language, name: str) -> str:
        """What the table says of the row `name` in a language."""
        refusal = REFUSED_AT_BUILD.get((language, name))
        if refusal is not None:
            return f"not built [{self._number(LANGUAGES[language], refusal.why)}]"
        found = EXPECTED_DIFFERENCES.get((language, name))
        if found is None:
            return "ok"
        shown = [f"{each.given} → {f'`{each.code}`' if each.code else each.back}" for each in found.values]
        return f"ok but {', '.join(shown)} [{self._number(LANGUAGES[language], found.why)}]"

    def _number(self, toolchain: str, why: str) -> int:
        lead = f"{toolchain}: {why}."
        for number, line in enumerate(self.lines, 1):
            if line == f"{number}. {lead}":
                return number
        self.lines.append(f"{len(self.lines) + 1}. {lead}")
        return len(self.lines)


def markdown() -> str:
    """The page docs/values.md."""
    lines = _INTRODUCTION.splitlines()
    lines += ["| WIT | in Python | accepted | WAT | Python | JavaScript | C |", "|" + " --- |" * 7]
    notes = _Notes()
    for row in ROWS:
        cells = [f"`{_wit_cell(row)}`", row.python, row.accepts, *(notes.cell(at, row.name) for at in LANGUAGES)]
        lines.append(f"| {' | '.join(cells)} |")
    for handle in HANDLE_ROWS:
        cells = [f"`{handle.wit}`", "the resource's object or handle there", "the same; see above"]
        cells += [notes.cell(at, handle.name) for at in LANGUAGES]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *notes.lines, ""]
    lines += ["What Cloche refuses at load, some toolchains refuse already at build:", ""]
    lines += ["| WIT | WAT | Python | JavaScript | C |", "|" + " --- |" * 5]
    for each in UNSUPPORTED:
        refused = [each.refusals[at].why if at in each.refusals else "at load" for at in LANGUAGES]
        wit = each.wit if " of " in each.wit else f"`{each.wit}`"
        lines.append(f"| {wit} | {' | '.join(refused)} |")
    lines += ["", "## Edge values", "", "Each passes through a guest and back, or is refused before the call.", ""]
    lines += ["| WIT | passes (→ what comes back, where it differs) | refused |", "| --- | --- | --- |"]
    for row in ROWS:
        good = [_show(case.given) + (f" → {_show(case.back)}" if case.back is not ... else "") for case in row.good]
        bad = [_show(case.given) + (f" at `{case.path}`" if case.path else "") for case in row.bad]
        lines.append(f"| `{_wit_cell(row)}` | {_shown(good)} | {_shown(bad)} |")
    lines += [
        "",
        "The named types of the table:",
        "",
        "```wit",
        *declarations([row.type for row in ROWS if len(_wit_cell(row)) < 80]),
        "```",
        "",
    ]
    return "\n".join(line if len(line) < 1500 or line.startswith("|") else line[:1500] + " …" for line in lines)


def _wit_cell(row: Row) -> str:
    text = wit_of(row.type).replace("%", "")
    return text if len(text) < 100 else f"{text[:60]}…"


if __name__ == "__main__":
    sys.stdout.write(markdown())
