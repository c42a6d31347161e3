"""The cache of built components: whole entries or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cloche.build.cache import FETCHED, BuildCache, CacheEntry
from cloche.errors import RegistryError

KEY, OTHER = "a" * 64, "b" * 64


def stored(root: Path, key: str = KEY, component: bytes = b"component") -> CacheEntry:
    return BuildCache(root).store(key, component, name="acme/x", language="python", wall_ms=1.5, notes=("bundled y 1",))


def test_what_was_stored_is_found(tmp_path: Path) -> None:
    """Another object on the same directory sees the entry with everything that was said about it."""
    entry = stored(tmp_path)
    found = BuildCache(tmp_path).find(KEY)
    assert found is not None
    assert (found.path.read_bytes(), found.digest, found.notes, found.wall_ms) == (
        b"component",
        entry.digest,
        ("bundled y 1",),
        1.5,
    )
    assert BuildCache(tmp_path).find(OTHER) is None


def test_what_can_only_be_read_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time of the last use cannot be written, the component is used all the same."""
    stored(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert BuildCache(tmp_path).find(KEY) is not None


@pytest.mark.parametrize("damage", [b"", b"componenT", b"component!"])
def test_a_damaged_component_is_not_found(tmp_path: Path, damage: bytes) -> None:
    """Truncated, changed and longer components count as missing."""
    stored(tmp_path).path.write_bytes(damage)
    assert BuildCache(tmp_path).find(KEY) is None


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"digest": 3}', '{"digest": "../../etc"}'])
def test_a_damaged_record_is_not_found(tmp_path: Path, record: str) -> None:
    """Whatever stands in the record, the answer is a miss and not an exception; what is left goes with the next gc."""
    stored(tmp_path).path.with_suffix(".json").write_text(record)
    cache = BuildCache(tmp_path)
    assert cache.find(KEY) is None
    assert {entry.kind for entry in cache.entries()} == {"work"}
    cache.gc(1 << 30)
    assert list((tmp_path / "components").iterdir()) == []


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    """Down to the bytes that may stay, oldest use first."""
    for number, key in enumerate((KEY, OTHER)):
        os.utime(stored(tmp_path, key, b"0123456789").path, (number, number))
    cache = BuildCache(tmp_path)
    assert (cache.gc(19), len(cache.entries())) == (10, 1)
    assert cache.find(KEY) is None
    assert cache.find(OTHER) is not None
    assert (cache.gc(0), cache.entries()) == (10, [])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", FETCHED)
def test_what_was_fetched_is_fetched_once_and_pruned(tmp_path: Path, kind: str) -> None:
    """It counts, stays while it is used, and goes like a component; a failed fetch leaves nothing."""
    cache, fetched = BuildCache(tmp_path), []

    def fetch(home: Path) -> None:
        fetched.append(home)
        (home / "file").write_bytes(b"0123456789")

    def fail(home: Path) -> None:
        (home / "half").write_bytes(b"0")
        raise ValueError("no network")

    with pytest.raises(ValueError, match="no network"), cache.fetched(kind, KEY, fail, print):
        pass
    assert cache.entries() == []
    for _ in range(2):
        with cache.fetched(kind, KEY, fetch, print) as home:
            assert [path.name for path in home.iterdir()] == ["file"]
            assert [(entry.kind, entry.digest, entry.size) for entry in cache.entries()] == [(kind, KEY, 10)]
            assert BuildCache(tmp_path).gc(0) == 0
            assert (home / "file").exists()
    assert len(fetched) == 1
    assert (cache.gc(0), cache.entries()) == (10, [])


def test_what_a_dead_build_left_goes_and_a_live_one_stays(tmp_path: Path) -> None:
    """A work directory whose lock nobody holds is removed, whatever room there is."""
    cache = BuildCache(tmp_path)
    with cache.workspace() as work:
        (work / "file").write_bytes(b"0123456789")
        (tmp_path / "work-dead").mkdir()
        (tmp_path / "work-dead" / "file").write_bytes(b"01234")
        assert cache.gc(1 << 30) == 5
        assert (work / "file").exists()
    assert cache.entries() == []


def test_a_refusing_disk_is_one_clear_error(tmp_path: Path) -> None:
    """Where a file stands instead of the directory, the error names it and has its code."""
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(RegistryError, match="cannot be written") as caught:
        stored(blocked / "cache")
    assert caught.value.code == "registry.io"
    with pytest.raises(RegistryError), BuildCache(blocked / "cache").lock("x"):
        pass


def test_workspaces_are_removed(tmp_path: Path) -> None:
    """Also when the build fails; what the disk refuses has our code."""
    with pytest.raises(RegistryError, match="Is a directory"), BuildCache(tmp_path).workspace() as work:
        work.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    assert list((tmp_path / "locks").iterdir()) == []
