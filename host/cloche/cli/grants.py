"""`cloche grants`: what a plugin asks for, what it gets, and why."""

from __future__ import annotations

import typer

from cloche.cli import options
from cloche.cli.render import Screen
from cloche.text import clean


def register(app: typer.Typer) -> None:
    """Add the group `grants`."""
    group = typer.Typer(help="What plugins may do, and why.", rich_markup_mode="rich")
    group.callback()(_group)
    group.command(
        epilog="Example:  cloche grants explain guests/hello\n\n"
        "Example:  cloche grants explain --allow cloche:host/data guests/hello"
    )(explain)
    app.add_typer(group, name="grants")


def _group() -> None:
    """What plugins may do, and why."""


def explain(
    plugin: options.Source,
    allow: options.Allow = None,
    policy: options.PolicyFile = None,
    as_json: options.Json = False,
) -> None:
    """Explain each request of a plugin: the answer, the reason, and the policy lines that would change it.

    Limits are listed with where each comes from. The tier is that of a load without --trust; where it keeps the plugin
    from being loaded, the rest is shown all the same. The plugin is built where it comes as sources, as `cloche
    inspect` says, and is not loaded.
    """
    from cloche.cli.session import Request, open_host
    from cloche.grants.explain import to_json, to_lines

    screen = Screen(as_json)
    request = Request(plugin, allow=tuple(allow or ()), policy=policy)
    with open_host(request) as host, screen.progress(f"explaining {plugin}") as step:
        found = host.inspect(plugin, progress=step)
    lines = to_lines(found.grants, found.tier)
    screen.answer(
        to_json(found.grants, found.tier), lambda console: console.print(clean("\n".join(lines)), soft_wrap=True)
    )
