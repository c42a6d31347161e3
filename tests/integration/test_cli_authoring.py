"""`cloche new` and `cloche build`: what they refuse, and what they say."""

from __future__ import annotations

import errno
import json
import shlex
from pathlib import Path

import pytest

from cloche.build import builder
from cloche.cli.main import run

HEAD = 'format-version = 1\nid = "acme/x"\nname = "X"\nversion = "1.0.0"\n'
SOURCE = '[component]\nsource = "app.wat"\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for every test."""
    monkeypatch.setenv("CLOCHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def plugin(root: Path, manifest: str) -> Path:
    """A plugin directory with a component's text as its source."""
    root.mkdir()
    (root / "plugin.toml").write_text(manifest)
    (root / "app.wat").write_text("(component)")
    return root


@pytest.mark.parametrize(
    ("manifest", "code", "word"),
    [
        (HEAD.replace("= 1\n", "= 7\n") + SOURCE, "manifest.version", "format-version"),
        (HEAD.replace("acme/x", "NOT AN ID") + SOURCE, "manifest.value", "id"),
        (HEAD + SOURCE + 'wrold = "w"\n', "manifest.unknown-key", "world"),
        ('plugin_id = "acme/x"\nversion = "1.0.0"\nwasm = "app.wasm"\n', "component.build", "names no source"),
        (HEAD + 'kind = "skill"\n', "component.missing", "has no component"),
    ],
)
def test_build_takes_only_what_check_takes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], manifest: str, code: str, word: str
) -> None:
    """Building reads the manifest with the one reader that loading has: nothing is built from a wrong one."""
    root = plugin(tmp_path / "p", manifest)
    status = run(["build", "--json", str(root)])
    error = json.loads(capfd.readouterr().out)["error"]
    assert (error["code"], status) == (code, error["exit_status"])
    assert word in error["message"]
    assert sorted(path.name for path in root.iterdir()) == ["app.wat", "plugin.toml"]


def test_building_keeps_its_home_private(tmp_path: Path, home: Path) -> None:
    """What is built for one user is not for others to read or to change, whichever command comes first."""
    home.mkdir(mode=0o755)
    assert run(["build", str(plugin(tmp_path / "p", HEAD + SOURCE))]) == 0
    assert home.stat().st_mode & 0o077 == 0


def test_a_full_disk_during_a_build_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the disk's fault and not the plugin's; nothing is left of the build."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(builder, "place", refuse)
    assert run(["build", "--json", str(plugin(tmp_path / "p", HEAD + SOURCE))]) == 4
    error = json.loads(capfd.readouterr().out)["error"]
    assert (error["code"], "No space left on device" in error["message"]) == ("registry.io", True)
    assert not list((tmp_path / "home" / "cache" / "build").glob("work-*"))


def test_builds_stay_below_the_cap(
    tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each build everything that is cached fits into CLOCHE_CACHE_SIZE, and what was built last is there."""
    monkeypatch.setenv("CLOCHE_CACHE_SIZE", "64MiB")
    root = plugin(tmp_path / "p", HEAD + SOURCE)
    for number in range(4):
        data = f"{number}" * (20 << 20)
        (root / "app.wat").write_text(f'(component (core module (memory 400) (data (i32.const 0) "{data}")))')
        assert run(["build", str(root)]) == 0
        assert sum(path.stat().st_size for path in (home / "cache").rglob("*") if path.is_file()) <= 64 << 20
    capfd.readouterr()
    assert run(["cache", "list", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)["entries"]
    assert [(entry["kind"], entry["name"]) for entry in entries] == [("built", "acme/x")] * 3
    assert run(["cache", "clear"]) == 0
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_the_next_command_can_be_pasted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A directory with a space, or longer than the screen is wide, stays one word."""
    parent = tmp_path / ("a directory " * 15).strip()
    assert run(["new", "acme/shout", "--in", str(parent)]) == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("next:")]
    assert shlex.split(line.removeprefix("next:")) == ["cloche", "run", "--trust", str(parent / "shout"), "Ada"]
    assert "pip install pytest" in (parent / "shout" / "README.md").read_text()
