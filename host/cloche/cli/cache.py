"""`cloche cache`: everything that can be made again, listed, shrunk and emptied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloche.cli import options
from cloche.cli.render import Screen, moment, plain, size, table
from cloche.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the group `cache`."""
    group = typer.Typer(
        help="List, shrink or empty the caches: native code, what building made and fetched, types.",
        rich_markup_mode="rich",
    )
    group.command("list", epilog="Example:  cloche cache list")(show_entries)
    group.command(epilog="Example:  cloche cache gc --max 1GiB")(gc)
    group.command(epilog="Example:  cloche cache clear")(clear)
    app.add_typer(group, name="cache")


def show_entries(as_json: options.Json = False) -> None:
    """List what is cached: digest, kind, size and last use."""
    from cloche.caches import Caches
    from cloche.config import Settings

    entries = Caches(Settings.from_environment()).entries()
    total = sum(entry.size_bytes for entry in entries)

    def show(console: Console) -> None:
        rows = [
            (entry.digest[:16], entry.kind, entry.name, size(entry.size_bytes), moment(entry.last_used))
            for entry in entries
        ]
        console.print(table(("sha256", "kind", "plugin", "size", "last used"), rows, right=("size",)))
        console.print(f"{len(entries)} entries, {size(total)}")

    Screen(as_json).answer({"entries": plain(entries), "bytes": total}, show)


def gc(
    most: Annotated[
        str | None, typer.Option("--max", metavar="SIZE", help="Keep at most this much; default: CLOCHE_CACHE_SIZE.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Remove what was used longest ago until the rest fits into the cap, and what killed builds left."""
    from cloche.caches import Caches
    from cloche.config import Settings
    from cloche.quantities import QuantityError, parse_size

    try:
        max_bytes = None if most is None else parse_size(most)
    except QuantityError as error:
        raise UsageError(f"--max: {error}") from error
    freed = Caches(Settings.from_environment()).gc(max_bytes)
    Screen(as_json).answer({"freed_bytes": freed}, lambda console: console.print(f"freed {size(freed)}"))


def clear(as_json: options.Json = False) -> None:
    """Remove everything. Plugins are built and compiled again when they are next loaded.

    What a running build uses stays. The next JavaScript build fetches its tools anew, over the network.
    """
    from cloche.caches import Caches
    from cloche.config import Settings

    freed = Caches(Settings.from_environment()).clear()
    Screen(as_json).answer({"freed_bytes": freed}, lambda console: console.print(f"freed {size(freed)}"))
