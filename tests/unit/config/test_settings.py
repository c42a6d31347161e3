"""Settings come from one table of environment variables, and the home is private."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.config import (
    VARIABLES,
    Settings,
    default_home,
    ensure_private_directory,
    home_error,
)
from cloche.errors import ManifestError, RegistryError, UsageError
from cloche.policies import operator_policy, read_policy


def test_defaults_need_no_environment() -> None:
    """Nothing set gives the platform's data directory and the documented defaults."""
    expected = Settings(default_home(), None, 4 << 30, True, "warning", "text", 1)
    assert expected == Settings.from_environment({})


def test_every_variable_is_read() -> None:
    """Each documented variable changes exactly its own setting."""
    read = Settings.from_environment(
        {
            "CLOCHE_HOME": "/srv/cloche",
            "CLOCHE_POLICY": "/etc/cloche/policy.toml",
            "CLOCHE_CACHE_SIZE": "512MiB",
            "CLOCHE_BACKGROUND_COMPILE": "off",
            "CLOCHE_READY_WORKERS": " 3 ",
            "CLOCHE_LOG_LEVEL": "DEBUG",
            "CLOCHE_LOG_FORMAT": "json",
        }
    )
    expected = Settings(Path("/srv/cloche"), Path("/etc/cloche/policy.toml"), 512 << 20, False, "debug", "json", 3)
    assert expected == read


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("CLOCHE_HOEM", "/x", "CLOCHE_HOME"),
        ("CLOCHE_QUUX", "1", "known are"),
        ("CLOCHE_CACHE_SIZE", "lots", "CLOCHE_CACHE_SIZE"),
        ("CLOCHE_CACHE_SIZE", "1KiB", "64MiB"),
        ("CLOCHE_BACKGROUND_COMPILE", "maybe", "on"),
        ("CLOCHE_READY_WORKERS", "some", "0 to 64"),
        ("CLOCHE_READY_WORKERS", "65", "0 to 64"),
        ("CLOCHE_READY_WORKERS", "-1", "0 to 64"),
        ("CLOCHE_READY_WORKERS", "1" * 5000, "0 to 64"),
        ("CLOCHE_LOG_LEVEL", "loud", "debug"),
        ("CLOCHE_LOG_FORMAT", "xml", "json"),
        ("CLOCHE_HOME", "a\0b", "NUL"),
    ],
)
def test_bad_settings_name_the_variable_and_the_remedy(variable: str, text: str, words: str) -> None:
    """A misspelt variable or value is an error that says what is accepted."""
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({variable: text})
    assert (caught.value.code, variable in str(caught.value), words in str(caught.value)) == (
        "usage.argument",
        True,
        True,
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    """`CLOCHE_HOME=` does not mean the current directory."""
    assert Settings.from_environment({"CLOCHE_HOME": "", "X": "1"}).home == default_home()


def test_every_variable_is_documented() -> None:
    """The table in the module's docstring names each variable."""
    from cloche import config

    assert [name for name in VARIABLES if f"`{name}`" not in (config.__doc__ or "")] == []


def test_the_policy_of_the_home_is_found(tmp_path: Path) -> None:
    """Without CLOCHE_POLICY the home's own policy.toml is used, and only where it exists."""
    settings = Settings(tmp_path)
    assert settings.policy_file() is None
    (tmp_path / "policy.toml").write_text("format-version = 1\n")
    assert settings.policy_file() == tmp_path / "policy.toml"


def _dangling(own: Path) -> None:
    own.symlink_to(own.parent / "gone.toml")


def _circle(own: Path) -> None:
    own.symlink_to(own)


@pytest.mark.parametrize("plant", [_dangling, _circle, Path.mkdir])
def test_a_policy_of_the_home_that_is_no_file_is_not_ignored(tmp_path: Path, plant: Callable[[Path], object]) -> None:
    """A link that leads nowhere, or a directory, is a policy that cannot be read, and not the lack of one."""
    plant(tmp_path / "policy.toml")
    settings = Settings(tmp_path)
    for read in (lambda: operator_policy(settings), lambda: Host(home=tmp_path, settings=settings)):
        with pytest.raises(ManifestError) as caught:
            read()
        assert caught.value.code == "policy.missing"
        assert str(tmp_path / "policy.toml") in str(caught.value)


def test_without_a_policy_messages_name_the_file_that_would_be_read(tmp_path: Path) -> None:
    """Nothing is allowed, and an operator is told where to write."""
    policy = operator_policy(Settings(tmp_path))
    assert (policy.file, policy.plugins) == (str(tmp_path / "policy.toml"), {})


@pytest.mark.parametrize("path", ["a\0b", "/nowhere/policy.toml", "/"])
def test_a_policy_that_cannot_be_read_has_one_code(tmp_path: Path, path: str) -> None:
    """Whatever keeps the file from being read, and whoever reads it."""
    for read in (lambda: read_policy(Path(path)), lambda: Host(home=tmp_path, policy=path)):
        with pytest.raises(ManifestError) as caught:
            read()
        assert (caught.value.code, "\0" in str(caught.value)) == ("policy.missing", False)


def test_an_endless_policy_is_too_long(tmp_path: Path) -> None:
    """No more is read than a policy may have."""
    with (tmp_path / "policy.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match="at most") as caught:
        read_policy(tmp_path / "policy.toml")
    assert caught.value.code == "policy.syntax"


def test_a_home_that_is_no_path_is_refused() -> None:
    """A NUL is an error of ours, too."""
    with pytest.raises(RegistryError, match="CLOCHE_HOME"):
        Host(home="a\0b")


def test_a_named_policy_is_used_even_when_missing(tmp_path: Path) -> None:
    """A policy that was named and is gone must be an error later, never silently no policy."""
    assert Settings(tmp_path, policy=tmp_path / "gone.toml").policy_file() == tmp_path / "gone.toml"


def test_the_home_is_made_private(tmp_path: Path) -> None:
    """A new directory has mode 0700, and an open one of ours is closed."""
    home = ensure_private_directory(tmp_path / "a" / "home")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o755)
    ensure_private_directory(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    """A file where the home should be gives `registry.io` with the way out."""
    (tmp_path / "home").write_text("")
    with pytest.raises(RegistryError) as caught:
        ensure_private_directory(tmp_path / "home")
    assert caught.value.code == "registry.io"
    assert "CLOCHE_HOME" in str(caught.value)


def test_a_home_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached native code is only as safe as its directory, so another user's directory is not used."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(RegistryError, match="belongs to user id"):
        ensure_private_directory(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "cache gc"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "permissions"),
        (errno.EIO, "check the disk"),
    ],
)
def test_each_failure_of_the_disk_has_its_remedy(number: int, words: str) -> None:
    """A full disk and a missing permission are told apart."""
    assert words in str(home_error(Path("/h"), OSError(number, os.strerror(number))))
