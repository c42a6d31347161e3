"""All caches seen as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche.caches import Caches
from cloche.config import Settings
from cloche.errors import RegistryError

Item = tuple[str, int, float]


@dataclass
class Fake:
    """A cache of entries as (kind, bytes, last use); the kind is also the digest."""

    items: list[Item]
    kept: list[int] = field(default_factory=list)

    def entries(self) -> list[Any]:
        return [
            SimpleNamespace(
                kind=kind, digest=kind, size_bytes=size, size=size, last_used=used, used=used, name="a/b", path=Path()
            )
            for kind, size, used in self.items
        ]

    def gc(self, max_bytes: int) -> int:
        self.kept.append(max_bytes)
        return sum(size for _, size, _ in self.items) - max_bytes

    def clear(self) -> int:
        return self.gc(0)


class FakeTypes:
    """The types of all components: so many bytes, written at that time."""

    def __init__(self, size: int, used: float) -> None:
        self.size, self.used = size, used

    def held(self) -> tuple[int, float]:
        return self.size, self.used

    def clear(self) -> int:
        freed, self.size = self.size, 0
        return freed


NATIVE = [("component", 10, 9.0), ("module", 20, 3.0)]
BUILT = [("built", 30, 8.0), ("npm", 40, 2.0), ("work", 1000, 10.0)]
TYPES = (5, 4.0)


def caches(tmp_path: Path, cap: int = 100 << 20) -> tuple[Caches, Fake, Fake, FakeTypes]:
    made = Caches(Settings(tmp_path, cache_bytes=cap))
    native, built, types = Fake(NATIVE), Fake(BUILT), FakeTypes(*TYPES)
    made.__dict__.update(_native=native, _built=built, _types=types)
    return made, native, built, types


def test_entries_of_all_are_listed_by_last_use(tmp_path: Path) -> None:
    """One list, most recently used first."""
    found = caches(tmp_path)[0].entries()
    assert [item.kind for item in found] == ["work", "component", "built", "types", "module", "npm"]


@pytest.mark.parametrize(
    ("most", "native", "built", "types"),
    [
        (105, 30, 70, 5),
        (104, 30, 30, 5),
        (65, 30, 30, 5),
        (64, 10, 30, 5),
        (44, 10, 30, 0),
        (39, 10, 0, 0),
        (9, 0, 0, 0),
        (0, 0, 0, 0),
    ],
)
def test_what_was_used_longest_ago_goes_first(tmp_path: Path, most: int, native: int, built: int, types: int) -> None:
    """The cap is on all together, whatever kind an entry is; work in progress is no entry that could stay."""
    made, first, second, third = caches(tmp_path)
    made.gc(most)
    assert (first.kept, second.kept, third.size) == ([native], [built], types)


def test_the_cap_of_the_settings_is_the_default(tmp_path: Path) -> None:
    """Without a size the operator's own cap holds."""
    made, first, second, _ = caches(tmp_path, cap=64)
    made.gc()
    assert (first.kept, second.kept) == ([10], [30])


def test_clearing_leaves_nothing(tmp_path: Path) -> None:
    """All are emptied, and the bytes of all are counted."""
    made, first, second, third = caches(tmp_path)
    assert made.clear() == 30 + 1070 + 5
    assert (first.kept, second.kept, third.size) == ([0], [0], 0)


def test_everything_on_the_disk_goes(tmp_path: Path) -> None:
    """Whatever building and reading types left below the home: components, tools, packages, dead work, half files."""
    key = "a" * 64
    kinds = {
        f"build/npm/{key}/node_modules/x.js": "npm",
        f"build/vendor/{key}/thing/a.py": "vendor",
        "build/work-0123456789abcdef/app/app.py": "work",
        f"build/components/{key}.wasm": "work",
        f"build/components/.{key}.json.tmp": "work",
        f"types/{key}.json": "types",
    }
    for name in kinds:
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0123456789")
    made = Caches(Settings(tmp_path))
    assert sorted(item.kind for item in made.entries()) == sorted(kinds.values())
    assert sum(item.size_bytes for item in made.entries()) == 10 * len(kinds)
    assert made.clear() == 10 * len(kinds)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert made.entries() == ()


def test_a_disk_that_refuses_is_reported(tmp_path: Path) -> None:
    """Where a directory stands in the place of a file, the error has its code and remedy."""
    (tmp_path / "cache/types/x.json/inner").mkdir(parents=True)
    with pytest.raises(RegistryError) as caught:
        Caches(Settings(tmp_path)).clear()
    assert caught.value.code == "registry.io"


def test_an_empty_home_has_empty_caches(tmp_path: Path) -> None:
    """Listing and emptying what does not exist is no error and makes no directory."""
    empty = Caches(Settings(tmp_path / "home"))
    assert (empty.entries(), empty.gc(), empty.clear()) == ((), 0, 0)
    assert not (tmp_path / "home").exists()
