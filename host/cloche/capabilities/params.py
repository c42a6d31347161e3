"""Field types and helpers for grant parameters, shared by all capability packages.

Parameters are written in kebab-case in manifests and policies and are snake_case in Python; both spellings validate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field

from cloche.grants.schema import Params
from cloche.quantities import SIZE_FORMS, QuantityError, parse_size

MAX_NAMES = 256
"""Most names in one list of a grant; a manifest that needs more asks for something else."""
MAX_NAME_CHARACTERS = 128
"""Longest name in a grant, in characters."""

T = TypeVar("T")


class CapabilityParams(Params):
    """Base of our capabilities' parameters: frozen, strict, closed to unknown keys, kebab-case in TOML."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_size(value: object) -> object:
    try:
        return parse_size(value, unit_required=True) if isinstance(value, str) else value
    except QuantityError:
        raise ValueError(f"a size, written as {SIZE_FORMS}") from None


Name = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]
"""One name, compared exactly; may be empty where the capability gives the empty name a meaning."""

Names = Annotated[tuple[Name, ...], BeforeValidator(_as_tuple), Field(max_length=MAX_NAMES)]
"""A list of names."""

Size = Annotated[int, BeforeValidator(_as_size), Field(ge=0, le=1 << 50)]
"""Bytes: an integer or text with a unit (`"64MiB"`)."""

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""How many."""


def lower(*bounds: int | None) -> int | None:
    """The smallest of the bounds that are set, or None when none is."""
    known = [bound for bound in bounds if bound is not None]
    return min(known) if known else None


def common(asked: Iterable[T], allowed: Iterable[T] | None) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """What is asked and allowed, and what is asked but not allowed, in the order of asking; None allows everything."""
    if allowed is None:
        return tuple(asked), ()
    allowed = set(allowed)
    asked = tuple(asked)
    return tuple(item for item in asked if item in allowed), tuple(item for item in asked if item not in allowed)


def named(names: Iterable[str]) -> str:
    """Names as an explanation shows them: quoted, at most eight, then how many more."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
