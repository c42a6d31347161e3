"""Opens the host, and one plugin in it, as the options of a command say; and collects what the plugin writes."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.artifact import plugin_id
from cloche.cli.errors import Told, interrupted, report
from cloche.cli.render import Screen
from cloche.config import LOG_LEVELS, Settings
from cloche.errors import ClocheError, GuestTrap, LimitError, UsageError
from cloche.grants.layer import layer_policy
from cloche.grants.policy import Mount, MountMode, Policy
from cloche.manifest.schema import check_mount_name
from cloche.model import BOUNDS, Trusted
from cloche.observe.events import Event, EventKind, Sink
from cloche.observe.log import LogSink, console_renderer, json_renderer, level_of
from cloche.policies import operator_policy
from cloche.quantities import (
    QuantityError,
    format_duration_ms,
    format_fuel,
    format_size,
    parse_duration_ms,
    parse_fuel,
    parse_size,
)
from cloche.text import clean, one_line, show

if TYPE_CHECKING:
    from cloche.app import Host
    from cloche.runtime.plugin import Plugin

# What componentize-py's runtime says after a traceback: that there was one.
_PANIC = re.compile(r"^\s*thread '.*?' .*?panicked at .*\nPython function threw an unexpected exception\nnote: .*\n?")


@dataclass(frozen=True, slots=True)
class Request:
    """What the words of a command ask for: a plugin, what it may do, and within what limits."""

    source: str
    allow: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    policy: Path | None = None
    trust: bool = False
    fuel: str | None = None
    memory: str | None = None
    deadline: str | None = None

    @property
    def trusted(self) -> Trusted | None:
        """The operator's word on the command line, if it was given."""
        return Trusted("--trust on the command line") if self.trust else None

    def limits(self) -> dict[str, int]:
        """The limits that were given, by the names of `model.BOUNDS`. Raises: LimitError (`limit.range`)."""
        readers: dict[str, tuple[str, str | None, Callable[[object], int], Callable[[int], str]]] = {
            "fuel": ("--fuel", self.fuel, parse_fuel, format_fuel),
            "memory_bytes": ("--memory", self.memory, parse_size, format_size),
            "deadline_ms": ("--deadline", self.deadline, parse_duration_ms, format_duration_ms),
        }
        read = {}
        for name, (option, text, parse, form) in readers.items():
            if text is not None:
                bound = BOUNDS[name]
                range_ = f"from {form(bound.least)} to {form(bound.most)}"
                try:
                    read[name] = parse(text)
                except QuantityError as error:
                    raise LimitError(f"{option}: {error}, {range_}", code="limit.range") from error
                if not bound.least <= read[name] <= bound.most:
                    raise LimitError(f"{option} must be {range_}, not {text}", code="limit.range")
        return read

    def bound(self) -> dict[str, Mount]:
        """The mounts that were given, by name. Looks at the disk. Raises: UsageError (`usage.argument`)."""
        return dict(map(_read_mount, self.mounts))


def _read_mount(text: str) -> tuple[str, Mount]:
    name, _, place = text.partition("=")
    path = place.removesuffix(":rw").removesuffix(":ro")
    try:
        check_mount_name(name)
    except ValueError as error:
        raise UsageError(f"--mount {show(text)}: expected NAME=DIRECTORY or NAME=DIRECTORY:rw, NAME {error}") from None
    try:
        found = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"--mount {name}: {show(path)} cannot be bound: {error}") from error
    if not (path and found.is_dir()):
        raise UsageError(f"--mount {name}: {show(path)} is not a directory")
    return name, Mount(str(found), MountMode.READ_WRITE if place.endswith(":rw") else MountMode.READ_ONLY)


@dataclass
class Transcript:
    """What a plugin wrote during its calls, kept until its progress display is gone."""

    is_json: bool
    output: dict[str, str] = field(default_factory=dict)
    _lines: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take one event of the host's stream: output and log lines are kept, everything else is not for here."""
        if event.kind is EventKind.OUTPUT:
            stream, text = str(event.data["stream"]), str(event.data["text"])
            self.output[stream] = self.output.get(stream, "") + text
            if self._lines and self._lines[-1][0] == stream:
                text = self._lines.pop()[1] + text
            self._lines.append((stream, text))
        elif event.kind is EventKind.LOG:
            untrusted = event.data["untrusted"]
            line = f"{event.data['level']}: {one_line(untrusted['message'])}\n"
            self.output["log"] = self.output.get("log", "") + line

    def show(self, without: str | None = None) -> None:
        """Write what was kept where it belongs; on a terminal without control characters. Nothing in JSON mode.

        `without` is a part of standard error that the error block shows: the plugin's traceback.
        """
        if not self.is_json:
            for stream, text in self._lines:
                if without and stream == "stderr":
                    before, found, after = text.rpartition(without)
                    text = before + _PANIC.sub("", after.removeprefix("\n")) if found else text
                target = sys.stdout if stream == "stdout" else sys.stderr
                target.write(clean(text) if target.isatty() else text)
                target.flush()  # both streams may lead to one place, where the order counts
        self._lines.clear()


def log_sink(settings: Settings) -> Sink:
    """Writes log lines to standard error in the form and from the level of the settings.

    Plugins' own messages always; the host's events only at `info` and `debug`, because the command itself says what
    went wrong. structlog is imported with the first line.
    """
    least = LOG_LEVELS.index(settings.log_level)
    everything = least <= LOG_LEVELS.index("info")
    made: list[LogSink] = []

    def sink(event: Event, /) -> None:
        if LOG_LEVELS.index(level_of(event)) < least or not (everything or event.kind is EventKind.LOG):
            return
        if not made:
            as_json = settings.log_format == "json"
            renderer = json_renderer() if as_json else console_renderer(colors=sys.stderr.isatty())
            made.append(LogSink(renderer, least_level=settings.log_level))
        made[0](event)

    return sink


def chosen_policy(settings: Settings, request: Request) -> Policy:
    """The operator's policy with what the request says for its plugin laid over it. Reads the policy's file.

    Raises: UsageError (`usage.argument`); ManifestError (`policy.*`); LimitError (`limit.range`).
    """
    policy = operator_policy(settings, request.policy)
    limits, mounts = request.limits(), request.bound()
    if not (request.allow or request.config or mounts or limits):
        return policy
    plugin = plugin_id(Path(request.source))
    return layer_policy(policy, plugin, allow=request.allow, config=request.config, mounts=mounts, limits=limits)


@contextlib.contextmanager
def open_host(request: Request | None = None, transcript: Transcript | None = None) -> Generator[Host]:
    """A host with the settings of the environment and the policy of the request, closed after the block."""
    from cloche.app import Host

    # A command ends before anything could profit from code compiled anew in the background, or from a second worker.
    settings = replace(Settings.from_environment(), background_compile=False, ready_workers=0)
    policy = None if request is None else chosen_policy(settings, request)
    sinks = (log_sink(settings),) if transcript is None else (transcript, log_sink(settings))
    with Host(policy=policy, settings=settings, sinks=sinks) as host:
        yield host


@contextlib.contextmanager
def open_plugin(request: Request, screen: Screen) -> Generator[tuple[Plugin, Transcript]]:
    """The plugin that `request` names, loaded into a host of its own, and the transcript of what it writes.

    An error, also one of the block, is shown with what the plugin wrote until then. Raises: Told, in its place.
    """
    transcript = Transcript(screen.is_json)
    try:
        with open_host(request, transcript) as host:
            with screen.progress(f"loading {request.source}") as step:
                plugin = host.load(request.source, trust=request.trusted, progress=step)
            yield plugin, transcript
    except (ClocheError, KeyboardInterrupt) as failure:
        error = failure if isinstance(failure, ClocheError) else interrupted()
        transcript.show(without=error.traceback if isinstance(error, GuestTrap) else None)
        raise Told(report(error, is_json=screen.is_json, output=transcript.output)) from failure
