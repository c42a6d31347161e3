"""The documentation says what happens: its commands and programs are run, and what it quotes from files is there.

In README.md and docs/ a fence's first word is its language; a second word makes it a test:

    ```python run                a whole program, run from the project's root; it must end well
    ```text output               what the program before it prints
    ```wit file=examples/a.wit   the file's exact content
    ```console                   `$ cloche …` or `$ python …` with what it prints; one directory for the block
    ```console shown             not run

In expected output `…` stands for any text; numbers with a fraction, digests, dates and space are not compared.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloche.grants.policy_file import parse_policy
from cloche.manifest.parse import parse_manifest
from support.guests import GUESTS, ROOT, built, guest_home

PAGES = (
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
FENCE = re.compile(r"^```(?P<language>\w+)[ ]?(?P<mark>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<command>.+)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
SLOW = re.compile(r"cloche new|guests/(?:markdown|noop|hello-js|hello)\b(?!-c)")
VOLATILE = re.compile(r"\d+(?:\.\d+)+|\b[0-9a-f]{12,64}\b|\d{4}-\d\d-\d\d \d\d:\d\d|─+")


@dataclass(frozen=True)
class Block:
    """One fence of a page."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def label(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    """Every fence of every page, in order."""
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(content):
            line = content.count("\n", 0, match.start()) + 1
            yield Block(page, line, match["language"], match["mark"].strip(), match["text"])


BLOCKS = tuple(blocks())


def programs() -> Iterator[tuple[Block, str | None]]:
    """Each program with the output that the page shows for it, if it shows one."""
    for block, following in zip(BLOCKS, (*BLOCKS[1:], None), strict=True):
        if (block.language, block.mark) == ("python", "run"):
            shown = following is not None and following.mark == "output" and following.page == block.page
            yield block, following.text if shown and following is not None else None


def consoles() -> list[Block]:
    """Each block of commands that is run."""
    return [block for block in BLOCKS if block.language == "console" and block.mark != "shown"]


# Those with a plugin; others name files of the reader's, or empty the cache that the tests share.
EXAMPLES = sorted(
    {line for item in BLOCKS for line in re.findall(r"^ Example:  (cloche .*guests/.*)$", item.text, re.MULTILINE)}
)


def case(block: Block, *values: object) -> object:
    """A test case, slow when it needs a guest that takes long to build."""
    marks = [pytest.mark.slow] if SLOW.search(block.text) else []
    return pytest.param(*values, id=block.label, marks=marks)


def environment(home: Path) -> dict[str, str]:
    """The variables of a run: the home of the tests, a fixed width, no colours."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CLOCHE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "CLOCHE_HOME": str(home), "COLUMNS": "110", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


def plain(text: str) -> str:
    """Text without what differs from run to run."""
    return " ".join(VOLATILE.sub("#", text).split())


def ensure_printed(expected: str, printed: str) -> None:
    """Fail when `printed` is not what the page shows."""
    parts = [re.escape(plain(part)) for part in expected.split("…")]
    pattern = r".*?".join(parts)
    assert re.fullmatch(pattern, plain(printed), re.DOTALL), f"the page shows:\n{expected}\nbut this came:\n{printed}"


def prepare_guests(text: str) -> None:
    """Build what the text needs once for all tests, so that nothing about building is printed."""
    for name in GUESTS:
        if re.search(rf"guests/{name}\b(?!-)", text):
            built(name)


@pytest.mark.parametrize(("block", "expected"), [case(block, block, output) for block, output in programs()])
def test_programs_run(block: Block, expected: str | None) -> None:
    """A program on a page runs and prints what the page shows."""
    prepare_guests(block.text)
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=ROOT,
        env=environment(guest_home()),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if expected is not None:
        ensure_printed(expected, done.stdout)


@pytest.mark.parametrize("block", [case(block, block) for block in consoles()])
def test_commands_print_what_is_shown(block: Block, tmp_path: Path) -> None:
    """Each command of a page prints what the page shows below it."""
    prepare_guests(block.text)
    for name in ("guests", "examples", "README.md", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = list(COMMAND.finditer(block.text))
    assert commands, "a console block needs a line that begins with `$ `; write `console shown` for one that is not run"
    for match in commands:
        words = shlex.split(match["command"], comments=True)
        assert words[0] in {"cloche", "python"}, words
        program = shutil.which(words[0], path=environment(guest_home())["PATH"])
        assert program is not None
        done = subprocess.run(
            [program, *words[1:]],
            cwd=tmp_path,
            env=environment(guest_home()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        ensure_printed(match["output"], done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_in_help_end_well(command: str, tmp_path: Path) -> None:
    """What `--help` gives as an example works as it stands."""
    prepare_guests(command)
    (tmp_path / "guests").symlink_to(ROOT / "guests")
    program = Path(sys.executable).parent / "cloche"
    done = subprocess.run(
        [program, *shlex.split(command)[1:]],
        cwd=tmp_path,
        env=environment(guest_home()),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "block", [pytest.param(item, id=item.label) for item in BLOCKS if item.mark.startswith("file=")]
)
def test_quoted_files_are_as_they_stand(block: Block) -> None:
    """What a page quotes from a file is the file."""
    assert block.text == (ROOT / block.mark.removeprefix("file=")).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(item, id=item.label)
        for item in BLOCKS
        if item.language == "toml" and not item.mark and "format-version" in item.text
    ],
)
def test_manifests_and_policies_are_valid(block: Block) -> None:
    """A whole manifest or policy on a page is one that the host takes."""
    data = block.text.encode()
    parse_manifest(data) if "[component]" in block.text else parse_policy(data, "policy.toml")


@pytest.mark.slow
def test_the_demo_does_what_the_readme_shows() -> None:
    """Each line of the README's table has the attempt and the code that the demo has now, and so have the last ones."""
    for name in GUESTS:
        built(name)
    done = subprocess.run(
        [Path(sys.executable).parent / "cloche", "demo", "--json"],
        env=environment(guest_home()),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    shown = next(item.text for item in BLOCKS if item.text.startswith("it tried")).splitlines()[2:]
    *lines, _, served, left = shown
    document = json.loads(done.stdout)
    assert document["refused"] is None
    attempts = document["attempts"]
    assert len(attempts) == len(lines)
    for attempt, line in zip(attempts, lines, strict=True):
        assert line.startswith(attempt["tried"][:21])
        assert f" {attempt['code']}: " in line
        assert attempt["tier"] == "untrusted"
        assert attempt["usage"]["wall_ms"] > 0
    remains = document["remains"]
    assert repr(remains["answer"]) in served
    assert left == f"Left of it all: {remains['processes']} processes, {remains['descriptors']} descriptors."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the project names one that exists."""
    targets = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_fence_is_understood() -> None:
    """A mark that is misspelt would silently leave a block out."""
    known = {"", "run", "output", "shown"}
    strange = [f"{item.label}: {item.mark}" for item in BLOCKS if item.mark not in known and "file=" not in item.mark]
    assert not strange
