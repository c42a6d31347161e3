"""`cloche call` and `cloche run`: one call of a plugin's function."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloche.cli import options
from cloche.cli.errors import report
from cloche.cli.render import Screen, plain, stderr_console, usage_line, write_json
from cloche.errors import ClocheError, GuestError, GuestTrap, UsageError
from cloche.text import clean

if TYPE_CHECKING:
    from cloche.cli.session import Transcript
    from cloche.runtime.functions import BoundFunction
    from cloche.runtime.plugin import Plugin

COMMAND_INTERFACE = "wasi:cli/run"
LIFECYCLE_INTERFACE = "cloche:plugin/lifecycle"

ShowUsage = Annotated[bool, typer.Option("--usage", help="Show on standard error what the call cost.")]


def register(app: typer.Typer) -> None:
    """Add the verbs `call` and `run`."""
    app.command(
        epilog="Example:  cloche call --trust guests/hello cloche:example/greeter.greet Ada\n\n"
        "Example:  cloche call --trust --config greeting=Moin guests/hello greet Ada\n\n"
        """Example:  cloche call --trust guests/markdown transform '{"format": "markdown", "text": "# Hi"}' html"""
    )(call)
    app.command(
        epilog="Example:  cloche run --trust --fuel 100M guests/hello Ada\n\n"
        "Example:  cloche run --trust --usage tool.wasm"
    )(run)


def call(
    plugin: options.Source,
    target: Annotated[
        str,
        typer.Argument(
            metavar="INTERFACE.FUNCTION",
            help="The function. INTERFACE may lack version and package, or be left out if one function fits.",
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JSON",
            help="One word per parameter: JSON, plain text for a string, or @FILE. Write -- before words like -1.",
        ),
    ] = None,
    allow: options.Allow = None,
    config: options.Config = None,
    mount: options.Mounts = None,
    policy: options.PolicyFile = None,
    trust: options.Trust = False,
    fuel: options.Fuel = None,
    memory: options.Memory = None,
    deadline: options.Deadline = None,
    show_usage: ShowUsage = False,
    as_json: options.Json = False,
) -> None:
    """Call one function of a plugin and print what it returns.

    Text is printed as it is, anything else as JSON. The plugin's own output goes to standard output and standard error.
    """
    from cloche.cli.session import Request, open_plugin

    screen = Screen(as_json)
    request = Request(
        plugin,
        allow=tuple(allow or ()),
        config=tuple(config or ()),
        mounts=tuple(mount or ()),
        policy=policy,
        trust=trust,
        fuel=fuel,
        memory=memory,
        deadline=deadline,
    )
    with open_plugin(request, screen) as (loaded, transcript):
        _call_and_show(loaded, find(loaded, target), arguments or (), screen, transcript, show_usage)


def run(
    plugin: options.Source,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="The text for the function, if it takes one.")
    ] = None,
    allow: options.Allow = None,
    config: options.Config = None,
    mount: options.Mounts = None,
    policy: options.PolicyFile = None,
    trust: options.Trust = False,
    fuel: options.Fuel = None,
    memory: options.Memory = None,
    deadline: options.Deadline = None,
    show_usage: ShowUsage = False,
    as_json: options.Json = False,
) -> None:
    """Run a plugin that has one obvious thing to do.

    A plugin that exports wasi:cli/run is run as a command; its exit status is 0 or 1. Otherwise the plugin must have
    exactly one function, apart from its lifecycle, that takes nothing or one string: that function is called with TEXT.
    For any other plugin use `cloche call`.
    """
    from cloche.cli.session import Request, open_plugin

    screen = Screen(as_json)
    request = Request(
        plugin,
        allow=tuple(allow or ()),
        config=tuple(config or ()),
        mounts=tuple(mount or ()),
        policy=policy,
        trust=trust,
        fuel=fuel,
        memory=memory,
        deadline=deadline,
    )
    with open_plugin(request, screen) as (loaded, transcript):
        _call_and_show(loaded, obvious(loaded, len(arguments or ())), arguments or (), screen, transcript, show_usage)


def functions(plugin: Plugin) -> list[tuple[str, BoundFunction]]:
    """Every function of `plugin` that a command line can call, with its interface (empty: the component's root)."""
    from cloche.wit.types import FunctionKind

    kinds = (FunctionKind.FREE, FunctionKind.STATIC)
    return [(name, bound) for name in plugin.interfaces() for bound in plugin[name] if bound.wit.kind in kinds]


def find(plugin: Plugin, target: str) -> tuple[str, BoundFunction]:
    """The function that `target` names: `INTERFACE.FUNCTION` or `FUNCTION`.

    Raises: UsageError (`usage.not-found`) when none or more than one fits; the message lists what there is.
    """
    interface, _, function = target.rpartition(".")
    found = [
        (name, bound)
        for name, bound in functions(plugin)
        if function in (bound.wit.name, bound.wit.item_name, bound.__name__)
        and (not interface or _is_named(name, interface))
    ]
    if len(found) == 1:
        return found[0]
    problem = f"more than one function fits {target}" if found else f"plugin {plugin.id} has no function {target}"
    raise UsageError(f"{problem}; {_listed(found or functions(plugin))}", code="usage.not-found", plugin=plugin.id)


def _is_named(interface: str, wanted: str) -> bool:
    """Whether `wanted` is the id of `interface`, with or without its version, or its last word."""
    unversioned = interface.partition("@")[0]
    return wanted in (interface, unversioned, unversioned.rpartition("/")[2])


def obvious(plugin: Plugin, words: int) -> tuple[str, BoundFunction]:
    """The function that `cloche run` calls with so many words. Raises: UsageError (`usage.not-found`)."""
    from cloche.wit.types import Prim

    every = [item for item in functions(plugin) if item[0].partition("@")[0] != LIFECYCLE_INTERFACE]
    commands = [item for item in every if item[0].partition("@")[0] == COMMAND_INTERFACE]
    simple = [item for item in every if [param.type for param in item[1].wit.params] in ([], [Prim.STRING])]
    found = commands or [item for item in simple if len(item[1].wit.params) == words] or simple
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"plugin {plugin.id} has no single function that takes nothing or one string; name one with `cloche call`: "
        f"{_listed(every)}",
        code="usage.not-found",
        plugin=plugin.id,
    )


def _listed(found: Sequence[tuple[str, BoundFunction]]) -> str:
    from cloche.cli.jsonvalues import signature

    shown = [f"{name}.{signature(bound.wit)}" if name else signature(bound.wit) for name, bound in found]
    return f"there is {'; '.join(shown)}" if shown else "it exports no function that can be called from here"


def _call_and_show(
    plugin: Plugin,
    found: tuple[str, BoundFunction],
    words: Sequence[str],
    screen: Screen,
    transcript: Transcript,
    show_usage: bool,
) -> None:
    from cloche.cli.jsonvalues import arguments, to_json
    from cloche.wit.types import ResultType

    interface, function = found
    wit = function.wit
    values = arguments(words, wit)
    result = wit.result
    try:
        with screen.progress(f"{plugin.id}: {wit.name}"):
            outcome = function.call(*values)
    except GuestError as error:
        error.plugin = error.plugin or plugin.id
        payload = to_json(error.payload, result.err) if isinstance(result, ResultType) else None
        transcript.show()
        raise typer.Exit(report(error, is_json=screen.is_json, payload=payload)) from error
    except ClocheError as error:
        transcript.show(without=error.traceback if isinstance(error, GuestTrap) else None)
        raise
    transcript.show()
    value = to_json(outcome.value, result.ok if isinstance(result, ResultType) else result)
    document: dict[str, Any] = {
        "plugin": plugin.id,
        "version": plugin.version,
        "tier": plugin.tier.value,
        "digest": plugin.digest,
        "interface": interface or None,
        "function": wit.name,
        "value": value,
        "output": transcript.output,
        "usage": plain(outcome.usage.to_json()),
    }
    if screen.is_json:
        write_json(document)
    elif isinstance(value, str):
        sys.stdout.write((clean(value) if sys.stdout.isatty() else value) + ("" if value.endswith("\n") else "\n"))
    elif value is not None:
        import json

        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=sys.stdout.isatty(), allow_nan=False) + "\n")
    if show_usage and not screen.is_json:
        stderr_console().print(f"cost: {usage_line(outcome.usage)}")
