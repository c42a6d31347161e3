"""`cloche demo`: third-party code at work and at mischief inside the sandbox, with what it cost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import typer

from cloche.cli import options
from cloche.cli.render import Screen, StepSink, size, table
from cloche.cli.session import open_host
from cloche.errors import ContractError
from cloche.text import clean, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from cloche.app import Host
    from cloche.model import Usage
    from cloche.runtime.plugin import Plugin

GUESTS = ("hello", "hello-js", "markdown", "noop", "hello-c")
DISPENSABLE = ("hello-js", "hello-c")
"""Without these the demo goes on: their tools are packages of their own, and npm needs the network once."""

AT_ONCE = 2
GREETER = "cloche:example/greeter"
TRANSFORM = "cloche:example/text-transform"
MISBEHAVE = "cloche:noop/misbehave"
SERVICES = "cloche:noop/services"

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a plugin tried, what happened, and what it cost."""

    tried: str
    happened: str
    code: str
    usage: Usage | None


def register(app: typer.Typer) -> None:
    """Add the verb `demo`."""
    app.command(epilog="Example:  cloche demo")(demo)


def demo(as_json: options.Json = False) -> None:
    """Run plugins in the sandbox: useful ones, then ones that misbehave, in one table.

    Builds the example plugins from source on the first run, which takes a minute or two; later runs take seconds. The
    plugin in JavaScript needs the network for its first build, and is left out where it cannot be built.
    """
    screen = Screen(as_json)
    with open_host() as host:
        with screen.progress("building and compiling the example plugins") as step:
            left_out = build_guests(host, step)
            plugins = load_guests(host, [name for name in GUESTS if name not in left_out], step)
        page, page_usage = render_readme(plugins["markdown"])
        greetings = greet_all(host)
        attempts = misbehave(host, plugins["noop"])

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
        console.print("\n3. A plugin that misbehaves:\n")
        console.print(table(("it tried", "what happened", "fuel", "time", "memory"), map(_row, attempts), right=_RIGHT))
        console.print("\nAfter each of these the host served the next call.")

    document = {
        "readme": {"html_characters": len(page), "usage": page_usage.to_json()},
        "greetings": [
            {"plugin": plugin, "greeting": greeting, "usage": usage.to_json()} for plugin, greeting, usage in greetings
        ],
        "left_out": [
            {"plugin": f"cloche/{name}", "code": error.code, "message": error.message}
            for name, error in left_out.items()
        ],
        "attempts": [
            {
                "tried": item.tried,
                "happened": item.happened,
                "code": item.code,
                "usage": item.usage.to_json() if item.usage is not None else None,
            }
            for item in attempts
        ],
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


def misbehave(host: Host, plugin: Plugin) -> list[Attempt]:
    """Let the plugin try what it should not, one thing after the other, and a good call after each."""
    bad, services = plugin[MISBEHAVE], plugin[SERVICES]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        attempts: Sequence[tuple[str, Callable[[], Any]]] = (
            ("read /etc/passwd", lambda: bad.read_file.call("/etc/passwd")),
            ("list the root directory", lambda: bad.list_files.call("/")),
            (f"connect to 127.0.0.1:{port}, where somebody listens", lambda: bad.connect.call("127.0.0.1", port)),
            ("use key-value storage without a grant", lambda: services.put.call("", "key", b"value")),
            ("loop for ever, 200 M fuel", lambda: bad.spin.options(fuel=200_000_000).call()),
            ("loop for ever, 0.3 s", lambda: bad.spin.options(deadline=0.3).call()),
            ("take 1 GiB of memory", lambda: bad.allocate.call(1024 * MEBIBYTE, True)),
            ("recurse without end", lambda: bad.recurse.call(1_000_000)),
            ("print 8 MB", lambda: bad.print.call("x" * 1023 + "\n", 8192, False)),
            ("exit(7), of which WASI passes on the failure only", lambda: bad.exit.call(7)),
            ("raise an exception", lambda: bad.crash.call("boom")),
        )
        found = []
        for tried, call in attempts:
            found.append(_attempt(host, tried, call))
            plugin[GREETER].greet("still here")
    return found


def _attempt(host: Host, tried: str, call: Callable[[], Any]) -> Attempt:
    from cloche.errors import ClocheError
    from cloche.observe.events import EventKind

    try:
        outcome = call()
    except ClocheError as error:
        return Attempt(tried, error.message.removeprefix(f"{MISBEHAVE}@1.0.0."), error.code, error.usage)
    dropped = sum(event.data["dropped_bytes"] for event in host.events.recent(kind=EventKind.OUTPUT)[-1:])
    happened = f"returned {outcome.value!r:.60}" + (
        f"; {dropped:,} bytes over the output limit dropped" if dropped else ""
    )
    return Attempt(tried, happened, "ok", outcome.usage)


_RIGHT = ("fuel", "time", "memory")


def _row(item: Attempt) -> tuple[str, str, str, str, str]:
    usage = item.usage
    happened = f"{item.code}: {one_line(item.happened)[:110]}"
    if usage is None:
        return item.tried, happened, "", "", ""
    memory = "" if usage.peak_memory is None else size(usage.peak_memory)
    return item.tried, happened, f"{usage.fuel or 0:,}", f"{usage.wall_ms:.1f} ms", memory


def _reason(error: ContractError) -> str:
    """Why a plugin was left out, without the tool's own words."""
    return clean(error.message.splitlines()[0].partition("cannot be built: ")[2])


def _cost(usage: Usage) -> str:
    memory = "" if usage.peak_memory is None else f", {size(usage.peak_memory)}"
    return f"fuel {usage.fuel or 0:,}, {usage.wall_ms:.1f} ms{memory}"
