"""The pages are complete: every public name, every room, every hazard that is cited, every document that is named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import cloche
import cloche_guest
from cloche.confine import seccomp
from cloche.confine.seccomp import Group
from cloche.doctor import _CHECKS
from cloche.engine.wasi import Mount
from cloche.worker import child

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


PROMISE = re.compile(r"^\| (\d+) \| .* \| (.+) \|$", re.MULTILINE)
NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_promise_has_tests_that_exist() -> None:
    """A promise of the security model without a test that holds it is none."""
    rows = PROMISE.findall(read("docs/security-model.md"))
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    nodes = [NODE.findall(held_by) for _, held_by in rows]
    assert all(nodes)
    missing = [
        f"{path}::{name}"
        for path, name in (node for row in nodes for node in row)
        if not (ROOT / path).is_file() or not re.search(rf"^def {name}\(", read(path), re.MULTILINE)
    ]
    assert missing == []
    assert len(nodes) >= 19


def test_the_system_calls_on_the_page_are_those_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each column of the table is what a worker with such mounts asks the kernel for."""
    asked: list[set[str]] = []

    def restrict(groups: Iterable[Group], **_: object) -> bool:
        asked.append({group.value for group in groups})
        return True

    monkeypatch.setattr(seccomp, "restrict", restrict)
    for mounts in ((), (Mount("a", Path("/"), False),), (Mount("a", Path("/"), False), Mount("b", Path("/"), True))):
        child._close_the_rest(mounts)
    table = re.search(r"<!-- generated: calls -->\n(.*?)<!-- end -->", read("docs/security-model.md"), re.DOTALL)
    assert table is not None
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[1].splitlines()[2:]]
    shown = [{row[0] for row in rows if row[column] == "yes"} for column in (2, 3, 4)]
    assert shown == asked
    for group, _, *_, calls in rows:
        assert tuple(re.findall(r"`(\w+)`", calls)) == seccomp.GROUPS[Group(group)][1]


def test_the_page_on_security_is_where_people_look() -> None:
    """The model and the way to report a problem are linked from the first pages."""
    for page in ("README.md", "docs/README.md", "ARCHITECTURE.md"):
        assert "security-model.md" in read(page)
    assert "SECURITY.md" in read("README.md")
    assert "@" not in read("SECURITY.md"), "no address that nobody reads"


def test_the_host_asks_the_accelerators_for_devices_only() -> None:
    """They join like a third party's capabilities; which devices there are is all that the host itself asks."""
    used = {
        module
        for path in (ROOT / "host").rglob("*.py")
        for module in re.findall(r"^\s*(?:from|import) (cloche_accel[\w.]*)", path.read_text(encoding="utf-8"), re.M)
    }
    assert used == {"cloche_accel.devices"}
