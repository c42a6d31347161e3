"""What every command shares to answer: one JSON document or text for people, tables, and progress on a terminal.

Names, messages and output of plugins are hostile: `clean` takes the control characters out before a terminal sees them,
and nothing of a plugin is ever read as markup.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from cloche.text import clean, one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cloche.model import Usage

PIPE_COLUMNS = 160  # width of tables when nobody says how wide the reader's screen is


class Step(Protocol):
    """One step of something that takes time, as the engine and the build tell it."""

    @property
    def text(self) -> str:
        """What is being done now, in a few words."""

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0 to 1, where that is known."""


StepSink = Callable[[Step | str], None]
"""Told each step as it begins or gets on, or just its words."""


@dataclass(frozen=True, slots=True)
class Screen:
    """Where one command's answer goes: text for people, or exactly one JSON document."""

    is_json: bool

    def answer(self, document: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Print the answer: `document` as JSON, or what `show` writes for people."""
        if self.is_json:
            write_json(document)
            return
        console = stdout_console()
        if sys.stdout.isatty():
            show(console)
            return
        with console.capture() as captured:
            show(console)
        # Tables pad every cell to its column; a file or a pipe is better off without the blanks at line ends.
        lines = (line.rstrip() for line in captured.get().splitlines())
        sys.stdout.write("".join(f"{line}\n" for line in lines))

    @contextlib.contextmanager
    def progress(self, what: str) -> Generator[StepSink]:
        """Show `what` and the time it takes on standard error while the block runs, when that is a terminal.

        The block gets a sink for the steps inside. Nothing is left on the screen afterwards.
        """
        if not sys.stderr.isatty():
            yield _say_nothing
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(one_line(what), total=None)

            def show(step: Step | str) -> None:
                words, fraction = (step, None) if isinstance(step, str) else (step.text, step.fraction)
                total = None if fraction is None else 1.0
                bar.update(task, description=one_line(words), total=total, completed=fraction or 0.0)

            yield show


def write_json(document: Mapping[str, Any]) -> None:
    """Print `document` on standard output as one JSON document, escaped to ASCII so that no terminal acts on it."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False, default=str) + "\n")


def stdout_console() -> Console:
    """A console on standard output that never reads markup in what it prints."""
    from rich.console import Console

    return Console(
        markup=False, highlight=False, emoji=False, soft_wrap=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS
    )


def stderr_console() -> Console:
    """The same on standard error."""
    from rich.console import Console

    return Console(
        stderr=True, markup=False, highlight=False, emoji=False, width=None if sys.stderr.isatty() else PIPE_COLUMNS
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> RenderableType:
    """A table of cleaned text; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, object]]) -> RenderableType:
    """Two columns: a word, and what it stands for. Pairs with None or an empty text are left out."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for word, value in pairs:
        if value is not None and value != "":
            made.add_row(Text(word), Text(clean(value)))
    return made


def usage_line(usage: Usage) -> str:
    """What a call cost, in one line."""
    parts = []
    if usage.fuel is not None:
        parts.append(f"fuel {usage.fuel:,} (guest {usage.guest_fuel or 0:,}, host {usage.host_fuel or 0:,})")
    parts.append(f"{usage.wall_ms:.1f} ms")
    if usage.peak_memory is not None:
        parts.append(f"memory {usage.peak_memory / (1 << 20):.1f} MiB")
    if usage.host_calls:
        parts.append(f"{usage.host_calls:,} host call{'s' if usage.host_calls != 1 else ''}")
    return ", ".join(parts)


def plain(value: object) -> Any:
    """`value` as JSON has it: dataclasses and mappings as objects, sets sorted, enums by value, paths as text."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(part) for name, part in zip(value._fields, value, strict=True)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return str(value)


def size(count_bytes: int) -> str:
    """Bytes for people: `18.4 MiB`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count_bytes >= factor:
            return f"{count_bytes / factor:.1f} {unit}"
    return f"{count_bytes} B"


def moment(seconds: float) -> str:
    """A time in seconds since 1970 as local time for people: `2026-11-22 06:10`."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _say_nothing(step: Step | str) -> None:
    """Progress for a standard error that is no terminal."""
