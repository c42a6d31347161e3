"""Where a plugin's own data lives: a directory that belongs to (tenant, origin, id), so that no plugin sees another's.

Source: H38. The directory's name is a hash: neither an id nor a path becomes a file name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def storage_directory(home: Path, tenant: str, origin: str, plugin: str) -> Path:
    """The directory, which is made by the first capability that stores something.

    `origin` is a publisher's key, a digest pin or the canonical path that an unsigned plugin was loaded from.
    """
    parts = (tenant, origin, plugin)
    digest = hashlib.sha256(b"".join(f"{len(part.encode())}:".encode() + part.encode() for part in parts)).hexdigest()
    return home / "data" / digest[:2] / digest
