"""Hostile bytes to a checked TOML tree: size, encoding, nesting and values, before any schema sees it."""

from __future__ import annotations

import datetime
import math
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from typing import Any

from cloche.manifest.explain import Family, Path, Problem, refuse, wrong_value

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_DEPTH = 12  # tables and arrays inside each other; the schemas need six
MAX_DOTS_PER_LINE = 100  # tomllib's work for a dotted key grows with the square of its parts
MAX_STRING_CHARACTERS = 32 * 1024
MAX_KEY_CHARACTERS = 256

_DOTTED = re.compile(rb"""[\w"'-][ \t]*\.[ \t]*(?=[\w"'-])""")
_LINE_CONTROLS = "\n\t"


def read_document(data: bytes, file: str, family: Family) -> dict[str, Any]:
    """Parse TOML; `file` is the name for messages.

    Raises: DocumentError (`manifest.too-large`, `manifest.syntax` and the like of `family`; `policy` has no
        `too-large` and uses `policy.syntax`).
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        kind = Problem(
            "too-large" if family == "manifest" else "syntax", (), f"{len(data)} bytes; at most {MAX_DOCUMENT_BYTES}"
        )
        refuse(file, family, [kind])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(file, family, [Problem("syntax", (), f"not UTF-8 at byte {error.start}")])
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > 2 * MAX_DOTS_PER_LINE and sum(1 for _ in _DOTTED.finditer(line)) > MAX_DOTS_PER_LINE:
            refuse(
                file, family, [Problem("syntax", (), f"line {number} has more than {MAX_DOTS_PER_LINE} dotted names")]
            )
    try:
        document = tomllib.loads(text)
    except RecursionError:
        refuse(file, family, [_TOO_DEEP])
    except ValueError as error:  # TOMLDecodeError, and integers with more digits than int() takes
        refuse(file, family, [Problem("syntax", (), f"not valid TOML: {str(error)[:200]}")])
    if nesting(document) > MAX_DEPTH:
        refuse(file, family, [_TOO_DEEP])
    return document


def nesting(document: dict[str, Any]) -> int:
    """How deep tables and arrays are nested, counted to `MAX_DEPTH` + 1."""
    level: list[Any] = [document]
    depth = 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
    return depth


def tree_problems(document: dict[str, Any], *, hidden: bool = False) -> list[Problem]:
    """Values that no schema of ours accepts anywhere: dates, numbers beyond 64 bits, NaN, invisible characters.

    `hidden` keeps the values themselves out of the messages: where a secret may stand, it may stand under a wrong name.
    """
    found = (_leaf_problem(path, value, hidden) for path, value in _walk(document, ()))
    return [problem for problem in found if problem is not None]


_TOO_DEEP = Problem("syntax", (), f"tables and arrays are nested more than {MAX_DEPTH} deep")


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))
    else:
        yield path, value


def _leaf_problem(path: Path, value: Any, hidden: bool) -> Problem | None:
    for part in path:
        if isinstance(part, str) and (len(part) > MAX_KEY_CHARACTERS or _has_controls(part)):
            return Problem("value", path, ": a key is too long or has control characters")
    expected = _expected(value)
    return None if expected is None else wrong_value(path, value, expected, hidden=hidden)


def _expected(value: Any) -> str | None:
    """What should stand in place of a value that nothing accepts."""
    if isinstance(value, datetime.date | datetime.time):
        return "text, a number, true or false; dates are not used here"
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        return "a number of at most 64 bits"
    if isinstance(value, str):
        if len(value) > MAX_STRING_CHARACTERS:
            return f"at most {MAX_STRING_CHARACTERS} characters"
        # Terminal escapes and bidirectional overrides would let a manifest forge what `inspect` shows.
        if _has_controls(value):
            return "text without control or direction-changing characters"
    return None


def _has_controls(text: str) -> bool:
    if text.isascii() and text.isprintable():
        return False
    return any(unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in _LINE_CONTROLS for char in text)
