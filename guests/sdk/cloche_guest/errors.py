"""Errors of a plugin: answers of its own (`Err`), and what the SDK raises when a service cannot be used.

Raise `Err(payload)` from an exported function whose WIT type is `result<_, e>`: the caller gets `payload` as an
expected answer, and the instance lives on. Every other exception that leaves an exported function is a trap: it ends
the instance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cloche_guest.bindings import case_of, payload_of

__all__ = ["Denied", "Err", "Ok", "ServiceError", "Some", "Unavailable", "asked"]

T = TypeVar("T")
E = TypeVar("E")

if TYPE_CHECKING:

    class Err(Exception, Generic[E]):
        """The error case of a `result`; raise it with the payload that the WIT type asks for."""

        value: E

        def __init__(self, value: E) -> None: ...

    class Ok(Generic[T]):
        """The success case of a `result` inside a value."""

        value: T

        def __init__(self, value: T) -> None: ...

    class Some(Generic[T]):
        """A present value of an `option` whose payload is itself an `option`."""

        value: T

        def __init__(self, value: T) -> None: ...
else:
    try:
        from componentize_py_types import Err, Ok, Some
    except ImportError:  # outside a component: a plugin's own unit tests run on any Python
        from cloche_guest.standins import Err, Ok, Some


class ServiceError(Exception):
    """A service of the host answered with an error. `case` is the WIT case in snake_case, `detail` what it carried."""

    def __init__(self, what: str, case: str, detail: object = None) -> None:
        super().__init__(f"{what}: {case.replace('_', ' ')}" + (f" ({detail})" if detail is not None else ""))
        self.case = case
        self.detail = detail


class Denied(ServiceError):
    """The operator did not grant what was asked for."""


class Unavailable(ServiceError):
    """The plugin's world does not import the interface: add it to `wit/world.wit` and ask for it in `plugin.toml`."""

    def __init__(self, interface: str) -> None:
        super().__init__(interface, "not_imported", f"add `import {interface};` to the world and build again")


_DENIALS = frozenset({"access_denied", "denied", "no_such_store"})


def asked(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call an imported function; its error case becomes `Denied` or `ServiceError`, named after `what`."""
    try:
        return function(*args)
    except Err as error:
        case, detail = case_of(error.value), payload_of(error.value)
        raise (Denied if case in _DENIALS else ServiceError)(what, case, detail) from None
