"""numpy, imported when something of it is used for the first time: it takes longer than all of a worker's start.

    if TYPE_CHECKING:
        import numpy as np
    else:
        from cloche import lazy_numpy as np

Whoever only asks whether a value is one of numpy's asks `numpy_type`, which imports nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def numpy_type(name: str) -> Any:
    """The class of that name for `isinstance`; no class at all while nobody has imported numpy: nothing is of one."""
    return getattr(sys.modules.get("numpy"), name, ())


_is_forgone = False


def forgo() -> None:
    """From here on do without numpy where it is not imported: this process can open no more files."""
    global _is_forgone  # noqa: PLW0603 - of the process
    _is_forgone = True


def is_at_hand() -> bool:
    """Whether numpy can be used, for those who are quicker with it: imported already, or free to be."""
    return not _is_forgone or "numpy" in sys.modules


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # the import system asks for some
        raise AttributeError(name)
    found = globals()[name] = getattr(import_module("numpy"), name)
    return found
