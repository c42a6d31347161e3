"""Lines of policy.toml that would change an answer, and how several of them are put together.

TOML opens a table only once. So changes are kept apart by table until they are written, and what belongs into a table
that the file has already is not offered for its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cloche.grants.params import toml_value
from cloche.grants.policy import Policy

FORMAT_LINE = "format-version = 1"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of policy.toml: `key = value` in `[table]`. `key` is as TOML writes it, `value` as TOML reads it."""

    table: str
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Paste:
    """Changes as they are written into `file`: `append` at its end, and lines by the table that is there already.

    Each part is TOML as it stands. A line of `within` takes the place of what the table says of the same key.
    """

    file: str
    append: tuple[str, ...]
    within: Mapping[str, tuple[str, ...]]

    def lines(self, purpose: str, indent: str = "") -> list[str]:
        """The changes after `purpose` ("to allow it,"); the lines for the policy indented."""
        parts = [(f"write into {self.file}:", self.append)] if self.append else []
        parts += [
            (f"merge into [{table}] of {self.file}, which is there already:", lines)
            for table, lines in self.within.items()
        ]
        text: list[str] = []
        for lead, lines in parts:
            text += [f"{'and' if text else purpose} {lead}", *(f"{indent}{line}" for line in lines)]
        return text

    def to_json(self) -> dict[str, Any]:
        """The changes as plain values."""
        return {"append": list(self.append), "within": {table: list(lines) for table, lines in self.within.items()}}


def paste(policy: Policy, changes: Iterable[Change]) -> Paste:
    """What to write so that all of `changes` hold, given what the policy's file holds already."""
    there: frozenset[str] = policy.tables or frozenset()
    merged = _merged(changes)
    append = [line for table, body in merged.items() if table not in there for line in (f"[{table}]", *_written(body))]
    if append and policy.tables is None:
        append.insert(0, FORMAT_LINE)
    within = {table: tuple(_written(body)) for table, body in merged.items() if table in there}
    return Paste(policy.file, tuple(append), MappingProxyType(within))


def lines_of(changes: Iterable[Change]) -> tuple[str, ...]:
    """The changes alone, every table named once."""
    return tuple(line for table, body in _merged(changes).items() for line in (f"[{table}]", *_written(body)))


def _merged(changes: Iterable[Change]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for change in changes:
        body = tables.setdefault(change.table, {})
        value = change.value
        if change.key == "deny" and change.key in body:
            # Each change lifts one denial of the table: together they leave what every one of them leaves.
            value = [item for item in body[change.key] if item in value]
        body[change.key] = value
    return tables


def _written(body: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in body.items()]
