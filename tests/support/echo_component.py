"""Writes WAT components that import `echo: func(x: T) -> T` for many types and export the same functions again.

The engine does not re-export an imported function directly, so a core module stands between: it hands the flat values
(or the pointer) over and gives the result area back. Everything crosses linear memory by the canonical ABI, twice.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cloche.engine.codec.layout import layout_of
from cloche.wit.carried import children
from cloche.wit.types import (
    BorrowType,
    EnumType,
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
    VariantType,
)

HOST_INTERFACE = "test:echo/host"
MAX_FLAT_PARAMS = 16

_REALLOC = """
  (core module $memory
    (memory (export "memory") 1)
    (global $top (mut i32) (i32.const 1024))
    (func (export "reset") (global.set $top (i32.const 1024)))
    (func $realloc (export "realloc") (param $old i32) (param $from i32) (param $align i32) (param $size i32)
      (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $fits (i32.ge_s (memory.grow (i32.add (i32.const 1)
          (i32.div_u (i32.sub (global.get $top) (i32.mul (memory.size) (i32.const 65536))) (i32.const 65536))))
          (i32.const 0)))
        unreachable)
      (local.get $at)))
  (core instance $m (instantiate $memory))
"""


class _Types:
    """Spells types; named ones are declared once and exported, as an interface must."""

    def __init__(self) -> None:
        self.names: dict[Type | ResourceType, str] = {}
        self.lines: list[str] = []

    def declare(self, type_: Type) -> None:
        """Declare the named types inside `type_`, innermost first."""
        for child in children(type_):
            self.declare(child)
        if isinstance(type_, RecordType | VariantType | EnumType | FlagsType) and type_ not in self.names:
            name = f"t{len(self.names)}"
            self.lines.append(f'(type ${name}d {self._body(type_)}) (export "{name}" (type ${name} (eq ${name}d)))')
            self.names[type_] = f"${name}"
        resource = type_.resource if isinstance(type_, OwnType | BorrowType) else None
        if resource is not None and resource not in self.names:
            name = f"t{len(self.names)}"
            self.lines.append(f'(export "{name}" (type ${name} (sub resource)))')
            self.names[resource] = f"${name}"

    def _body(self, type_: Type) -> str:
        match type_:
            case RecordType(fields=fields):
                return (
                    "(record " + " ".join(f'(field "{field.name}" {self.spell(field.type)})' for field in fields) + ")"
                )
            case VariantType(cases=cases):
                inner = (f'(case "{c.name}"{"" if c.type is None else " " + self.spell(c.type)})' for c in cases)
                return f"(variant {' '.join(inner)})"
            case EnumType(cases=names):
                return "(enum " + " ".join(f'"{name}"' for name in names) + ")"
            case FlagsType(flags=names):
                return "(flags " + " ".join(f'"{name}"' for name in names) + ")"
        raise AssertionError(type_)

    def spell(self, type_: Type) -> str:
        """The type where it is used."""
        if type_ in self.names:
            return self.names[type_]
        match type_:
            case Prim():
                return str(type_)
            case ListType(element=inner):
                return f"(list {self.spell(inner)})"
            case OptionType(payload=inner):
                return f"(option {self.spell(inner)})"
            case TupleType(items=items):
                return f"(tuple {' '.join(map(self.spell, items))})"
            case MapType(key=key, value=value):
                return f"(map {self.spell(key)} {self.spell(value)})"
            case ResultType(ok=ok, err=err):
                text = "" if ok is None else " " + self.spell(ok)
                return f"(result{text}{'' if err is None else f' (error {self.spell(err)})'})"
            case OwnType(resource=resource):
                return f"(own {self.names[resource]})"
            case BorrowType(resource=resource):
                return f"(borrow {self.names[resource]})"
        raise AssertionError(type_)


def echo_function(index: int, type_: Type) -> Function:
    """`f<index>: func(x: type) -> type`."""
    return Function(f"f{index}", FunctionKind.FREE, (Param("x", type_),), type_)


def echo_wat(functions: Sequence[Function]) -> str:
    """The component in text. Each function is imported from `HOST_INTERFACE` and exported at the root.

    A function whose result type is the type of its only parameter, or one of many parameters and any result, is passed
    through as it is: the host answers.
    """
    types = _Types()
    for function in functions:
        for type_ in _types_of(function):
            types.declare(type_)
    imports, lowers, core, glue, lifts = [], [], [], [], []
    aliases = [f'(alias export $host "{name[1:]}" (type {name}))' for name in types.names.values()]
    options = '(memory (core memory $m "memory")) (realloc (core func $m "realloc"))'
    for index, function in enumerate(functions):
        signature = " ".join(f'(param "{param.name}" {types.spell(param.type)})' for param in function.params)
        if function.result is not None:
            signature += f" (result {types.spell(function.result)})"
        imports.append(f'(export "{function.name}" (func {signature}))')
        aliases.append(f'(alias export $host "{function.name}" (func $h{index}))')
        lowers.append(f"(core func $l{index} (canon lower (func $h{index}) {options}))")
        flat = [core_type for param in function.params for core_type in layout_of(param.type).flat]
        flat = flat if len(flat) <= MAX_FLAT_PARAMS else ["i32"]
        result = () if function.result is None else layout_of(function.result).flat
        params = f"(param {' '.join(flat)})" if flat else ""
        gets = " ".join(f"(local.get {number})" for number in range(len(flat)))
        if len(result) <= 1:
            result_text = f"(result {result[0]})" if result else ""
            core.append(f'(import "h" "{index}" (func $h{index} {params} {result_text}))')
            glue.append(f'(func (export "{index}") {params} {result_text} (call $h{index} {gets}))')
        else:
            assert function.result is not None
            area = layout_of(function.result)
            core.append(f'(import "h" "{index}" (func $h{index} {params} (param i32)))')
            glue.append(
                f'(func (export "{index}") {params} (result i32) (local $to i32)'
                f" (local.set $to (call $realloc (i32.const 0) (i32.const 0)"
                f" (i32.const {area.align}) (i32.const {area.size})))"
                f" (call $h{index} {gets} (local.get $to)) (local.get $to))"
            )
        post = f"(param {'i32' if len(result) > 1 else result[0]})" if result else ""
        glue.append(f'(func (export "post{index}") {post} (call $reset))')
        lifts.append(
            f'(func $e{index} {signature} (canon lift (core func $g "{index}") {options}'
            f' (post-return (core func $g "post{index}"))))'
            f' (export "{function.name}" (func $e{index}))'
        )
    arguments = " ".join(f'(export "{index}" (func $l{index}))' for index in range(len(functions)))
    lines = "\n".join
    return f"""(component
  (import "{HOST_INTERFACE}" (instance $host
{lines([*types.lines, *imports])}))
{lines(aliases)}
{_REALLOC}
{lines(lowers)}
  (core module $glue
{lines(core)}
    (import "m" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "m" "reset" (func $reset))
{lines(glue)})
  (core instance $g (instantiate $glue
    (with "h" (instance {arguments}))
    (with "m" (instance $m))))
{lines(lifts)})
"""


def _types_of(function: Function) -> list[Type]:
    return [param.type for param in function.params] + ([] if function.result is None else [function.result])


def assemble(wat: str) -> bytes:
    """The binary of a component in text."""
    tool = Path(sys.executable).parent / "wasm-tools"
    done = subprocess.run([str(tool), "parse", "-"], input=wat.encode(), capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr.decode() + "\n" + wat[:4000])
    return done.stdout
