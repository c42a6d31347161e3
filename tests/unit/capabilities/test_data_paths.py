"""Paths of the data directory, judged as text alone."""

from __future__ import annotations

import pytest

from cloche.capabilities.data.failure import DataError, Reason
from cloche.capabilities.data.paths import MAX_NAMES, split


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", (b"a",)),
        ("a/b.txt", (b"a", b"b.txt")),
        ("...", (b"...",)),
        (".hidden", (b".hidden",)),
        ("a b/ü", (b"a b", "ü".encode())),
        ("CON", (b"CON",)),
        ("n" * 255, (b"n" * 255,)),
        ("/".join("a" * MAX_NAMES), (b"a",) * MAX_NAMES),
    ],
)
def test_good_paths(path: str, expected: tuple[bytes, ...]) -> None:
    """A path is split into names and nothing else happens to it."""
    assert split(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../x",
        "a/..",
        "a/../b",
        "./a",
        "a/./b",
        "/etc/passwd",
        "//x",
        "a//b",
        "a/",
        "a\x00b",
        "a\nb",
        "\x7f",
        "a\\b",
        "..\\x",
        "n" * 256,
        "ü" * 128,
        "x" * 5000,
        "/".join("a" * (MAX_NAMES + 1)),
        "/".join(["n" * 250] * 5),
    ],
)
def test_bad_paths(path: str) -> None:
    """Whatever could climb, end early or be read in two ways is refused before the disk is touched."""
    with pytest.raises(DataError) as refused:
        split(path)
    assert refused.value.reason is Reason.INVALID_PATH


def test_only_a_directory_may_be_the_root() -> None:
    """The empty path stands for the data directory where a directory is asked for."""
    assert split("", directory=True) == ()
    with pytest.raises(DataError):
        split("/", directory=True)
