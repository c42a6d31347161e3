"""The WASI context of a store: empty but for captured output and the operator's mounts.

Environment, arguments and stdin are empty, there is no network; clocks and randomness are the engine's own. Source:
H26, H27.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import GrantError
from cloche.frozen import dataclass

if TYPE_CHECKING:
    from cloche.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the operator's under a name that the guest sees as `/name`."""

    name: str
    path: Path
    writable: bool


MAX_SCANNED = 10_000
"""Most entries of a mount that are looked at for links."""


def outward_links(mount: Mount) -> list[str]:
    """Links in a mount that lead out of it, as paths below `/name`: a guest cannot follow them, but others would (H27).

    Looks at no more than `MAX_SCANNED` entries; follows nothing. Blocks on the disk.
    """
    root, found, seen = os.path.realpath(mount.path), [], 0
    for directory, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(directory, name)  # noqa: PTH118 - thousands of them
            seen += 1
            if os.path.islink(path) and not (os.path.realpath(path) + os.sep).startswith(root + os.sep):  # noqa: PTH114
                found.append(f"/{mount.name}/{os.path.relpath(path, root)}")
            if seen >= MAX_SCANNED:
                return found
    return found


def new_wasi(engine: Engine, context: int, mounts: tuple[Mount, ...]) -> int:
    """A `wasi_config_t*`, which `wasmtime_context_set_wasi` takes over.

    Raises: GrantError (`grant.refused`) when a mount cannot be opened.
    """
    lib = engine.lib
    config = lib.wasi_config_new()
    lib.wasi_config_set_stdout_custom(config, engine.outputs[0], context, None)
    lib.wasi_config_set_stderr_custom(config, engine.outputs[1], context, None)
    for mount in mounts:
        if not lib.wasi_config_preopen_dir(config, os.fsencode(mount.path), f"/{mount.name}".encode(), mount.writable):
            lib.wasi_config_delete(config)
            raise GrantError(
                f"mount {mount.name!r} cannot be opened: is {mount.path} a directory?", code="grant.refused"
            )
    return int(config)
