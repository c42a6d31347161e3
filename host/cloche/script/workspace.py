"""A script's own directory on the host: files in, files out, and a watch on how much there is."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cloche.engine.wasi import Mount
from cloche.errors import LimitError, UsageError
from cloche.model import Limits
from cloche.script.kit import WORKSPACE
from cloche.text import show

MAX_DEPTH = 64
"""How deep its directories may lie in each other."""
LOOK_EVERY_S = 0.05
"""How often a running script's files are counted."""


class Workspace:
    """A temporary directory with the given files. A context manager; leaving it removes everything.

    Raises: UsageError (`usage.argument`) for a name that is no plain relative path; LimitError (`limit.data`) for more
        or larger files than the limits allow; OSError.
    """

    def __init__(self, files: Mapping[str, bytes | str], limits: Limits, plugin: str) -> None:
        self._limits, self._plugin = limits, plugin
        given = {
            _checked(name): data.encode() if isinstance(data, str) else bytes(data) for name, data in files.items()
        }
        self._ensure_within(len(given), sum(map(len, given.values())))
        self.directory = Path(tempfile.mkdtemp(prefix="cloche-script-"))
        self._known = given
        try:
            for name, data in given.items():
                path = self.directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        except BaseException:
            self.close()
            raise

    @property
    def mount(self) -> Mount:
        """The directory as the worker mounts it."""
        return Mount(WORKSPACE, self.directory, writable=True)

    def changed(self) -> dict[str, bytes]:
        """Every regular file that is not as it was given, or as it was when this was last asked, by path.

        Follows no link. For when no script runs. Raises: LimitError (`limit.data`).
        """
        self.ensure_within()
        found: dict[str, bytes] = {}
        for entry in _entries(self.directory):
            if entry.is_file(follow_symlinks=False):
                path = str(PurePosixPath(entry.path).relative_to(self.directory))
                data = Path(entry.path).read_bytes()
                if self._known.get(path) != data:
                    found[path] = data
        self._known.update(found)
        return found

    def ensure_within(self) -> None:
        """Raises: LimitError (`limit.data`) when there are too many files and directories, or too many bytes."""
        size = 0
        for count, entry in enumerate(_entries(self.directory), 1):
            with contextlib.suppress(FileNotFoundError):  # the script removed it meanwhile
                size += entry.stat(follow_symlinks=False).st_size
            depth = entry.path.count(os.sep) - str(self.directory).count(os.sep)
            if count > self._limits.data_files or size > self._limits.data_bytes or depth > MAX_DEPTH:
                self._ensure_within(max(count, self._limits.data_files + (depth > MAX_DEPTH)), size)

    def close(self) -> None:
        """Remove everything. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            _remove(self.directory)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ensure_within(self, count: int, size: int) -> None:
        limits = self._limits
        if count > limits.data_files or size > limits.data_bytes:
            raise LimitError(
                f"the script has {count} files and directories with {size} bytes; {limits.data_files} with "
                f"{limits.data_bytes} bytes may be",
                code="limit.data",
                plugin=self._plugin,
            )


@contextlib.contextmanager
def watched(space: Workspace | None, stop: Callable[[], None]) -> Iterator[None]:
    """Count the files every `LOOK_EVERY_S` while the block runs; call `stop`, which makes it fail, when it is too much.

    Raises: LimitError (`limit.data`) in place of the `usage.interrupted` that comes of it.
    """
    if space is None:
        yield
        return
    is_over, found = threading.Event(), list[LimitError]()

    def look() -> None:
        while not is_over.wait(LOOK_EVERY_S):
            try:
                space.ensure_within()
            except LimitError as error:
                found.append(error)
                stop()
                return
            except OSError:
                continue  # a directory that went away while it was looked at

    thread = threading.Thread(target=look, name="cloche-script-files", daemon=True)
    thread.start()
    try:
        yield
    except UsageError as error:
        if not found or error.code != "usage.interrupted":
            raise
        found[0].usage = error.usage
        raise found[0] from None
    finally:
        is_over.set()
        thread.join()


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name or name == ".":
        raise UsageError(f"the file name {show(name)} must be a plain relative path such as data/input.csv")
    return name


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a directory, a directory before what is in it. Follows no link, and does not recurse."""
    left = [str(directory)]
    while left:
        try:
            with os.scandir(left.pop()) as found:
                entries = list(found)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.path)


def _remove(directory: Path) -> None:
    """Remove a tree of any depth: what lies deeper is lifted to the top first, so that nothing here recurses."""
    lifted = itertools.count()
    while entries := list(directory.iterdir()):
        for entry in entries:
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink()
                continue
            for inner in list(entry.iterdir()):
                if inner.is_symlink() or not inner.is_dir():
                    inner.unlink()
                else:
                    inner.rename(directory / f".{next(lifted)}-{secrets.token_hex(8)}")
            entry.rmdir()
    directory.rmdir()
