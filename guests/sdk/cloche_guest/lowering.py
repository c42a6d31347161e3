"""What may be handed to the host. Everything is checked here first, while it is still a Python value.

An exception while an argument is lowered reaches no `except` clause: it ends the instance, and so does the engine's
bound on one argument. A check before the call is an ordinary exception, which the plugin can catch.
"""

from __future__ import annotations

import operator
from typing import Any

from cloche_guest.errors import ServiceError

MAX_ARGUMENT_BYTES = 2 << 20
"""Most bytes of a text or of contents in one call of the host. The engine takes 48 bytes of its own for each byte of a
list that a guest hands over, 128 MiB at most; this leaves room for the other arguments."""
U32_MAX, U64_MAX, S64_MIN, S64_MAX = (1 << 32) - 1, (1 << 64) - 1, -(1 << 63), (1 << 63) - 1


def exact(what: str, value: object) -> str:
    """A text that names something. Raises: TypeError, UnicodeEncodeError (half of a surrogate pair), ServiceError."""
    if not isinstance(value, str):
        raise TypeError(f"{what}: a text is needed, not {type(value).__name__}")
    _ensure_size(what, len(value.encode()))
    return value


def shown(value: object) -> str:
    """A text for people; what is no character, such as half of a surrogate pair, becomes a question mark."""
    return str(value).encode(errors="replace").decode()


def integer(what: str, value: Any, least: int, most: int) -> int:
    """A whole number. Raises: TypeError; ValueError with the bounds."""
    number = operator.index(value)
    if not least <= number <= most:
        raise ValueError(f"{what}: {number} is not between {least} and {most}")
    return number


def contents(what: str, value: bytes | bytearray | memoryview) -> bytes:
    """Bytes of any buffer. Raises: TypeError; ServiceError (`too_large`) with the bound."""
    view = memoryview(value)
    _ensure_size(what, view.nbytes)
    return value if isinstance(value, bytes) else bytes(view)


def _ensure_size(what: str, size_bytes: int) -> None:
    if size_bytes > MAX_ARGUMENT_BYTES:
        raise ServiceError(
            what, "too_large", f"{size_bytes} bytes; one call takes at most {MAX_ARGUMENT_BYTES} from a plugin"
        )
