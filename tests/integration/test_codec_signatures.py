"""Whole signatures through a WAT guest: many parameters, none, threads that share plans, and memory that stays flat."""

from __future__ import annotations

import random
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloche.engine.codec.function import FunctionPlan, HostPlan
from cloche.errors import CapabilityError, LimitError, UsageError
from cloche.wit.types import (
    Field,
    Function,
    FunctionKind,
    ListType,
    MapType,
    OptionType,
    Param,
    Prim,
    RecordType,
    TupleType,
    Type,
    TypeName,
)
from support.echo_component import HOST_INTERFACE, assemble, echo_function, echo_wat
from support.engine_rig import Rig

TEXTS = ListType(OptionType(Prim.STRING))


def function(name: str, params: list[Type], result: Type | None) -> Function:
    return Function(name, FunctionKind.FREE, tuple(Param(f"p{i}", type_) for i, type_ in enumerate(params)), result)


@pytest.mark.parametrize(
    ("params", "args", "result", "answer"),
    [
        ([], (), None, None),
        ([], (), Prim.STRING, "hello"),
        ([Prim.STRING], ("x",), None, None),
        ([Prim.U8] * 16, tuple(range(16)), Prim.U64, 2**64 - 1),
        ([Prim.U8] * 17, tuple(range(17)), Prim.U64, 0),
        ([Prim.STRING] * 9, tuple("abcdefghi"), Prim.F32, -0.5),
        ([Prim.S8, Prim.S64, Prim.F32, Prim.BOOL, Prim.CHAR], (-1, -2, 0.5, True, "é"), Prim.BOOL, False),
        ([ListType(Prim.U16)] * 2, ([], []), TupleType((Prim.CHAR, Prim.S8)), ("x", -128)),
        ([OptionType(Prim.U64)] * 20, (None, 5) * 10, ListType(Prim.STRING), ["a", ""]),
    ],
)
def test_signatures(params: list[Type], args: tuple[Any, ...], result: Type | None, answer: Any) -> None:
    """Arguments arrive in order, through registers or memory, and the result comes back."""
    signature = function("work", params, result)
    seen: list[tuple[Any, ...]] = []

    def host(*values: Any) -> Any:
        seen.append(tuple(list(value) if hasattr(value, "dtype") else value for value in values))
        return answer

    with Rig(assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, host)]}) as rig:
        for _ in range(2):
            assert rig.call(signature, *args) == answer
    assert seen == [args, args]


def test_a_limit_on_what_the_host_gets_and_gives() -> None:
    """Arguments and results of host functions are bounded as well, with the code of host calls."""
    signature = function("work", [Prim.STRING], Prim.STRING)
    for given, back in (("x" * 200, ""), ("", "x" * 200)):
        with (
            Rig(
                assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, lambda _, b=back: b)]}, max_bytes=100
            ) as rig,
            pytest.raises(LimitError, match="larger than the 100 bytes allowed") as caught,
        ):
            rig.call(signature, given)
        assert caught.value.code == "limit.host-calls"


def test_a_result_that_is_too_large_is_freed_and_refused() -> None:
    """The caller's bound holds for results, and the same buffer serves the next call."""
    signature = function("work", [Prim.U8], ListType(Prim.STRING))
    answers = [["x" * 50] * 10, ["ok"]]
    with Rig(assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, lambda _: answers.pop(0))]}) as rig:
        with pytest.raises(LimitError, match="the result is larger than the 100 bytes allowed") as caught:
            rig.call(signature, 1, max_bytes=100)
        assert caught.value.code == "limit.payload"
        assert rig.call(signature, 1, max_bytes=100) == ["ok"]


def test_the_engine_has_no_fixed_length_lists() -> None:
    """Why the codec refuses them: a component that uses one does not compile, and the C API has no switch."""
    with pytest.raises(RuntimeError, match="fixed-length lists"):
        Rig(assemble('(component (import "f" (func (param "x" (list u32 4)))))'))


@pytest.mark.parametrize(("params", "result"), [([Prim.BOOL] * 3, Prim.S8), ([Prim.F64, Prim.U16], Prim.BOOL)])
def test_scalar_host_functions_are_strict(params: list[Type], result: Prim) -> None:
    """A host function's scalar result is checked like any other."""
    signature = function("work", params, result)
    answers: list[Any] = ["x"]
    args = [True] * 3 if len(params) == 3 else [1.5, 7]
    with (
        Rig(assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, lambda *_: answers.pop())]}) as rig,
        pytest.raises(CapabilityError, match=f"the host's result: expected {result}"),
    ):
        rig.call(signature, *args)


def test_a_list_that_cannot_fit_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each element costs 32 bytes of host memory and more: a second bound beside the payload limit (H7).

    It is on all values of one call together, and the next call has it whole again.
    """
    monkeypatch.setattr("cloche.engine.codec.memory.MAX_ARGUMENT_BYTES", 1 << 20)
    buffer = FunctionPlan(function("work", [ListType(Prim.U8)] * 2, None)).buffer()
    no_bridge: Any = None
    half, more = b"x" * 16_000, b"x" * 17_000
    for first, second in ((b"", half * 2), (half, half), (b"x" * 32_768, b"")):
        buffer.lower((first, second), no_bridge, 1 << 20)
        buffer.withdraw()
    for first, second in ((b"", b"x" * 32_769), (more, half), (more, more)):
        with pytest.raises(LimitError, match="need more than the 1048576 bytes of the host's memory") as caught:
            buffer.lower((first, second), no_bridge, 1 << 20)
        assert caught.value.code == "limit.payload"


def test_a_host_result_that_cannot_fit_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest cannot make the host take any amount of memory for a result: lists, rows and names all count."""
    monkeypatch.setattr("cloche.engine.codec.memory.MAX_RESULT_BYTES", 1 << 16)
    row = RecordType(TypeName(None, "r"), (Field("a-field-with-a-long-name", Prim.U8),))
    answers: dict[Type, tuple[Any, Any]] = {
        ListType(Prim.U8): (bytes(2048), bytes(2049)),
        ListType(ListType(Prim.U8)): ([bytes(500)] * 4, [bytes(500)] * 5),
        ListType(row): ([{"a-field-with-a-long-name": 1}] * 600, [{"a-field-with-a-long-name": 1}] * 700),
        MapType(Prim.U8, Prim.STRING): (dict.fromkeys(range(200), ""), None),
        ListType(OptionType(Prim.U8)): ([1] * 1024, [1] * 1025),
    }
    for type_, (fits, too_many) in answers.items():
        signature = function("work", [Prim.U8], type_)
        answer = [fits]
        with Rig(assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, lambda _, a=answer: a[0])]}) as rig:
            assert len(rig.call(signature, 1)) == len(fits)
            answer[0] = too_many
            if too_many is not None:
                with pytest.raises(LimitError, match="need more than the 65536 bytes") as caught:
                    rig.call(signature, 1)
                assert caught.value.code == "limit.payload"


def test_threads_share_plans() -> None:
    """One plan serves many threads at once, each with a buffer and an instance of its own."""
    signature = echo_function(0, TEXTS)
    wasm = assemble(echo_wat([signature]))
    barrier = threading.Barrier(4)

    def work(seed: int) -> int:
        chance = random.Random(seed)
        with Rig(wasm, {HOST_INTERFACE: [(signature, lambda value: value)]}) as rig:
            barrier.wait()
            for _ in range(200):
                value = [chance.choice([None, "x" * chance.randrange(50)]) for _ in range(chance.randrange(20))]
                assert rig.call(signature, value) == value
        return seed

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_memory_stays_flat() -> None:
    """Calls, refused calls, and host results that fail half-way leave nothing behind in the engine or in Python.

    One round handles about 60 kB of engine values; leaking a tenth of that would show as 6 MB and more.
    """
    signature = echo_function(0, TEXTS)
    good = ["text " * 4, None] * 300
    bad = [*good, 5]
    plan = HostPlan(signature)
    with Rig(assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, lambda value: value)]}) as rig:
        _, buffer = rig.export(signature)

        def rounds(count: int) -> None:
            for _ in range(count):
                assert rig.call(signature, good) == good
                with pytest.raises(UsageError):
                    rig.call(signature, bad)
                with pytest.raises(CapabilityError):
                    plan.lower(bad, buffer.results, rig.bridge, 1 << 30)
                with pytest.raises(LimitError):
                    rig.call(signature, good, max_bytes=6000)

        rounds(100)
        before = _resident_bytes()
        rounds(1000)
        assert _resident_bytes() - before < 4 << 20
    assert FunctionPlan(signature).has_result
