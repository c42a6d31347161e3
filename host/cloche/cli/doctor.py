"""`cloche doctor`: can this machine run plugins, and if not, what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cloche.cli import options
from cloche.cli.render import Screen, plain
from cloche.text import clean

if TYPE_CHECKING:
    from rich.console import Console

FAILED = 4


def register(app: typer.Typer) -> None:
    """Add the verb `doctor`."""
    app.command(epilog="Example:  cloche doctor")(doctor)


def doctor(as_json: options.Json = False) -> None:
    """Check this machine: Python, system, engine, confinement, worker, build tools, home, policy, capabilities,
    accelerators.

    A worker is started as for an untrusted plugin, and the kernel asked how it is locked in. With --json its `facts`
    have each part.

    The exit status is 0 when nothing fails (warnings are allowed) and 4 otherwise.
    """
    from cloche.config import Settings
    from cloche.doctor import Status, examine_machine

    screen = Screen(as_json)
    with screen.progress("checking this machine"):
        checks = examine_machine(Settings.from_environment())
    failed = [check.name for check in checks if check.status is Status.FAIL]

    def show(console: Console) -> None:
        for check in checks:
            console.print(f"{check.status:<4}  {check.name:<12}  {clean(check.detail)}", soft_wrap=True)
            if check.remedy:
                console.print(f"{'':18}  {check.remedy}", soft_wrap=True)

    screen.answer({"ok": not failed, "checks": plain(checks)}, show)
    if failed:
        raise typer.Exit(FAILED)
