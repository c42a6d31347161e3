"""`cloche:host/data` over both ways of opening a path: the kernel's and walking name by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.beneath import KernelOpener, WalkingOpener, choose_opener
from cloche.capabilities.data import directory
from cloche.capabilities.data.grant import INTERFACE, DataParams
from cloche.capabilities.data.host import MAX_CALL_BYTES, Data, DataHost
from cloche.capabilities.data.ledger import FILE_NAME
from cloche.model import Limits, Ok
from cloche.observe.events import EventKind
from support.capability_rig import Rig, err, ok, reason


class Plugin:
    """One plugin's data directory, opened as often as needed."""

    def __init__(self, opener: Any, storage: Path) -> None:
        self.capability, self.rig = Data(opener), Rig(storage)
        self.opened: list[DataHost] = []
        self.root = storage / "data"

    def instance(self, limits: Limits | None = None, **grant: Any) -> DataHost:
        """The host object of a new instance."""
        self.rig.limits = limits or Limits()
        host = self.capability.open(DataParams.model_validate(grant), self.rig.session())[INTERFACE]
        assert isinstance(host, DataHost)
        self.opened.append(host)
        return host


@pytest.fixture(params=["kernel", "walking"])
def plugin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plugin]:
    """A plugin whose paths are opened in each way."""
    if request.param == "kernel" and not isinstance(choose_opener(), KernelOpener):
        pytest.skip("this system has no openat2")
    made = Plugin(KernelOpener() if request.param == "kernel" else WalkingOpener(), tmp_path / "storage")
    yield made
    for host in made.opened:
        host.close()


def test_files_come_back(plugin: Plugin) -> None:
    """What was written is read, also by another instance, and lies below the data directory."""
    data = plugin.instance()
    ok(data.write("a/b/c.bin", b"\x00\xff"))
    assert ok(data.read("a/b/c.bin")) == b"\x00\xff"
    ok(data.write("a/b/c.bin", b""))
    assert ok(plugin.instance().read("a/b/c.bin")) == b""
    assert (plugin.root / "a" / "b" / "c.bin").read_bytes() == b""
    assert (plugin.root / "a" / "b" / "c.bin").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("offset", "most", "expected"),
    [(0, 4, b"0123"), (8, 4, b"89"), (10, 4, b""), (2**64 - 1, 4, b""), (0, 0, b""), (3, 100, b"3456789")],
)
def test_ranged_reads(plugin: Plugin, offset: int, most: int, expected: bytes) -> None:
    """A range is shorter only at the end, and empty past it."""
    data = plugin.instance()
    ok(data.write("f", b"0123456789"))
    assert ok(data.read_range("f", offset, most)) == expected


def test_ranged_writes(plugin: Plugin) -> None:
    """Writing in place changes, grows and makes files; gaps are zeros, an empty write changes no size."""
    data = plugin.instance()
    ok(data.write_range("d/f", 2, b"ab"))
    assert ok(data.read("d/f")) == b"\x00\x00ab"
    ok(data.write_range("d/f", 1, b"xy"))
    assert ok(data.read("d/f")) == b"\x00xyb"
    ok(data.write_range("d/f", 2**64 - 1, b""))
    assert ok(data.usage())["used_bytes"] == 4
    ok(data.write_range("empty", 100, b""))
    assert ok(data.read("empty")) == b""


def test_listing(plugin: Plugin) -> None:
    """Entries are sorted; directories appear with their files."""
    data = plugin.instance()
    assert ok(data.list_directory("")) == []
    ok(data.write("b", b"12"))
    ok(data.write("a/x", b"1"))
    listed = ok(data.list_directory(""))
    assert [(entry["name"], entry["kind"], entry["size_bytes"]) for entry in listed] == [
        ("a", "directory", 0),
        ("b", "file", 2),
    ]
    assert all(entry["modified_ms"] > 0 for entry in listed)
    assert [entry["name"] for entry in ok(data.list_directory("a"))] == ["x"]
    assert err(data.list_directory("b")) == "wrong-kind"
    assert err(data.list_directory("c")) == "not-found"


def test_stat(plugin: Plugin) -> None:
    """Name, kind and size of what stands at a path."""
    data = plugin.instance()
    ok(data.write("a/x", b"123"))
    assert {key: ok(data.stat("a/x"))[key] for key in ("name", "kind", "size_bytes")} == {
        "name": "x",
        "kind": "file",
        "size_bytes": 3,
    }
    assert ok(data.stat("a"))["kind"] == "directory"
    assert err(data.stat("a/y")) == "not-found"
    assert err(data.stat("z/y")) == "not-found"
    assert err(data.stat("")) == "invalid-path"


def test_removing_takes_empty_directories_along(plugin: Plugin) -> None:
    """Directories vanish with their last file and not before."""
    data = plugin.instance()
    ok(data.write("a/b/x", b""))
    ok(data.write("a/y", b""))
    ok(data.remove("a/b/x"))
    assert [entry["name"] for entry in ok(data.list_directory("a"))] == ["y"]
    ok(data.remove("a/y"))
    assert ok(data.list_directory("")) == []
    assert err(data.remove("a/y")) == "not-found"


def test_renaming(plugin: Plugin) -> None:
    """A file moves between directories; an occupied path is refused, and nothing is overwritten."""
    data = plugin.instance()
    ok(data.write("a/x", b"1"))
    ok(data.write("y", b"2"))
    assert err(data.rename("a/x", "y")) == "already-exists"
    assert err(data.rename("a/x", "a")) == "already-exists"
    assert err(data.rename("a/x", "a/x")) == "already-exists"
    assert err(data.rename("absent", "z")) == "not-found"
    assert err(data.rename("a", "b")) == "wrong-kind"
    assert err(data.rename("a/x", "y/z")) == "wrong-kind"
    ok(data.rename("a/x", "c/d/x"))
    assert ok(data.read("c/d/x")) == b"1"
    assert [entry["name"] for entry in ok(data.list_directory(""))] == ["c", "y"]
    assert ok(data.usage())["used_files"] == 4


def test_kinds_are_told_apart(plugin: Plugin) -> None:
    """A directory is no file and a file no directory."""
    data = plugin.instance()
    ok(data.write("d/f", b""))
    assert err(data.read("d")) == "wrong-kind"
    assert err(data.write("d", b"")) == "wrong-kind"
    assert err(data.write_range("d", 0, b"x")) == "wrong-kind"
    assert err(data.remove("d")) == "wrong-kind"
    assert err(data.write("d/f/g", b"")) == "wrong-kind"
    assert err(data.read("d/f/g")) == "wrong-kind"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "\x00", "x" * 5000, ""])
def test_paths_are_refused_everywhere(plugin: Plugin, path: str) -> None:
    """Each function refuses a bad path in the same way."""
    data = plugin.instance()
    answers = [
        data.read(path),
        data.read_range(path, 0, 1),
        data.write(path, b""),
        data.write_range(path, 0, b""),
        data.stat(path),
        data.remove(path),
        data.rename(path, "x"),
        data.rename("x", path),
    ]
    assert [err(answer) for answer in answers] == ["invalid-path"] * len(answers)


def test_read_only_grants(plugin: Plugin) -> None:
    """Without the right to write everything that changes is denied before the path is looked at."""
    ok(plugin.instance().write("f", b"1"))
    data = plugin.instance(access="read")
    assert ok(data.read("f")) == b"1"
    for answer in (
        data.write("f", b"2"),
        data.write_range("absent", 0, b"2"),
        data.remove("absent"),
        data.rename("f", "g"),
        data.write("../x", b""),
    ):
        assert err(answer) == "access-denied"


def test_the_operator_is_told_once_that_the_directory_is_full(plugin: Plugin) -> None:
    """One `limit` event for each instance that meets the quota, which names the bound; none before."""
    data = plugin.instance(bytes=10, files=3)
    ok(data.write("a", b"0123456789"))
    assert plugin.rig.events == []
    for _ in range(3):
        assert err(data.write("b", b"0")) == "quota-exceeded"
    (told,) = plugin.rig.of(EventKind.LIMIT)
    assert (told["code"], told["limit"]) == ("limit.data", "data")
    assert "10 bytes and 3 files" in told["message"]
    assert err(plugin.instance(bytes=10, files=3).write("b", b"0")) == "quota-exceeded"
    assert len(plugin.rig.of(EventKind.LIMIT)) == 2


def test_quota_edges(plugin: Plugin) -> None:
    """The last byte and the last file fit, one more does not, and nothing is changed by the attempt."""
    data = plugin.instance(bytes=10, files=3)
    ok(data.write("a", b"0123456789"))
    assert err(data.write("a", b"0" * 11)) == "quota-exceeded"
    assert err(data.write("b", b"0")) == "quota-exceeded"
    assert err(data.write_range("a", 10, b"0")) == "quota-exceeded"
    assert err(data.write_range("b", 2**63, b"0")) == "quota-exceeded"
    ok(data.write("b/c", b""))
    assert err(data.write("d/e/f", b"")) == "quota-exceeded"
    assert err(data.list_directory("d")) == "not-found"
    assert ok(data.read("a")) == b"0123456789"
    assert ok(data.usage()) == {
        "used_bytes": 10,
        "max_bytes": 10,
        "used_files": 3,
        "max_files": 3,
        "max_call_bytes": MAX_CALL_BYTES,
    }
    ok(data.write("a", b"0"))
    ok(data.write("b/c", b"012345678"))


def test_the_plugins_limit_bounds_the_grant(plugin: Plugin) -> None:
    """A grant larger than the limit `data` does not count."""
    data = plugin.instance(Limits(data_bytes=5, data_files=1), bytes=100, files=100)
    assert err(data.write("a", b"123456")) == "quota-exceeded"
    ok(data.write("a", b"12345"))
    assert err(data.write("b", b"")) == "quota-exceeded"


def test_calls_are_bounded(plugin: Plugin) -> None:
    """No call carries more bytes than allowed; a larger file is read in ranges."""
    data = plugin.instance(Limits(host_call_bytes=8))
    assert err(data.write("a", b"123456789")) == "too-large"
    assert err(data.write_range("a", 0, b"123456789")) == "too-large"
    ok(data.write_range("a", 0, b"12345678"))
    ok(data.write_range("a", 8, b"9"))
    assert err(data.read("a")) == "too-large"
    assert err(data.read_range("a", 0, 9)) == "too-large"
    assert ok(data.read_range("a", 1, 8)) == b"23456789"


def counted(plugin: Plugin) -> int:
    """The files and directories of the plugin, as they stand on the disk."""
    return sum(1 for _ in plugin.root.rglob("*"))


def test_directories_count_as_files(plugin: Plugin) -> None:
    """Every change keeps the exact number, which a new count finds too; a path that needs too many changes nothing."""
    data = plugin.instance(files=7)
    ok(data.write("a/b/c", b""))
    ok(data.write_range("a/d/e", 0, b"x"))
    ok(data.write("a/d/e", b"yy"))
    assert ok(data.usage())["used_files"] == counted(plugin) == 5
    for refused in (data.write("a/f/g/h", b""), data.write_range("p/q/r", 0, b""), data.rename("a/d/e", "p/q/r/e")):
        assert err(refused) == "quota-exceeded"
    assert ok(data.usage())["used_files"] == counted(plugin) == 5
    ok(data.write("f/g", b""))
    assert err(data.write("h", b"")) == "quota-exceeded"
    ok(data.rename("f/g", "a/b/g"))
    assert ok(data.usage())["used_files"] == counted(plugin) == 6
    ok(data.remove("a/b/c"))
    ok(data.remove("a/d/e"))
    assert ok(data.usage())["used_files"] == counted(plugin) == 3
    (plugin.root.parent / FILE_NAME).unlink()
    assert ok(data.usage())["used_files"] == counted(plugin) == 3
    ok(data.remove("a/b/g"))
    assert ok(data.usage())["used_files"] == counted(plugin) == 0


def test_a_flood_of_directories_is_bounded(plugin: Plugin) -> None:
    """Deep paths of empty files use the quota up, although they hold no byte."""
    data = plugin.instance(files=100)
    answers = [data.write("/".join([f"{number}", *"abcdefghijklmn", "f"]), b"") for number in range(20)]
    assert [isinstance(answer, Ok) for answer in answers] == [True] * 6 + [False] * 14
    assert ok(data.usage())["used_files"] == counted(plugin) == 96


def test_a_change_that_fails_leaves_no_directory(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full after some of a path's directories were made, those are gone again and not counted."""
    data = plugin.instance()
    ok(data.write("a/f", b""))
    mkdir = os.mkdir

    def full(name: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if name == b"d":
            raise OSError(28, "No space left on device")
        mkdir(name, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", full)
        for answer in (data.write("a/b/c/d/e", b""), data.write_range("b/d/e", 0, b""), data.rename("a/f", "c/d/f")):
            assert reason(answer) == "the storage failed"
            assert counted(plugin) == 2
    assert ok(data.usage())["used_files"] == 2


def test_a_new_count_removes_empty_directories(plugin: Plugin) -> None:
    """What a host that was killed left behind vanishes, at any depth; a link of the operator's stays and counts."""
    data = plugin.instance()
    ok(data.write("a/f", b"1"))
    for path in ("a/b/c", "d/e", "g"):
        (plugin.root / path).mkdir(parents=True)
    (plugin.root / "a" / "link").symlink_to("/")
    (plugin.root.parent / FILE_NAME).unlink()
    assert ok(data.usage())["used_files"] == counted(plugin) == 3
    assert [entry["name"] for entry in ok(data.list_directory(""))] == ["a"]


def test_a_killed_writer_causes_a_new_count(plugin: Plugin) -> None:
    """A ledger that is not marked as sure, or is damaged, is not believed, and leftovers are removed."""
    data = plugin.instance()
    ok(data.write("a", b"123"))
    ledger = plugin.root.parent / FILE_NAME
    for damage in (ledger.read_bytes()[:-1] + b"\x00", b"", b"nonsense"):
        ledger.write_bytes(damage)
        (plugin.root.parent / "data.tmp" / "leftover").write_bytes(b"x" * 100)
        assert ok(data.usage())["used_bytes"] == 3
        assert list((plugin.root.parent / "data.tmp").iterdir()) == []


def test_a_writer_that_is_killed_after_its_change_is_noticed(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger says that it is not to be believed from before the first change until after the last."""
    data, ledger, rename = plugin.instance(), plugin.root.parent / FILE_NAME, os.rename
    ok(data.write("a", b"123"))
    left: list[bytes] = []

    def look(*arguments: Any, **options: Any) -> None:
        rename(*arguments, **options)
        left.append(ledger.read_bytes())

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", look)
        ok(data.write("b", b"4567"))
    ledger.write_bytes(left[0])
    assert ok(data.usage())["used_bytes"] == 7


def test_a_write_that_fails_leaves_no_temporary_file(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written beside the directory is gone at once, not only with the next count."""
    data = plugin.instance()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        assert reason(data.write("a", b"123")) == "the storage failed"
    assert list((plugin.root.parent / "data.tmp").iterdir()) == []


def test_a_listing_is_bounded(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of more entries than are read at once is an error value, whoever filled it."""
    monkeypatch.setattr(directory, "MAX_ENTRIES", 5)
    data = plugin.instance()
    for number in range(5):
        ok(data.write(f"d/{number}", b""))
    assert len(ok(data.list_directory("d"))) == 5
    (plugin.root / "d" / "planted").symlink_to("/")
    assert err(data.list_directory("d")) == "too-large"


def test_a_full_disk_is_other(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest learns nothing of the host; the operator gets the cause, and the next call works."""
    data = plugin.instance()
    ok(data.write("a", b"1"))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device", "/srv/secret/place")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        answer = data.write("a", b"22")
    assert reason(answer) == "the storage failed"
    ((_, event),) = plugin.rig.events
    assert event == {"cause": "No space left on device"}
    assert ok(data.read("a")) == b"1"
    ok(data.write("a", b"22"))
    assert ok(data.usage())["used_bytes"] == 2


def test_closing_gives_descriptors_back(plugin: Plugin) -> None:
    """Instances that were opened, used and closed leave no descriptor behind."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(50):
        data = plugin.instance()
        ok(data.write(f"d{number % 3}/f", b"1"))
        err(data.read("absent"))
        err(data.read("d0/f/x"))
        data.close()
        data.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
