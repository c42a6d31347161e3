"""How the command line shows an error: one block for people, or one JSON document; and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloche.cli.render import stderr_console, usage_line, write_json
from cloche.errors import CODES, ClocheError, EngineError, GuestTrap, UsageError
from cloche.remedies import REMEDIES
from cloche.text import clean

if TYPE_CHECKING:
    from cloche.cli.jsonvalues import Json


def interrupted() -> UsageError:
    """The error that stands for Ctrl-C."""
    return UsageError("interrupted", code="usage.interrupted")


def unexpected(error: BaseException) -> EngineError:
    """The error that stands for an exception which no room of the host should have let through."""
    return EngineError(f"unexpected {type(error).__name__}: {error}")


class Told(Exception):
    """Ends a command whose error was shown already, with its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def document(error: ClocheError, *, payload: Json = None, output: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The error as the one JSON document of a failed command; `output` is what the plugin wrote until then."""
    shown = {
        **error.to_json(),
        "exit_status": error.exit_status,
        "remedy": REMEDIES[error.code],
        "usage": None if error.usage is None else error.usage.to_json(),
    }
    if isinstance(error, GuestTrap):
        shown |= {"kind": error.kind, "traceback": error.traceback, "backtrace": error.backtrace}
    if payload is not None:
        shown["payload"] = payload
    if output is not None:
        shown["output"] = dict(output)
    return {"error": shown}


def report(error: ClocheError, *, is_json: bool, payload: Json = None, output: Mapping[str, str] | None = None) -> int:
    """Show `error` and return the exit status: JSON on standard output, or a block on standard error."""
    if is_json:
        write_json(document(error, payload=payload, output=output))
        return error.exit_status
    from rich.text import Text

    console = stderr_console()
    sentence, *lines = clean(error.message).split("\n")
    console.print(Text.assemble((f"error[{error.code}]", "bold red"), " ", sentence))
    for line in lines:  # lines for a policy, or a tool's own words: nothing but the terminal may break them
        console.print(Text(line), soft_wrap=True)
    if isinstance(error, GuestTrap) and error.traceback:
        console.print(Text("  the plugin's own traceback:", style="dim"))
        console.print(Text("\n".join(f"    {line}" for line in clean(error.traceback).splitlines())))
    if error.plugin:
        console.print(Text(f"  plugin: {clean(error.plugin)} (to mend by the {CODES[error.code].blame.value})"))
    if error.usage is not None:
        console.print(Text(f"  cost: {usage_line(error.usage)}"))
    console.print(Text(f"  remedy: {REMEDIES[error.code]}"))
    return error.exit_status
