"""The two caches seen as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche.caches import Caches
from cloche.config import Settings
from cloche.errors import RegistryError


@dataclass
class FakeNative:
    """Entries of native code as (digest, bytes, last use)."""

    items: list[tuple[str, int, float]]
    kept: list[int] = field(default_factory=list)

    def entries(self) -> list[Any]:
        return [SimpleNamespace(kind="component", digest=d, size_bytes=b, last_used=t) for d, b, t in self.items]

    def gc(self, max_bytes: int) -> int:
        self.kept.append(max_bytes)
        return sum(size for _, size, _ in self.items) - max_bytes

    def clear(self) -> int:
        return self.gc(0)


@dataclass
class FakeBuilt:
    """The same of built components."""

    items: list[tuple[str, int, float]]
    kept: list[int] = field(default_factory=list)
    failure: OSError | None = None

    def entries(self) -> list[Any]:
        return [SimpleNamespace(digest=d, size=b, used=t, name="a/b") for d, b, t in self.items]

    def prune(self, keep_bytes: int) -> list[Any]:
        if self.failure is not None:
            raise self.failure
        self.kept.append(keep_bytes)
        return [SimpleNamespace(size=sum(size for _, size, _ in self.items) - keep_bytes)]


def caches(tmp_path: Path, native: FakeNative, built: FakeBuilt, cap: int = 100 << 20) -> Caches:
    made = Caches(Settings(tmp_path, cache_bytes=cap))
    made.__dict__.update(_native=native, _built=built)
    return made


NATIVE = [("n1", 10, 9.0), ("n2", 20, 3.0)]
BUILT = [("b1", 30, 8.0), ("b2", 40, 2.0)]


def test_entries_of_both_are_listed_by_last_use(tmp_path: Path) -> None:
    """One list, most recently used first."""
    found = caches(tmp_path, FakeNative(NATIVE), FakeBuilt(BUILT)).entries()
    assert [item.digest for item in found] == ["n1", "b1", "n2", "b2"]
    assert [item.name for item in found] == ["", "a/b", "", "a/b"]


@pytest.mark.parametrize(
    ("most", "native", "built", "freed"),
    [
        (100, 30, 70, 0),
        (99, 30, 30, 40),
        (60, 30, 30, 40),
        (59, 10, 30, 60),
        (39, 10, 0, 90),
        (9, 0, 0, 100),
        (0, 0, 0, 100),
    ],
)
def test_what_was_used_longest_ago_goes_first(tmp_path: Path, most: int, native: int, built: int, freed: int) -> None:
    """The cap is on both together, whatever kind an entry is."""
    first, second = FakeNative(NATIVE), FakeBuilt(BUILT)
    assert caches(tmp_path, first, second).gc(most) == freed
    assert (first.kept, second.kept) == ([native], [built])


def test_the_cap_of_the_settings_is_the_default(tmp_path: Path) -> None:
    """Without a size the operator's own cap holds."""
    first, second = FakeNative(NATIVE), FakeBuilt(BUILT)
    caches(tmp_path, first, second, cap=59).gc()
    assert (first.kept, second.kept) == ([10], [30])


def test_clearing_leaves_nothing(tmp_path: Path) -> None:
    """Both are emptied, and the bytes of both are counted."""
    assert caches(tmp_path, FakeNative(NATIVE), FakeBuilt(BUILT)).clear() == 100


def test_a_disk_that_refuses_is_reported(tmp_path: Path) -> None:
    """A failure of the disk has its code and remedy."""
    with pytest.raises(RegistryError) as caught:
        caches(tmp_path, FakeNative([]), FakeBuilt([], failure=PermissionError(13, "no"))).clear()
    assert caught.value.code == "registry.io"


def test_an_empty_home_has_empty_caches(tmp_path: Path) -> None:
    """Listing and emptying what does not exist is no error and makes no directory."""
    empty = Caches(Settings(tmp_path / "home"))
    assert (empty.entries(), empty.gc(), empty.clear()) == ((), 0, 0)
    assert not (tmp_path / "home").exists()
