"""Threat: a plugin, or something planted in its directory, leads the host out of it, blocks it or fills its disk.

Expected: an error value that reveals nothing, no byte read or changed outside, and the next call works.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.beneath import KernelOpener, WalkingOpener, choose_opener
from cloche.capabilities.data.grant import INTERFACE, DataParams
from cloche.capabilities.data.host import Data, DataHost
from cloche.model import Limits, Ok
from support.capability_rig import Rig, err, ok

pytestmark = pytest.mark.adversarial

SECRET = b"outside"


class Trap:
    """A data directory with an outside beside it, and a way to plant things."""

    def __init__(self, opener: Any, place: Path) -> None:
        self.outside = place / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(SECRET)
        self.rig = Rig(place / "storage")
        self.capability = Data(opener)
        self.data = self.open()
        ok(self.data.write("own", b"mine"))
        self.root = place / "storage" / "data"

    def open(self, **grant: Any) -> DataHost:
        """The host object of a new instance."""
        host = self.capability.open(DataParams.model_validate(grant), self.rig.session())[INTERFACE]
        assert isinstance(host, DataHost)
        return host

    def unharmed(self) -> None:
        """Nothing outside changed, and the plugin can still work."""
        assert (self.outside / "secret").read_bytes() == SECRET
        assert sorted(path.name for path in self.outside.iterdir()) == ["secret"]
        ok(self.data.write("own", b"mine"))
        assert ok(self.data.read("own")) == b"mine"


@pytest.fixture(params=["kernel", "walking"])
def trap(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trap]:
    """A trap for each way of opening paths."""
    if request.param == "kernel" and not isinstance(choose_opener(), KernelOpener):
        pytest.skip("this system has no openat2")
    made = Trap(KernelOpener() if request.param == "kernel" else WalkingOpener(), tmp_path)
    yield made
    made.data.close()


def every_call(data: DataHost, path: str) -> dict[str, Any]:
    """The answer of every function that takes a path, for `path`."""
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: data.read(path),
        "read_range": lambda: data.read_range(path, 0, 100),
        "write": lambda: data.write(path, b"evil"),
        "write_range": lambda: data.write_range(path, 0, b"evil"),
        "stat": lambda: data.stat(path),
        "remove": lambda: data.remove(path),
        "rename_from": lambda: data.rename(path, "taken"),
        "list_directory": lambda: data.list_directory(path),
    }
    return {name: call() for name, call in calls.items()}


PATHS = [
    "..",
    "../outside/secret",
    "own/../../outside/secret",
    "./../outside/secret",
    "/etc/passwd",
    "//etc/passwd",
    "own/..",
    "..\\outside\\secret",
    "own\x00../outside",
    "\x00",
    ".",
    "own/",
    "a//b",
    "x" * 5000,
    "/".join(["x"] * 2000),
    "\n",
    "data.ledger/../own",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_climb(trap: Trap, path: str) -> None:
    """Every function refuses the path as text, whether or not something is there."""
    assert {name: err(answer) for name, answer in every_call(trap.data, path).items()} == dict.fromkeys(
        ["read", "read_range", "write", "write_range", "stat", "remove", "rename_from", "list_directory"],
        "invalid-path",
    )
    trap.unharmed()


@pytest.mark.parametrize(
    "path", ["..%2foutside", "~", "~root", "$HOME", "CON", "nul.txt", "-rf", "*", "a:b", "…", "OWN"]
)
def test_names_that_only_look_special(trap: Trap, path: str) -> None:
    """Such names are plain files inside, distinct from each other."""
    ok(trap.data.write(path, path.encode()))
    assert ok(trap.data.read(path)) == path.encode()
    assert (trap.root / path).read_bytes() == path.encode()
    trap.unharmed()


@pytest.mark.parametrize(
    "target", ["../../outside/secret", "../../outside/absent", "own", "{outside}/secret", "/proc/self/root"]
)
def test_planted_links(trap: Trap, target: str) -> None:
    """A link answers the same whether its target exists, lies inside or outside; it is neither followed nor removed."""
    (trap.root / "link").symlink_to(target.format(outside=trap.outside))
    answers = {name: err(answer) for name, answer in every_call(trap.data, "link").items()}
    assert set(answers.values()) == {"access-denied"}
    assert err(trap.data.rename("own", "link")) == "already-exists"
    assert "link" not in [entry["name"] for entry in ok(trap.data.list_directory(""))]
    assert (trap.root / "link").is_symlink()
    trap.unharmed()


@pytest.mark.parametrize("target", ["../../outside", "{outside}", "../../nowhere", "."])
def test_planted_links_to_directories(trap: Trap, target: str) -> None:
    """A link in the middle of a path is not followed either."""
    (trap.root / "dir").symlink_to(target.format(outside=trap.outside))
    for path in ("dir/secret", "dir/own", "dir/new/file"):
        answers = {name: err(answer) for name, answer in every_call(trap.data, path).items()}
        assert set(answers.values()) == {"access-denied"}, path
        assert err(trap.data.rename("own", path)) == "access-denied"
    trap.unharmed()


@pytest.mark.parametrize("name", ["data", "data.tmp", "data.ledger"])
def test_planted_links_in_the_storage_itself(trap: Trap, name: str) -> None:
    """Nothing is made, read or removed where a link leads that stands in the place of what the host keeps."""
    place = trap.root.parent / name
    if place.is_dir():
        shutil.rmtree(place)
        place.symlink_to(trap.outside)
    else:
        place.unlink()
        place.symlink_to(trap.outside / "secret")
    data = trap.open()
    for answer in (data.write("evil", b"evil"), data.remove("secret"), data.read("secret"), data.usage()):
        assert not isinstance(answer, Ok)
    data.close()
    place.unlink()
    trap.data.close()
    trap.data = trap.open()
    trap.unharmed()


def test_planted_hard_link(trap: Trap) -> None:
    """A second name of an outside file is neither read nor written."""
    os.link(trap.outside / "secret", trap.root / "hard")
    answers = every_call(trap.data, "hard")
    assert err(answers.pop("list_directory")) == "wrong-kind"
    assert {err(answer) for answer in answers.values()} == {"access-denied"}
    assert (trap.root / "hard").read_bytes() == SECRET
    trap.unharmed()


@pytest.mark.timeout(20)
def test_planted_fifo_and_socket(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening them would wait for the other end for ever; the host answers at once."""
    os.mkfifo(trap.root / "fifo")
    monkeypatch.chdir(trap.root)  # a socket's path is short only from here
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        for name in ("fifo", "sock"):
            answers = every_call(trap.data, name)
            assert err(answers.pop("list_directory")) == "wrong-kind"
            assert {err(answer) for answer in answers.values()} == {"access-denied"}, name
    assert [entry["name"] for entry in ok(trap.data.list_directory(""))] == ["own"]
    trap.unharmed()


def test_swapped_directory(trap: Trap) -> None:
    """Replacing a directory with a link while calls run never leads outside."""
    real, kept = trap.root / "d", trap.root / "kept"
    real.mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                real.rename(kept)
                real.symlink_to(trap.outside)
                real.unlink()
                kept.rename(real)
            except OSError:  # a write made a directory in between: begin anew
                if real.is_symlink():
                    real.unlink()
                shutil.rmtree(kept, ignore_errors=True)
                real.mkdir(exist_ok=True)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(300):
            assert trap.data.read("d/secret").value != SECRET
            trap.data.write_range("d/secret", 0, b"evil")
            trap.data.write("d/new", b"evil")
            trap.data.remove("d/secret")
    finally:
        stop.set()
        swapper.join()
    trap.unharmed()


def test_unreadable_and_odd_entries_are_left_out(trap: Trap) -> None:
    """A listing shows only what the guest can name, and survives names that are no UTF-8."""
    os.close(os.open(os.fsencode(trap.root) + b"/\xff\xfe", os.O_CREAT, 0o600))
    (trap.root / "new\nline").write_bytes(b"")
    (trap.root / "back\\slash").write_bytes(b"")
    assert [entry["name"] for entry in ok(trap.data.list_directory(""))] == ["own"]


def test_flood_of_files_and_bytes(trap: Trap) -> None:
    """A plugin that writes until it is refused stays within its quota, on the disk too."""
    trap.rig.limits = Limits(data_bytes=10_000, data_files=20)
    data = trap.open()
    answers = [data.write(f"d{number % 7}/f{number}", b"x" * 900) for number in range(200)]
    refused = [err(answer) for answer in answers if not hasattr(answer.value, "__len__") and answer.value is not None]
    assert set(refused) == {"quota-exceeded"}
    files = [path for path in trap.root.rglob("*") if path.is_file()]
    assert sum(1 for _ in trap.root.rglob("*")) <= 20
    assert sum(path.stat().st_size for path in files) <= 10_000
    data.close()
    trap.unharmed()


def test_sparse_files_count_in_full(trap: Trap) -> None:
    """A write far beyond the end is measured by the size that it would make."""
    assert err(trap.data.write_range("sparse", 1 << 40, b"x")) == "quota-exceeded"
    assert err(trap.data.write_range("sparse", (1 << 64) - 1, b"x")) == "quota-exceeded"
    trap.unharmed()


def test_many_instances_write_together(trap: Trap) -> None:
    """Instances on several threads never exceed the quota together, and their numbers stay true."""
    trap.rig.limits = Limits(data_bytes=2_000, data_files=50)
    hosts = [trap.open() for _ in range(4)]

    def work(number: int) -> None:
        for turn in range(40):
            hosts[number].write(f"t{number}/f{turn}", b"x" * 30)
            if turn % 3 == 0:
                hosts[number].remove(f"t{number}/f{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [path for path in trap.root.rglob("*") if path.is_file()]
    used = ok(hosts[0].usage())
    assert used["used_files"] == sum(1 for _ in trap.root.rglob("*")) <= 50
    assert used["used_bytes"] == sum(path.stat().st_size for path in files) <= 2_000
    for host in hosts:
        host.close()
