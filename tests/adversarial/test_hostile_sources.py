"""Hostile plugin directories given to a build: no file outside gets into a component, and nothing outside changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloche import app
from cloche.artifact import read_component
from cloche.build import sources, witfiles
from cloche.cli.main import run
from cloche.confine import landlock
from cloche.errors import ContractError, ManifestError
from support.guests import build_directory, settings_of
from support.wat_plugins import open_host

C_SOURCE = '__attribute__((export_name("g"))) int g(void) { return 3; }'


def plugin(root: Path, source: str = "app.c", **files: str) -> Path:
    """A plugin directory whose world exports one function."""
    (root / "wit").mkdir(parents=True)
    (root / "wit/world.wit").write_text("package a:b;\nworld w { export g: func() -> u32; }\n")
    (root / "plugin.toml").write_text(
        f'format-version = 1\nid = "acme/thief"\nname = "T"\nversion = "1.0.0"\n[component]\nsource = "{source}"\n'
    )
    for name, text in files.items():
        (root / name).write_text(text)
    return root


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_a_c_source_embeds_no_file_of_the_host(tmp_path: Path) -> None:
    """`#embed` of a path outside fails, while the same source with a file of its own is built."""
    secret = tmp_path / "secret"
    secret.write_text("TOP-SECRET")
    text = 'const char s[] = {\n#embed "%s"\n};\n__attribute__((export_name("g"))) int g(void) { return (int)s; }'
    thief = plugin(tmp_path / "thief", **{"app.c": text % secret})
    with pytest.raises(ContractError, match="the C compiler refused it"):
        build_directory(thief, cache=tmp_path / "cache")
    honest = plugin(tmp_path / "honest", **{"app.c": text % "data.txt", "data.txt": "TOP-SECRET"})
    assert b"TOP-SECRET" in build_directory(honest, cache=tmp_path / "cache").path.read_bytes()


@pytest.mark.parametrize("name", ["@x.c", "-Dx.c", "-o.c"])
def test_a_source_is_no_option_of_the_compiler(tmp_path: Path, name: str) -> None:
    """A file name that the compiler would read as an option, or as a file of options, is refused."""
    thief = plugin(tmp_path / "p", **{"app.c": C_SOURCE, name: "", "x.c": f"-o {tmp_path}/made"})
    with pytest.raises(ContractError, match="for an option"):
        build_directory(thief, cache=tmp_path / "cache")
    assert not (tmp_path / "made").exists()


def test_a_python_source_is_no_option_of_the_tool(tmp_path: Path) -> None:
    """A source whose stem begins with `-` is refused before the tool sees it."""
    thief = plugin(tmp_path / "p", source="--help.py", **{"--help.py": ""})
    with pytest.raises(ContractError, match="has no module's name"):
        build_directory(thief, cache=tmp_path / "cache")


def test_no_more_of_a_file_is_read_than_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the bound is refused after so many bytes, not after all of it."""
    root = plugin(tmp_path / "p")
    for name in ("huge.txt", "wit/huge.wit"):
        with (root / name).open("wb") as file:
            file.truncate(1 << 42)  # sparse: reading all of it would end this process
    monkeypatch.setattr(witfiles, "MAX_WIT_BYTES", 1000)
    with pytest.raises(ContractError, match="a WIT package has more than"):
        witfiles.resolve(root / "wit", tmp_path, "acme/thief")
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(ContractError, match="its directory holds more than"):
        sources.collect(root, "acme/thief")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_wit_file_is_a_file(tmp_path: Path, make: object) -> None:
    """A pipe or a device in the place of a WIT file is refused instead of read."""
    root = plugin(tmp_path / "p")
    make(root / "wit/x.wit")  # type: ignore[operator]
    with pytest.raises(ContractError, match=r"'x\.wit' is (not a regular file|a link that leads out)"):
        witfiles.resolve(root / "wit", tmp_path, "acme/thief")


def test_a_link_in_a_circle_is_left_out(tmp_path: Path) -> None:
    """It can be resolved by nobody, and is no source."""
    root = plugin(tmp_path / "p", **{"app.c": C_SOURCE})
    (root / "round").symlink_to("round")
    assert [str(path) for path in sources.collect(root, "acme/thief")] == ["app.c", "wit/world.wit"]


@pytest.mark.parametrize("value", ["0x" + "f" * 10_000, "[" * 500 + "]" * 500])
def test_a_setting_that_cannot_be_shown_is_still_explained(tmp_path: Path, value: str) -> None:
    """Integers that Python does not write out, and arrays deeper than it follows, are errors of the manifest."""
    root = plugin(tmp_path / "p", **{"app.c": C_SOURCE})
    (root / "plugin.toml").write_text(f"[component]\nworld = {value}\n")
    with pytest.raises(ManifestError):
        settings_of(root)


def test_a_dotted_key_takes_no_minutes(tmp_path: Path) -> None:
    """A line of very many dotted names is refused before the parser works on it."""
    root = plugin(tmp_path / "p", **{"app.c": C_SOURCE})
    (root / "plugin.toml").write_text("a." * 200 + "b = 1\n")
    with pytest.raises(ManifestError, match="dotted names"):
        settings_of(root)


def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody writes into it, so that opening it in the usual way would never return."""
    os.mkfifo(tmp_path / "plugin.toml")
    with pytest.raises(ManifestError, match=r"has no readable plugin\.toml"):
        settings_of(tmp_path)


WAT_SOURCE = '(component (core module $m (func (export "g") (result i32) (i32.const 3))))'


def test_build_writes_inside_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the component goes by the manifest's word, a link inside the directory leads nowhere else."""
    monkeypatch.setenv("CLOCHE_HOME", str(tmp_path / "home"))
    root, outside = plugin(tmp_path / "p", source="app.wat", **{"app.wat": WAT_SOURCE}), tmp_path / "outside"
    outside.mkdir()
    (root / "out").symlink_to(outside)
    with (root / "plugin.toml").open("a") as file:
        file.write('path = "out/keys"\n')
    assert run(["build", str(root)]) == 3
    assert list(outside.iterdir()) == []
    assert run(["build", str(root), "--out", str(outside / "keys")]) == 0


def test_a_built_component_is_what_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component that changes in the cache between being checked and being read is refused."""
    root = plugin(tmp_path / "p", source="app.wat", **{"app.wat": WAT_SOURCE})
    monkeypatch.setattr(app, "read_component", lambda path: read_component(path) + b"\0\1\0")
    with open_host(home=tmp_path / "home") as host, pytest.raises(ContractError, match="changed on disk"):
        host.inspect(root)
