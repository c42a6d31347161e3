"""What the engine is asked at start: may a host function take two borrows?"""

from __future__ import annotations

import pytest

from cloche.engine import profile, selfcheck
from cloche.engine.engine import Engine
from cloche.engine.ffi import TESTED_VERSIONS, Library, library
from cloche.engine.interrupts import Interrupts
from cloche.engine.profile import Profile, new_engine
from cloche.engine.selfcheck import KNOWN, try_two_borrows
from cloche.model import Metering


@pytest.mark.parametrize("metering", list(Metering))
def test_two_borrows_work_in_every_profile(metering: Metering) -> None:
    """With our features off, a host function gets both borrows, on every version that we test on (H44)."""
    lib = library()
    engine = new_engine(lib, Profile(metering))
    try:
        assert try_two_borrows(lib, engine)
        assert try_two_borrows(lib, engine)
    finally:
        lib.wasm_engine_delete(engine)


def test_the_check_can_tell_a_faulty_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With concurrency support on, version 50.0.1 has the fault and 49.0.0 has not, and the check says so."""
    off = tuple(name for name in profile.DISABLED_FEATURES if name != "concurrency_support")
    monkeypatch.setattr(profile, "DISABLED_FEATURES", off)
    lib = library()
    engine = new_engine(lib, Profile())
    try:
        assert try_two_borrows(lib, engine) is (lib.version != "50.0.1")
    finally:
        lib.wasm_engine_delete(engine)


def test_only_unknown_versions_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known version is answered from the table; an unknown one is tried when its engine starts."""
    assert set(KNOWN) == set(TESTED_VERSIONS)
    tried: list[int] = []

    def pretend(lib: Library, engine: int) -> bool:
        tried.append(engine)
        return False

    monkeypatch.setattr(selfcheck, "try_two_borrows", pretend)
    Engine(Profile(), Interrupts()).close()
    assert tried == []
    monkeypatch.setattr(selfcheck, "KNOWN", {})
    engine = Engine(Profile(), Interrupts())
    assert not engine.takes_two_borrows
    assert len(tried) == 1
    engine.close()
