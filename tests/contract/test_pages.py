"""The pages are complete: every public name, every room, every hazard that is cited, every document that is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cloche
import cloche_guest
from cloche.doctor import _CHECKS

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("host", "native-accel", "guests", "wit", "examples", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".wit", ".toml", ".c", ".h", ".js", ".tmpl"} and "node_modules" not in path.parts
]
HAZARD = re.compile(r"\bH(\d{1,2})\b")


def read(name: str) -> str:
    """A page."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(cloche.__all__))
def test_every_public_name_is_on_the_reference_page(name: str) -> None:
    """Whoever meets a name finds there what it is."""
    assert f"| `{name}` |" in read("docs/api.md"), "run ./dev docs"


@pytest.mark.parametrize("name", sorted(cloche_guest.__all__))
def test_every_name_of_the_sdk_is_on_the_authors_page(name: str) -> None:
    """An author finds there what `import cloche_guest` offers."""
    assert re.search(rf"\b{name}\b", read("docs/authoring.md"))


def test_every_room_is_in_the_architecture() -> None:
    """A module or package of the host that the table of rooms does not have is lost to whoever looks for it."""
    rooms = read("ARCHITECTURE.md")
    found = {
        f"{path.name}/" if path.is_dir() else path.stem
        for path in (ROOT / "host" / "cloche").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    } - {"__init__"}
    assert sorted(name for name in found if f"`{name}`" not in rooms) == []


def test_every_hazard_that_is_cited_is_listed() -> None:
    """A number in a comment stands for a row of docs/hazards.md; `H37–H39` is three of them."""
    listed: set[int] = set()
    for first, last in re.findall(r"^\| H(\d+)(?:–H(\d+))? \|", read("docs/hazards.md"), re.MULTILINE):
        listed |= set(range(int(first), int(last or first) + 1))
    cited = {
        (path.relative_to(ROOT).as_posix(), int(number))
        for path in SOURCES
        for number in HAZARD.findall(path.read_text(encoding="utf-8"))
    }
    assert sorted((path, number) for path, number in cited if number not in listed) == []


def test_every_document_that_is_named_exists() -> None:
    """A comment that leads to a page leads to one that a stranger can open."""
    missing = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in SOURCES
        if path.parts[len(ROOT.parts)] != "tests"
        for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert missing == []


def test_every_check_of_doctor_is_on_its_pages() -> None:
    """What `cloche doctor` prints is shown as it is, and both pages name each check."""
    names = [name for name, _ in _CHECKS]
    shown = re.search(r"\$ cloche doctor\n(.*?)```", read("docs/cli.md"), re.DOTALL)
    assert shown is not None
    assert re.findall(r"^\w+ +(\w+(?: \w+)?)  ", shown[1], re.MULTILINE) == names


def test_the_host_asks_the_accelerators_for_devices_only() -> None:
    """They join like a third party's capabilities; which devices there are is all that the host itself asks."""
    used = {
        module
        for path in (ROOT / "host").rglob("*.py")
        for module in re.findall(r"^\s*(?:from|import) (cloche_accel[\w.]*)", path.read_text(encoding="utf-8"), re.M)
    }
    assert used == {"cloche_accel.devices"}
