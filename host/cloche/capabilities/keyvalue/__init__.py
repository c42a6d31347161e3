"""The capability `wasi:keyvalue`: buckets of keys with byte values, private to one plugin."""

from __future__ import annotations

from cloche.capabilities.api import Capability


def capability() -> Capability:
    """The capability, as the entry-point group `cloche.capabilities` names it."""
    from cloche.capabilities.keyvalue.host import KeyValue  # noqa: PLC0415 - listing packages must stay cheap

    return KeyValue()
