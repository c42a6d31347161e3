"""The files, WIT packages and Python packages that go into a build."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from cloche.beneath import open_inside
from cloche.build import sources, vendor, witfiles
from cloche.build.builder import read_inputs
from cloche.build.cache import BuildCache
from cloche.build.settings import BuildSettings, Language
from cloche.build.tool import ToolResult
from cloche.errors import ContractError
from cloche.resources import wit_dir
from cloche.version import WASI_VERSION


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def silent(_line: str) -> None:
    """Nobody watches."""


def test_sources_are_what_matters(tmp_path: Path) -> None:
    """Caches, tests, hidden files, documentation and components stay out; data files come along, in order."""
    kept = ["app.py", "data/table.csv", "pkg/a.py"]
    dropped = [
        ".git/x",
        "__pycache__/a.pyc",
        "tests/test_a.py",
        "test_b.py",
        "x.wasm",
        "README.md",
        "plugin.toml",
        ".env",
    ]
    write(tmp_path, dict.fromkeys([*dropped, *reversed(kept)], "x"))
    assert list(sources.collect(tmp_path, "acme/x")) == [PurePosixPath(name) for name in kept]


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    """A plugin's directory cannot pull a file of its user into a component; a link inside is followed."""
    (tmp_path / "secret").write_text("s")
    plugin = write(tmp_path / "plugin", {"app.py": "x"})
    (plugin / "inside.py").symlink_to("app.py")
    assert sources.collect(plugin, "acme/x")[PurePosixPath("inside.py")] == b"x"
    (plugin / "outside.py").symlink_to(tmp_path / "secret")
    with pytest.raises(ContractError, match=r"'outside\.py' is a link that leads out"):
        sources.collect(plugin, "acme/x")


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is not there for this user does not silently stay out of the component."""
    write(tmp_path, {"app.py": "x", "closed/secret.py": "x"})

    def refuse(directory: Path, path: str) -> int:
        if path == "closed/secret.py":
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_inside(directory, path)

    monkeypatch.setattr(sources, "open_inside", refuse)
    with pytest.raises(ContractError, match=r"'closed/secret\.py' cannot be read: Permission denied"):
        sources.collect(tmp_path, "acme/x")


def test_a_huge_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files and too many bytes each end the reading with the bound in the message."""
    write(tmp_path, {"a.py": "0123", "b.py": "0123"})
    monkeypatch.setattr(sources, "MAX_FILES", 1)
    with pytest.raises(ContractError, match="more than 1 files"):
        sources.collect(tmp_path, "acme/x")
    monkeypatch.setattr(sources, "MAX_FILES", 10)
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 7)
    with pytest.raises(ContractError, match="Keep only the plugin's sources"):
        sources.collect(tmp_path, "acme/x")


def test_native_files_are_found() -> None:
    """By suffix, also with a version behind it."""
    names = ["a.py", "b.so", "c.cpython-311.so", "lib/d.so.1", "e.pyd", "f.solid"]
    files = {PurePosixPath(name): b"" for name in names}
    assert sources.native_files(files) == ["b.so", "c.cpython-311.so", "lib/d.so.1", "e.pyd"]


LIBRARY = {
    "one/a.wit": "package x:one@1.0.0;\ninterface i { use x:two/j@1.2.0-rc.1.{t}; }",
    "deps/two.wit": "/* package no:no; */ package x:two@1.2.0-rc.1;\ninterface j { type t = u8; }",
    "deps/three/a.wit": "package x:three;\ninterface k {}",
    "unused/a.wit": "package x:unused@1.0.0;\n",
    "released/one@0.9.0/a.wit": "package x:one@0.9.0;",
}


def test_wit_is_collected_with_what_it_needs(tmp_path: Path) -> None:
    """Directly and indirectly referenced packages come along, others do not; comments are no references."""
    library = write(tmp_path / "library", LIBRARY)
    world = "package acme:p;\n// x:unused/i@1.0.0\nworld w { import x:one/i@1.0.0; include x:three/k; }"
    own = write(tmp_path / "wit", {"world.wit": world})
    files = witfiles.resolve(own, library, "acme/p")
    assert sorted(map(str, files)) == [
        "deps/x-one-1.0.0/a.wit",
        "deps/x-three/a.wit",
        "deps/x-two-1.2.0-rc.1/two.wit",
        "world.wit",
    ]


def test_the_engines_wasi_is_in_the_library(tmp_path: Path) -> None:
    """A world that imports the engine's WASI needs no copy of its own, and gets only the packages that it takes."""
    world = f"package acme:p;\nworld w {{ import wasi:clocks/monotonic-clock@{WASI_VERSION}; }}"
    own = write(tmp_path / "wit", {"world.wit": world})
    assert sorted(map(str, witfiles.resolve(own, wit_dir(), "acme/p"))) == [
        f"deps/wasi-clocks-{WASI_VERSION}/package.wit",
        f"deps/wasi-io-{WASI_VERSION}/package.wit",
        "world.wit",
    ]


def test_the_plugins_own_packages_come_first(tmp_path: Path) -> None:
    """A package in the plugin's deps takes the place of the program's."""
    library = write(tmp_path / "library", LIBRARY)
    own = write(
        tmp_path / "wit",
        {"world.wit": "package a:b;\nworld w { import x:three/k; }", "deps/three/mine.wit": "package x:three;"},
    )
    assert PurePosixPath("deps/x-three/mine.wit") in witfiles.resolve(own, library, "acme/p")


def test_the_world_may_lie_beside_the_sources(tmp_path: Path) -> None:
    """With `wit = "."` the sources stay in."""
    write(tmp_path, {"app.py": "x", "world.wit": "package a:b;\nworld w {}"})
    settings = BuildSettings("acme/x", "app.py", Language.PYTHON, wit=".")
    inputs = read_inputs(tmp_path, settings, BuildCache(tmp_path / "cache"), silent)
    assert [list(map(str, inputs.groups[group])) for group in ("app", "wit")] == [["app.py"], ["world.wit"]]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no directory 'wit'"),
        ({"wit/x.txt": ""}, "holds no WIT package"),
        ({"wit/w.wit": "package a:b; world w { import x:one/i@2.0.0; }"}, r"x:one@2\.0\.0, which is not here"),
        ({"wit/w.wit": "package a:b; world w { import y:z/i; }"}, r"Known are x:one@1\.0\.0, x:three"),
    ],
)
def test_missing_wit_is_named(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """The message says what is missing and what there is."""
    library = write(tmp_path / "library", LIBRARY)
    with pytest.raises(ContractError, match=words):
        witfiles.resolve(write(tmp_path, files) / "wit", library, "acme/p")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("package a:b;\nworld w {}", "w"),
        ("package a:b; @since(version = 1.0.0) world w {}", "w"),
        ("package a:b; // world x {}\nworld w { import the-world: func(world: string); }", "w"),
        ("package a:b; interface i {}", "none"),
        ("package a:b;\nworld w {}\nworld %use {}", "w, %use"),
    ],
)
def test_the_only_world_is_taken(text: str, expected: str) -> None:
    """One world needs no name; none and several are refused with what there is."""
    files = {PurePosixPath("w.wit"): text.encode(), PurePosixPath("deps/x/w.wit"): b"package x:y;\nworld other {}"}
    if expected == "w":
        assert witfiles.only_world(files, "acme/p") == "w"
    else:
        with pytest.raises(ContractError, match=f"has {expected}"):
            witfiles.only_world(files, "acme/p")


def test_installed_packages_are_bundled_with_what_they_need(tmp_path: Path) -> None:
    """markdown-it-py comes with mdurl, without its caches and scripts, and says its version."""
    made = vendor.vendor(("markdown-it-py>=3",), "acme/x", BuildCache(tmp_path), silent)
    assert {PurePosixPath("markdown_it/main.py"), PurePosixPath("mdurl/__init__.py")} <= made.files.keys()
    assert not [path for path in made.files if "__pycache__" in path.parts or path.parts[0] in ("..", "bin")]
    assert [note.rsplit(" ", 1)[0] for note in made.notes] == ["bundled markdown-it-py", "bundled mdurl"]


def fake_pip(files: dict[str, str], output: str = "") -> Callable[..., object]:
    def run(command: list[str], *, work: Path, **_rest: object) -> object:
        write(Path(command[command.index("--target") + 1]), files)
        return ToolResult(int(bool(output)), output)

    return run


def test_fetched_packages_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed comes from pip once, as wheels for any platform; then from the cache."""
    told: list[str] = []
    monkeypatch.setattr(vendor, "run_tool", fake_pip({"thing/a.py": "x", "thing-1.0.dist-info/METADATA": "y"}))
    first = vendor.vendor(("no-such-thing==1",), "acme/x", BuildCache(tmp_path), told.append)
    monkeypatch.setattr(vendor, "run_tool", fake_pip({}, "must not be called"))
    again = vendor.vendor(("no-such-thing==1",), "acme/x", BuildCache(tmp_path), told.append)
    assert first == again
    assert (first.notes, told) == (("bundled thing 1.0",), ["fetching no-such-thing==1"])


@pytest.mark.parametrize(
    ("files", "output", "words"),
    [
        ({"thing/_speedups.so": "x"}, "", r"compiled libraries, such as thing/_speedups\.so"),
        ({}, "ERROR: No matching distribution found for no-such-thing", "-none-any"),
        ({}, "ERROR: certificate", "certificate"),
    ],
)
def test_packages_that_cannot_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], output: str, words: str
) -> None:
    """Native code, missing packages and a missing pip are each named, and nothing is kept."""
    monkeypatch.setattr(vendor, "run_tool", fake_pip(files, output))
    with pytest.raises(ContractError, match=words):
        vendor.vendor(("no-such-thing",), "acme/x", BuildCache(tmp_path), silent)
    assert not (tmp_path / "vendor").exists()


def test_a_missing_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some environments have none; the packages may then be installed beside the host."""
    monkeypatch.setattr(vendor, "python_command", lambda *_: None)
    with pytest.raises(ContractError, match="no pip"):
        vendor.vendor(("no-such-thing",), "acme/x", BuildCache(tmp_path), silent)


@pytest.mark.parametrize("text", ["--index-url=x", "a b", "x @ https://example.com/x.whl", "../x", ""])
def test_requirements_are_names_with_versions(tmp_path: Path, text: str) -> None:
    """Options, addresses and paths never reach pip."""
    with pytest.raises(ContractError, match="in `requirements` is"):
        vendor.vendor((text,), "acme/x", BuildCache(tmp_path), silent)
