"""`cloche demo`: third-party code at work and at mischief inside the sandbox, with what it cost."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable
from queue import SimpleQueue
from typing import TYPE_CHECKING

import typer

from cloche.cli import options
from cloche.cli.attacks import GREETER, Attempt, Held, misbehave
from cloche.cli.render import Screen, StepSink, plain, size, table
from cloche.cli.session import Request, open_host
from cloche.errors import ContractError, TrustError
from cloche.remedies import REMEDIES
from cloche.text import clean, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cloche.app import Host
    from cloche.model import Usage
    from cloche.runtime.plugin import Plugin

GUESTS = ("hello", "hello-js", "markdown", "noop", "hello-c")
DISPENSABLE = ("hello-js", "hello-c")
"""Without these the demo goes on: their tools are packages of their own, and npm needs the network once."""
HOSTILE = "noop"
STORAGE = "wasi:keyvalue={ buckets = ['default'] }"
"""What the hostile plugin is granted: one of the two buckets that it asks for."""

AT_ONCE = 2
TRANSFORM = "cloche:example/text-transform"


def register(app: typer.Typer) -> None:
    """Add the verb `demo`."""
    app.command(epilog="Example:  cloche demo")(demo)


def demo(as_json: options.Json = False) -> None:
    """Run plugins in the sandbox: useful ones, then hostile ones, in one table of what each tried, and what it cost.

    The hostile ones are untrusted and run in worker processes. Builds the example plugins from source on the first
    run, which takes a minute or two; later runs take seconds. The plugin in JavaScript needs the network for its first
    build, and is left out where it cannot be built.
    """
    from cloche.resources import guests_dir

    screen = Screen(as_json)
    hostile = guests_dir() / HOSTILE
    with open_host(Request(str(hostile), allow=(STORAGE,))) as host:
        with screen.progress("building and compiling the example plugins") as step:
            left_out = build_guests(host, step)
            plugins = load_guests(host, [name for name in GUESTS if name not in left_out and name != HOSTILE], step)
            refused = refusal(host, hostile, step)
        page, page_usage = render_readme(plugins["markdown"])
        greetings = greet_all(host)
        before = Held()
        attempts = [] if refused else misbehave(host, hostile, plugins["hello"])
        remains = before.remains(plugins["hello"][GREETER].greet("Ada"))

    def show(console: Console) -> None:
        console.print("1. The markdown plugin renders this project's README:\n")
        for line in page.splitlines()[:4]:
            console.print(f"   {one_line(line)[:140]}")
        console.print(f"   … {len(page):,} characters of HTML; {_cost(page_usage)}\n")
        console.print("2. One extension point, three languages:\n")
        for plugin, greeting, usage in greetings:
            console.print(f"   {plugin:<16} {one_line(greeting):<34} {_cost(usage)}")
        for name, error in left_out.items():
            console.print(f"   {'cloche/' + name:<16} {_reason(error)}", soft_wrap=True)
        console.print("\n3. Plugins that misbehave, and for which nobody vouches:\n")
        if refused:
            console.print(f"   {clean(refused.message)}\n   {REMEDIES[refused.code]}", soft_wrap=True)
            return
        console.print(table(_HEADS, map(_row, attempts), right=_HEADS[3:]))
        console.print(
            "\nAfter each of these the host served the next call of that plugin and of a good one, which still says "
            f"{remains.answer!r}\nLeft of it all: {remains.processes} processes, {remains.descriptors} descriptors."
        )

    document = {
        "readme": {"html_characters": len(page), "usage": page_usage.to_json()},
        "greetings": [
            {"plugin": plugin, "greeting": greeting, "usage": usage.to_json()} for plugin, greeting, usage in greetings
        ],
        "left_out": [
            {"plugin": f"cloche/{name}", "code": error.code, "message": error.message}
            for name, error in left_out.items()
        ],
        "refused": refused.to_json() if refused else None,
        "attempts": [{**plain(item), "usage": item.usage.to_json()} for item in attempts],
        "remains": plain(remains),
    }
    screen.answer(document, show)


def build_guests(host: Host, step: StepSink) -> dict[str, ContractError]:
    """Build the example plugins, two at a time; returns why one had to be left out. Blocks for minutes the first time.

    Ctrl-C ends it at once: the threads are daemons that touch no engine, and what they started ends with this process.
    """
    from cloche.resources import guests_dir

    names = deque(GUESTS)
    ended: SimpleQueue[tuple[str, BaseException | None]] = SimpleQueue()

    def work() -> None:
        with contextlib.suppress(IndexError):
            while True:
                name = names.popleft()
                try:
                    host.inspect(guests_dir() / name, progress=step)
                    ended.put((name, None))
                except BaseException as error:
                    ended.put((name, error))

    for _ in range(AT_ONCE):
        threading.Thread(target=work, daemon=True).start()
    left_out: dict[str, ContractError] = {}
    for _ in GUESTS:
        name, error = ended.get()
        if isinstance(error, ContractError) and error.code == "component.build" and name in DISPENSABLE:
            left_out[name] = error
        elif error is not None:
            raise error
    return left_out


def load_guests(host: Host, names: Iterable[str], step: StepSink) -> dict[str, Plugin]:
    """Load example plugins that are built, by name. Blocks for some seconds the first time."""
    from cloche.model import Trusted
    from cloche.resources import guests_dir

    trust = Trusted("an example of this project")
    return {name: host.load(guests_dir() / name, trust=trust, progress=step) for name in names}


def refusal(host: Host, source: Path, step: StepSink) -> TrustError | None:
    """Why this system does not run the plugin, for which nobody vouches; None when it does. Blocks like a load.

    It is gone again afterwards. What of its code Python plugins share stays in memory.
    """
    try:
        host.load(source, progress=step).close()
    except TrustError as error:
        return error
    return None


def render_readme(plugin: Plugin) -> tuple[str, Usage]:
    """The README, as the installed package carries it, rendered to HTML by the plugin."""
    from importlib.metadata import metadata

    from cloche.values import Case

    text = metadata("cloche").json["description"]
    document = {"format": Case("markdown"), "text": text}
    outcome = plugin[TRANSFORM].transform.call(document, Case("html"))
    return outcome.value.document.text, outcome.usage


def greet_all(host: Host) -> list[tuple[str, str, Usage]]:
    """A greeting from every plugin that offers the extension point."""
    found = []
    for plugin in host.providers(GREETER):
        outcome = plugin[GREETER].greet.call("Ada")
        found.append((plugin.id, str(outcome.value), outcome.usage))
    return found


_MOST_SHOWN = 110
_HEADS = ("it tried", "tier", "what happened", "fuel", "time", "memory")


def _row(item: Attempt) -> tuple[str, ...]:
    usage = item.usage
    fuel = "" if usage.fuel is None else f"{usage.fuel:,}"
    memory = "" if usage.peak_memory is None else size(usage.peak_memory)
    return (
        item.tried,
        item.tier,
        f"{item.code}: {_cut(one_line(item.happened))}",
        fuel,
        f"{usage.wall_ms:.1f} ms",
        memory,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN].rpartition(' ')[0]} …"


def _reason(error: ContractError) -> str:
    """Why a plugin was left out, without the tool's own words."""
    return clean(error.message.splitlines()[0].partition("cannot be built: ")[2])


def _cost(usage: Usage) -> str:
    memory = "" if usage.peak_memory is None else f", {size(usage.peak_memory)}"
    return f"fuel {usage.fuel or 0:,}, {usage.wall_ms:.1f} ms{memory}"
