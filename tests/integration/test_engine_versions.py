"""The engine, codec and trap tests on the other supported version of the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.engine.ffi import TESTED_VERSIONS, library

ROOT = Path(__file__).parents[2]
FILES = (
    "test_codec_conformance.py",
    "test_codec_fuzz.py",
    "test_codec_resources.py",
    "test_codec_signatures.py",
    "test_conversions.py",
    "test_traps.py",
    "test_trampoline.py",
    "test_call_limits.py",
    "test_instances.py",
    "test_guest_handles.py",
    "test_call_forms.py",
    "test_imports_and_output.py",
    "test_engine_selfcheck.py",
    "test_engine_wasi.py",
    "test_memory_probe_engine.py",
    "test_process_safety.py",
    "test_host_lifetime.py",
    "test_signals_and_stacks.py",
)
"""What depends on the engine's behaviour: pytest fails for one that is not there."""


def engine_directory(version: str) -> Path:
    """The package of one engine version, installed below `.cloche` once; the test is skipped where it cannot be."""
    directory = ROOT / ".cloche" / "engines" / version
    if not (directory / f"wasmtime-{version}.dist-info").is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--target",
            str(directory),
        ]
        done = subprocess.run([*command, f"wasmtime=={version}"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"wasmtime {version} cannot be installed: {done.stderr.strip()[-500:]}")
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("version", [version for version in TESTED_VERSIONS if version != library().version])
def test_other_engine_versions(version: str) -> None:
    """Every test of the engine, the codec and calls passes with each other version that the project supports."""
    environment = {**os.environ, "PYTHONPATH": str(engine_directory(version))}
    environment.pop("PYTEST_XDIST_WORKER", None)
    asked = "from cloche.engine.ffi import library; print(library().version)"
    found = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == version
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *(f"tests/integration/{name}" for name in FILES)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
