"""The cache of component types: what it believes, what it ignores and writes again, and what it costs when it fails."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.errors import ContractError
from cloche.model import Digest
from cloche.wit import store as store_module
from cloche.wit.store import MAX_ENTRY_BYTES, TypeStore
from cloche.wit.types import World

COMPONENT = b"\0asm\x0d\0\x01\0"
DIGEST = Digest(hashlib.sha256(COMPONENT).hexdigest())
WORLD = World("root")
DOCUMENT = json.dumps(
    {
        "worlds": [{"name": "root", "imports": {}, "exports": {}, "package": 0}],
        "interfaces": [],
        "types": [],
        "packages": [{"name": "root:component", "interfaces": {}, "worlds": {"root": 0}}],
    },
    indent=2,
).encode()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every component that the tool was asked about; it answers with DOCUMENT."""
    calls: list[bytes] = []

    def describe(component: bytes) -> bytes:
        calls.append(component)
        return DOCUMENT

    monkeypatch.setattr(store_module, "describe_component", describe)
    monkeypatch.setattr(store_module, "wasm_tools_version", lambda: "1.2.3")
    return calls


def entry(home: Path) -> Path:
    """Where the component's types lie."""
    return home / "cache" / "types" / f"{DIGEST}.json"


def test_a_component_is_read_once(tmp_path: Path, asked: list[bytes]) -> None:
    """The second time the answer comes from disk, also for another store over the same home."""
    assert TypeStore(tmp_path).component_world(COMPONENT, DIGEST) == WORLD
    assert TypeStore(tmp_path).component_world(COMPONENT, DIGEST) == WORLD
    assert asked == [COMPONENT]


def test_the_cache_is_private_and_whole(tmp_path: Path, asked: list[bytes]) -> None:
    """Nobody else may enter the directory, and nothing half-written is left in it."""
    TypeStore(tmp_path).component_world(COMPONENT, DIGEST)
    assert stat.S_IMODE(entry(tmp_path).parent.stat().st_mode) == 0o700
    assert [path.name for path in entry(tmp_path).parent.iterdir()] == [entry(tmp_path).name]


def test_an_open_directory_is_closed(tmp_path: Path, asked: list[bytes]) -> None:
    """A cache directory that others may read is made private before anything is written."""
    entry(tmp_path).parent.mkdir(parents=True)
    entry(tmp_path).parent.chmod(0o777)
    TypeStore(tmp_path).component_world(COMPONENT, DIGEST)
    assert stat.S_IMODE(entry(tmp_path).parent.stat().st_mode) == 0o700


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """A way to damage an entry: load it, change it, write it back."""

    def damage(path: Path) -> None:
        value = json.loads(path.read_bytes())
        change(value)
        path.write_text(json.dumps(value))

    return damage


def with_other_world(value: dict[str, object]) -> None:
    """Add an export without touching the checksum."""
    value["document"] = str(value["document"]).replace('"root:component"', '"root:component","x":1')


def with_wrong_imports(value: dict[str, object]) -> None:
    """Add an import that the component does not have, with the right checksum."""
    item = '{"f":{"function":{"name":"f","kind":"freestanding","params":[]}}}'
    changed = str(value["document"]).replace('"imports":{}', f'"imports":{item}')
    value["document"], value["sha256"] = changed, hashlib.sha256(changed.encode()).hexdigest()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "not JSON": lambda path: path.write_bytes(b"\0" * 100),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "a list": lambda path: path.write_bytes(b"[]"),
    "too large": lambda path: path.write_bytes(path.read_bytes() + b" " * MAX_ENTRY_BYTES),
    "another component's": edited(lambda value: value.update(component="0" * 64)),
    "another tool's": edited(lambda value: value.update(tool="9.9.9")),
    "another format": edited(lambda value: value.update(format=2)),
    "one key less": edited(lambda value: value.pop("sha256")),
    "edited": edited(with_other_world),
    "edited with a checksum": edited(with_wrong_imports),
    "writable by others": lambda path: path.chmod(0o666),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_bad_entry_is_ignored_and_written_again(
    tmp_path: Path, asked: list[bytes], damage: Callable[[Path], object]
) -> None:
    """Whatever is wrong with an entry, the component is read again, and the third time comes from disk."""
    store = TypeStore(tmp_path)
    store.component_world(COMPONENT, DIGEST)
    damage(entry(tmp_path))
    assert store.component_world(COMPONENT, DIGEST) == WORLD
    assert len(asked) == 2
    assert store.component_world(COMPONENT, DIGEST) == WORLD
    assert len(asked) == 2


def test_links_and_pipes_are_not_followed(tmp_path: Path, asked: list[bytes]) -> None:
    """An entry that is a link to a good one counts as absent, and so does a pipe, which would block."""
    store = TypeStore(tmp_path)
    store.component_world(COMPONENT, DIGEST)
    elsewhere = entry(tmp_path).rename(tmp_path / "elsewhere.json")
    entry(tmp_path).symlink_to(elsewhere)
    store.component_world(COMPONENT, DIGEST)
    assert len(asked) == 2
    entry(tmp_path).unlink()
    os.mkfifo(entry(tmp_path))
    store.component_world(COMPONENT, DIGEST)
    assert len(asked) == 3


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, asked: list[bytes]) -> None:
    """Where a file stands in the way of the directory, every call reads the component and none fails."""
    (tmp_path / "cache").write_bytes(b"")
    assert TypeStore(tmp_path).component_world(COMPONENT, DIGEST) == WORLD
    assert TypeStore(tmp_path).component_world(COMPONENT, DIGEST) == WORLD
    assert len(asked) == 2


def test_the_oldest_entries_make_room(tmp_path: Path, asked: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the cap the oldest entries go first, half-written ones included."""
    monkeypatch.setattr(store_module, "MAX_STORE_BYTES", 3000)
    directory = entry(tmp_path).parent
    directory.mkdir(parents=True)
    for age, name in ((300, ".new-lost"), (200, "old.json"), (100, "young.json")):
        (directory / name).write_bytes(b"x" * 1000)
        os.utime(directory / name, (1_000_000 - age, 1_000_000 - age))
    TypeStore(tmp_path).component_world(COMPONENT, DIGEST)
    left = {path.name for path in directory.iterdir()}
    assert {entry(tmp_path).name, "young.json"} <= left
    assert ".new-lost" not in left


def test_a_refused_component_is_not_kept(tmp_path: Path, asked: list[bytes]) -> None:
    """A component whose types are refused leaves no entry, and is refused again."""
    hidden = COMPONENT + bytes.fromhex("0a 08 01 00 02 66 6f 00 11 00")  # one import: `fo`, a core module
    store = TypeStore(tmp_path)
    for _ in range(2):
        with pytest.raises(ContractError, match="core module `fo`"):
            store.component_world(hidden, DIGEST)
    assert not entry(tmp_path).exists()


def test_a_package_with_links_in_circles_is_refused(tmp_path: Path, asked: list[bytes]) -> None:
    """Two links to their own parent unfold to 2^40 directories; the walk ends at its bound."""
    (tmp_path / "wit" / "deps").mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / "wit" / "deps" / name).symlink_to(tmp_path / "wit")
    with pytest.raises(ContractError, match="links in circles") as caught:
        TypeStore(tmp_path / "home").package(tmp_path / "wit")
    assert caught.value.code == "contract.wit"


def test_a_package_beyond_its_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with too much text is refused before the tool sees it."""
    monkeypatch.setattr(store_module, "MAX_PACKAGE_BYTES", 10)
    (tmp_path / "a.wit").write_text("package a:b;")
    with pytest.raises(ContractError, match="MiB of WIT"):
        TypeStore(tmp_path / "home").package(tmp_path)
