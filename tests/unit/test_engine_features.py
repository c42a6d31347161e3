"""The features that are switched off are refused by the engine itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloche.engine import features, profile
from cloche.engine.ffi import library
from cloche.engine.profile import Profile, new_engine, stack_step
from cloche.errors import EngineError, LimitError
from cloche.model import GIB, KIB, Metering
from support.wat_plugins import BASICS, load, open_host

STACKS = (64 * KIB, 512 * KIB)
RESERVATIONS = (4 * GIB, GIB)


@pytest.mark.parametrize("metering", list(Metering))
def test_every_profile_refuses_what_is_off(metering: Metering) -> None:
    """No profile accepts memory64, multi-memory, threads, GC, exceptions or any other of them."""
    lib = library()
    engine = new_engine(lib, Profile(metering))
    features.ensure_features_off(lib, engine)
    lib.wasm_engine_delete(engine)


@pytest.mark.parametrize("everything", [True, False])
def test_an_engine_with_features_on_is_refused_by_name(everything: bool) -> None:
    """The check can fail: what is on, by our word or by the library's own defaults, is named."""
    lib = library()
    config = lib.wasm_config_new()
    for name in profile.DISABLED_FEATURES if everything else ():
        getattr(lib, f"wasmtime_config_{name}_set")(config, True)
    engine = lib.wasm_engine_new_with_config(config)
    with pytest.raises(EngineError) as caught:
        features.ensure_features_off(lib, engine)
    lib.wasm_engine_delete(engine)
    assert caught.value.code == "engine.unsupported"
    named = {*features.REFUSED_MODULES, *features.REFUSED_COMPONENTS}
    if not everything:  # what the library itself leaves off
        named -= {"custom-page-sizes", "stack-switching"}
    assert {name for name in named if name not in caught.value.message} == set()


@pytest.mark.adversarial
@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("wasm_threads", "threads"),
        ("wasm_memory64", "memory64"),
        ("wasm_multi_memory", "multi-memory"),
        ("wasm_exceptions", "exceptions"),
        ("wasm_function_references", "function-references"),
        ("wasm_wide_arithmetic", "wide-arithmetic"),
    ],
)
def test_no_host_runs_on_an_engine_that_ignores_a_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, name: str
) -> None:
    """A version of the engine that leaves a feature on is refused when a plugin is loaded, before the plugin is."""
    followed = tuple(each for each in profile.DISABLED_FEATURES if each != switch)
    monkeypatch.setattr(profile, "DISABLED_FEATURES", followed)
    with open_host() as host, pytest.raises(EngineError, match=f"does not let {name} be switched off") as caught:
        load(host, tmp_path, BASICS)
    assert caught.value.code == "engine.unsupported"


def test_native_code_is_known_by_all_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metering, stack, memory reservation and features: code made for other ones is never taken for it."""
    profiles = [Profile(metering, stack, room) for metering in Metering for stack in STACKS for room in RESERVATIONS]
    keys = [each.key() for each in profiles]
    monkeypatch.setattr(profile, "DISABLED_FEATURES", profile.DISABLED_FEATURES[1:])
    keys += [each.key() for each in profiles]
    monkeypatch.setattr(profile, "ENABLED_FEATURES", profile.ENABLED_FEATURES[1:])
    keys += [each.key() for each in profiles]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("stack_bytes", [0, -1, 1, 2**64, True, 65536.0, None])
def test_a_profile_has_a_stack_in_range(stack_bytes: Any) -> None:
    """The engine takes any number, and with a wrong one guests run past the end of the thread's stack."""
    with pytest.raises(LimitError) as caught:
        Profile(stack_bytes=stack_bytes)
    assert caught.value.code == "limit.range"


DEEP = """
(component
  (core module $m
    (func $down (export "down") (param i64) (result i64)
      (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 0))
        (else (i64.add (local.get 0) (call $down (i64.sub (local.get 0) (i64.const 1))))))))
  (core instance $i (instantiate $m))
  (func (export "down") (param "depth" u64) (result u64) (canon lift (core func $i "down"))))
"""


def test_a_guest_gets_as_deep_as_its_stack_and_no_deeper(tmp_path: Path) -> None:
    """The limit decides, and not what the engine gives by itself."""
    with open_host() as host:
        for stack_kib, depth in ((32, 500), (256, 4_000)):
            plugin = load(
                host,
                tmp_path / str(stack_kib),
                DEEP,
                plugin_id=f"acme/deep-{stack_kib}",
                more=f"[limits]\nstack = {stack_kib * KIB}\n",
            )
            assert plugin[""].down(depth) == depth * (depth + 1) // 2
            with pytest.raises(LimitError) as caught:
                plugin[""].down(4 * depth)
            assert caught.value.code == "limit.stack"


@pytest.mark.parametrize("stack_bytes", [32 * KIB, 33 * KIB, 64 * KIB - 1, 64 * KIB, 200 * KIB, 1023 * KIB, 1024 * KIB])
def test_a_stack_step_is_the_next_below_the_limit(stack_bytes: int) -> None:
    """A guest never gets more stack than it was given, nor less than half of it."""
    assert stack_bytes // 2 < stack_step(stack_bytes) <= stack_bytes
