"""Threat: a small component that takes the compiler hours or all memory. It is refused at its bound, with a name.

The bounds are small here, so that the tests are quick; the real ones differ in size only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloche.confine.child import ChildResult, run_confined_python
from cloche.confine.level import offered
from cloche.confine.limits import ChildLimits
from cloche.confine.memory import can_seal
from cloche.engine import compile as compile_
from cloche.engine import sealed
from cloche.engine.compile import MAX_INPUT_BYTES, CodeKind, Progress, compile_code
from cloche.engine.profile import Profile
from cloche.errors import ClocheError, ContractError, EngineError
from cloche.model import MIB, Digest
from support.compile_wat import binary, component, digest_of, long_function, many_functions, nested_loops

pytestmark = [pytest.mark.adversarial, pytest.mark.skipif(os.name != "posix", reason="children are POSIX processes")]
TESTS = str(Path(__file__).resolve().parent.parent)
USUAL = ChildLimits(file_bytes=64 * MIB)
SMALL = ChildLimits(wall_ms=20_000, cpu_seconds=1, memory_bytes=96 * MIB, file_bytes=64 * MIB)


def compiled(data: bytes, limits: ChildLimits = USUAL, kind: CodeKind = CodeKind.COMPONENT) -> int:
    """Compile and close; the number of bytes of native code."""
    descriptor = compile_code(data, digest_of(data), kind, Profile(), limits=limits)
    try:
        assert sealed.is_sealed(descriptor) or not can_seal()
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "text",
    [nested_loops(2000, 4000), many_functions(60_000), long_function(120_000)],
    ids=["nested-loops", "many-functions", "long-function"],
)
def test_a_bomb_is_refused_at_its_bound(text: str) -> None:
    """Time or memory runs out, the error names the digest, the bound and the remedy, and the next compile works."""
    bomb = binary(text)
    assert len(bomb) < 2 * MIB
    with pytest.raises(ContractError) as caught:
        compiled(bomb, SMALL)
    assert caught.value.code == "engine.compile"
    assert digest_of(bomb)[:12] in caught.value.message
    assert str(SMALL.memory_bytes) in caught.value.message or "20.0 s of wall time or 1 s" in caught.value.message
    assert "smaller" in caught.value.message
    assert compiled(component(), SMALL) > 0


def test_the_wall_clock_stops_a_compile() -> None:
    """A bomb with all the processor time it wants still ends."""
    with pytest.raises(ContractError, match=r"more than 0\.5 s of wall time") as caught:
        compiled(binary(nested_loops(2000, 4000)), ChildLimits(wall_ms=500, memory_bytes=4096 * MIB))
    assert caught.value.code == "engine.compile"


def test_large_native_code_is_refused() -> None:
    """Native code above its bound is not written."""
    with pytest.raises(ContractError, match=r"native code .* larger than 1000 bytes") as caught:
        compiled(component(), ChildLimits(file_bytes=1000))
    assert caught.value.code == "engine.compile"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "component.malformed"),
        (b"\0asm\x01\0\0\0", "component.core-module"),
        (b"\0asm\x0d\0", "component.malformed"),
        (b"\0asm\x0d\0\x02\0", "component.malformed"),
        (b"(component)", "component.not-wasm"),
        (b"\x7fELF" + bytes(60), "component.not-wasm"),
        (b"#!/bin/sh\n", "component.not-wasm"),
        (bytes(64), "component.not-wasm"),
        (b"\0asm\x0d\0\x01\0\xff", "component.malformed"),
        (b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\x0f", "component.malformed"),
    ],
)
def test_what_is_no_component_is_named(data: bytes, code: str) -> None:
    """Text, native code, core modules, cut-off and foreign headers are told apart, most without starting a child."""
    with pytest.raises(ContractError) as caught:
        compiled(data)
    assert caught.value.code == code


def test_every_truncation_is_malformed() -> None:
    """A component cut anywhere is refused as malformed or compiles as the shorter component that it is."""
    whole = component()
    codes = set()
    for end in range(8, len(whole), 9):
        try:
            codes.add("compiled" if compiled(whole[:end]) else "empty")
        except ContractError as error:
            codes.add(error.code)
    assert codes == {"compiled", "component.malformed"}


def test_a_module_is_compiled_as_a_module_only() -> None:
    """Each kind refuses the other's bytes."""
    module = binary("(module (func))")
    assert compiled(module, kind=CodeKind.MODULE) > 0
    for data, kind in ((component(), CodeKind.MODULE), (module, CodeKind.COMPONENT)):
        with pytest.raises(ContractError, match=r"core module|core WebAssembly module"):
            compiled(data, kind=kind)


def test_features_that_are_off_are_refused() -> None:
    """Shared memory, 64-bit memory, several memories, exceptions and garbage collection do not validate."""
    for text in (
        "(component (core module (memory 1 2 shared)))",
        "(component (core module (memory i64 1)))",
        "(component (core module (memory 1) (memory 1)))",
        "(component (core module (tag)))",
        "(component (core module (type (struct))))",
    ):
        with pytest.raises(ContractError) as caught:
            compiled(binary(text))
        assert caught.value.code == "component.malformed", text


def test_a_component_above_the_cap_is_refused_unread() -> None:
    """The size alone is enough."""
    with pytest.raises(ContractError) as caught:
        compile_code(b"\0asm\x0d\0\x01\0" + bytes(MAX_INPUT_BYTES), Digest("0" * 64), CodeKind.COMPONENT, Profile())
    assert caught.value.code == "component.too-large"


def test_a_compile_can_be_cancelled_and_tells_its_progress() -> None:
    """A long compile reports, and ends when it is told to."""
    told: list[Progress] = []
    bomb = binary(nested_loops(2000, 4000))
    with pytest.raises(EngineError) as caught:
        compile_code(
            bomb,
            digest_of(bomb),
            CodeKind.COMPONENT,
            Profile(),
            progress=told.append,
            cancelled=lambda: len(told) >= 2,
        )
    assert caught.value.code == "usage.interrupted"
    assert [(step.stage, step.fraction) for step in told] == [("compile", None)] * 2
    assert digest_of(bomb)[:12] in told[0].text


@pytest.mark.skipif(not offered().meets("landlock+seccomp"), reason=f"this system offers {offered().word}")
def test_a_compiler_that_was_taken_over_cannot_get_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has threads and memory for code, and is refused files, sockets, processes and all else."""
    caught: list[ChildResult] = []

    def probe(_module: str, _arguments: list[str], **options: Any) -> ChildResult:
        caught.append(run_confined_python("support.confine_probe", ["probe"], path=(TESTS,), **options))
        return caught[0]

    monkeypatch.setattr(compile_, "run_confined_python", probe)
    with pytest.raises(EngineError, match="no usable answer"):
        compiled(component())
    found = json.loads(caught[0].stdout)
    allowed = {"compute", "thread", "executable-memory"}
    assert {name for name, outcome in found.items() if outcome == "allowed"} == allowed, found
    # By the filter: Landlock alone would answer EACCES.
    assert {found[name] for name in ("open", "create", "listdir", "mkdir", "exec")} == {"EPERM"}, found


def test_native_code_of_another_length_than_was_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that does not hold what the compiler says it wrote is never run."""

    def cut(*arguments: Any, pass_fds: tuple[int, ...], **options: Any) -> ChildResult:
        result = run_confined_python(*arguments, pass_fds=pass_fds, **options)
        os.ftruncate(pass_fds[0], os.fstat(pass_fds[0]).st_size - 1)
        return result

    monkeypatch.setattr(compile_, "run_confined_python", cut)
    with pytest.raises(EngineError, match="no usable answer"):
        compiled(component())


def test_failures_leave_nothing() -> None:
    """Descriptors and children are the same after twenty refusals of every kind."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        data = [b"", component()[:-3], component()][number % 3]
        try:
            compiled(data, ChildLimits(wall_ms=50 if number % 2 else 5000, file_bytes=MIB))
        except ClocheError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    tasks = Path("/proc/self/task").iterdir()
    assert "".join((task / "children").read_text() for task in tasks) == ""
