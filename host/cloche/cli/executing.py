"""`cloche exec`: one untrusted Python script."""

from __future__ import annotations

from typing import Annotated

import typer

from cloche.cli import options
from cloche.cli.errors import Told
from cloche.cli.execute import ExecRequest, perform
from cloche.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb `exec`."""
    app.command(
        "exec",
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
        epilog="Example:  cloche exec -c 'print(6 * 7)'\n\n"
        "Example:  cloche exec --mount ./data:/data --deadline 5s report.py 2026 < sales.csv\n\n"
        "Exit status: the script's own (1: uncaught exception); 124 deadline, 125 fuel, 137 memory, 123 another "
        "limit, 126 refused, 130 interrupted, 2 usage. With --json `outcome` tells them apart.",
    )(execute)


def execute(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [ARGS]...",
            help="The script (- for standard input; not with -c), then its arguments: all words after FILE.",
        ),
    ] = None,
    code: Annotated[str | None, typer.Option("-c", "--code", metavar="CODE", help="The script itself.")] = None,
    fuel: options.Fuel = None,
    memory: options.Memory = None,
    deadline: options.Deadline = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIRECTORY:NAME[:rw]",
            help="Let the script read a directory as /NAME or, with :rw, write there, too. May be repeated.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]", help="Give the script a variable: this value, or its value here. May be repeated."
        ),
    ] = None,
    image: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="What it runs in: python, a plugin directory or a .wasm component.")
    ] = "python",
    policy: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The operator's policy; default: policy.toml in the home directory."),
    ] = None,
    show_usage: Annotated[bool, typer.Option("--usage", help="Show on standard error what the script cost.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run untrusted Python in a fresh sandbox that does not outlive the command.

    The script reaches nothing of this machine: no files but its mounts, no network, no environment but --env. Standard
    input is handed over when it is a pipe or a file; standard output and standard error are the script's.
    """
    rest = list(words or ())
    if code is None and not rest:
        raise UsageError("there is no script: name a FILE, or write the script after -c")
    file = None if code is not None else rest.pop(0)
    request = ExecRequest(
        file=file,
        code=code,
        arguments=tuple(rest),
        fuel=fuel,
        memory=memory,
        deadline=deadline,
        mounts=tuple(mount or ()),
        environment=tuple(env or ()),
        image=image,
        policy=policy,
        as_json=as_json,
        usage=show_usage,
    )
    raise Told(perform(request))
