"""Kebab-case of WIT to the names of Python, in this one place."""

from __future__ import annotations

import keyword
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
