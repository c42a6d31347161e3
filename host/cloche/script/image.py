"""Images: what scripts run in."""

from __future__ import annotations

from pathlib import Path

from cloche.errors import UsageError
from cloche.frozen import dataclass
from cloche.model import MIB
from cloche.resources import guests_dir

EXECUTOR = "cloche:script/executor"


@dataclass(frozen=True, slots=True)
class Image:
    """A component that serves `cloche:script/executor`, and the engine profile that it runs in.

    `source` is a plugin directory or a `.wasm` file, as for `Host.load`. `stack_bytes` is the wasm stack: an
    interpreter takes more of it than most guests. Added in 0.1.
    """

    source: Path
    stack_bytes: int = MIB


def image_of(named: str | Path | Image) -> Image:
    """The image that is meant: `"python"` (CPython with its standard library), a path, or an image as it is.

    Raises: UsageError (`usage.not-found`) for a name that is none.
    """
    if isinstance(named, Image):
        return named
    if named == "python":
        return Image(guests_dir() / "script")
    path = Path(named)
    if not path.exists():
        raise UsageError(f"there is no image {str(named)!r}: name a path, or one of: python", code="usage.not-found")
    return Image(path)
