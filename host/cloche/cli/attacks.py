"""What the plugins of `cloche demo` try that they must not, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloche.app import Host
    from cloche.model import Usage
    from cloche.runtime.plugin import Plugin

GREETER = "cloche:example/greeter"
MISBEHAVE = "cloche:noop/misbehave"
SERVICES = "cloche:noop/services"

MEBIBYTE = 1 << 20
KILL_AFTER_S = 0.3
"""How long a plugin works until its worker is killed from outside: by then the call has long begun."""

DIVER = """(component
  (core module $m (func $dive (export "dive") (call $dive)))
  (core instance $i (instantiate $m))
  (func (export "dive") (canon lift (core func $i "dive"))))"""
"""Calls itself without end, in machine code: a Python guest would end by Python's own bound."""

BOMB_LOOPS, BOMB_LOCALS = 3000, 8000


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a plugin tried, what happened, and what it cost; of a load, and of a worker that is lost, only its time."""

    tried: str
    tier: str
    happened: str
    code: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Remains:
    """What a good plugin answers after all of it, and the processes and descriptors that there were not before."""

    answer: str
    processes: int
    descriptors: int


class Held:
    """The processes and descriptors of this process, to be compared with those of later."""

    def __init__(self) -> None:
        self.processes = _children()
        self.descriptors = _descriptors()

    def remains(self, answer: str) -> Remains:
        """What has come since and is still there."""
        return Remains(answer, len(_children() - self.processes), max(0, _descriptors() - self.descriptors))


def misbehave(host: Host, source: Path, good: Plugin) -> list[Attempt]:
    """Let plugins for which nobody vouches try what they should not, one thing after the other.

    After each, one of them and a `good` plugin serve another call. They themselves are gone at the end.
    """
    plugin = host.load(source)
    bad, services = plugin[MISBEHAVE], plugin[SERVICES]
    diver = host.load_bytes(_parsed(DIVER))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        attempts: Sequence[tuple[str, Callable[[], Any]]] = (
            ("read /etc/passwd", lambda: bad.read_file.call("/etc/passwd")),
            ("list the root directory", lambda: bad.list_files.call("/")),
            (f"connect to 127.0.0.1:{port}, where somebody listens", lambda: bad.connect.call("127.0.0.1", port)),
            ("use storage that was not granted", lambda: services.put.call("other", "key", b"value")),
            ("open a million handles", lambda: bad.hoard.call(1_000_000)),
            ("loop for ever, 200 M fuel", lambda: bad.spin.options(fuel=200_000_000).call()),
            ("loop for ever, 0.3 s", lambda: bad.spin.options(deadline=0.3).call()),
            ("sleep for a minute, 0.3 s", lambda: bad.sleep.options(deadline=0.3).call(60_000)),
            ("take 1 GiB of memory", lambda: bad.allocate.call(1024 * MEBIBYTE, True)),
            ("recurse without end, in Python", lambda: bad.recurse.call(1_000_000)),
            ("recurse without end, in machine code", diver[""].dive.call),
            ("print 8 MB", lambda: bad.print.call("x" * 1023 + "\n", 8192, False)),
            ("exit(7), of which WASI passes on the failure only", lambda: bad.exit.call(7)),
            ("raise an exception", lambda: bad.crash.call("boom")),
            ("take the compiler all memory", lambda: host.load_bytes(_parsed(_bomb()))),
            ("loop, and its worker is killed from outside", lambda: _killed(host, plugin, bad.spin.call)),
        )
        found = []
        for tried, call in attempts:
            found.append(_attempt(host, tried, plugin.tier, call))
            for still_there in (plugin, good):
                still_there[GREETER].greet("still here")
    diver.close()
    plugin.close()
    return found


def _attempt(host: Host, tried: str, tier: str, call: Callable[[], Any]) -> Attempt:
    from cloche.errors import ClocheError
    from cloche.model import Usage
    from cloche.observe.events import EventKind

    begun = time.perf_counter()
    try:
        outcome = call()
    except ClocheError as error:
        usage = error.usage or Usage()
        if usage.fuel is None:  # nobody counted; what is left is our own clock
            usage = usage._replace(wall_ms=(time.perf_counter() - begun) * 1000)
        return Attempt(tried, tier, error.message.removeprefix(f"{MISBEHAVE}@1.0.0."), error.code, usage)
    dropped = sum(event.data["dropped_bytes"] for event in host.events.recent(kind=EventKind.OUTPUT)[-1:])
    happened = f"returned {outcome.value!r:.60}" + (
        f"; {dropped:,} bytes over the output limit dropped" if dropped else ""
    )
    return Attempt(tried, tier, happened, "ok", outcome.usage)


def _killed(host: Host, plugin: Plugin, call: Callable[[], Any]) -> Any:
    """Make the call, and kill the plugin's worker in the middle of it, as anybody with the right to could."""
    from cloche.observe.events import EventKind

    started = [event.data["pid"] for event in host.events.recent(kind=EventKind.WORKER)
               if event.plugin == plugin.id and "pid" in event.data]  # fmt: skip

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(started[-1], signal.SIGKILL)

    timer = threading.Timer(KILL_AFTER_S, kill)
    timer.start()
    try:
        return call()
    finally:
        timer.cancel()


def _bomb() -> str:
    """One function of many loops inside each other over many locals: 80 KB that take a compiler gigabytes."""
    used = "".join(f"local.get {number} i32.const 1 i32.add local.set {number} " for number in range(BOMB_LOCALS))
    body = f"{'loop ' * BOMB_LOOPS}{used}{'end ' * BOMB_LOOPS}"
    return f"(component (core module (func (local {'i32 ' * BOMB_LOCALS}) {body})))"


def _parsed(text: str) -> bytes:
    from cloche.wit.tools import wasm_tools

    return subprocess.run(
        [str(wasm_tools()), "parse", "-"], input=text.encode(), capture_output=True, check=True
    ).stdout


def _children() -> set[int]:
    """Processes that this one has started and not yet reaped; none where the system does not tell."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _descriptors() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0
