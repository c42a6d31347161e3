"""Writes plugins in WAT, Python, JavaScript and C for the conformance table: `echo-<row>: func(x: T) -> T` each.

    directory = write_plugin("python", tmp_path, ROWS)     # manifest, WIT and source, ready to build

All of them export `test:values/echo`, where each function gives back what the language's binding made of its argument,
and `test:values/cells`, which passes a resource of the guest's own in every direction.
Python and JavaScript bind the WIT themselves. C has no binding: its functions follow the canonical ABI by hand, as the
authors of such guests do, and are generated from the codec's layouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cloche.engine.codec.layout import aligned, layout_of
from cloche.wit.carried import children
from cloche.wit.names import pascal, snake
from cloche.wit.types import (
    EnumType,
    FlagsType,
    ListType,
    MapType,
    OptionType,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
)
from support import cells
from support.conformance import INTERFACE, Row, wit_text
from support.toolchains import Language, Unsupported

MAX_FLAT_PARAMS = 16
"""More flat values than this cross through memory, by the canonical ABI."""

_SOURCES: Mapping[Language, str] = {"wat": "app.wat", "python": "app.py", "js": "app.js", "c": "app.c"}
_MANIFEST = """\
format-version = 1
id = "test/echo-{language}"
name = "Echo"
version = "1.0.0"
description = "Gives back what it gets."
license = "Apache-2.0"
instances = "pooled"

[component]
source = "{source}"
world = "guest"
"""
_WORLD = """
world guest {{
    {echo}
    export cells;
}}
"""


def write_plugin(language: Language, directory: Path, rows: Sequence[Row]) -> Path:
    """The directory of a plugin that echoes `rows`, made under `directory`. In WAT there are the cells only."""
    source = {"wat": _wat, "python": _python, "js": _javascript, "c": _c}[language](rows)
    world = cells.WIT + _WORLD.format(echo="include values;" if rows else "")
    wit = {"world": wit_text(tuple(rows)), "cells": world} if rows else {"world": f"package test:values;\n\n{world}"}
    plugin = _write(language, directory, source, wit)
    if language == "python":
        (plugin / "cells.py").write_text(cells.PYTHON_CELL)
    return plugin


def write_unsupported(language: Language, directory: Path, unsupported: Unsupported) -> Path:
    """The directory of a plugin with one function, whose type Cloche refuses at load."""
    source = {
        "wat": f'(module (memory (export "memory") 1) (func (export "{INTERFACE}#f") {unsupported.wat}))',
        "python": "from wit_world import exports\n\nclass Echo(exports.Echo):\n    def f(self, x):\n        return x\n",
        "js": "export const echo = { f: (x) => x };\n",
        "c": f'#include "cloche_guest.h"\nCLOCHE_EXPORT("{INTERFACE}#f")\n{unsupported.c}\n',
    }[language]
    interface = f"interface echo {{\n{unsupported.declaration}\nf: {unsupported.signature};\n}}\n"
    wit = f"package test:values;\n\n{interface}\nworld guest {{\n    export echo;\n}}\n"
    return _write(language, directory, source, {"world": wit})


def _write(language: Language, directory: Path, source: str, wit: Mapping[str, str]) -> Path:
    plugin = directory / f"echo-{language}"
    (plugin / "wit").mkdir(parents=True)
    for name, text in wit.items():
        (plugin / "wit" / f"{name}.wit").write_text(text)
    main = _SOURCES[language]
    (plugin / "plugin.toml").write_text(_MANIFEST.format(language=language, source=main))
    (plugin / main).write_text(source)
    return plugin


_PYTHON_START = f"""\
from cloche_guest import Err, export
from wit_world import exports


def same(self, x):
    return x


def answer(self, x):
    if isinstance(x, Err):
        raise x
    return x.value


{cells.PYTHON}@export
class Echo(exports.Echo):
"""
_JAVASCRIPT_START = f"""\
const same = (x) => x;
const answer = (x) => {{
  if (x.tag === "err") throw x.val;
  return x.val;
}};
{cells.JAVASCRIPT}export const echo = {{
"""


def _wat(rows: Sequence[Row]) -> str:
    assert not rows, "support.echo_component writes these"
    return cells.WAT


def _python(rows: Sequence[Row]) -> str:
    return _PYTHON_START + "".join(f"    {snake(f'echo-{row.name}')} = {_how(row)}\n" for row in rows)


def _javascript(rows: Sequence[Row]) -> str:
    return _JAVASCRIPT_START + "".join(f"  echo{pascal(row.name)}: {_how(row)},\n" for row in rows) + "};\n"


def _how(row: Row) -> str:
    return "answer" if isinstance(row.type, ResultType) else "same"


_C_START = """\
#include "cloche_guest.h"

/* The bits of a flat value, which is an i64 or a float where cases of a variant share it. */
static inline uint32_t bits_f32(float x) { uint32_t y; __builtin_memcpy(&y, &x, 4); return y; }
static inline uint64_t bits_f64(double x) { uint64_t y; __builtin_memcpy(&y, &x, 8); return y; }
#define bits_i32(x) ((uint32_t)(x))
#define bits_i64(x) ((uint64_t)(x))
#define PUT(type, at, bits) do { type y = (type)(bits); __builtin_memcpy(area + (at), &y, sizeof y); } while (0)

"""
_C_TYPES = {"i32": "int32_t", "i64": "int64_t", "f32": "float", "f64": "double"}


def _c(rows: Sequence[Row]) -> str:
    return _C_START + cells.C + "\n".join(line for row in rows for line in _c_function(row))


def _c_function(row: Row) -> Iterator[str]:
    layout, name = layout_of(row.type), row.name.replace("-", "_")
    params = layout.flat if len(layout.flat) <= MAX_FLAT_PARAMS else ("i32",)
    taken = ", ".join(f"{_C_TYPES[core]} p{index}" for index, core in enumerate(params)) or "void"
    result = _C_TYPES[layout.flat[0]] if len(layout.flat) == 1 else "char *"
    yield f'CLOCHE_EXPORT("{INTERFACE}#echo-{row.name}")'
    yield f"{result} echo_{name}({taken}) {{"
    if len(layout.flat) == 1:
        yield "    return p0;"
    elif params != layout.flat:
        yield "    return (char *)p0; /* the arguments' area is laid out like the result's */"
    else:
        yield f"    char *area = cloche_take({layout.align}, {layout.size});"
        bits = [f"bits_{core}(p{index})" for index, core in enumerate(layout.flat)]
        yield from _store(row.type, 0, bits, "    ")
        yield "    return area;"
    yield "}"
    yield f'CLOCHE_EXPORT("cabi_post_{INTERFACE}#echo-{row.name}")'
    yield f"void done_{name}({result} x) {{ (void)x; cloche_release(); }}"
    yield ""


def _store(type_: Type, at: int, bits: list[str], indent: str) -> Iterator[str]:
    """Statements that store the flat values `bits` of a type into the result area, `at` bytes from its start."""
    match type_:
        case RecordType() | TupleType():
            taken = 0
            for child in children(type_):
                layout = layout_of(child)
                at = aligned(at, layout.align)
                yield from _store(child, at, bits[taken : taken + len(layout.flat)], indent)
                at, taken = at + layout.size, taken + len(layout.flat)
        case VariantType() | OptionType() | ResultType():
            cases = _cases(type_)
            tag = 1 if len(cases) <= 256 else 2
            yield f"{indent}PUT({_unsigned(tag)}, {at}, {bits[0]});"
            align = max((layout_of(case).align for case in cases if case is not None), default=1)
            payload_at = aligned(at + tag, align)
            for number, case in enumerate(cases):
                if case is not None:
                    yield f"{indent}if ({bits[0]} == {number}) {{"
                    yield from _store(case, payload_at, bits[1:], indent + "    ")
                    yield f"{indent}}}"
        case ListType() | MapType() | Prim.STRING:
            yield f"{indent}PUT(uint32_t, {at}, {bits[0]});"
            yield f"{indent}PUT(uint32_t, {at + 4}, {bits[1]});"
        case Prim() | EnumType() | FlagsType():
            yield f"{indent}PUT({_unsigned(layout_of(type_).size)}, {at}, {bits[0]});"
        case _:
            raise AssertionError(type_)


def _cases(type_: VariantType | OptionType | ResultType) -> list[Type | None]:
    match type_:
        case VariantType(cases=cases):
            return [case.type for case in cases]
        case OptionType(payload=payload):
            return [None, payload]
        case ResultType(ok=ok, err=err):
            return [ok, err]


def _unsigned(size: int) -> str:
    return f"uint{8 * size}_t"
