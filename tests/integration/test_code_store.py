"""The way from a component's bytes to native code: cache, split form, background, concurrency, broken homes."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloche.confine.child import ChildResult, run_confined, run_confined_python
from cloche.confine.level import Level
from cloche.confine.limits import ChildLimits
from cloche.confine.memory import new_memory_file
from cloche.engine import code as code_module
from cloche.engine import compile as compile_module
from cloche.engine import ffi, installed, sealed
from cloche.engine import modules as modules_module
from cloche.engine.code import CodeStore, NativeCode
from cloche.engine.compile import CodeKind, Progress, compile_code
from cloche.engine.modules import Split, split_component
from cloche.engine.profile import Profile, new_engine
from cloche.errors import ClocheError, ContractError, EngineError
from cloche.model import MIB, Digest, Metering
from cloche.observe.events import EventKind
from support.compile_wat import binary, component, digest_of, large_component, nested_loops

pytestmark = pytest.mark.skipif(os.name != "posix", reason="children are POSIX processes")


class Events:
    """Collects events."""

    def __init__(self) -> None:
        self.all: list[tuple[EventKind, dict[str, object]]] = []

    def __call__(self, kind: EventKind, data: Mapping[str, object]) -> None:
        self.all.append((kind, dict(data)))

    def compiled(self) -> list[tuple[object, object]]:
        """Kind of what was compiled, and whether in the background."""
        return [(data["kind"], data["background"]) for kind, data in self.all if kind is EventKind.COMPILE]

    def warnings(self) -> str:
        """All warnings in one text."""
        return "\n".join(str(data["text"]) for kind, data in self.all if kind is EventKind.WARNING)


@pytest.fixture
def events() -> Events:
    """What the store told."""
    return Events()


@pytest.fixture
def store(tmp_path: Path, events: Events) -> Iterator[CodeStore]:
    """A store on an empty home that compiles only what it is asked for."""
    with_home = CodeStore(tmp_path, Profile(), emit=events, background=False)
    yield with_home
    with_home.close()


def native(store: CodeStore, data: bytes) -> tuple[int, bool, tuple[str, ...]]:
    """Ask, load everything with the engine and instantiate; children run, whole or not, names of the modules."""
    with store.native(data, digest_of(data)) as code:
        instantiate(code)
        return code.compiled, code.whole, tuple(name for name, _ in code.modules)


def instantiate(code: NativeCode) -> None:
    """Load sealed descriptors with the engine and make one instance, as the linker does."""
    lib = ffi.library()
    engine = new_engine(lib, Profile())

    def check(error: int | None) -> None:
        assert not error, ffi.take_error(lib, error or 0)

    def load(function: object, descriptor: int) -> int:
        path, out = sealed.loading_path(descriptor), ffi.ptr()
        assert path is not None
        check(function(engine, path, ctypes.byref(out)))  # type: ignore[operator]
        assert out.value
        return out.value

    loaded = load(lib.wasmtime_component_deserialize_file, code.component_fd)
    linker = lib.wasmtime_component_linker_new(engine)
    root = lib.wasmtime_component_linker_root(linker)
    modules = []
    for name, descriptor in code.modules:
        modules.append(load(lib.wasmtime_module_deserialize_file, descriptor))
        text = name.encode()
        check(lib.wasmtime_component_linker_instance_add_module(root, text, len(text), modules[-1]))
    lib.wasmtime_component_linker_instance_delete(root)
    held = lib.wasmtime_store_new(engine, None, None)
    context = lib.wasmtime_store_context(held)
    check(lib.wasmtime_context_set_fuel(context, 10**9))
    lib.wasmtime_context_set_epoch_deadline(context, 10**6)
    instance = ffi.ComponentInstance()
    check(lib.wasmtime_component_linker_instantiate(linker, context, loaded, ctypes.addressof(instance)))
    lib.wasmtime_store_delete(held)
    lib.wasmtime_component_linker_delete(linker)
    lib.wasmtime_component_delete(loaded)
    for module in modules:
        lib.wasmtime_module_delete(module)
    lib.wasm_engine_delete(engine)


def test_code_is_compiled_once_and_then_found(store: CodeStore, events: Events, tmp_path: Path) -> None:
    """The second request, and another store on the same home, compile nothing."""
    assert native(store, component()) == (1, True, ())
    assert native(store, component()) == (0, True, ())
    other = CodeStore(tmp_path, Profile(), emit=events, background=False)
    assert native(other, component()) == (0, True, ())
    assert native(other, component(43)) == (1, True, ())
    assert events.compiled() == [("component", False)] * 2
    assert [data["hit"] for kind, data in events.all if kind is EventKind.CACHE] == [False, True, True, False]
    assert events.warnings() == ""


def test_another_profile_has_code_of_its_own(store: CodeStore, events: Events, tmp_path: Path) -> None:
    """Code of one metering mode is never handed to another."""
    native(store, component())
    other = CodeStore(tmp_path, Profile(metering=Metering.DEADLINE), emit=events, background=False)
    with other.native(component(), digest_of(component())) as code:
        assert code.compiled == 1


def test_a_large_component_is_served_in_parts_that_are_shared(store: CodeStore, events: Events) -> None:
    """The second component compiles only what is its own; asked for again, neither compiles anything."""
    first, second = large_component("first"), large_component("second")
    names = ("unbundled-module0", "unbundled-module1")
    assert native(store, first) == (3, False, names)
    compiled, whole, found = native(store, second)
    assert (compiled, whole, found) == (1, False, names)
    assert native(store, first) == (0, False, names)
    assert native(store, second) == (0, False, names)
    assert [kind for kind, _ in events.compiled()] == ["module", "module", "component", "module"]


def test_parts_survive_the_process(store: CodeStore, events: Events, tmp_path: Path) -> None:
    """Another store finds every part without compiling, and misses one part when one is gone."""
    large = large_component("first")
    native(store, large)
    other = CodeStore(tmp_path, Profile(), emit=events, background=False)
    assert native(other, large)[0] == 0
    other.close()
    (rest,) = (entry for entry in store.entries() if entry.kind == "component")
    (tmp_path / "cache" / "native" / f"{rest.name}.native").unlink()
    third = CodeStore(tmp_path, Profile(), emit=events, background=False)
    assert native(third, large)[0] == 1
    third.close()


def test_the_background_takes_over(tmp_path: Path, events: Events) -> None:
    """After the parts were served the whole component is compiled once, and is what later requests get."""
    store = CodeStore(tmp_path, Profile(), emit=events)
    large = large_component("first")
    assert native(store, large)[1] is False
    assert store.wait(60)
    assert store.compiled_whole == {digest_of(large)}
    assert native(store, large) == (0, True, ())
    assert events.compiled()[-1] == ("component", True)
    store.close()
    assert threading.active_count() == 1 or not any(t.name == "cloche-compile" for t in threading.enumerate())


def test_the_background_finds_what_another_process_compiled(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever compiled the whole component meanwhile, it is there, and served as if this process had."""
    large = large_component("first")
    store, other = CodeStore(tmp_path, Profile(), emit=events), CodeStore(tmp_path, Profile(), emit=events)
    compile_whole = store._background._work  # type: ignore[union-attr]

    def after_the_other(*args: Any) -> None:
        with other.native(large, digest_of(large), whole=True):
            pass
        compile_whole(*args)

    monkeypatch.setattr(store._background, "_work", after_the_other)
    assert native(store, large)[1] is False
    assert store.wait(60)
    assert ("component", True) not in events.compiled()
    assert store.compiled_whole == {digest_of(large)}
    store.close()
    other.close()


def test_whole_code_that_finds_no_room_is_not_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache could not keep is not there for anybody."""
    store = CodeStore(tmp_path, Profile(), emit=lambda kind, data: None)
    large = large_component("first")
    compile_whole = store._background._work  # type: ignore[union-attr]

    def without_room(*args: Any) -> None:
        monkeypatch.setattr(store._cache, "store", lambda key, descriptor: False)
        compile_whole(*args)

    monkeypatch.setattr(store._background, "_work", without_room)
    assert native(store, large)[1] is False
    assert store.wait(60)
    assert store.compiled_whole == set()
    store.close()


def test_closing_ends_the_background(tmp_path: Path, events: Events) -> None:
    """A store that is closed leaves no thread, no child and no warning, however long the compile would have taken."""
    store = CodeStore(tmp_path, Profile(), emit=events)
    bomb = nested_loops(600, 1500).removeprefix("(component").removesuffix(")")
    large = binary(f'(component {bomb} (core module (data "{"x" * 2_200_000}") (memory 40)))')
    with store.native(large, digest_of(large)):
        pass
    store.close()
    store.close()
    assert not any(thread.name == "cloche-compile" for thread in threading.enumerate())
    assert "".join((task / "children").read_text() for task in Path("/proc/self/task").iterdir()) == ""
    assert events.warnings() == ""


def test_whole_is_never_in_parts(store: CodeStore) -> None:
    """A caller can insist."""
    large = large_component("first")
    with store.native(large, digest_of(large), whole=True) as code:
        assert (code.whole, code.modules, code.compiled) == (True, (), 1)


def test_taking_apart_keeps_small_modules_inside(tmp_path: Path) -> None:
    """Only modules that pay are moved out, and only from components that are large."""
    assert split_component(component(), tmp_path) is None
    (tmp_path / "one").mkdir()
    split = split_component(large_component("first"), tmp_path / "one")
    assert split is not None
    assert len(split.rest) < 10_000
    assert [module.name for module in split.modules] == ["unbundled-module0", "unbundled-module1"]
    assert all(digest_of(module.data) == module.digest for module in split.modules)
    many = binary(
        f"(component {''.join('(core module (memory 1) (func nop))' for _ in range(100))}(core module "
        f'(memory 40) (data "{"x" * 2_200_000}")))'
    )
    (tmp_path / "two").mkdir()
    one = split_component(many, tmp_path / "two")
    assert one is not None
    assert len(one.modules) == 1


def test_damaged_large_components_are_named_malformed(store: CodeStore) -> None:
    """What cannot be taken apart is compiled whole, which says what is wrong."""
    large = large_component("first")
    for damaged in (large[:-5], large[: len(large) // 2], large[:2_100_000] + b"\xff" * 40 + large[2_100_040:]):
        try:
            with store.native(damaged, digest_of(damaged)):
                pass
        except ContractError as error:
            found = error.code
        else:
            found = "compiled"  # bytes of a data segment may be anything
        assert found in {"component.malformed", "compiled"}
    with pytest.raises(ContractError) as caught:
        store.native(large[:-5], digest_of(large[:-5]))
    assert caught.value.code == "component.malformed"


def test_a_home_that_cannot_be_written_is_a_warning(tmp_path: Path, events: Events) -> None:
    """Everything runs without a cache; the warning says why; listing it is an error."""
    (tmp_path / "home").write_text("a file")
    store = CodeStore(tmp_path / "home", Profile(), emit=events)
    assert native(store, component()) == (1, True, ())
    assert native(store, component()) == (1, True, ())
    assert native(store, large_component("first")) == (1, True, ())
    assert "not cached" in events.warnings()
    assert "was compiled whole" in events.warnings()
    with pytest.raises(ClocheError) as caught:
        store.entries()
    assert caught.value.code == "registry.io"
    store.close()


def test_a_cache_that_is_too_small_is_a_warning(tmp_path: Path, events: Events) -> None:
    """Code that does not fit is used and not kept."""
    store = CodeStore(tmp_path, Profile(), emit=events, max_bytes=100)
    assert native(store, component()) == (1, True, ())
    assert native(store, component()) == (1, True, ())
    assert "do not fit" in events.warnings()


def test_a_wrong_digest_is_refused_before_it_is_cached(store: CodeStore) -> None:
    """Code is only ever kept under the digest of the bytes that it was made from."""
    with pytest.raises(EngineError, match="another digest"):
        store.native(component(), Digest("0" * 64))
    assert store.entries() == ()


def test_a_refusal_is_not_cached(tmp_path: Path, events: Events) -> None:
    """A bomb is refused each time, and the next component works."""
    limits = ChildLimits(cpu_seconds=1, memory_bytes=96 * MIB, file_bytes=64 * MIB)
    store = CodeStore(tmp_path, Profile(), emit=events, limits=limits)
    bomb = binary(nested_loops(2000, 4000))
    for _ in range(2):
        with pytest.raises(ContractError) as caught:
            store.native(bomb, digest_of(bomb))
        assert caught.value.code == "engine.compile"
    assert store.entries() == ()
    assert native(store, component())[0] == 1


def test_forgetting_compiles_again(store: CodeStore) -> None:
    """What was forgotten is compiled anew, with every part; what others have of their own stays."""
    large, other = large_component("first"), large_component("second")
    for data in (component(), large, other):
        native(store, data)
    store.forget(digest_of(component()))
    store.forget(digest_of(large))
    assert native(store, component())[0] == 1
    assert native(store, large)[0] == 3
    assert native(store, other)[0] == 0
    assert store.clear() > 0
    assert store.gc() == 0


def test_threads_compile_once(store: CodeStore, events: Events) -> None:
    """Eight threads that ask for the same at once cause one compile."""
    data = component(99)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: native(store, data), range(8)))
    assert sorted(compiled for compiled, _, _ in found) == [0] * 7 + [1]
    assert events.compiled() == [("component", False)]


WORKER = """
import sys
from pathlib import Path
from cloche.engine.code import CodeStore
from cloche.engine.profile import Profile
import hashlib
data = Path(sys.argv[2]).read_bytes()
store = CodeStore(Path(sys.argv[1]), Profile(), emit=lambda kind, facts: None, background=False)
with store.native(data, hashlib.sha256(data).hexdigest()) as code:
    print(code.compiled)
"""


def test_processes_compile_once(tmp_path: Path) -> None:
    """Four processes on one home compile each part once between them."""
    (tmp_path / "large.wasm").write_bytes(large_component("first"))
    command = [sys.executable, "-c", WORKER, str(tmp_path / "home"), str(tmp_path / "large.wasm")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    counts = []
    for worker in workers:
        output, errors = worker.communicate(timeout=120)
        assert (worker.returncode, errors) == (0, b"")
        counts.append(int(output))
    assert sum(counts) == 3


def test_loaded_code_survives_everything_that_happens_to_its_file(store: CodeStore, tmp_path: Path) -> None:
    """Overwriting, truncating and removing the cache while code is loaded from it changes nothing."""
    data = component()
    with store.native(data, digest_of(data)) as first, store.native(data, digest_of(data)) as code:
        (path,) = (tmp_path / "cache" / "native").glob("*.native")
        path.chmod(0o600)
        path.write_bytes(b"\xcc" * path.stat().st_size)
        os.truncate(path, 3)
        path.unlink()
        instantiate(code)
        instantiate(first)


def test_the_event_says_whether_code_was_kept(tmp_path: Path) -> None:
    """It comes after the code was stored, or not, so that who hears of it finds what it names."""
    told: list[tuple[object, int]] = []

    def hear(kind: EventKind, data: Mapping[str, object]) -> None:
        if kind is EventKind.COMPILE:
            told.append((data["kept"], len(kept.entries())))

    kept = CodeStore(tmp_path / "kept", Profile(), emit=hear, background=False)
    native(kept, component())
    small = CodeStore(tmp_path / "small", Profile(), emit=hear, background=False, max_bytes=100)
    native(small, component())
    assert told == [(True, 1), (False, 1)]


def test_the_whole_from_the_cache_is_never_compiled(store: CodeStore, events: Events) -> None:
    """There is none before it was compiled, and parts are not the whole."""
    large = large_component("first")
    assert store.cached_whole(digest_of(large)) is None
    native(store, large)
    assert store.cached_whole(digest_of(large)) is None
    with store.native(large, digest_of(large), whole=True):
        pass
    before = events.compiled()
    code = store.cached_whole(digest_of(large))
    assert code is not None
    with code:
        assert (code.whole, code.compiled) == (True, 0)
        instantiate(code)
    assert events.compiled() == before


def refused(times: int) -> Callable[[NativeCode], int]:
    """A user of native code that refuses it, as the engine does with code of another build, then counts compiles."""
    left = [times]

    def use(code: NativeCode) -> int:
        if left[0]:
            left[0] -= 1
            raise EngineError("native code does not load: made by another engine", code="engine.cache")
        instantiate(code)
        return code.compiled

    return use


def test_code_that_the_engine_refuses_is_compiled_again_once(store: CodeStore, events: Events) -> None:
    """All of it, with what is shared; the event says so. Refused again, it is an error, and no third attempt."""
    large = large_component("first")
    native(store, large)
    assert store.load(large, digest_of(large), refused(0)) == 0
    assert store.load(large, digest_of(large), refused(1)) == 3
    assert "compiled again: native code does not load" in events.warnings()
    assert len(events.compiled()) == 6
    with pytest.raises(EngineError) as caught:
        store.load(large, digest_of(large), refused(2))
    assert caught.value.code == "engine.cache"
    assert len(events.compiled()) == 9
    with pytest.raises(ZeroDivisionError):
        store.load(component(), digest_of(component()), lambda code: 1 // (code.compiled - 1))
    assert len(events.compiled()) == 10


def test_another_build_of_the_engine_has_code_of_its_own(
    store: CodeStore, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two libraries of one version are told apart by size and time."""
    native(store, component())
    lib = installed.engine_library()
    rebuilt = lib._replace(path=tmp_path / "rebuilt.so")
    rebuilt.path.write_bytes(b"another build")
    for build, compiled in ((lib, 0), (rebuilt, 1)):
        monkeypatch.setattr(installed, "engine_library", lambda build=build: build)
        other = CodeStore(tmp_path, Profile(), emit=events, background=False)
        with other.native(component(), digest_of(component())) as code:
            assert code.compiled == compiled


def test_taking_apart_needs_no_temporary_directory(
    store: CodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is the cache, where nothing is left of it."""

    def nowhere(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    for name in ("mkdtemp", "mkstemp", "TemporaryFile", "gettempdir"):
        monkeypatch.setattr(tempfile, name, nowhere)
    assert native(store, large_component("first"))[:2] == (3, False)
    assert all(path.suffix == ".native" or path.name == "key" for path in (tmp_path / "cache" / "native").iterdir())


@pytest.mark.parametrize("failure", ["the disk is full", "the tool fails"])
def test_what_cannot_be_taken_apart_is_compiled_whole(
    store: CodeStore, events: Events, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """And a warning says why."""

    def full(*_: object) -> Split:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(argv: list[str], **options: Any) -> ChildResult:
        return run_confined([argv[0], "no-such-command"], **options)

    if failure == "the disk is full":
        monkeypatch.setattr(code_module, "split_component", full)
    else:
        monkeypatch.setattr(modules_module, "run_confined", failing)
    large = large_component("first")
    assert native(store, large) == (1, True, ())
    assert f"component {digest_of(large)[:12]} was compiled whole" in events.warnings()
    reason = "No space left" if failure == "the disk is full" else "no-such-command"
    assert reason in events.warnings()


def test_waiting_for_other_compiles_is_told(tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has to wait until another component is compiled hears of it."""
    monkeypatch.setattr(code_module, "COMPILES_AT_ONCE", 1)
    monkeypatch.setattr(code_module, "QUIET_MS", 0)
    store = CodeStore(tmp_path, Profile(), emit=events, background=False)
    inside, told, genuine = threading.Event(), threading.Event(), compile_code

    def slow(*arguments: Any, **options: Any) -> int:
        inside.set()
        assert told.wait(60)
        return genuine(*arguments, **options)

    def hear(progress: Progress) -> None:
        if progress.stage == "wait" and "components that compile now" in progress.text:
            told.set()

    monkeypatch.setattr(code_module, "compile_code", slow)
    first = threading.Thread(target=native, args=(store, component(1)))
    first.start()
    assert inside.wait(60)
    with store.native(component(2), digest_of(component(2)), hear) as code:
        assert code.compiled == 1
    first.join()
    assert told.is_set()


@pytest.mark.parametrize(
    ("level", "warned"), [(Level(7, True, True), 0), (Level(0, True, True), 1), (Level(0, False, True), 1)]
)
def test_less_confinement_than_there_should_be_is_told_once(
    store: CodeStore, events: Events, monkeypatch: pytest.MonkeyPatch, level: Level, warned: int
) -> None:
    """The operator hears once what confines the processes that compile strangers' code."""

    def run(*arguments: Any, **options: Any) -> ChildResult:
        return dataclasses.replace(run_confined_python(*arguments, **options), level=level)

    monkeypatch.setattr(compile_module, "run_confined_python", run)
    native(store, component(1))
    native(store, component(2))
    texts = [text for text in events.warnings().splitlines() if "landlock+seccomp" in text]
    assert len(texts) == warned
    assert all(f"only {level.word} confines" in text for text in texts)


def test_a_failing_listener_leaves_no_descriptor(tmp_path: Path) -> None:
    """What raises while code is handed over does not keep the code open."""

    def hear(*_: object) -> None:
        raise ZeroDivisionError

    store = CodeStore(tmp_path, Profile(), emit=hear, background=False)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):  # once it is compiled, once found
        with pytest.raises(ZeroDivisionError):
            store.native(component(), digest_of(component()))
    assert len(store.entries()) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


SCARCE = """
import gc, os, resource, sys
from pathlib import Path
from cloche.engine.code import CodeStore
from cloche.engine.profile import Profile
from cloche.errors import ClocheError
import hashlib
data = Path(sys.argv[2]).read_bytes()
digest = hashlib.sha256(data).hexdigest()
home, found = Path(sys.argv[1]), set()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

def count():
    return len(os.listdir("/proc/self/fd"))

CodeStore(home, Profile(), emit=lambda kind, facts: None, background=False).close()
before = count()
for spare in (*range(16), 24, 32):
    store = CodeStore(home, Profile(), emit=lambda kind, facts: None, background=False)
    store.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + spare, hard))
    try:
        store.native(data, digest).close()
        found.add("compiled")
    except ClocheError as error:
        found.add(error.code if error.code == "engine.resources" else str(error))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    store.close()
    assert count() == before, (spare, count(), before)
print(sorted(found))
"""


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_too_few_descriptors_are_an_error_with_a_name(tmp_path: Path, large: bool) -> None:
    """However few there are: it compiles, or says that descriptors are missing; nothing stays open."""
    (tmp_path / "a.wasm").write_bytes(large_component("first") if large else component())
    command = [sys.executable, "-c", SCARCE, str(tmp_path / "home"), str(tmp_path / "a.wasm")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['compiled', 'engine.resources']\n"


def code_of(**options: Any) -> bytes:
    """The native code of the small component, compiled now."""
    descriptor = compile_code(component(), digest_of(component()), CodeKind.COMPONENT, Profile(), **options)
    try:
        with sealed.contents(descriptor) as view:
            return bytes(view)
    finally:
        os.close(descriptor)


def test_a_killed_compile_is_done_again() -> None:
    """A child that is killed from outside is nobody's fault: another one makes the same code."""
    killed: list[int] = []

    def kill_first() -> bool:
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                if not killed:
                    killed.append(int(child))
                    os.kill(int(child), signal.SIGKILL)
        return False

    assert code_of(cancelled=kill_first) == code_of()
    assert len(killed) == 1


def test_what_a_killed_compile_wrote_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next child begins at the start of the output, whatever stands there and wherever the last one stopped."""
    whole = code_of()

    def half_written(name: str) -> int:
        descriptor = new_memory_file(name)
        os.write(descriptor, b"half" * 1_000_000)
        return descriptor

    monkeypatch.setattr(compile_module, "new_memory_file", half_written)
    assert code_of() == whole


def test_fifty_requests_leave_nothing(store: CodeStore) -> None:
    """Descriptors and threads are the same after fifty requests, in parts and whole."""
    large, small = large_component("first"), component()
    for data in (large, small):
        native(store, data)
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for number in range(50):
        data = (large, small)[number % 2]
        with store.native(data, digest_of(data)):
            pass
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def test_compiling_is_reproducible() -> None:
    """The same bytes give the same native code, so what is shared does not depend on who came first."""
    assert code_of() == code_of()
