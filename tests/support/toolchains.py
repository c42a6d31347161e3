"""What plugins in WAT, Python, JavaScript and C make of the conformance table: refusals and differences, as data.

Rows that are not named here pass in every language. The tests hold each line to its word both ways: a refusal or a
difference that a newer toolchain no longer has fails them, and then goes from here and from docs/values.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Language = Literal["wat", "python", "js", "c"]
LANGUAGES: Mapping[Language, str] = {
    "wat": "WAT (component text)",
    "python": "Python (componentize-py 0.25.1)",
    "js": "JavaScript (componentize-js 0.23.0)",
    "c": "C (zig cc, canonical ABI by hand)",
}
"""Each language and its toolchain."""


@dataclass(frozen=True)
class Refusal:
    """A toolchain does not build a plugin whose world has such a type: words of what it says, and why, for users."""

    words: str
    why: str


@dataclass(frozen=True)
class Difference:
    """A value that comes back as another one, or (`code`) makes the guest trap."""

    given: Any
    back: Any = None
    code: str = ""


@dataclass(frozen=True)
class Differences:
    """Values of one row that do not come back as they went, and why, for users."""

    values: tuple[Difference, ...]
    why: str


@dataclass(frozen=True)
class Unsupported:
    """A type that Cloche refuses at load, wherever it comes from.

    `wit` as users write it; `declaration` and `signature` of a function that has it, and that function in C and WAT.
    `refusals` of the toolchains that do not even build it.
    """

    wit: str
    signature: str
    c: str
    wat: str
    declaration: str = ""
    refusals: Mapping[Language, Refusal] = field(default_factory=dict)


_UNREACHABLE = "internal error: entered unreachable code"
_OWN_HANDLES = (
    "an own handle of the plugin's own resource that comes back while others are alive traps, depending on the order "
    "of all of them; take `borrow<r>`"
)
_NO_MAPS = "the toolchain has no maps yet; use `list<tuple<K, V>>`"

REFUSED_AT_BUILD: Mapping[tuple[Language, str], Refusal] = {
    ("python", "map"): Refusal("not yet implemented: map", _NO_MAPS),
    ("python", "map-of-lists"): Refusal("not yet implemented: map", _NO_MAPS),
    ("python", "map-bool"): Refusal("not yet implemented: map", _NO_MAPS),
    ("python", "map-char"): Refusal("not yet implemented: map", _NO_MAPS),
    ("js", "map"): Refusal(_UNREACHABLE, _NO_MAPS),
    ("js", "map-of-lists"): Refusal(_UNREACHABLE, _NO_MAPS),
    ("js", "map-bool"): Refusal(_UNREACHABLE, _NO_MAPS),
    ("js", "map-char"): Refusal(_UNREACHABLE, _NO_MAPS),
    ("js", "record-digits"): Refusal(
        "is not in kebab case",
        "the toolchain takes no name in which a word begins with a digit (`part-1`); write `part1`",
    ),
}

EXPECTED_DIFFERENCES: Mapping[tuple[Language, str], Differences] = {
    ("js", "u32"): Differences(
        (Difference(2**31, 0), Difference(2**32 - 1, 4292870144)),
        "a `u32` that is a function's whole result and 2147483648 or more comes back as another number; inside an"
        " option, tuple, record or list it is right, so wrap it, or use `u64`",
    ),
    ("js", "list-own"): Differences((Difference("a list of three", code="guest.trap"),), _OWN_HANDLES),
    ("js", "record-own"): Differences((Difference("a record with two", code="guest.trap"),), _OWN_HANDLES),
    ("js", "s64"): Differences(
        (Difference(-1, code="guest.trap"), Difference(-(2**63), code="guest.trap")),
        "a negative `s64` that is a function's whole result traps, and as a parameter it arrives as its unsigned twin,"
        " -1 as 2^64 - 1 (ComponentizeJS issue 343); inside a list it is right, so wrap it",
    ),
}
UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported(
        "list<u8, 4>",
        "func(x: list<u8, 4>) -> list<u8, 4>",
        "char *f(int a, int b, int c, int d) { (void)a; (void)b; (void)c; (void)d; return 0; }",
        "(param i32 i32 i32 i32) (result i32) (i32.const 0)",
        refusals={
            "python": Refusal("not yet implemented: fixed-length-list", "not implemented"),
            "js": Refusal(_UNREACHABLE, "not implemented"),
        },
    ),
    Unsupported(
        "flags of more than 32",
        "func(x: many) -> many",
        "char *f(int a, int b) { (void)a; (void)b; return 0; }",
        "(param i32 i32) (result i32) (i32.const 0)",
        declaration=f"flags many {{ {', '.join(f'flag{index}' for index in range(33))} }}",
        refusals={
            "wat": Refusal("cannot have more than 32 flags", "the component model has no more"),
            "python": Refusal("not implemented", "not implemented"),
            "js": Refusal("cannot have more than 32 flags", "the component model has no more"),
            "c": Refusal("cannot have more than 32 flags", "the component model has no more"),
        },
    ),
    Unsupported(
        "stream<u8>, future<string>",
        "func(x: stream<u8>) -> future<string>",
        "int f(int x) { return x; }",
        "(param i32) (result i32) (local.get 0)",
        refusals={"js": Refusal(_UNREACHABLE, "not implemented")},
    ),
    Unsupported(
        "error-context",
        "func(x: error-context) -> error-context",
        "int f(int x) { return x; }",
        "(param i32) (result i32) (local.get 0)",
        refusals={
            "python": Refusal("not yet implemented: error-context", "not implemented"),
            "js": Refusal("Async ABI instructions require task management", "not implemented"),
        },
    ),
)
