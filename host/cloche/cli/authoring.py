"""`cloche new` and `cloche build`: from nothing to a plugin's sources, and from sources to a component."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cloche.cli import options
from cloche.cli.render import Screen, facts, size

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the verbs `new` and `build`."""
    app.command(epilog="Example:  cloche new acme/thumbnailer\n\nExample:  cloche new --language c shout")(new)
    app.command(epilog="Example:  cloche build guests/hello\n\nExample:  cloche build guests/hello --out hello.wasm")(
        build
    )


def new(
    name: Annotated[str, typer.Argument(metavar="[PUBLISHER/]NAME", help="The plugin's id, in lower-case kebab.")],
    language: Annotated[
        Literal["python", "javascript", "c"], typer.Option("--language", "-l", help="What the plugin is written in.")
    ] = "python",
    parent: Annotated[Path, typer.Option("--in", metavar="DIRECTORY", help="Where the new directory goes.")] = Path(),
    as_json: options.Json = False,
) -> None:
    """Write a new plugin project that works as it is: manifest, WIT, code, a test and a README."""
    from cloche.build.scaffold import create_project
    from cloche.build.settings import Language

    directory = create_project(name, Language(language), parent=parent)
    files = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())

    def show(console: Console) -> None:
        console.print(facts([("plugin", directory), *(("", file) for file in files)]))
        console.print(f"\nnext:  cloche run --trust {shlex.quote(str(directory))} Ada", soft_wrap=True)

    Screen(as_json).answer({"path": str(directory), "files": files}, show)


def build(
    directory: Annotated[
        str,
        typer.Argument(metavar="DIRECTORY", callback=options.not_empty, help="A plugin directory with sources."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write the component; default: `path` of the manifest, else NAME.wasm."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Build a plugin's sources (Python, JavaScript, C or WAT) to a component.

    Nothing is built again until something changes. The first Python plugin takes about half a minute.
    """
    from cloche.artifact import component_ref, read_manifest
    from cloche.build.builder import build_plugin
    from cloche.build.settings import build_settings
    from cloche.caches import Caches
    from cloche.config import Settings, ensure_private_directory
    from cloche.errors import ContractError

    screen, root = Screen(as_json), Path(directory)
    manifest = read_manifest(root)
    component = component_ref(manifest)
    settings = build_settings(root, manifest.id, component)
    target = out or root / (component.path or f"{root.resolve().name}.wasm")
    if out is None and not target.parent.resolve().is_relative_to(root.resolve()):
        message = f"component.path {component.path} leads out of the plugin's directory; name the file with --out"
        raise ContractError(message, code="component.build", plugin=manifest.id)
    environment = Settings.from_environment()
    ensure_private_directory(environment.home)
    with screen.progress(f"building {manifest.id}") as step:
        made = build_plugin(root, settings, out=target, cache=environment.build_cache, progress=step)
        if not made.cached:
            Caches(environment).gc()
    document = {
        "plugin": manifest.id,
        "path": str(made.path),
        "digest": made.digest,
        "bytes": made.size,
        "language": made.language.value,
        "cached": made.cached,
        "wall_ms": made.wall_ms,
        "notes": list(made.notes),
    }
    origin = "from the cache" if made.cached else f"in {made.wall_ms / 1000:.1f} s"
    pairs = [
        ("component", made.path),
        ("size", size(made.size)),
        ("sha256", made.digest),
        ("built", f"{origin}, {made.language.value}"),
        *(("note", note) for note in made.notes),
    ]
    screen.answer(document, lambda console: console.print(facts(pairs)))
