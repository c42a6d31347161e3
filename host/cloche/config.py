"""The host's settings: read once from the environment, in this one place, and frozen.

| variable | meaning | default |
| --- | --- | --- |
| `CLOCHE_HOME` | directory of everything that Cloche stores | the platform's user data directory, `cloche` inside it |
| `CLOCHE_POLICY` | the operator's policy file | `policy.toml` in the home, where it exists |
| `CLOCHE_CACHE_SIZE` | cap on all caches together, such as `4GiB` | `4GiB` |
| `CLOCHE_BACKGROUND_COMPILE` | `on`: optimise large components in the background after their first start | `on` |
| `CLOCHE_READY_WORKERS` | workers kept ready for untrusted plugins, from `0` (none) to `64` | `1` |
| `CLOCHE_LOG_LEVEL` | `debug`, `info`, `warning` or `error` | `warning` |
| `CLOCHE_LOG_FORMAT` | `text` or `json` | `text` |

A variable that starts with `CLOCHE_` and is not in this table is an error, so that a misspelt setting is never ignored.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from cloche.errors import RegistryError, UsageError
from cloche.frozen import dataclass
from cloche.quantities import QuantityError, parse_size
from cloche.text import one_line

T = TypeVar("T")

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
DEFAULT_CACHE_BYTES = 4 << 30  # about a hundred Python plugins of 38 MB native code each
LEAST_CACHE_BYTES = 64 << 20  # room for the native code of one Python plugin, else every start would compile
MOST_CACHE_BYTES = 1 << 44
MOST_READY_WORKERS = 64  # each is a process with some 20 MiB of its own

POLICY_FILE = "policy.toml"
"""The name of the operator's policy in the home."""

PREFIX = "CLOCHE_"
VARIABLES = (
    "CLOCHE_HOME",
    "CLOCHE_POLICY",
    "CLOCHE_CACHE_SIZE",
    "CLOCHE_BACKGROUND_COMPILE",
    "CLOCHE_READY_WORKERS",
    "CLOCHE_LOG_LEVEL",
    "CLOCHE_LOG_FORMAT",
)
_SWITCH = {"on": True, "1": True, "true": True, "yes": True, "off": False, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator of this machine chose. `policy` None means `policy.toml` in the home, where it exists.

    Building one reads and creates nothing on disk. Added in 0.1.
    """

    home: Path
    policy: Path | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    background_compile: bool = True
    log_level: str = "warning"
    log_format: str = "text"
    ready_workers: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environment` (default: the process's own). An empty variable counts as not set.

        Raises: UsageError (`usage.argument`) naming the variable, its value and what is accepted.
        """
        given = {
            name: text
            for name, text in (os.environ if environment is None else environment).items()
            if name.startswith(PREFIX) and text
        }
        for name in sorted(given.keys() - set(VARIABLES)):
            import difflib  # noqa: PLC0415 - for the error only

            near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.75)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(VARIABLES)}"
            raise UsageError(f"the environment variable {name} is not a setting of Cloche{hint}")
        policy = given.get("CLOCHE_POLICY")
        return cls(
            home=_absolute("CLOCHE_HOME", given["CLOCHE_HOME"]) if "CLOCHE_HOME" in given else default_home(),
            policy=None if policy is None else _absolute("CLOCHE_POLICY", policy),
            cache_bytes=_cache_bytes(given.get("CLOCHE_CACHE_SIZE")),
            background_compile=_choice(given, "CLOCHE_BACKGROUND_COMPILE", _SWITCH, default=True),
            log_level=_choice(given, "CLOCHE_LOG_LEVEL", {level: level for level in LOG_LEVELS}, default="warning"),
            log_format=_choice(given, "CLOCHE_LOG_FORMAT", {form: form for form in LOG_FORMATS}, default="text"),
            ready_workers=_count(given, "CLOCHE_READY_WORKERS", MOST_READY_WORKERS, default=1),
        )

    @property
    def native_cache(self) -> Path:
        """The directory of compiled native code."""
        return self.home / "cache" / "native"

    @property
    def build_cache(self) -> Path:
        """The directory of components built from source, and of what building them fetched."""
        return self.home / "cache" / "build"

    @property
    def data(self) -> Path:
        """The directory of what plugins store, one folder for each (tenant, origin, id)."""
        return self.home / "data"

    def policy_file(self) -> Path | None:
        """The policy file to read: the one that was named, else what has its name in the home, else None.

        Also a link that leads nowhere, or a directory: reading that fails, while no policy at all would deny nothing.
        """
        if self.policy is not None:
            return self.policy
        own = self.home / POLICY_FILE
        try:
            own.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return own  # whoever opens it says why that fails
        return own


def default_home() -> Path:
    """The home when `CLOCHE_HOME` is not set: `cloche` in the platform's user data directory."""
    import platformdirs  # noqa: PLC0415 - where the environment names a home, nobody pays for it

    return Path(platformdirs.user_data_dir("cloche", appauthor=False))


def ensure_private_directory(path: Path) -> Path:
    """Make `path` (and its parents) if needed, readable by this user only (mode 0700), and return it.

    An existing directory of ours that others may enter is closed to them. Blocks for a few system calls.
    Raises: RegistryError (`registry.io`) when it cannot be made, is not a directory, or belongs to another user.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise RegistryError(
                f"{path} belongs to user id {found.st_uid}, but Cloche runs as {os.geteuid()} and keeps its home "
                "private to one user; set CLOCHE_HOME to a directory of your own"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise home_error(path, error) from error
    except ValueError as error:
        raise RegistryError(f"cannot use {one_line(path)}: {error}; set CLOCHE_HOME to another directory") from error
    return path


def home_error(path: Path, error: OSError) -> RegistryError:
    """The error to raise when reading or writing `path` under the home failed: what happened and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "the disk or the quota is full; free space, run `cloche cache gc`, or set CLOCHE_HOME to another disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "this user may not write there; mend the permissions or set CLOCHE_HOME to a directory of your own"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        remedy = "a file stands where a directory is needed; move it away or set CLOCHE_HOME to another directory"
    else:
        remedy = "check the disk, or set CLOCHE_HOME to another directory"
    return RegistryError(f"cannot use {path}: {error.strerror or error}; {remedy}")


def _absolute(variable: str, text: str) -> Path:
    if "\0" in text:
        raise UsageError(f"{variable} contains a NUL character")
    return Path(text).expanduser().absolute()


def _cache_bytes(text: str | None) -> int:
    if text is None:
        return DEFAULT_CACHE_BYTES
    try:
        size_bytes = parse_size(text)
    except QuantityError as error:
        raise UsageError(f"CLOCHE_CACHE_SIZE: {error}") from error
    if not LEAST_CACHE_BYTES <= size_bytes <= MOST_CACHE_BYTES:
        raise UsageError(
            f"CLOCHE_CACHE_SIZE must be from {LEAST_CACHE_BYTES >> 20}MiB to {MOST_CACHE_BYTES >> 40}TiB, not {text}"
        )
    return size_bytes


def _count(given: Mapping[str, str], variable: str, most: int, *, default: int) -> int:
    text = given.get(variable)
    if text is None:
        return default
    word = text.strip()
    if not (word.isascii() and word.isdigit() and len(word) <= len(str(most)) and int(word) <= most):
        raise UsageError(f"{variable} must be a number from 0 to {most}, not {text!r:.60}")
    return int(word)


def _choice(given: Mapping[str, str], variable: str, accepted: Mapping[str, T], *, default: T) -> T:
    text = given.get(variable)
    if text is None:
        return default
    try:
        return accepted[text.strip().lower()]
    except KeyError:
        raise UsageError(f"{variable} must be one of {', '.join(accepted)}, not {text!r:.60}") from None
