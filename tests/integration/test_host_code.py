"""From a component to code that runs in a host: the memory probe and its limits, code that is refused or not sealed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cloche.confine.memory import new_memory_file
from cloche.engine import code as code_module
from cloche.engine import sealed
from cloche.engine.compile import CodeKind, compile_code
from cloche.engine.engine import Engine
from cloche.engine.interrupts import Interrupts
from cloche.engine.linker import CodeFiles, Linker
from cloche.engine.profile import Profile
from cloche.errors import ContractError, EngineError
from support.binary_wat import parse
from support.compile_wat import component, digest_of
from support.wat_plugins import TESTS, TRUSTED, events, open_host

ONE = """
(component
  (core module $m (memory (export "m") {pages}) (func (export "f") (result i32) i32.const 7))
  (core instance $i (instantiate $m))
  (alias core export $i "m" (core memory $memory))
  {more}
  (func (export "f") (result u32) (canon lift (core func $i "f"))))
"""
NESTED = """
  (component $inner (core module $big (memory 40)) (core instance (instantiate $big)))
  (instance (instantiate $inner))
"""
HIDDEN = "(core module $big (memory 40)) (core instance (instantiate $big))"


@pytest.mark.parametrize(
    ("more", "peak_memory"), [("", 3 * 65536), (NESTED, None), (HIDDEN, None)], ids=["all", "nested", "hidden"]
)
def test_peak_memory_counts_every_memory_or_is_none(more: str, peak_memory: int | None) -> None:
    """Where the probe would miss a memory there is no figure: one that is too low would be believed."""
    with open_host() as host:
        plugin = host.load_bytes(parse(ONE.format(pages=3, more=more)), trust=TRUSTED)
        assert plugin[""].f.call().usage.peak_memory == peak_memory


def test_a_component_that_the_probe_would_make_too_large_runs_as_it_is() -> None:
    """At the engine's own bounds there is no room for a probe; the plugin loads without one, from its own digest."""
    data = parse(ONE.format(pages=3, more='(core instance (export "x" (memory $memory)))' * 999))
    with open_host() as host:
        plugin = host.load_bytes(data, trust=TRUSTED)
        outcome = plugin[""].f.call()
        assert (outcome.value, outcome.usage.peak_memory) == (7, None)
        assert [item["digest"] for item in events(host, "compile")] == [digest_of(data)]


def test_what_is_malformed_without_the_probe_too_is_named_by_its_own_digest() -> None:
    """The author sees the digest of the file that came."""
    data = parse(ONE.format(pages=3, more="(core module (func (result i32)))"))
    with open_host() as host, pytest.raises(ContractError, match=digest_of(data)[:12]) as caught:
        host.load_bytes(data, trust=TRUSTED)
    assert caught.value.code == "component.malformed"


def test_code_that_the_engine_refuses_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that verifies and does not load is compiled anew at the next load, and once only in each load."""
    data, made = parse(ONE.format(pages=1, more="")), [0]
    broken = [1]

    def compile_(*arguments: Any, **options: Any) -> int:
        made[0] += 1
        if made[0] not in broken:
            return compile_code(*arguments, **options)
        descriptor = new_memory_file("broken")
        os.write(descriptor, b"\x7fELF of another build")
        sealed.seal(descriptor)
        return descriptor

    monkeypatch.setattr(code_module, "compile_code", compile_)
    with open_host(home=tmp_path) as host:
        plugin = host.load_bytes(data, trust=TRUSTED)
        assert plugin[""].f() == 7
        assert made == [2]
        assert any("compiled again" in str(item["text"]) for item in events(host, "warning"))
        host.unload(plugin.id)
        shutil.rmtree(tmp_path / "cache" / "native")
        broken[:] = [3, 4]
        with pytest.raises(EngineError, match="does not load") as caught:
            host.load_bytes(data, trust=TRUSTED)
        assert (caught.value.code, made) == ("engine.cache", [4])
        assert host.load_bytes(data, trust=TRUSTED)[""].f() == 7


def test_code_that_is_not_sealed_is_copied(tmp_path: Path) -> None:
    """A file that others could change is never mapped: cutting it off afterwards changes nothing."""
    descriptor = compile_code(component(), digest_of(component()), CodeKind.COMPONENT, Profile())
    path = tmp_path / "code"
    with sealed.contents(descriptor) as view:
        path.write_bytes(view)
    os.close(descriptor)
    interrupts = Interrupts()
    engine = Engine(Profile(), interrupts)
    with path.open("rb") as file:
        linker = Linker(engine, CodeFiles(file.fileno()), (), wasi=False)
    os.truncate(path, 0)
    assert str(path) not in Path("/proc/self/maps").read_text()
    linker.close()
    engine.close()


def test_sealed_code_is_mapped_and_not_copied() -> None:
    """All plugins and processes share its memory."""
    with open_host() as host:
        host.load_bytes(parse(ONE.format(pages=1, more="")), trust=TRUSTED)
        assert "/memfd:cloche-component" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_host_works_where_memory_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Code is then loaded from a copy, cold and from the cache."""
    if place == "memory" and not os.access("/dev/shm", os.W_OK):
        pytest.skip("no file system in memory here")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm" if place == "memory" else str(tmp_path))

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    for compiled in (1, 0):
        with open_host(home=tmp_path / "home") as host:
            assert host.load_bytes(parse(ONE.format(pages=1, more="")), trust=TRUSTED)[""].f() == 7
            assert len(events(host, "compile")) == compiled
            assert events(host, "warning") == []


READ_ONLY = """
import os, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from support.wat_plugins import TRUSTED, events, open_host
home = Path(sys.argv[1])
subprocess.run(["mount", "--bind", home, home], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", home, home], check=True)
data = Path(sys.argv[2]).read_bytes()
with open_host(home=home) as host:
    for _ in range(3):
        plugin = host.load_bytes(data, trust=TRUSTED)
        assert plugin[""].f() == 7
        host.unload(plugin.id)
    print(len(events(host, "compile")), len(events(host, "warning")))
    found = subprocess.run(["readlink", "-m", *Path(f"/proc/{os.getpid()}/fd").iterdir()], capture_output=True).stdout
    print(found.count(b"memfd"))
"""


def test_a_home_that_can_only_be_read_serves_what_it_holds(tmp_path: Path) -> None:
    """Nothing is compiled again, no descriptor of code stays open, and there is nothing to warn about."""
    can = subprocess.run(["unshare", "-m", "mount", "--bind", "/tmp", "/tmp"], capture_output=True, check=False)
    if can.returncode:
        pytest.skip(f"no file system can be mounted here: {can.stderr.decode().strip()}")
    home, data = tmp_path / "home", parse(ONE.format(pages=1, more=""))
    (tmp_path / "a.wasm").write_bytes(data)
    with open_host(home=home) as host:
        host.load_bytes(data, trust=TRUSTED)
    words = ["unshare", "-m", sys.executable, "-c", READ_ONLY, str(home), str(tmp_path / "a.wasm"), str(TESTS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 0\n0\n"
