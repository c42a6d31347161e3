"""What is known of an image once the policy was asked: all that a worker has to be told, and the bounds of a script."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cloche.errors import GrantError, LimitError
from cloche.frozen import dataclass, replace
from cloche.model import BOUNDS, Limits, ensure_limit

if TYPE_CHECKING:
    from cloche.binary.survey import Survey
    from cloche.engine.cache_entry import EntryKey
    from cloche.engine.wasi import Mount
    from cloche.worker.orders import Lodging

FILES = "wasi:filesystem"
FUNCTIONS = "cloche:script"
WORKSPACE = "work"
"""The mount's name of a script's own files: it sees them as `/work`, and starts there."""


@dataclass(frozen=True, slots=True)
class Kit:
    """An image, ready to be run. It owns the descriptors in `lodging`; `close` it.

    `ceilings` are the limits that the policy sets, by the names of `model.BOUNDS`; `denied` says why `FILES` or
    `FUNCTIONS` are refused, where they are. `code` is what its native code is known by in the cache.
    """

    lodging: Lodging
    survey: Callable[[], Survey]
    ceilings: Mapping[str, int]
    denied: Mapping[str, str]
    code: EntryKey

    def limits(self, wishes: Mapping[str, int]) -> Limits:
        """The limits with these wishes of the caller. Raises: LimitError (`limit.range`)."""
        for name, wish in wishes.items():
            ensure_limit(name, wish)
            ceiling = self.ceilings.get(name)
            if ceiling is not None and wish > ceiling:
                raise LimitError(
                    f"limit {name}: {wish} is above the {ceiling} ({BOUNDS[name].unit}) that the policy allows scripts",
                    code="limit.range",
                    plugin=self.lodging.plugin,
                )
        return replace(self.lodging.limits, **wishes) if wishes else self.lodging.limits

    def ensure_granted(self, capability: str) -> None:
        """Raises: GrantError (`grant.refused`) when the policy refuses it to scripts."""
        reason = self.denied.get(capability)
        if reason is not None:
            raise GrantError(
                f"scripts are not granted {capability}: {reason}", code="grant.refused", plugin=self.lodging.plugin
            )

    def lodging_for(self, limits: Limits, mounts: tuple[Mount, ...]) -> Lodging:
        """What a worker for these limits and mounts has to know. Raises: LimitError (`limit.memory`)."""
        bounds = self.lodging.bounds
        if limits.memory_bytes != self.lodging.limits.memory_bytes:
            from cloche.binary.plan import memory_plan  # noqa: PLC0415 - only for another memory than the usual one

            plan = memory_plan(self.survey(), limits.memory_bytes)
            bounds = replace(bounds, memory_bytes=plan.memory_size, table_elements=plan.table_elements)
        return replace(self.lodging, limits=limits, bounds=bounds, mounts=(*self.lodging.mounts, *mounts))

    def close(self) -> None:
        """Close the descriptors. Once."""
        for descriptor in (self.lodging.component, *(descriptor for _, descriptor in self.lodging.modules)):
            os.close(descriptor)
