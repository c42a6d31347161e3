"""The carriers of WIT results and options where componentize-py's own are missing: in a plugin's unit tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E")


@dataclass
class Some(Generic[T]):
    """A present value of a nested option."""

    value: T


@dataclass
class Ok(Generic[T]):
    """The success case of a result."""

    value: T


@dataclass(frozen=True)
class Err(Exception, Generic[E]):
    """The error case of a result."""

    value: E
