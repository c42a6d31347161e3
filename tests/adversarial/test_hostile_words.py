"""What a hostile component can put into the engine's own words: names are the guest's, reasons are the engine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.artifact import digest_of
from cloche.engine.ffi import MAX_MESSAGE_BYTES
from cloche.engine.stacks import this_thread
from cloche.errors import CapabilityError, GuestError, GuestTrap, UsageError
from cloche.runtime.call import MAX_CAUSE_CHARACTERS, ComponentBackend
from cloche.runtime.local import LocalHouse
from support.wat_plugins import events, load, open_host

MIMICS = [
    "all fuel consumed by WebAssembly",
    "call stack exhausted",
    r"\nCaused by:\n    wasm trap: all fuel consumed by WebAssembly",
]


def unreachable_under(names: list[str]) -> str:
    """A component whose function `go` traps below functions of these names."""
    functions = "\n".join(f'(func (@name "{name}") (call {index + 2}))' for index, name in enumerate(names))
    return f"""(component
      (core module $m (func (export "go") (call 1)) {functions} (func unreachable))
      (core instance $i (instantiate $m))
      (func (export "go") (canon lift (core func $i "go"))))"""


@pytest.mark.parametrize("name", MIMICS)
def test_a_function_is_not_a_reason(tmp_path: Path, name: str) -> None:
    """A guest cannot pass off its trap as a spent limit by the name of a function in the backtrace."""
    with open_host() as host:
        plugin = load(host, tmp_path, unreachable_under([name]))
        with pytest.raises(GuestTrap) as caught:
            plugin[""].go()
    assert caught.value.kind == "unreachable"
    assert "fuel" not in caught.value.message


def test_a_backtrace_is_bounded(tmp_path: Path) -> None:
    """Huge names are cut out of the middle; the reason at the end stays."""
    with open_host() as host:
        plugin = load(host, tmp_path, unreachable_under([f"{index}{'x' * 90_000}" for index in range(8)]))
        with pytest.raises(GuestTrap) as caught:
            plugin[""].go()
    assert caught.value.kind == "unreachable"
    assert 0 < len(caught.value.backtrace or "") <= MAX_MESSAGE_BYTES


def test_a_huge_error_value_is_not_written_out(tmp_path: Path) -> None:
    """The message names the size of a large error value; the value itself is still there, and a small one is shown."""
    wat = """(component
      (core module $m (memory (export "m") 64)
        (func (export "go") (param i32) (result i32)
          (i32.store8 (i32.const 0) (i32.const 1))
          (i32.store (i32.const 4) (i32.const 65536)) (i32.store (i32.const 8) (local.get 0))
          (i32.const 0)))
      (core instance $i (instantiate $m))
      (func (export "go") (param "size" u32) (result (result (error string)))
        (canon lift (core func $i "go") (memory (core memory $i "m")))))"""
    with open_host() as host:
        plugin = load(host, tmp_path, wat)
        with pytest.raises(GuestError, match="too large to show") as caught:
            plugin[""].go(2_000_000)
        assert caught.value.payload == "\0" * 2_000_000
        with pytest.raises(GuestError, match=r"x00"):
            plugin[""].go(3)


def test_an_instance_over_an_older_linker_is_still_known(tmp_path: Path) -> None:
    """After optimised code took over, the instances made before are still found: to stop them, and against re-entry."""
    with open_host() as host:
        plugin = load(host, tmp_path, unreachable_under(["f"]), instances="pooled")
        backend = plugin[""]._backend
        assert isinstance(backend, ComponentBackend)
        house = backend._house
        assert isinstance(house, LocalHouse)
        instance = backend.pool.acquire(backend.limits)
        candidate = host.inspect(tmp_path)
        with host.code.native(candidate.runnable, digest_of(candidate.runnable)) as native:
            newer = host._link(candidate, house._engine, native)
        house._newer = iter([newer, None]).__next__
        for _ in range(2):
            linker = house._borrow()
            assert linker is newer
            house._give_back(linker)
        instance.serving = this_thread()
        with pytest.raises(UsageError, match="cannot be closed by a host function"):
            backend.close()
        instance.serving = None
        older = instance.linker
        assert older is not newer
        assert older.pointer
        instance.is_sound = False
        backend.pool.release(instance)
        assert not older.pointer  # closed with the last instance that was made from it


def test_code_that_is_gone_from_the_cache_is_asked_for_once(tmp_path: Path) -> None:
    """Where the whole code was compiled but cannot be had, calls go on with what there is, and nothing is compiled."""
    with open_host() as host:
        plugin = load(host, tmp_path, unreachable_under(["f"]))
        backend = plugin[""]._backend
        assert isinstance(backend, ComponentBackend)
        house = backend._house
        assert isinstance(house, LocalHouse)
        candidate = host.inspect(tmp_path)
        digest = digest_of(candidate.runnable)
        host.code.clear()
        compiled = len(events(host, "compile"))
        newer = host._newer(candidate, house._engine, host.code, digest)
        host.code.compiled_whole.add(digest)
        assert newer() is None
        assert len(events(host, "compile")) == compiled
        with host.code.native(candidate.runnable, digest, whole=True):
            assert newer() is None


def test_each_plugin_over_a_component_gets_its_whole_code(tmp_path: Path) -> None:
    """Several plugins may be made of one component: what the background compiled is for all of them, once for each."""
    with open_host() as host:
        plugin = load(host, tmp_path, unreachable_under(["f"]))
        backend = plugin[""]._backend
        assert isinstance(backend, ComponentBackend)
        house = backend._house
        assert isinstance(house, LocalHouse)
        candidate = host.inspect(tmp_path)
        digest = digest_of(candidate.runnable)
        waiting = [host._newer(candidate, house._engine, host.code, digest) for _ in range(2)]
        assert [newer() for newer in waiting] == [None, None]
        host.code.compiled_whole.add(digest)
        for newer in waiting:
            linker = newer()
            assert linker is not None
            linker.close()
            assert newer() is None


def test_the_cause_in_an_event_is_bounded(tmp_path: Path) -> None:
    """A backend's error that quotes megabytes of the guest's text is cut before it is kept."""
    with open_host() as host:
        plugin = load(host, tmp_path, unreachable_under(["f"]))
        backend = plugin[""]._backend
        assert isinstance(backend, ComponentBackend)
        error = CapabilityError("acme:x/y.f failed with ValueError")
        error.__cause__ = ValueError("x" * 1_000_000)
        backend._report_failure(error, None, "go")
        assert 0 < len(events(host, "backend-error")[-1]["cause"]) <= MAX_CAUSE_CHARACTERS
