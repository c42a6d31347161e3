"""How a script ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloche.frozen import dataclass, field

if TYPE_CHECKING:
    from cloche.model import Usage


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What a script did, whether it went well or not. Added in 0.1.

    `ok` is False after an uncaught exception and after an exit status other than 0. `value` is the global `result` if
    the script set it, else the value of its last statement if that is an expression: what JSON can express (None also
    where it cannot; `note` says why). `exit_status` is that of a Python process. `traceback` is the uncaught
    exception's, with the script's own line numbers; it stands in `stderr`, too. `files` are the files that it made or
    changed, by path, when it was given `files`. `failures` are the exceptions of host functions that the script was
    told nothing of but their types.
    """

    ok: bool
    stdout: str
    stderr: str
    value: Any
    exit_status: int
    traceback: str | None
    usage: Usage
    note: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    failures: tuple[Exception, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The result as plain values; of the files the sizes."""
        return {
            "ok": self.ok,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "value": self.value,
            "exit_status": self.exit_status,
            "traceback": self.traceback,
            "note": self.note,
            "files": {name: len(data) for name, data in self.files.items()},
            "usage": self.usage.to_json(),
        }
