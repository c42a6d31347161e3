"""The native-code cache: whatever does not verify is a miss, and nothing that goes wrong with it is an error."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloche import locks
from cloche.confine.memory import can_seal, new_memory_file
from cloche.engine import cache_entry, sealed
from cloche.engine.cache import NativeCache
from cloche.engine.cache_entry import EntryKey
from cloche.engine.cache_secret import KEY_NAME, make_key, read_key
from cloche.errors import RegistryError
from cloche.model import Digest

KEY = EntryKey(Digest("ab" * 32), "component", "49.0.0", b"metering=both", "linux-x86_64-00")
CODE = b"\x7fELF native code" * 1000


@pytest.fixture
def warnings() -> list[str]:
    """What the cache warned about."""
    return []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the cache is; not made yet."""
    return tmp_path / "cache" / "native"


@pytest.fixture
def cache(directory: Path, warnings: list[str]) -> NativeCache:
    """An empty cache."""
    return NativeCache(directory, warn=warnings.append)


def put(cache: NativeCache, code: bytes = CODE, key: EntryKey = KEY) -> bool:
    """Store code from a sealed descriptor."""
    descriptor = new_memory_file("test")
    try:
        os.write(descriptor, code)
        sealed.seal(descriptor)
        return cache.store(key, descriptor)
    finally:
        os.close(descriptor)


def get(cache: NativeCache, key: EntryKey = KEY) -> bytes | None:
    """What the cache gives back, read from the descriptor, or None."""
    descriptor = cache.load(key)
    if descriptor is None:
        return None
    try:
        with sealed.contents(descriptor) as view:
            return bytes(view)
    finally:
        os.close(descriptor)


def entry(directory: Path) -> Path:
    """The only entry's file."""
    (found,) = directory.glob("*.native")
    return found


def overwrite(path: Path, data: bytes) -> None:
    """Replace a read-only file's bytes in place."""
    if path.exists():
        path.chmod(0o600)
    path.write_bytes(data)


def test_what_was_stored_comes_back_sealed(cache: NativeCache, directory: Path, warnings: list[str]) -> None:
    """An empty cache has nothing; afterwards the bytes come back in memory that nobody can change."""
    assert get(cache) is None
    assert not directory.exists()
    assert put(cache)
    assert get(cache) == CODE
    descriptor = cache.load(KEY)
    assert descriptor is not None
    if can_seal():
        assert sealed.is_sealed(descriptor)
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 10)
    os.close(descriptor)
    assert warnings == []


def test_files_are_private(cache: NativeCache, directory: Path) -> None:
    """The directory is for its owner only, the key too, and entries cannot be written."""
    put(cache)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(entry(directory).stat().st_mode) == 0o400
    assert len((directory / "key").read_bytes()) == 32
    assert {path.name for path in directory.iterdir()} == {"key", entry(directory).name}


@pytest.mark.parametrize("change", ["digest", "kind", "engine_version", "profile", "target"])
def test_another_key_is_a_miss_even_under_the_same_name(cache: NativeCache, directory: Path, change: str) -> None:
    """An entry of another component, kind, engine, profile or processor is not taken, also not when it is renamed."""
    value: Any = b"metering=fuel" if change == "profile" else "cd" * 32
    other = replace(KEY, **{change: value})
    put(cache)
    assert get(cache, other) is None
    entry(directory).rename(directory / f"{other.name}.native")
    assert get(cache, other) is None
    assert not (directory / f"{other.name}.native").exists()


def test_fields_do_not_run_into_each_other() -> None:
    """Moving a byte from one field to the next makes another key."""
    assert replace(KEY, kind="ab", engine_version="c").encode() != replace(KEY, kind="a", engine_version="bc").encode()


def test_every_flipped_bit_is_noticed(cache: NativeCache, directory: Path) -> None:
    """One bit anywhere in the file, header and label included, makes the entry disappear instead of load."""
    put(cache, b"short code")
    path = entry(directory)
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        overwrite(path, bytes(bad))
        assert get(cache) is None, position
        assert not path.exists()
    path.write_bytes(good)
    assert get(cache) == b"short code"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:60],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:48] + b"\xff\xff\xff\xff" + data[52:],
        lambda data: b"\0" * len(data),
    ],
    ids=["empty", "in-magic", "in-label", "short", "long", "label-length", "zeros"],
)
def test_truncated_and_damaged_entries_are_misses(
    cache: NativeCache, directory: Path, warnings: list[str], damage: Callable[[bytes], bytes]
) -> None:
    """Whatever the damage, the entry is dropped with a warning and can be stored again."""
    put(cache)
    overwrite(entry(directory), damage(entry(directory).read_bytes()))
    assert get(cache) is None
    assert "does not verify" in warnings[0]
    assert put(cache)
    assert get(cache) == CODE


def test_swapped_entries_are_misses(cache: NativeCache, directory: Path) -> None:
    """Two genuine entries under each other's names are both refused."""
    other = replace(KEY, digest=Digest("cd" * 32))
    put(cache)
    put(cache, b"other", other)
    one, two = directory / f"{KEY.name}.native", directory / f"{other.name}.native"
    one.rename(directory / "aside")
    two.rename(one)
    (directory / "aside").rename(two)
    assert get(cache) is None
    assert get(cache, other) is None


def test_an_entry_made_with_another_key_is_a_miss(cache: NativeCache, directory: Path, tmp_path: Path) -> None:
    """Code from somebody else's cache does not verify here."""
    put(cache)
    foreign = NativeCache(tmp_path / "foreign")
    put(foreign, b"foreign code")
    overwrite(entry(directory), entry(tmp_path / "foreign").read_bytes())
    assert get(cache) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_could_read_is_replaced(
    cache: NativeCache, directory: Path, warnings: list[str], mode: int
) -> None:
    """A stolen key vouches for nothing: a new one is made, and what the old one signed is a miss."""
    put(cache)
    stolen = (directory / "key").read_bytes()
    (directory / "key").chmod(mode)
    assert get(cache) is None
    assert (directory / "key").read_bytes() != stolen
    assert stat.S_IMODE((directory / "key").stat().st_mode) == 0o600
    assert "replaced" in warnings[0]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_replaced(cache: NativeCache, directory: Path, content: bytes) -> None:
    """A key of the wrong length is never used."""
    put(cache)
    overwrite(directory / "key", content)
    assert get(cache) is None
    assert len((directory / "key").read_bytes()) == 32
    assert put(cache)
    assert get(cache) == CODE


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777])
def test_a_directory_open_to_others_is_refused(
    cache: NativeCache, directory: Path, warnings: list[str], mode: int
) -> None:
    """Nothing is read from or written to it; the warning says what to do."""
    put(cache)
    directory.chmod(mode)
    assert get(cache) is None
    assert put(cache) is False
    assert all("open to others" in text and "chmod 700" in text for text in warnings)
    with pytest.raises(RegistryError, match="chmod 700") as caught:
        cache.entries()
    assert caught.value.code == "registry.io"
    directory.chmod(0o700)
    assert get(cache) == CODE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_belongs_to_another_user_is_refused(cache: NativeCache, directory: Path, warnings: list[str]) -> None:
    """A directory, an entry or a key of somebody else is not used."""
    put(cache)
    os.chown(entry(directory), 12345, -1)
    assert get(cache) is None
    put(cache)
    os.chown(directory / "key", 12345, -1)
    assert get(cache) is None
    put(cache)
    os.chown(directory, 12345, -1)
    assert get(cache) is None
    assert put(cache) is False
    assert "belongs to user 12345" in warnings[-1]


def test_links_and_other_things_are_not_followed(cache: NativeCache, directory: Path, tmp_path: Path) -> None:
    """A symbolic link, a pipe or a directory in an entry's place is a miss and never blocks."""
    put(cache)
    path = entry(directory)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert get(cache) is None
    path.unlink()
    os.mkfifo(path)
    assert get(cache) is None
    path.unlink(missing_ok=True)
    path.mkdir()
    assert get(cache) is None


def make_file(path: Path) -> None:
    """Nothing in it."""
    path.touch()


def make_socket(path: Path) -> None:
    """The name of a socket that nobody listens on; the path may be longer than a socket's may."""
    made = path.parent.parent / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(made))
    made.rename(path)


def make_tree(path: Path) -> None:
    """A directory with something in it."""
    (path / "deep" / "er").mkdir(parents=True)
    (path / "deep" / "file").write_text("left")


def make_nested(path: Path) -> None:
    """As long as an entry, with a label that no parser takes."""
    label = b"[" * 4000
    path.write_bytes(b"CLOCHE-NATIVE-1\n" + bytes(32) + len(label).to_bytes(4, "little") + label)


ODD: list[Callable[[Path], None]] = [make_file, os.mkfifo, make_tree, make_socket]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("sweep", [NativeCache.gc, NativeCache.clear], ids=["gc", "clear"])
def test_odd_things_under_an_entrys_name_are_passed_over_and_swept(
    cache: NativeCache, directory: Path, make: Callable[[Path], None], sweep: Callable[[NativeCache], int]
) -> None:
    """They break neither the list nor the collection, and the collection removes them."""
    put(cache)
    make(directory / f"{'ab' * 32}.native")
    assert [found.name for found in cache.entries()] == [KEY.name]
    sweep(cache)
    left = {path.name for path in directory.iterdir()}
    assert left == ({"key", f"{KEY.name}.native"} if sweep is NativeCache.gc else set())
    assert cache.gc() == 0


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_odd_things_in_an_entrys_place_make_room_for_it(
    cache: NativeCache, directory: Path, make: Callable[[Path], None]
) -> None:
    """What cannot be an entry is a miss once, and then one is kept there."""
    put(cache)
    entry(directory).unlink()
    make(entry_of(directory, KEY))
    assert get(cache) is None
    assert put(cache)
    assert get(cache) == CODE


def test_a_label_that_cannot_be_read_is_unknown(cache: NativeCache, directory: Path) -> None:
    """What stands in a label is not verified: nesting, other types and other texts are not shown."""
    put(cache)
    make_nested(directory / f"{'ab' * 32}.native")
    for number, label in enumerate(
        (b'{"digest": 5, "kind": ["x"]}', b'{"digest": "\\u001b[2J", "kind": "A b"}', b"[]")
    ):
        name = f"{number}" * 64
        head = b"CLOCHE-NATIVE-1\n" + bytes(32) + len(label).to_bytes(4, "little")
        (directory / f"{name}.native").write_bytes(head + label)
    found = {item.name: (item.digest, item.kind) for item in cache.entries()}
    assert found.pop(KEY.name) == (KEY.digest, "component")
    assert len(found) == 4
    assert set(found.values()) == {("unknown", "unknown")}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM])
def test_a_cache_that_can_only_be_read_serves(
    cache: NativeCache, warnings: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where the time of the last use cannot be written, the code is used all the same."""
    put(cache)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "utime", refuse)
    assert get(cache) == CODE
    assert warnings == []


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path, warnings: list[str]) -> None:
    """Somebody who can place a link cannot choose where code is kept."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    cache = NativeCache(tmp_path / "link", warn=warnings.append)
    assert put(cache) is False
    assert warnings
    assert list((tmp_path / "real").iterdir()) == []


def test_a_loaded_copy_survives_its_file(cache: NativeCache, directory: Path) -> None:
    """Overwriting and truncating the file after loading changes nothing that was handed out."""
    put(cache)
    descriptor = cache.load(KEY)
    assert descriptor is not None
    overwrite(entry(directory), b"x" * len(CODE))
    os.truncate(entry(directory), 1)
    with sealed.contents(descriptor) as view:
        assert bytes(view) == CODE
    os.close(descriptor)
    assert get(cache) is None


def test_the_copy_is_checked_and_not_the_file(
    cache: NativeCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is copied does not verify: the check sees what will be used."""
    put(cache)
    genuine = sealed.copy

    def racing(source: int, offset: int, length: int, target: int) -> None:
        overwrite(entry(directory), entry(directory).read_bytes()[:-1] + b"!")
        genuine(source, offset, length, target)
        overwrite(entry(directory), entry(directory).read_bytes()[:-1] + CODE[-1:])

    monkeypatch.setattr(sealed, "copy", racing)
    assert get(cache) is None


def test_the_copy_is_checked_after_it_is_sealed(cache: NativeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of the same user can write to the copy until it is sealed; the check sees that, too."""
    put(cache)
    genuine = sealed.seal

    def write_and_seal(descriptor: int) -> None:
        os.pwrite(descriptor, b"!", 0)
        genuine(descriptor)

    monkeypatch.setattr(sealed, "seal", write_and_seal)
    assert get(cache) is None


def test_an_entry_beyond_the_bound_is_not_copied(cache: NativeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it came there, it is a miss before any of it is in memory."""
    put(cache)
    monkeypatch.setattr(cache_entry, "MAX_ENTRY_BYTES", len(CODE))
    monkeypatch.setattr(cache_entry, "new_memory_file", lambda _: pytest.fail("it was copied"))
    assert get(cache) is None


def test_two_that_make_the_key_have_the_same(tmp_path: Path) -> None:
    """Who comes second takes the key that is there, so that what the first one signed stays good."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        first = make_key(directory)
        assert (make_key(directory), read_key(directory)) == (first, first)
    finally:
        os.close(directory)
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


def test_a_home_that_cannot_be_made_is_a_warning(tmp_path: Path, warnings: list[str]) -> None:
    """Where a file stands in the way nothing is cached, and nothing fails."""
    (tmp_path / "home").write_text("a file")
    cache = NativeCache(tmp_path / "home" / "cache", warn=warnings.append)
    assert get(cache) is None
    assert put(cache) is False
    with cache.lock(KEY):
        pass
    assert any("not cached" in text for text in warnings)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_is_a_warning_and_leaves_nothing(
    cache: NativeCache, directory: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A write that fails half-way leaves no entry and no temporary file."""
    put(cache, b"first")

    def full(source: int, offset: int, length: int, target: int) -> None:
        os.write(target, b"half")
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(sealed, "copy", full)
        assert put(cache) is False
    assert os.strerror(number) in warnings[-1]
    assert not list(directory.glob("new-*"))
    assert get(cache) == b"first"


def test_a_file_size_limit_is_a_warning(directory: Path, tmp_path: Path) -> None:
    """Under RLIMIT_FSIZE a large entry is not kept, a small one is, and the process goes on."""
    script = f"""
import os, resource
from pathlib import Path
from cloche.confine.memory import new_memory_file
from cloche.engine import sealed
from cloche.engine.cache import NativeCache
from cloche.engine.cache_entry import EntryKey
from cloche.engine.cache_secret import KEY_NAME, make_key, read_key
told = []
cache = NativeCache(Path({str(directory)!r}), warn=told.append)
key = EntryKey("ab" * 32, "component", "49", b"", "t")
for size, kept in ((100_000, False), (100, True)):
    descriptor = new_memory_file("test")
    os.write(descriptor, b"x" * size)
    sealed.seal(descriptor)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    assert cache.store(key, descriptor) is kept, (size, told)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert any("File too large" in text for text in told), told
assert not list(Path({str(directory)!r}).glob("new-*"))
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_size_cap_drops_the_least_recently_used(directory: Path, warnings: list[str]) -> None:
    """A new entry makes room for itself; what was used last stays."""
    cache = NativeCache(directory, max_bytes=3_500, warn=warnings.append)
    keys = [replace(KEY, digest=Digest(f"{number:064x}")) for number in range(4)]
    for number, key in enumerate(keys[:3]):
        assert put(cache, b"x" * 1000, key)
        os.utime(directory / f"{key.name}.native", (number, number))
    assert get(cache, keys[0]) is not None
    assert put(cache, b"x" * 1000, keys[3])
    assert [get(cache, key) is not None for key in keys] == [True, False, True, True]
    assert put(cache, b"x" * 4000) is False
    assert "do not fit" in warnings[-1]


def test_entries_are_listed_and_collected(cache: NativeCache, directory: Path) -> None:
    """The list names digest, kind, size and last use, newest first; gc and clear say what they freed."""
    assert cache.entries() == ()
    assert (cache.gc(0), cache.clear()) == (0, 0)
    put(cache)
    put(cache, b"module", replace(KEY, kind="module"))
    os.utime(entry_of(directory, KEY), (1000, 1000))
    newest, oldest = cache.entries()
    assert (newest.kind, oldest.kind, oldest.digest, oldest.last_used) == ("module", "component", KEY.digest, 1000)
    assert oldest.size_bytes == entry_of(directory, KEY).stat().st_size
    assert cache.gc(newest.size_bytes) == oldest.size_bytes
    assert [found.kind for found in cache.entries()] == ["module"]
    assert cache.clear() == newest.size_bytes
    assert list(directory.iterdir()) == []


def test_what_a_crash_left_is_collected_once_it_is_old(cache: NativeCache, directory: Path) -> None:
    """Old temporary files and free locks go; new ones, which may be in use, and foreign files stay."""
    put(cache)
    old, young, foreign = directory / f"new-{'0' * 16}", directory / f"new-{'1' * 16}", directory / "notes.txt"
    for path in (old, young, foreign):
        path.write_bytes(b"left")
    os.utime(old, (1, 1))
    make_tree(directory / f"work-{'0' * 16}")
    os.utime(directory / f"work-{'0' * 16}", (1, 1))
    young_work = directory / f"work-{'1' * 16}"
    young_work.mkdir()
    (directory / f"{'0' * 64}.lock").touch()
    with cache.lock(KEY):
        cache.gc()
        assert (directory / f"{KEY.name}.lock").exists()
    assert {path.name for path in directory.iterdir()} == {
        *("key", entry(directory).name, young.name, foreign.name, young_work.name)
    }


def test_a_workspace_is_private_and_goes_with_its_work(
    cache: NativeCache, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made where the cache is, also when that is named by a relative path, and removed with what it holds."""
    monkeypatch.chdir(tmp_path)
    for made in (cache, NativeCache(Path("cache/native"))):
        with made.workspace() as work:
            assert work.parent == directory.resolve()
            assert stat.S_IMODE(work.stat().st_mode) == 0o700
            (work / "file").write_text("left")
        assert list(directory.iterdir()) == []
    with pytest.raises(ZeroDivisionError), cache.workspace():
        raise ZeroDivisionError
    assert list(directory.iterdir()) == []


def test_a_workspace_needs_a_cache_that_can_be_used(cache: NativeCache, directory: Path) -> None:
    """A directory that others may enter is none."""
    put(cache)
    directory.chmod(0o755)
    with pytest.raises(RegistryError, match="open to others") as caught, cache.workspace():
        pass
    assert caught.value.code == "registry.io"


def test_removing_forgets_one_entry(cache: NativeCache) -> None:
    """The others stay, and removing nothing is fine."""
    other = replace(KEY, kind="module")
    put(cache)
    put(cache, b"module", other)
    cache.remove(KEY)
    cache.remove(KEY)
    assert (get(cache), get(cache, other)) == (None, b"module")


def test_one_holder_at_a_time_and_waiters_are_told(cache: NativeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread waits for the first and is told so; afterwards no lock file is left."""
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.001)
    inside, told, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with cache.lock(KEY):
            inside.set()
            assert told.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with cache.lock(KEY, waiting=lambda _: told.set()):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_waiting_can_be_cancelled(cache: NativeCache) -> None:
    """A waiter that is cancelled goes on without the lock, which its holder keeps."""
    with cache.lock(KEY), cache.lock(KEY, cancelled=lambda: True):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from cloche.engine.cache import NativeCache
from cloche.engine.cache_entry import EntryKey
from cloche.engine.cache_secret import KEY_NAME, make_key, read_key
cache = NativeCache(Path(sys.argv[1]))
with cache.lock(EntryKey("ab" * 32, "component", "49.0.0", b"metering=both", "linux-x86_64-00")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_dead_holder_blocks_nobody(cache: NativeCache, directory: Path) -> None:
    """When the process that holds a lock is killed, the next one gets it."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waited: list[float] = []

        def kill(seconds: float) -> None:
            waited.append(seconds)
            holder.kill()

        with cache.lock(KEY, waiting=kill):
            assert waited
    assert not list(directory.glob("*.lock"))


FORKER = """
import os, sys, time
from pathlib import Path
from cloche.engine.cache import NativeCache
from cloche.engine.cache_entry import EntryKey
from cloche.engine.cache_secret import KEY_NAME, make_key, read_key
cache = NativeCache(Path(sys.argv[1]))
with cache.lock(EntryKey("ab" * 32, "component", "49.0.0", b"metering=both", "linux-x86_64-00")):
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.readline()
    else:
        time.sleep(60)
print("done", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_does_not_hold_its_parents_lock(cache: NativeCache, directory: Path) -> None:
    """When the holder is killed the lock is free, though a child that it forked lives on; the child frees nothing."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FORKER, str(directory)], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"forked\n"
        holder.kill()
        holder.wait()
        held = os.open(directory, os.O_RDONLY)
        asked = itertools.count()
        lock = locks.acquire(held, f"{KEY.name}.lock", None, lambda: next(asked) > 20)
        assert lock is not None
        holder.stdin.write(b"\n")
        holder.stdin.close()
        assert holder.stdout.readline() == b"done\n"
        assert (directory / f"{KEY.name}.lock").exists()
        locks.release(held, f"{KEY.name}.lock", lock)
        os.close(held)


WORKER = """
import os, sys
from pathlib import Path
from cloche.confine.memory import new_memory_file
from cloche.engine import sealed
from cloche.engine.cache import NativeCache
from cloche.engine.cache_entry import EntryKey
from cloche.engine.cache_secret import KEY_NAME, make_key, read_key
directory, log = Path(sys.argv[1]), Path(sys.argv[2])
cache = NativeCache(directory, warn=lambda text: sys.exit(text))
for number in range(6):
    key = EntryKey(f"{number:064x}", "component", "49", b"", "t")
    with cache.lock(key):
        found = cache.load(key)
        if found is None:
            with log.open("a") as file:
                file.write(f"{number}\\n")
            found = new_memory_file("test")
            os.write(found, bytes([number]) * 50_000)
            sealed.seal(found)
            cache.store(key, found)
        with sealed.contents(found) as view:
            assert bytes(view) == bytes([number]) * 50_000
        os.close(found)
"""


def test_many_processes_make_each_entry_once(directory: Path, tmp_path: Path) -> None:
    """Processes that start together on an empty home share one key, and each entry is made by exactly one of them."""
    log = tmp_path / "log"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(directory), str(log)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert (worker.returncode, errors) == (0, b"")
    assert sorted(log.read_text().split()) == [str(number) for number in range(6)]
    assert not list(directory.glob("*.lock"))
    assert not list(directory.glob("new-*"))


def test_storing_and_collecting_at_once_never_serves_damage(directory: Path) -> None:
    """Threads that store, load and clear at the same time see whole entries or none."""
    cache = NativeCache(directory)
    until = threading.Event()
    wrong: list[object] = []

    def loading() -> None:
        while not until.is_set():
            found = get(cache)
            if found not in (None, CODE):
                wrong.append(found)

    def clearing() -> None:
        while not until.is_set():
            cache.clear()

    threads = [threading.Thread(target=loading), threading.Thread(target=clearing)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        put(cache)
    until.set()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """Every test gives back the descriptors that it took."""
    before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    yield
    after = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    assert after <= before


def entry_of(directory: Path, key: EntryKey) -> Path:
    """The file of one entry."""
    return directory / f"{key.name}.native"


def test_the_target_is_stable() -> None:
    """The same machine names the same target each time, and time plays no part."""
    first = cache_entry.target()
    time.sleep(0)
    assert cache_entry.target() == first
    assert first.startswith(sys.platform)
