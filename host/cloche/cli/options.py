"""Options that several commands share, so that a word means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloche.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, errors included.")]


def not_empty(text: str) -> str:
    """A path that was given; an empty word would stand for the current directory. Raises: UsageError."""
    if not text:
        raise UsageError("the name of the plugin is empty; name a plugin directory or a .wasm file")
    return text


Source = Annotated[
    str,
    typer.Argument(
        metavar="PLUGIN", callback=not_empty, help="A plugin directory (with plugin.toml) or a .wasm component."
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CAPABILITY[=PARAMS]",
        help="Allow this plugin a capability that its manifest asks for, on top of the policy; "
        "PARAMS is a TOML inline table such as '{ buckets = [\"default\"] }'. May be repeated.",
    ),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Give the plugin a setting, in place of what manifest and policy say of it. May be repeated.",
    ),
]
Mounts = Annotated[
    list[str] | None,
    typer.Option(
        "--mount",
        metavar="NAME=DIRECTORY[:rw]",
        help="Bind a directory to a mount that the manifest asks for: for reading or, with :rw, for writing too. "
        "May be repeated.",
    ),
]
PolicyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The operator's policy; default: policy.toml in the home directory.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Your word that the plugin may run inside this process; without it, it runs in a worker process.",
    ),
]
Fuel = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT", help="Fuel per call, such as 500M or 10G, in place of the manifest's; at most the policy's."
    ),
]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of one instance, such as 256MiB; likewise.")]
Deadline = Annotated[
    str | None, typer.Option(metavar="TIME", help="Wall time per call, such as 250ms or 10s; likewise.")
]
