"""The files that come with the program are found in a working tree and in an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche import resources
from cloche.errors import EngineError


def test_a_working_tree_is_used_as_it_lies() -> None:
    """WIT, guests and the SDK are where the sources are."""
    assert (resources.wit_dir() / "example" / "greeter.wit").is_file()
    assert (resources.guests_dir() / "hello" / "plugin.toml").is_file()
    assert (resources.sdk_dir() / "cloche_guest" / "entry.py").is_file()
    assert (resources.sdk_dir() / "c" / "cloche_guest.h").is_file()


def test_an_installation_uses_its_own_files_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel installed inside some working tree does not pick up that tree's files."""
    package = tmp_path / "site" / "cloche"
    for directory in (package / "_data" / "wit", tmp_path / "wit"):
        directory.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.wit_dir() == package / "_data" / "wit"


def test_an_incomplete_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the directory and the remedy."""
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "a" / "b" / "cloche")
    with pytest.raises(EngineError, match="lacks its directory 'guests'; install it again"):
        resources.sdk_dir()
