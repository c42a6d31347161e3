"""The one error of this room, and how much of a tool's output it shows."""

from __future__ import annotations

import re

from cloche.errors import ContractError

MAX_TOOL_LINES = 30
MAX_TOOL_CHARACTERS = 4000

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")


def build_error(name: str, what: str, *, advice: str = "", output: str = "") -> ContractError:
    """`name` cannot be built because of `what`; `advice` says what to do, `output` is the end of the tool's words."""
    message = f"{name} cannot be built: {what}"
    if advice:
        message += f". {advice}"
    shown = trimmed(output)
    return ContractError(f"{message}\n{shown}" if shown else message, code="component.build")


def trimmed(output: str) -> str:
    """The end of a tool's output, without terminal controls and empty lines, within the bounds above."""
    lines = [line.rstrip() for line in _ESCAPE.sub("", output[-4 * MAX_TOOL_CHARACTERS :]).splitlines() if line.strip()]
    return "\n".join(lines[-MAX_TOOL_LINES:])[-MAX_TOOL_CHARACTERS:]
