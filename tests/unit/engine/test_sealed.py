"""Memory files: final once sealed, and read whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.confine.memory import can_seal, new_memory_file
from cloche.engine import sealed

needs_seals = pytest.mark.skipif(not can_seal(), reason="no memory files with seals here")


@pytest.fixture
def descriptor() -> Iterator[int]:
    """A memory file with a few bytes."""
    made = new_memory_file("test")
    os.write(made, b"some code")
    yield made
    os.close(made)


@needs_seals
def test_a_sealed_file_is_final(descriptor: int) -> None:
    """Writing, shrinking, growing, writable mapping, other seals and another opening all fail; reading works."""
    assert not sealed.is_sealed(descriptor)
    assert sealed.loading_path(descriptor) is None
    sealed.seal(descriptor)
    assert sealed.is_sealed(descriptor)
    for attempt in (
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.ftruncate(descriptor, 1),
        lambda: os.ftruncate(descriptor, 100),
        lambda: mmap.mmap(descriptor, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(PermissionError):
            attempt()
    path = sealed.loading_path(descriptor)
    assert path == b"/proc/self/fd/%d" % descriptor
    again = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.write(again, b"x")
    finally:
        os.close(again)
    with sealed.contents(descriptor) as view:
        assert bytes(view) == b"some code"


@needs_seals
def test_what_is_still_mapped_writable_cannot_be_sealed(descriptor: int) -> None:
    """A check after sealing therefore sees what nobody can change any more."""
    with mmap.mmap(descriptor, 0), pytest.raises(OSError, match="busy"):
        sealed.seal(descriptor)
    sealed.seal(descriptor)
    assert sealed.is_sealed(descriptor)


def test_what_cannot_be_sealed_is_read_and_not_mapped(tmp_path: Path) -> None:
    """A file that may still shrink is copied: a mapping of it would end the process."""
    file = tmp_path / "file"
    file.write_bytes(b"code" * 1_000_000)
    with file.open("r+b") as opened:
        sealed.seal(opened.fileno())
        assert not sealed.is_sealed(opened.fileno())
        with sealed.contents(opened.fileno()) as view:
            os.truncate(file, 0)
            assert view == b"code" * 1_000_000


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_a_system_that_refuses_memory_files_has_files_without_a_name(
    monkeypatch: pytest.MonkeyPatch, number: int, place: str
) -> None:
    """They hold what is written, and are never taken for sealed."""
    monkeypatch.setattr(tempfile, "tempdir", place if os.access(place, os.W_OK) else None)

    def refuse(*_: object) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    made = new_memory_file("test")
    os.write(made, b"some code")
    sealed.seal(made)
    assert os.fstat(made).st_nlink == 0
    assert sealed.loading_path(made) is None
    with sealed.contents(made) as view:
        assert view == b"some code"
    os.close(made)


def test_an_empty_file_has_no_contents() -> None:
    """Nothing is mapped for nothing."""
    made = new_memory_file("test")
    with sealed.contents(made) as view:
        assert view == b""
    os.close(made)


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (10, 0), (0, 3_000_000)])
def test_a_copy_is_whole_or_an_error(tmp_path: Path, offset: int, length: int) -> None:
    """Exactly the range that was asked for is copied; a source that ends early is an error."""
    data = os.urandom(max(10, length))
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source:
        made = new_memory_file("test")
        sealed.copy(source.fileno(), offset, length, made)
        with sealed.contents(made) as view:
            assert bytes(view) == data[offset : offset + length]
        with pytest.raises(EOFError):
            sealed.copy(source.fileno(), offset, len(data) + 1, made)
        os.close(made)


def test_an_ordinary_file_is_not_sealed(tmp_path: Path) -> None:
    """A file on disk is live, so it is never loaded by its path."""
    (tmp_path / "file").write_bytes(b"code")
    with (tmp_path / "file").open("rb") as file:
        assert not sealed.is_sealed(file.fileno())
        assert sealed.loading_path(file.fileno()) is None
