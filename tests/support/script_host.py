"""The script guest and functions of the host for its scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloche
from cloche.capabilities.api import Session
from cloche.grants.schema import Params
from cloche.resources import wit_dir
from support.open_schema import open_schema

EXECUTOR = "cloche:script/executor"
FUNCTIONS = "cloche:script/functions@1.0.0"


class ScriptFunctions:
    """`cloche:script/functions` over Python functions; `answers` are texts that are handed over as they are."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]], answers: Mapping[str, str]) -> None:
        self._functions, self._answers = functions, answers

    def call(self, name: str, arguments: str) -> cloche.Ok[str] | cloche.Err[str]:
        """Call one of them."""
        if name in self._answers:
            return cloche.Ok(self._answers[name])
        if name not in self._functions:
            return cloche.Err(f"there is no function {name}")
        given = json.loads(arguments)
        try:
            return cloche.Ok(json.dumps(self._functions[name](*given["args"], **given["kwargs"])))
        except Exception as error:
            return cloche.Err(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Nothing to release."""


class ScriptCapability:
    """The capability `cloche:script`, granted to everybody."""

    def __init__(self, answers: Mapping[str, str] | None = None, **functions: Callable[..., Any]) -> None:
        self._functions, self._answers = functions, answers or {}
        self.schema = open_schema("cloche:script", "1.0.0", "Call functions of the application", FUNCTIONS)

    def wit(self) -> Path:
        """The package that declares the interface."""
        return wit_dir() / "script"

    def open(self, grant: Params, session: Session) -> Mapping[str, Any]:
        """The functions, for one instance."""
        return {FUNCTIONS: ScriptFunctions(self._functions, self._answers)}


def script(code: str, **fields: Any) -> dict[str, Any]:
    """The record `script`; what is not named is empty."""
    empty: dict[str, Any] = {
        "name": "main.py",
        "arguments": [],
        "stdin": b"",
        "environment": [],
        "functions": [],
        "keep": False,
        "directory": None,
    }
    assert not fields.keys() - empty.keys()
    return {"code": code, **empty, **fields}


def library_section(imported: list[str], failed: dict[str, str]) -> str:
    """What the guest's README says about the standard library, from what the guest itself says.

    To write it anew: run `test_readme_lists_the_library`, and put what it expects between the marks.
    """
    tops = sorted({name for name in imported if "." not in name and not name.startswith("_")})
    reasons: dict[str, list[str]] = {}
    for name, reason in failed.items():
        if not any(part.startswith("_") for part in name.split(".")):
            reasons.setdefault(reason.replace("|", "/"), []).append(name)
    lines = [
        f"{len(imported)} modules can be imported. Of these, without submodules and private ones:",
        "",
        ", ".join(f"`{name}`" for name in tops) + ".",
        "",
        "These cannot:",
        "",
        "| module | why |",
        "| --- | --- |",
        *(
            f"| {', '.join(f'`{name}`' for name in sorted(names))} | {reason} |"
            for reason, names in sorted(reasons.items(), key=lambda item: min(item[1]))
        ),
    ]
    return "\n".join(lines)
