"""`./dev`: makes the environment once, again when its inputs change, and hands over to just."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *version_info*|*fcntl*) exit 0 ;;
    --version) echo "Python 3.11.99" ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && : >.venv/bin/pip && chmod +x .venv/bin/* ;;
    "-m pip"*) echo "pip $*" >>pip.log
        printf '#!/bin/sh\\nfor word in "$@"; do echo "just: $word"; done\\n' >.venv/bin/just; chmod +x .venv/bin/just
        exit "${PIP_STATUS:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a path with a space, and an interpreter that only notes what it is told."""
    directory = tmp_path / "a check out"
    directory.mkdir()
    for name in ("dev", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, directory / name)
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)
    return directory


def dev(checkout: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `./dev` from another directory."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(checkout.parent / "python"), **variables}
    return subprocess.run(
        [checkout / "dev", *words], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def pip_runs(checkout: Path) -> int:
    """How often pip was run."""
    log = checkout / "pip.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_first_run_installs_and_hands_over(checkout: Path) -> None:
    """Everything is installed against the constraints, then just gets the words, unbroken."""
    done = dev(checkout, "test", "a b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["just: test", "just: a b"]
    assert "-c constraints.txt -e .[dev]" in (checkout / "pip.log").read_text()


def test_the_second_run_installs_nothing(checkout: Path) -> None:
    """No pip, and so no network, until an input changes."""
    dev(checkout, "setup")
    before = pip_runs(checkout)
    assert before > 0
    assert dev(checkout, "demo").returncode == 0
    assert pip_runs(checkout) == before
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    dev(checkout, "setup")
    assert pip_runs(checkout) == 2 * before


def test_a_moved_checkout_gets_a_new_environment(checkout: Path) -> None:
    """Scripts in the environment hold its path, so a moved one is made anew."""
    dev(checkout, "setup")
    moved = checkout.rename(checkout.with_name("moved"))
    assert "making .venv" in dev(moved, "setup").stderr


def test_an_environment_of_somebodys_own_is_kept(checkout: Path) -> None:
    """A usable .venv that ./dev did not make is completed and never cleared."""
    dev(checkout, "setup")
    for mark in (".root", ".installed"):
        (checkout / ".venv" / mark).unlink()
    (checkout / ".venv" / "precious").touch()
    done = dev(checkout, "setup")
    assert done.returncode == 0
    assert "making .venv" not in done.stderr
    assert (checkout / ".venv" / "precious").exists()


def test_a_failed_installation_is_not_taken_for_a_good_one(checkout: Path) -> None:
    """After a failure the message says so, and the next run tries again."""
    failed = dev(checkout, "setup", PIP_STATUS="1")
    assert failed.returncode == 1
    assert "the installation failed" in failed.stderr
    assert dev(checkout, "setup").returncode == 0


def test_a_missing_python_is_named(checkout: Path, tmp_path: Path) -> None:
    """Without a usable interpreter the message says which ones would do."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "cksum", "dirname", "rm"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    done = dev(checkout, "test", PATH=str(tools), PYTHON="")
    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr


def test_a_python_that_is_no_python_is_refused(checkout: Path) -> None:
    """Whoever names an interpreter gets that one or an error, also when everything is ready."""
    for _ in range(2):
        done = dev(checkout, "setup", PYTHON="/nonexistent/python3.13")
        assert (done.returncode, done.stdout) == (1, "")
        assert "PYTHON=/nonexistent/python3.13 is not Python 3.11, 3.12 or 3.13" in done.stderr
        assert dev(checkout, "setup").returncode == 0


def test_a_link_to_the_script_leads_to_the_checkout(checkout: Path, tmp_path: Path) -> None:
    """The environment is made beside the script itself, not beside the link."""
    link = tmp_path / "bin" / "cloche-dev"
    link.parent.mkdir()
    link.symlink_to(checkout / "dev")
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
    subprocess.run([link, "setup"], env=environment, cwd="/", check=True, capture_output=True, timeout=60)
    assert [path.name for path in link.parent.iterdir()] == ["cloche-dev"]
    assert (checkout / ".venv" / ".installed").exists()


def test_who_waits_says_so(checkout: Path, tmp_path: Path) -> None:
    """A second ./dev waits for the first one, and does not look as if it hung."""
    python = tmp_path / "python"
    python.write_text(
        FAKE_PYTHON.replace("*version_info*|*fcntl*)", f'*fcntl*) exec {sys.executable} "$@" ;;\n*version_info*)')
    )
    held = os.open(checkout, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
        with subprocess.Popen(
            [checkout / "dev", "setup"], env=environment, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "dev: another ./dev is at work here; waiting for it\n"
            fcntl.flock(held, fcntl.LOCK_UN)
            assert "ready" in second.stderr.read()
    finally:
        os.close(held)


def test_no_address_is_pinned() -> None:
    """Constraints name packages and versions only, so that any index works; the engine's version is the default one."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line.count("==") != 1 or "/" in line or " " in line] == []
    assert "wasmtime==49.0.0" in lines
