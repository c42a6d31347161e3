"""Threat: a home that lies, a disk that is full, other processes, and Ctrl-C at any moment. The answer stays right."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from cloche.errors import ClocheError
from support.binary_wat import parse
from support.wat_plugins import TESTS, TRUSTED, events, open_host, write_plugin

pytestmark = [pytest.mark.adversarial, pytest.mark.skipif(os.name != "posix", reason="signals, links and file limits")]
PATIENCE_S = 120
ANSWER = """
(component
  (core module $m (memory (export "memory") 1)
    (func (export "answer") (result i32) (i32.const {answer}))
    (func (export "spin") (loop (br 0))))
  (core instance $i (instantiate $m))
  (func (export "answer") (result u32) (canon lift (core func $i "answer")))
  (func (export "spin") (canon lift (core func $i "spin"))))
"""


def command(source: str, *arguments: object) -> list[str]:
    """A Python program in a process of its own, with the tests' support and every thread's stack when it crashes."""
    head = f"import faulthandler, sys; faulthandler.enable(); sys.path.insert(0, {str(TESTS)!r})\n"
    return [sys.executable, "-c", head + source, *map(str, arguments)]


@pytest.fixture
def plugins(tmp_path: Path) -> list[Path]:
    """Two plugins that answer 1 and 2."""
    return [write_plugin(tmp_path / f"plugin-{n}", ANSWER.format(answer=n), plugin_id=f"acme/n{n}") for n in (1, 2)]


def ask(home: Path, plugins: list[Path]) -> tuple[list[int], int, list[str]]:
    """What the plugins answer in a new host on this home, how often something was compiled, and every warning."""
    with open_host(home=home) as host:
        answers = [host.load(plugin, trust=TRUSTED)[""].answer() for plugin in plugins]
        return answers, len(events(host, "compile")), [str(data["text"]) for data in events(host, "warning")]


# -- a home that lies --------------------------------------------------------------------------------------------------


def _each(home: Path, pattern: str, change: Callable[[Path], object]) -> None:
    found = sorted(home.glob(pattern))
    assert found
    for file in found:
        mode = file.stat().st_mode
        file.chmod(0o600)
        change(file)
        if file.exists():
            file.chmod(mode)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for at in (0, len(data) // 3, len(data) // 2, len(data) - 1):
        data[at] ^= 0x10
    file.write_bytes(data)


def _flip_last(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def _lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _swap(home: Path) -> None:
    first, second = sorted(home.glob("cache/native/*.native"))
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


def _other_key(home: Path) -> None:
    (home / "cache/native/key").write_bytes(os.urandom(32))


def _short_key(home: Path) -> None:
    (home / "cache/native/key").write_bytes(b"short")


def _open_key(home: Path) -> None:
    (home / "cache/native/key").chmod(0o644)


def _no_key(home: Path) -> None:
    (home / "cache/native/key").unlink()


def _link_key(home: Path) -> None:
    key = home / "cache/native/key"
    key.rename(home / "stolen")
    key.symlink_to(home / "stolen")


NATIVE: dict[str, Callable[[Path], None]] = {
    **{
        change.__name__.strip("_"): lambda home, change=change: _each(home, "cache/native/*.native", change)  # type: ignore[misc]
        for change in (_flip, _flip_last, _cut, _lengthen, _empty, _directory, _pipe)
    },
    "swapped": _swap,
    "other key": _other_key,
    "short key": _short_key,
    "key open to others": _open_key,
    "no key": _no_key,
    "key is a link": _link_key,
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_code_that_does_not_verify_is_compiled_again(tmp_path: Path, plugins: list[Path], name: str) -> None:
    """Damaged, exchanged and foreign entries of the cache are never run: both plugins answer as themselves."""
    home = tmp_path / "home"
    assert ask(home, plugins) == ([1, 2], 2, [])
    assert ask(home, plugins) == ([1, 2], 0, [])
    NATIVE[name](home)
    answers, compiled, _ = ask(home, plugins)
    assert (answers, compiled) == ([1, 2], 2)
    # A link in the key's place is never followed; that costs time only.
    again = ask(home, plugins)
    assert again[:2] == ([1, 2], 2 if name == "key is a link" else 0)


def test_code_from_another_home_is_not_taken(tmp_path: Path, plugins: list[Path]) -> None:
    """A whole cache that was carried over without its key is worth nothing, and does no harm."""
    assert ask(tmp_path / "theirs", plugins)[0] == [1, 2]
    assert ask(tmp_path / "ours", plugins)[0] == [1, 2]
    for file in (tmp_path / "ours").glob("cache/native/*.native"):
        file.unlink()
        shutil.copy(tmp_path / "theirs/cache/native" / file.name, file)
    assert ask(tmp_path / "ours", plugins)[:2] == ([1, 2], 2)


@pytest.mark.parametrize("change", [_flip, _cut, _lengthen, _empty, _directory, _pipe])
def test_types_that_do_not_verify_are_read_again(
    tmp_path: Path, plugins: list[Path], change: Callable[[Path], None]
) -> None:
    """Damaged entries of the cache of types give the same types again."""
    home = tmp_path / "home"
    assert ask(home, plugins)[0] == [1, 2]
    _each(home, "cache/types/*.json", change)
    assert ask(home, plugins)[:2] == ([1, 2], 0)


@pytest.mark.parametrize("part", ["cache", "cache/native", "cache/types"])
def test_a_cache_that_is_something_else_costs_time_only(tmp_path: Path, plugins: list[Path], part: str) -> None:
    """A file, a link to elsewhere or a link in a circle in place of a cache's directory: plugins run all the same."""
    outside = tmp_path / "outside"
    outside.mkdir()
    makers: list[Callable[[Path], object]] = [
        lambda place: place.write_text("not a directory"),
        lambda place: place.symlink_to(place),
        lambda place: place.symlink_to(tmp_path / "nowhere" / "at all"),
    ]
    for number, make in enumerate(makers):
        place = tmp_path / f"home-{number}" / part
        place.parent.mkdir(parents=True, mode=0o700)
        make(place)
        answers, compiled, warnings = ask(tmp_path / f"home-{number}", plugins)
        assert (answers, compiled) == ([1, 2], 2)
        assert warnings or part == "cache/types"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_a_home_without_rights_is_reported(tmp_path: Path, plugins: list[Path]) -> None:
    """A home that cannot be entered or written gives `registry.io` or costs time only."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "cache").mkdir(mode=0o500)
    assert ask(home, plugins)[0] == [1, 2]
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ClocheError) as caught, open_host(home=tmp_path / "new"):
            pass
        assert caught.value.code == "registry.io"
    finally:
        tmp_path.chmod(0o700)


# -- other processes, full disks ---------------------------------------------------------------------------------------

LOADER = """
import sys
from pathlib import Path
from support.wat_plugins import TRUSTED, events, open_host
with open_host(home=Path(sys.argv[1])) as host:
    print("ready", flush=True)
    sys.stdin.readline()
    plugin = host.load(Path(sys.argv[2]), trust=TRUSTED)
    print(plugin[""].answer(), len(events(host, "compile")), len(events(host, "warning")))
"""


def test_processes_that_load_the_same_at_once_compile_it_once(tmp_path: Path, plugins: list[Path]) -> None:
    """Four processes on one cold home: all answer, one of them compiled, nothing is left over."""
    home = tmp_path / "home"
    words = command(LOADER, home, plugins[0])
    running = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err) == (0, "")
        answers.append(out.split())
    assert sorted(answers) == [["1", "0", "0"]] * 3 + [["1", "1", "0"]]
    left = sorted(file.name for file in (home / "cache/native").iterdir() if not file.name.endswith(".native"))
    assert left == ["key"]


FULL = """
import resource, sys
from pathlib import Path
from cloche.errors import ClocheError
from support.wat_plugins import TRUSTED, open_host
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    with open_host(home=Path(sys.argv[1])) as host:
        print(host.load(Path(sys.argv[2]), trust=TRUSTED)[""].answer())
except ClocheError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("bytes_", [0, 100, 5_000, 50_000])
def test_a_disk_that_takes_nothing_is_no_harm(tmp_path: Path, plugins: list[Path], bytes_: int) -> None:
    """With no room for files of any use a plugin still answers or says `registry.io`; afterwards the home works."""
    home = tmp_path / "home"
    words = command(FULL, home, plugins[0], bytes_)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1\n" or done.stdout.startswith("registry.io"), done.stdout
    assert ask(home, plugins)[0] == [1, 2]


MOUNTED = """
import subprocess, sys
from pathlib import Path
from support.wat_plugins import TRUSTED, open_host
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + sys.argv[3], "none", sys.argv[1]], check=True)
from cloche.errors import ClocheError
try:
    with open_host(home=Path(sys.argv[1])) as host:
        for _ in range(2):
            plugin = host.load(Path(sys.argv[2]), trust=TRUSTED)
            print(plugin[""].answer())
            host.unload(plugin.id)
except ClocheError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("size", ["4k", "16k", "64k"])
def test_a_full_file_system_is_no_harm(tmp_path: Path, plugins: list[Path], size: str) -> None:
    """The same on a real file system that is full, where one can be mounted."""
    can = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, check=False
    )
    if can.returncode:
        pytest.skip(f"no file system can be mounted here: {can.stderr.decode().strip()}")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    words = ["unshare", "-m", *command(MOUNTED, home, plugins[0], size)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1\n1\n" or done.stdout.startswith("registry.io"), done.stdout


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------

MOMENTS = 30
SWALLOWED_S = 12.0
"""A Ctrl-C that shows no effect for this long was dropped by Python."""

# A signal during garbage collection is handled in the first weak reference's callback, where Python drops what is
# raised: one Ctrl-C in fifty.
BUSY = """
import gc, itertools, os, sys
from pathlib import Path
from cloche.errors import ClocheError
from support.wat_plugins import TRUSTED, open_host
gc.disable()
home, data, rounds = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), itertools.count()

def work():
    with open_host(home=home) as host:
        # A custom section with a number makes another component of it, which has to be read and compiled.
        for wasm in (data, data + b"\\0\\6\\1n" + next(rounds).to_bytes(4, "little")):
            plugin = host.load_bytes(wasm, trust=TRUSTED)
            point = plugin[""]
            for _ in range(50):
                assert point.answer() == 7
            try:
                point.spin.options(deadline=0.02)()
            except ClocheError as error:
                assert error.code == "limit.deadline", error

for moment in range(int(sys.argv[3])):
    try:
        print("working", flush=True)
        while True:
            work()
    except KeyboardInterrupt:
        print("stopped", len(os.listdir("/proc/self/fd")), flush=True)
"""


class Lines:
    """The lines of a pipe, each waited for no longer than told."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._rest = pipe, b""

    def next(self, timeout_s: float) -> str | None:
        """The next line without its end; None when there is none in time. The end of the pipe is an error."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            if not select.select([self._pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            part = os.read(self._pipe.fileno(), 4096)
            assert part, "the process has ended"
            self._rest += part
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()


@pytest.fixture
def component(tmp_path: Path) -> Path:
    """A component as a file."""
    file = tmp_path / "seven.wasm"
    file.write_bytes(parse(ANSWER.format(answer=7)))
    return file


def test_ctrl_c_at_any_moment_ends_the_work_and_nothing_else(tmp_path: Path, component: Path) -> None:
    """Thirty times, while it loads, compiles, calls, spins and closes, Ctrl-C raises KeyboardInterrupt once."""
    chance = random.Random(7)
    words = command(BUSY, tmp_path / "home", component, MOMENTS)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, lost = Lines(process.stdout), 0
        descriptors = []
        for _ in range(MOMENTS):
            assert said.next(PATIENCE_S) == "working"
            time.sleep(chance.uniform(0, 0.3))
            process.send_signal(signal.SIGINT)
            answer = said.next(SWALLOWED_S)
            if answer is None:
                # Python itself drops an exception, KeyboardInterrupt too, that arises in the callback of a weak
                # reference or in a finalizer. People press the keys again.
                lost += 1
                process.send_signal(signal.SIGINT)
                answer = said.next(PATIENCE_S)
            assert answer is not None
            assert answer.startswith("stopped "), answer
            descriptors.append(int(answer.split()[1]))
        err = process.stderr.read()
        assert process.wait(PATIENCE_S) == 0, err
    assert b"Fatal" not in err
    assert b"panicked" not in err
    assert err.count(b"Exception ignored") == lost <= 3, err
    assert descriptors[-1] <= descriptors[0] + 6
    with open_host(home=tmp_path / "home") as host:
        assert host.load(component, trust=TRUSTED)[""].answer() == 7
        assert not events(host, "warning")


ONCE = """
import sys
from pathlib import Path
from support.wat_plugins import TRUSTED, open_host
with open_host(home=Path(sys.argv[1])) as host:
    point = host.load(Path(sys.argv[2]), trust=TRUSTED)[""]
    print("loaded", flush=True)
    while True:
        point.answer()
"""


@pytest.fixture
def moments() -> Iterator[float]:
    """Seconds to wait, from the start of a process to well after its first calls; the same every time."""
    chance = random.Random(11)
    return (chance.uniform(0.0, 1.5) for _ in range(10))


def test_ctrl_c_from_the_first_moment_on(tmp_path: Path, component: Path, moments: Iterator[float]) -> None:
    """A process that is stopped while it starts, or at any time after, dies of Ctrl-C alone; its home stays whole."""
    home = tmp_path / "home"
    words = command(ONCE, home, component)
    for delay_s in moments:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
        # A library that is busy with its classes may answer with an error of its own, which then names the cause.
        assert process.returncode in {-signal.SIGINT, 130} or "KeyboardInterrupt" in err, (delay_s, err)
        assert "Fatal" not in err
        assert "panicked" not in err
        with open_host(home=home) as host:
            assert host.load(component, trust=TRUSTED)[""].answer() == 7
            assert not events(host, "warning")
