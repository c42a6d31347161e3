"""Writes the generated parts of the pages anew; `--check` only says whether they are up to date.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else on a page is written by
hand and left alone.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cloche
from cloche.confine import seccomp
from cloche.errors import CODES
from cloche.remedies import REMEDIES
from cloche.worker import child, selftest

DOCS = Path(__file__).resolve().parent
PART = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def error_table() -> str:
    """One row for each error code."""
    rows = ["| code | to mend by | exit | what it means | what to do |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| `{code}` | {info.blame.value} | {info.exit_status} | {info.summary} | {REMEDIES[code]} |"
        for code, info in CODES.items()
    ]
    return "\n".join(rows) + "\n"


def api_table() -> str:
    """One row for each public name: what it is, by the first paragraph of its docstring, and where it stands."""
    rows = ["| name | what it is | defined in |", "| --- | --- | --- |"]
    for name in cloche.__all__:
        found = getattr(cloche, name)
        if isinstance(found, str):
            rows.append(f"| `{name}` | The version of Cloche, a text. | `cloche.version` |")
            continue
        first = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split()).removesuffix(" Added in 0.1.")
        assert first, f"{name} has no docstring"
        rows.append(f"| `{name}` | {first} | `{found.__module__}` |")
    return "\n".join(rows) + "\n"


def call_table() -> str:
    """One row for each group of system calls that some worker may make, and who may."""
    rows = ["| group | what for | every worker | with mounts | with writable mounts | calls |"]
    rows += ["| --- | --- | --- | --- | --- | --- |"]
    writing = (seccomp.Group.WRITE_FILES, seccomp.Group.MOVE_FILES)
    for group in (*child.GROUPS, seccomp.Group.OPEN_FILES, *writing):
        purpose, calls = seccomp.GROUPS[group]
        who = (group in child.GROUPS, group not in writing, True)
        words = " | ".join("yes" if may else "no" for may in who)
        rows.append(f"| {group.value} | {purpose} | {words} | {', '.join(f'`{call}`' for call in calls)} |")
    return "\n".join(rows) + "\n"


def denied_table() -> str:
    """One row for each kind of call that no group has."""
    rows = ["| calls | what they would open |", "| --- | --- |"]
    rows += [f"| {', '.join(f'`{call}`' for call in calls)} | {opens} |" for calls, opens in seccomp.DENIED]
    return "\n".join(rows) + "\n"


def selftest_list() -> str:
    """What each worker tries before it serves."""
    tried = [what for what, _ in selftest._attempts(has_files=False)]
    return "\n".join(f"- {what}" for what in tried) + "\n"


def command_help(words: str) -> str:
    """What `cloche WORDS --help` prints, at a fixed width and without colours."""
    environment = {**os.environ, "COLUMNS": "110", "TERMINAL_WIDTH": "110", "NO_COLOR": "1", "TERM": "dumb"}
    command = [
        sys.executable,
        "-c",
        "import sys; from cloche.cli.main import run; sys.exit(run())",
        *words.split(),
        "--help",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    lines = (line.rstrip() for line in done.stdout.strip().splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def generated(name: str) -> str:
    """The text of the generated part `name`: `errors`, `api`, `help WORDS`, or a part of the lockdown."""
    kind, _, words = name.partition(" ")
    makers: dict[str, Callable[[], str]] = {
        "errors": error_table,
        "api": api_table,
        "calls": call_table,
        "denied-calls": denied_table,
        "selftest": selftest_list,
        "help": lambda: command_help(words),
    }
    return makers[kind]()


def main() -> int:
    """Write or check every page; exit status 1 when one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    only_check = parser.parse_args().check
    stale = []
    for page in sorted(DOCS.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = PART.sub(lambda part: part[1] + generated(part["name"]) + part[3], before)
        if before != after:
            stale.append(page.name)
            if not only_check:
                page.write_text(after, encoding="utf-8")
    if stale:
        sys.stdout.write(f"{'out of date' if only_check else 'written'}: {', '.join(stale)}\n")
    if stale and only_check:
        sys.stdout.write("run `./dev docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
