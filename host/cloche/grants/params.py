"""Tables of a manifest or policy to a capability's own parameters, and back to TOML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from cloche.grants.schema import Params
from cloche.manifest.explain import Path, Problem, key_text, problems_of
from cloche.manifest.value import thaw


def read_params(
    model: type[Params], table: Mapping[str, Any], path: Path, beside: Iterable[str] = ()
) -> Params | list[Problem]:
    """The table as `model`, or what is wrong with it; `path` is where it stands in its file.

    `beside` are the keys that stand in the same table and are not the model's, for messages.

    Keys are kebab-case in files: they find a field of that alias, else the field of that name in snake_case. Arrays
    validate for tuples and sets, and strings for enums, also where a model is strict and says nothing of it.
    """
    plain = _with_field_names(model, thaw(table))
    try:
        return model.model_validate(plain)
    except ValidationError:
        try:
            return model.model_validate_json(json.dumps(plain))
        except ValidationError as error:  # in JSON's terms, which are those of files: names, not instances of classes
            found = problems_of(error, model, path, beside=beside)
            return [_in_file_words(model, problem, len(path)) for problem in found]


def toml_value(value: Any) -> str:
    """A value that came out of TOML, written as TOML again."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key_text(key)} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _in_file_words(model: type[Params], problem: Problem, prefix: int) -> Problem:
    """The problem with the key as files spell it."""
    head, rest = problem.path[:prefix], problem.path[prefix:]
    if rest and isinstance(rest[0], str) and rest[0] in model.model_fields:
        rest = (rest[0].replace("_", "-"), *rest[1:])
    return replace(problem, path=(*head, *rest))


def _with_field_names(model: type[Params], table: dict[str, Any]) -> dict[str, Any]:
    aliases = {info.alias for info in model.model_fields.values()}
    named: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        is_plain_field = key not in aliases and name in model.model_fields and model.model_fields[name].alias is None
        # With both spellings in one table, the second stays as it is and is refused as unknown.
        named[name if is_plain_field and name not in table else key] = value
    return named
