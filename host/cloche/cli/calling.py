"""`cloche call` and `cloche run`: one call of a plugin's function."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloche.cli import options
from cloche.cli.errors import Told, report
from cloche.cli.render import Screen, plain, stderr_console, usage_line, write_json
from cloche.errors import GuestError, GuestTrap, UsageError
from cloche.model import Outcome
from cloche.text import clean

if TYPE_CHECKING:
    from cloche.cli.session import Transcript
    from cloche.runtime.functions import BoundFunction
    from cloche.runtime.plugin import Plugin

COMMAND_INTERFACE = "wasi:cli/run"
MOST_LISTED = 12
MOST_NEAR = 3
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

    A plugin that exports wasi:cli/run is run as a command; the exit status is 0, or 1 when it says that it failed.
    Otherwise the plugin must have exactly one function, apart from its lifecycle, that takes nothing or one string:
    that function is called with TEXT. For any other plugin use `cloche call`.
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
        found = obvious(loaded, len(arguments or ()))
        is_command = found[0].partition("@")[0] == COMMAND_INTERFACE
        _call_and_show(loaded, found, arguments or (), screen, transcript, show_usage, is_command=is_command)


def functions(plugin: Plugin) -> list[tuple[str, BoundFunction]]:
    """Every function of `plugin` that a command line can call, with its interface (empty: the component's root)."""
    from cloche.wit.types import FunctionKind

    kinds = (FunctionKind.FREE, FunctionKind.STATIC)
    return [(name, bound) for name in plugin.interfaces() for bound in plugin[name] if bound.wit.kind in kinds]


def find(plugin: Plugin, target: str) -> tuple[str, BoundFunction]:
    """The function that `target` names: `INTERFACE.FUNCTION` or `FUNCTION`.

    Raises: UsageError (`usage.not-found`) when none or more than one fits; the message has the nearest names.
    """
    interface, _, function = target.rpartition(".")
    every = functions(plugin)
    found = [
        (name, bound)
        for name, bound in every
        if function in (bound.wit.name, bound.wit.item_name, bound.__name__)
        and (not interface or _is_named(name, interface))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"more than one function fits {target}; {_listed(found)}"
    else:
        near = _nearest(every, target)
        hint = f"did you mean {' or '.join(near)}?" if near else _listed(every)
        problem = f"plugin {plugin.id} has no function {target}; {hint}"
    raise UsageError(problem, code="usage.not-found", plugin=plugin.id)


def _nearest(every: Sequence[tuple[str, BoundFunction]], target: str) -> list[str]:
    """The functions whose names are most like `target`, as INTERFACE.FUNCTION."""
    import difflib

    spelt: dict[str, list[str]] = {}
    for name, bound in every:
        unversioned = name.partition("@")[0]
        full = f"{name}.{bound.wit.name}" if name else bound.wit.name
        for interface in ("", name, unversioned, unversioned.rpartition("/")[2]):
            spelt.setdefault(f"{interface}.{bound.wit.name}" if interface else bound.wit.name, []).append(full)
    near = difflib.get_close_matches(target, spelt, n=MOST_NEAR, cutoff=0.7)
    return list(dict.fromkeys(full for spelling in near for full in spelt[spelling]))[:MOST_NEAR]


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

    if not found:
        return "it exports no function that can be called from here"
    shown = [f"{name}.{signature(bound.wit)}" if name else signature(bound.wit) for name, bound in found[:MOST_LISTED]]
    more = f"; and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return f"there is {'; '.join(shown)}{more}"


def _call_and_show(
    plugin: Plugin,
    found: tuple[str, BoundFunction],
    words: Sequence[str],
    screen: Screen,
    transcript: Transcript,
    show_usage: bool,
    *,
    is_command: bool = False,
) -> None:
    from cloche.cli.jsonvalues import arguments, to_json
    from cloche.wit.types import ResultType

    interface, function = found
    wit = function.wit
    values = arguments(words, wit)
    result = wit.result
    try:
        with screen.progress(f"{plugin.id}: {wit.name}"):
            outcome = _answer(function, values, is_command=is_command)
    except (GuestError, GuestTrap) as error:
        if is_command and not screen.is_json and _has_said(error):
            # Why it failed is for the command to say, and stands on its standard error.
            transcript.show()
            if show_usage and error.usage is not None:
                stderr_console().print(f"cost: {usage_line(error.usage)}")
            raise Told(error.exit_status) from error
        if isinstance(error, GuestTrap):
            raise
        error.plugin = error.plugin or plugin.id
        payload = to_json(error.payload, result.err) if isinstance(result, ResultType) else None
        transcript.show()
        raise Told(report(error, is_json=screen.is_json, payload=payload, output=transcript.output)) from error
    transcript.show()
    shown = result.ok if isinstance(result, ResultType) else result
    value = to_json(outcome.value, shown)
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
    elif shown is not None:
        import json

        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=sys.stdout.isatty(), allow_nan=False) + "\n")
    if show_usage and not screen.is_json:
        sys.stdout.flush()  # both streams may lead to one place, where the order counts
        stderr_console().print(f"cost: {usage_line(outcome.usage)}")


def _answer(function: BoundFunction, values: Sequence[Any], *, is_command: bool) -> Outcome[Any]:
    """What the call came to. A command may also say by its exit that all is well, which ends its instance."""
    try:
        return function.call(*values)
    except GuestTrap as error:
        if is_command and error.exit_status_of_guest == 0 and error.usage is not None:
            return Outcome(None, error.usage)
        raise


def _has_said(error: GuestError | GuestTrap) -> bool:
    """Whether a command failed by its own word: an error value, or an exit."""
    return isinstance(error, GuestError) or error.exit_status_of_guest is not None
