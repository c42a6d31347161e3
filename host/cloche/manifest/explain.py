"""Turns what is wrong with a manifest or policy into words: file, key, value, what is expected, the nearest known key.

All problems of a document are reported at once, in one `DocumentError`; its code is that of the first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cloche.errors import ManifestError
from cloche.text import show as show_plain

Path = tuple[str | int, ...]
Family = Literal["manifest", "policy"]

MAX_PROBLEMS_SHOWN = 50  # a hostile file could hold thousands
MAX_NAME_CHARACTERS = 80  # of a key in a message; also bounds the work of difflib

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_EXPECTED = {
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "int_type": "a whole number without quotes",
    "float_type": "a number without quotes",
    "list_type": "an array",
    "tuple_type": "an array",
    "set_type": "an array",
    "frozen_set_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


# pydantic's kinds of broken bounds: words, the name of the bound in its context, the unit.
_BOUNDS = {
    "too_long": ("at most", "max_length", " entries"),
    "too_short": ("at least", "min_length", " entries"),
    "string_too_long": ("at most", "max_length", " characters"),
    "string_too_short": ("at least", "min_length", " characters"),
    "greater_than_equal": ("at least", "ge", ""),
    "less_than_equal": ("at most", "le", ""),
    "greater_than": ("more than", "gt", ""),
    "less_than": ("less than", "lt", ""),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the second half of its error code, the path of the key, and the words after the path."""

    kind: Literal["unknown-key", "value", "version", "syntax", "too-large"]
    path: Path
    text: str

    def line(self) -> str:
        """The problem in one line, without the file's name."""
        return f"{key_path(self.path)}{self.text}"


class DocumentError(ManifestError):
    """A manifest or policy is wrong. `problems` lists everything that was found, `findings` the same as text."""

    def __init__(self, file: str, family: Family, problems: Sequence[Problem], *, plugin: str | None = None) -> None:
        lines = [problem.line() for problem in problems[:MAX_PROBLEMS_SHOWN]]
        if len(problems) > MAX_PROBLEMS_SHOWN:
            lines.append(f"and {len(problems) - MAX_PROBLEMS_SHOWN} more")
        if len(problems) == 1:
            message = f"{file}: {lines[0]}"
        else:
            message = f"{file}: {len(problems)} problems\n" + "\n".join(f"  {line}" for line in lines)
        super().__init__(message, code=f"{family}.{problems[0].kind}", plugin=plugin, findings=tuple(lines))
        self.file = file
        self.problems = tuple(problems)

    def to_json(self) -> dict[str, Any]:
        """The error as plain values, with the file and every finding."""
        return {**ManifestError.to_json(self), "file": self.file}


def key_path(path: Path) -> str:
    """`capabilities."wasi:logging".version`, as it could be written in TOML; keys that are not ASCII are escaped."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + key_text(part)
    return text


def key_text(key: str) -> str:
    """One key as TOML writes it: bare, or quoted where it must be; long ones are cut, look-alikes become visible."""
    if _BARE_KEY.fullmatch(key) and len(key) <= MAX_NAME_CHARACTERS:
        return key
    shown = ascii(key[:MAX_NAME_CHARACTERS])[1:-1].replace('"', '\\"')
    return f'"{shown}{"..." if len(key) > MAX_NAME_CHARACTERS else ""}"'


def show(value: object) -> str:
    """A value as messages show it: short, in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    return show_plain(value)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most probably meant to be, if any is close."""
    by_form = {item.lower().replace("_", "-"): item for item in known}
    wanted = name[:MAX_NAME_CHARACTERS].lower().replace("_", "-")
    found = difflib.get_close_matches(wanted, by_form, n=1, cutoff=0.6)
    if found:
        return by_form[found[0]]
    holding = [item for form, item in by_form.items() if wanted in re.split("[-:/]", form)]
    return holding[0] if len(holding) == 1 else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` or, when nothing is close, `; known here: …`."""
    names = sorted(known)
    close = nearest(name, names)
    if close is not None:
        return f"; did you mean {key_text(close)}?"
    return f"; known here: {', '.join(map(key_text, names))}" if names else ""


def unknown_key(path: Path, known: Iterable[str]) -> Problem:
    """The problem of a key that the schema does not know."""
    return Problem("unknown-key", path, f": unknown key{did_you_mean(str(path[-1]), known)}")


def wrong_value(path: Path, value: object, expected: str, *, hidden: bool = False) -> Problem:
    """The problem of a value that does not fit; `hidden` keeps the value itself out of the message."""
    found = " has a wrong value" if hidden else f" = {show(value)}"
    return Problem("value", path, f"{found}: expected {expected}")


def missing_key(path: Path, expected: str = "") -> Problem:
    """The problem of a key that must be there."""
    return Problem("value", path, " is missing" + (f": {expected}" if expected else ""))


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    prefix: Path = (),
    hidden: Callable[[Path], bool] = lambda _: False,
    beside: Iterable[str] = (),
) -> list[Problem]:
    """What pydantic found, in our words. `prefix` is where the validated table stands in the document.

    `beside` are the keys that the same table may have beside the model's, for the search for the nearest. The message
    of a `ValueError` that a validator raises is taken as what was expected.
    """
    problems: list[Problem] = []
    for item in error.errors(include_url=False):
        loc = item["loc"]
        kind, context = item["type"], item.get("ctx", {})
        is_key = bool(loc) and loc[-1] == "[key]"
        path = (*prefix, *(loc[:-1] if is_key else loc))
        if kind == "extra_forbidden":
            # Looking for the nearest name costs time, which only the problems that are shown are worth.
            known = [*_keys_at(model, loc[:-1]), *(beside if len(loc) == 1 else ())]
            problems.append(unknown_key(path, known if len(problems) < MAX_PROBLEMS_SHOWN else ()))
        elif kind == "missing":
            problems.append(missing_key(path))
        elif is_key:
            expected = str(context.get("error", item["msg"]))
            problems.append(Problem("value", path, f": this key is wrong: expected {expected}"))
        else:
            expected = _expected(kind, context)
            problems.append(wrong_value(path, item["input"], expected or _lower(item["msg"]), hidden=hidden(path)))
    return problems


def ensure_no_problems(file: str, family: Family, problems: Sequence[Problem], *, plugin: str | None = None) -> None:
    """Raises: DocumentError when there is any problem. The causes are dropped: they could show a secret's value."""
    if problems:
        refuse(file, family, problems, plugin=plugin)


def refuse(file: str, family: Family, problems: Sequence[Problem], *, plugin: str | None = None) -> NoReturn:
    """Raises: DocumentError, always. `problems` is not empty."""
    raise DocumentError(file, family, problems, plugin=plugin) from None


def _expected(kind: str, context: dict[str, Any]) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "string_pattern_mismatch":
        return f"text that matches {context.get('pattern')}"
    bounds = _BOUNDS.get(kind)
    if bounds is not None:
        words, key, unit = bounds
        return f"{words} {context.get(key)}{unit}"
    return str(context.get("error") or context.get("expected") or "")


def _lower(message: str) -> str:
    message = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _keys_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at `loc` may have."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = next(
                (info.annotation for name, info in current.model_fields.items() if part in (name, info.alias)), None
            )
        else:
            arguments = get_args(current)
            current = arguments[-1] if get_origin(current) is dict else arguments[0] if arguments else None
        current = _inner(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [info.alias or name.replace("_", "-") for name, info in current.model_fields.items()]
    return []


def _inner(annotation: Any) -> Any:
    """The table inside `Annotated[…]` and `… | None`."""
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    arguments = [item for item in get_args(annotation) if item is not type(None)]
    if len(arguments) == 1 and len(get_args(annotation)) == 2 and get_origin(annotation) is not dict:
        return _inner(arguments[0])
    return annotation
