"""Opening a path below a directory, by the kernel and by walking: both follow the same links and refuse the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cloche.beneath import KernelOpener, WalkingOpener, choose_opener

OPENERS = {"kernel": KernelOpener, "walking": WalkingOpener}


@pytest.fixture(params=list(OPENERS))
def make(request: pytest.FixtureRequest) -> Any:
    """One way of opening."""
    if request.param == "kernel" and not isinstance(choose_opener(), KernelOpener):
        pytest.skip("this system has no openat2")
    return OPENERS[request.param]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with links of every kind, and a file outside it."""
    (tmp_path / "outside").write_text("outside")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("inside")
    for name, target in {
        "to-file": "a/b/file",
        "to-directory": "a/b/",
        "to-link": "to-file",
        "a/up": "../a/./b//file",
        "a/b/self": "../../a",
        "a/b/over": "../../to-link",
        "out": "../outside",
        "a/b/out": "../../../outside",
        "a/b/through": "../../../root/a/b/file",
        "absolute": str(root / "a" / "b" / "file"),
        "circle": "circle",
        "nowhere": "absent",
    }.items():
        (root / name).symlink_to(target)
    return root


def read(opener: Any, root: Path, path: str) -> str | int:
    """What stands at `path`, or the number of the error."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = opener(directory, tuple(os.fsencode(path).split(b"/")), os.O_RDONLY)
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(directory)
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read()


FOLLOWED: list[tuple[str, str | int]] = [
    ("a/b/file", "inside"),
    ("to-file", "inside"),
    ("to-directory/file", "inside"),
    ("to-link", "inside"),
    ("a/up", "inside"),
    ("a/b/self/b/self/b/file", "inside"),
    ("a/b/over", "inside"),
    ("out", errno.EXDEV),
    ("a/b/out", errno.EXDEV),
    ("a/b/through", errno.EXDEV),
    ("absolute", errno.EXDEV),
    ("circle", errno.ELOOP),
    ("nowhere", errno.ENOENT),
    ("absent/file", errno.ENOENT),
    ("a/b/file/x", errno.ENOTDIR),
    ("to-file/x", errno.ENOTDIR),
]


@pytest.mark.parametrize(("path", "expected"), FOLLOWED, ids=str)
def test_links_are_followed_while_they_stay_inside(make: Any, root: Path, path: str, expected: str | int) -> None:
    """A relative link may lead up and down again, never out, not even to come back."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert read(make(links=True), root, path) == expected
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("path", [path for path, found in FOLLOWED[1:] if found == "inside"] + ["out", "absolute"])
def test_a_strict_opener_follows_none(make: Any, root: Path, path: str) -> None:
    """Without `links` any link in a path is refused as one."""
    assert read(make(), root, path) == errno.ELOOP
    assert read(make(), root, "a/b/file") == "inside"


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="another file system is needed")
def test_a_strict_opener_stays_on_one_file_system(make: Any) -> None:
    """What is mounted below a directory is no part of it; with `links` it is."""
    assert read(make(), Path("/"), "proc/version") == errno.EXDEV
    assert isinstance(read(make(links=True), Path("/"), "proc/version"), str)
