"""The features that are switched off are refused by the engine itself."""

from __future__ import annotations

import pytest

from cloche.engine import features
from cloche.engine.ffi import library
from cloche.engine.profile import Profile, new_engine
from cloche.errors import EngineError
from cloche.model import Metering


@pytest.mark.parametrize("metering", list(Metering))
def test_every_profile_refuses_what_is_off(metering: Metering) -> None:
    """No profile accepts memory64, multi-memory, threads, GC, exceptions or component async."""
    lib = library()
    engine = new_engine(lib, Profile(metering))
    features.ensure_features_off(lib, engine)
    lib.wasm_engine_delete(engine)


def test_an_engine_with_everything_on_is_refused_by_name() -> None:
    """The check can fail: an engine with the library's own defaults is refused, and what is on is named."""
    lib = library()
    config = lib.wasm_config_new()
    engine = lib.wasm_engine_new_with_config(config)
    with pytest.raises(EngineError) as caught:
        features.ensure_features_off(lib, engine)
    lib.wasm_engine_delete(engine)
    assert caught.value.code == "engine.unsupported"
    for name in ("memory64", "multi-memory", "gc", "exceptions", "component-model-async"):
        assert name in caught.value.message
