"""Configuration and secrets that the operator set for this plugin, through `wasi:config/store`.

Read inside a call, or in a function given to `at_start`: at module level the build would ask, where nobody answers.
"""

from __future__ import annotations

from typing import TypeVar, overload

from cloche_guest.bindings import imported
from cloche_guest.errors import Unavailable, asked
from cloche_guest.lowering import exact

T = TypeVar("T")

_host = imported("store", "wasi_config_store", "config_store", having="get_all", standard=True)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def is_available() -> bool:
    """Whether the plugin's world imports `wasi:config/store`."""
    return _host is not None


@overload
def get(key: str) -> str | None: ...
@overload
def get(key: str, default: T) -> str | T: ...
def get(key: str, default: T | None = None) -> str | T | None:
    """The value of `key`, or `default` when it is not set, not granted, or the world does not import the interface.

    Raises: ServiceError when the host cannot read it.
    """
    if _host is None:
        return default
    what = f"configuration {key!r}"
    value: str | None = asked(what, _host.get, exact(what, key))
    return default if value is None else value


def require(key: str) -> str:
    """The value of `key`. Raises: KeyError when it is not set, Unavailable without the import."""
    if _host is None:
        raise Unavailable("wasi:config/store")
    value = get(key)
    if value is None:
        raise KeyError(f"the operator has to set the configuration key {key!r}")
    return value


def get_int(key: str, default: int) -> int:
    """The value of `key` as an integer. Raises: ValueError naming the key."""
    value = get(key)
    try:
        return default if value is None else int(value)
    except ValueError:
        raise ValueError(f"the configuration key {key!r} must be an integer, not {value!r:.80}") from None


def get_bool(key: str, default: bool) -> bool:
    """The value of `key` as a switch: true/yes/on/1 or false/no/off/0. Raises: ValueError naming the key."""
    value = get(key)
    if value is None:
        return default
    word = value.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"the configuration key {key!r} must be true or false, not {value!r:.80}")
    return word in _TRUE


def get_all() -> dict[str, str]:
    """Every key that is set and granted; empty when the world does not import the interface."""
    return {} if _host is None else dict(sorted(asked("configuration", _host.get_all)))
