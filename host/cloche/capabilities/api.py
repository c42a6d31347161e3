"""The seam between the host and a capability package. Ours and any third party's look the same from here.

A package is found through the entry-point group `cloche.capabilities` (the entry is a `Capability`, a class of them, or
a callable that returns one), or handed over in code: `Host(capabilities=[MyCapability()])`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cloche.grants.schema import GrantSchema, Params
from cloche.model import Limits
from cloche.observe.events import Event, EventKind


@dataclass(frozen=True, slots=True)
class Session:
    """What a capability may know of the plugin instance that it serves.

    `storage` is the directory of this plugin's own data, made on first use by the capability; it belongs to (tenant,
    origin, id), so two plugins never share it. `config` holds the author's settings under the operator's; `secrets`
    those of the policy that `wasi:config` grants, because no other is read. `emit` adds to the event stream with
    plugin, version, tier and call id filled in. `call_id` gives the id of the call being served.
    """

    plugin: str
    version: str
    tier: str
    limits: Limits
    storage: Path
    config: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    emit: Callable[[EventKind, Mapping[str, object]], None]
    call_id: Callable[[], int | None]


class HostInterface(Protocol):
    """One object per WIT interface and plugin instance.

    A function `max-size` is the method `max_size`. For a resource `bucket`: the constructor is the method `bucket`, a
    static function `[static]bucket.find` is `bucket_find`, and a method `[method]bucket.get` is called on the object
    that stands for the resource itself (`obj.get(key)`). A resource object may have `close()`, called once when the
    guest drops it or the instance ends. Parameters and results are Python values as docs/values.md lists them; a
    function whose WIT result is `result<T, E>` returns `Ok(value)` or `Err(value)`. For records, variants, enums and
    flags the host accepts the generated classes, and also mappings, `cloche.values.Case("name", payload)`, strings and
    sets of strings. Any exception becomes a trap that tells the guest nothing; `CapabilityError` says so on purpose.
    Methods run on the instance's thread and may block up to the call's deadline.
    """

    def close(self) -> None:
        """Release everything; called once when the instance ends, for whatever reason."""


class Capability(Protocol):
    """A capability: WIT interfaces, a grant schema, and a host object for each interface and instance."""

    schema: GrantSchema

    def wit(self) -> Path:
        """The directory of the WIT package that declares the interfaces."""

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """Host objects by interface id, one for each id in `schema.interfaces`, for one plugin instance.

        Must be cheap (it is called for each new instance) and open files and databases only when first used.
        """


__all__ = ["Capability", "Event", "EventKind", "HostInterface", "Session"]
