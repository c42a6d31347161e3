"""`cloche inspect` and `cloche check`: what a plugin is, and whether it fits this host, without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from cloche.cli import options
from cloche.cli.render import Screen, facts, plain, size, table
from cloche.text import clean

if TYPE_CHECKING:
    from rich.console import Console

    from cloche.contract.report import Finding
    from cloche.loading import Candidate

MISFIT = 3


def register(app: typer.Typer) -> None:
    """Add the verbs `check` and `inspect`."""
    app.command(epilog="Example:  cloche check guests/hello")(check)
    app.command(epilog="Example:  cloche inspect guests/hello\n\nExample:  cloche inspect stranger.wasm")(inspect)


def check(
    plugin: options.Source,
    allow: options.Allow = None,
    policy: options.PolicyFile = None,
    as_json: options.Json = False,
) -> None:
    """Check a plugin's imports, exports, grants and requirements against this host and the policy; list every misfit.

    Also says which imports would be closed and what the manifest asks for in vain without requiring it; that is no
    error.

    The plugin is built where it comes as sources, as `inspect` says, and is not loaded.

    The exit status is 0 when the plugin could be loaded and 3 when an error was found.
    """
    from cloche.cli.session import Request, open_host
    from cloche.contract.report import Disposition

    screen = Screen(as_json)
    with (
        open_host(Request(plugin, allow=tuple(allow or ()), policy=policy)) as host,
        screen.progress(f"checking {plugin}") as step,
    ):
        found = host.inspect(plugin, progress=step)
    report = found.report
    closed = {item.id: item.reason for item in report.imports if item.disposition is Disposition.CLOSED}
    refused = [item for item in found.grants.decisions if item.asked and not item.granted]

    def show(console: Console) -> None:
        _show_findings(console, report.findings)
        if not report.errors:
            imports = _counted(len(report.imports), "import")
            exports = _counted(len(report.exports), "exported interface")
            console.print(f"{plugin} fits: {imports}, {exports}")
        # No misfits, yet most often a word misspelt or forgotten in the manifest.
        for name, reason in closed.items():
            console.print(f"closed: {clean(name)}: {clean(reason)}", soft_wrap=True)
        for item in refused:
            if not item.required:  # else it is a misfit, which was shown
                console.print(f"not granted: {clean(item.capability)}: {clean(item.reason)}", soft_wrap=True)

    not_granted = {item.capability: item.reason for item in refused}
    screen.answer({"ok": not report.errors, **report.to_json(), "not_granted": not_granted}, show)
    if report.errors:
        raise typer.Exit(MISFIT)


def inspect(
    plugin: options.Source,
    allow: options.Allow = None,
    policy: options.PolicyFile = None,
    as_json: options.Json = False,
) -> None:
    """Show what a plugin is: its manifest, component, imports and exports, grants, and what does not fit.

    Works on any component, also a stranger's. What does not fit is shown and is no error here; `check` makes it one.

    A plugin that comes as sources is built first, unless that was done before. Building Python or JavaScript runs the
    plugin's module level, in a sandbox that holds nothing but its own files, and may take up to five minutes.
    """
    from cloche.cli.session import Request, open_host

    screen = Screen(as_json)
    with (
        open_host(Request(plugin, allow=tuple(allow or ()), policy=policy)) as host,
        screen.progress(f"inspecting {plugin}") as step,
    ):
        found = host.inspect(plugin, progress=step)
    screen.answer(_document(found), lambda console: _show(console, found))


def _document(found: Candidate) -> dict[str, Any]:
    from cloche.grants.explain import to_json

    return {
        "manifest": found.artifact.manifest.to_json(),
        "digest": found.artifact.digest,
        "bytes": len(found.artifact.component),
        "component": plain(found.survey),
        "grants": to_json(found.grants, found.tier),
        "contract": found.report.to_json(),
    }


def _show(console: Console, found: Candidate) -> None:
    from cloche.cli.jsonvalues import signature
    from cloche.contract.report import Disposition
    from cloche.grants.explain import told

    manifest, report = found.artifact.manifest, found.report
    pairs = [
        ("plugin", f"{manifest.id} {manifest.version}"),
        ("name", manifest.name),
        ("about", manifest.description),
        ("license", manifest.license),
        ("component", f"{size(len(found.artifact.component))}, sha256 {found.artifact.digest}"),
        ("tier", f"{found.tier.tier}: {told(found.tier)}"),
        ("instances", found.grants.instances.value),
    ]
    console.print(facts(pairs))
    exports = [(item.id, function) for item in report.exports for function in item.interface.functions]
    rows = [*exports, *(("", function) for function in report.export_functions)]
    _show_section(
        console, "exports", ("interface", "function"), [(name, signature(function)) for name, function in rows]
    )
    imports = [(item.id, item.disposition, item.reason) for item in report.imports]
    imports += [(item.name, Disposition.REFUSED, "nothing provides it") for item in report.import_functions]
    _show_section(console, "imports", ("interface", "is", "because"), imports)
    grants = [
        (item.capability, "granted" if item.granted else "not granted", item.reason) for item in found.grants.decisions
    ]
    _show_section(console, "grants", ("capability", "is", "because"), grants)
    if report.findings:
        console.print("\nfindings")
        _show_findings(console, report.findings)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _show_section(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    console.print(f"\n{title}{'' if rows else ': none'}")
    if rows:
        console.print(table(headings, rows))


def _show_findings(console: Console, findings: tuple[Finding, ...]) -> None:
    if findings:
        rows = [(item.severity, item.code, item.subject, item.message, item.remedy) for item in findings]
        console.print(table(("", "code", "what", "found", "what to do"), rows))
