"""The verbs of the command line, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from cloche.cli import authoring, cache, calling, demo, doctor, executing, grants, inspecting
from cloche.version import VERSION


def application() -> typer.Typer:
    """The command-line application with every verb. Building it imports no engine and reads nothing."""
    app = typer.Typer(
        name="cloche",
        help="Run third-party WebAssembly plugins with grants, limits and metering.",
        epilog="Example:  cloche call --trust guests/hello greet Ada",
        rich_markup_mode="rich",
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for group in (authoring, inspecting, calling, executing, grants, cache, doctor, demo):
        group.register(app)
    return app


def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"cloche {VERSION}")
        raise typer.Exit
