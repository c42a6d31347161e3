"""Kebab-case of WIT to the names of Python, in this one place."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Iterable
from functools import lru_cache


@lru_cache(maxsize=4096)
def snake(name: str) -> str:
    """`max-read-bytes` → `max_read_bytes`; a Python keyword gets a trailing underscore."""
    result = name.replace("-", "_").lower()
    return result + "_" if keyword.iskeyword(result) else result


@lru_cache(maxsize=4096)
def pascal(name: str) -> str:
    """`error-code` → `ErrorCode`; a Python keyword (`none` → `None`) gets a trailing underscore."""
    result = "".join(word[:1].upper() + word[1:] for word in name.split("-"))
    return result + "_" if keyword.iskeyword(result) else result


def unique_names(wanted: Iterable[tuple[str, str]], reserved: Collection[str]) -> dict[str, str]:
    """A Python name for each WIT name: the one wanted, with `_` at its end where it is reserved or was given before."""
    names: dict[str, str] = {}
    taken = set(reserved)
    for wit, python in wanted:
        while python in taken:
            python += "_"
        taken.add(python)
        names[wit] = python
    return names
