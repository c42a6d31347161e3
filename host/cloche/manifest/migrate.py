"""Older manifest formats, one explicit step at a time.

Each step is a pure function from the tree of one format to the tree of the next. It says what it changed, and which new
key came from which old one, so that later messages can name the key that the author wrote.

Format 0 is flat: `plugin_id`, `name`, `version`, `description`, `author`, `wasm`, `permissions = ["kv", …]`,
`max_memory_mb`, `timeout_ms`, `fuel`. It was also written without any `format-version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cloche.manifest.explain import MAX_PROBLEMS_SHOWN, Path, Problem, show, unknown_key, wrong_value
from cloche.manifest.schema import CAPABILITY_ID, FORMAT_VERSION

_PERMISSIONS: Mapping[str, str] = MappingProxyType(
    {
        "log": "wasi:logging",
        "logging": "wasi:logging",
        "config": "wasi:config",
        "kv": "wasi:keyvalue",
        "keyvalue": "wasi:keyvalue",
        "data": "cloche:host/data",
        "telemetry": "cloche:host/telemetry",
        "clock": "wasi:clocks",
        "random": "wasi:random",
    }
)


@dataclass(slots=True)
class Migration:
    """A document on its way to the current format; `origins` maps paths in it to the old keys they came from."""

    document: dict[str, Any]
    written_version: int
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    origins: dict[Path, Path] = field(default_factory=dict)


def migrate(document: Mapping[str, Any]) -> Migration:
    """Bring a document to the current format. Pure; the input is not changed.

    The result's `problems` holds a `version` problem when the format is missing or newer than this host, and whatever a
    step could not carry over; then the document is not to be used.
    """
    version = document.get("format-version")
    if version is None and "plugin_id" in document:
        version = 0
    if type(version) is not int or not 0 <= version <= FORMAT_VERSION:
        found = " is missing" if version is None else f" = {show(version)}"
        if type(version) is int and version > FORMAT_VERSION:
            advice = f"this host reads up to {FORMAT_VERSION}; a newer Cloche is needed"
        else:
            advice = f"write format-version = {FORMAT_VERSION}"
        return Migration(dict(document), -1, problems=[Problem("version", ("format-version",), f"{found}: {advice}")])
    migration = Migration(dict(document), version)
    for step in _STEPS[version:]:
        step(migration)
    return migration


def _from_0_to_1(migration: Migration) -> None:
    old = migration.document
    new: dict[str, Any] = {"format-version": 1}
    for key, value in old.items():
        if key == "format-version":
            continue
        if key not in _KEYS_OF_0:
            # Looking for the nearest name costs time, which only the problems that are shown are worth.
            known = _KEYS_OF_0 if len(migration.problems) < MAX_PROBLEMS_SHOWN else ()
            migration.problems.append(unknown_key((key,), known))
            continue
        _KEYS_OF_0[key](migration, new, key, value)
    if "name" not in new and isinstance(new.get("id"), str):
        new["name"] = new["id"].rpartition("/")[2] or new["id"]
        migration.notes.append("name: taken from plugin_id")
    migration.document = new


_Carry = Callable[[Migration, dict[str, Any], str, Any], None]


def _move(*path: str) -> _Carry:
    def carry(migration: Migration, new: dict[str, Any], key: str, value: Any) -> None:
        _put(migration, new, key, path, value)

    return carry


def _move_memory(migration: Migration, new: dict[str, Any], key: str, value: Any) -> None:
    # Anything but a plain number travels on as it is: the schema refuses it and names the old key.
    _put(migration, new, key, ("limits", "memory"), _with_unit(value, "MiB"))


def _move_timeout(migration: Migration, new: dict[str, Any], key: str, value: Any) -> None:
    _put(migration, new, key, ("limits", "deadline"), _with_unit(value, "ms"))


def _with_unit(value: Any, unit: str) -> Any:
    # Numbers of thousands of digits cannot be written out; the schema refuses them as they are.
    return f"{value}{unit}" if type(value) is int and value.bit_length() < 64 else value


def _move_author(migration: Migration, new: dict[str, Any], key: str, value: Any) -> None:
    _put(migration, new, key, ("authors",), [value] if isinstance(value, str) else value)


def _move_permissions(migration: Migration, new: dict[str, Any], key: str, value: Any) -> None:
    if not isinstance(value, list):
        migration.problems.append(wrong_value((key,), value, "an array of names"))
        return
    table: dict[str, Any] = {}
    for index, name in enumerate(value):
        capability = _PERMISSIONS.get(name, name) if isinstance(name, str) else None
        if capability is None or not CAPABILITY_ID.fullmatch(capability):
            known = ", ".join(sorted(_PERMISSIONS))
            migration.problems.append(wrong_value((key, index), name, f"a capability id or one of {known}"))
        else:
            # The old form had no optional permissions: a plugin ran with all of them or not at all.
            table[capability] = {"required": True}
            migration.origins["capabilities", capability] = (key, index)
    new["capabilities"] = table
    migration.notes.append("permissions: each became a table in [capabilities] with required = true")


_KEYS_OF_0: Mapping[str, _Carry] = MappingProxyType(
    {
        "plugin_id": _move("id"),
        "name": _move("name"),
        "version": _move("version"),
        "description": _move("description"),
        "author": _move_author,
        "wasm": _move("component", "path"),
        "permissions": _move_permissions,
        "max_memory_mb": _move_memory,
        "timeout_ms": _move_timeout,
        "fuel": _move("limits", "fuel"),
    }
)

_STEPS: tuple[Callable[[Migration], None], ...] = (_from_0_to_1,)


def _put(migration: Migration, new: dict[str, Any], key: str, path: tuple[str, ...], value: Any) -> None:
    table = new
    for part in path[:-1]:
        table = table.setdefault(part, {})
    table[path[-1]] = value
    if path != (key,):
        migration.origins[path] = (key,)
        migration.notes.append(
            f"{key}: now {'.'.join(path)}" + ("" if isinstance(value, list) else f" = {show(value)}")
        )
