"""How `wasi:keyvalue` is asked for and allowed. Denied unless the policy allows it: it writes to the host's disk."""

from __future__ import annotations

from cloche.capabilities.params import CapabilityParams, Count, Names, Size, common, lower, named
from cloche.grants.schema import GrantSchema, Params, Verdict

STORE = "wasi:keyvalue/store@0.2.0-draft2"
ATOMICS = "wasi:keyvalue/atomics@0.2.0-draft2"
BATCH = "wasi:keyvalue/batch@0.2.0-draft2"


class KeyValueRequest(CapabilityParams):
    """What a plugin may store: buckets by exact identifier, total bytes of keys and values, keys, bytes of one value.

    None means the plugin's limit (`data`), and for `value-bytes` the largest value that the host takes. Also the grant.
    """

    buckets: Names = ("default",)
    bytes: Size | None = None
    keys: Count | None = None
    value_bytes: Size | None = None


class KeyValueAllowance(CapabilityParams):
    """What the operator allows, in the same terms; None sets no further bound (for `buckets`: all)."""

    buckets: Names | None = None
    bytes: Size | None = None
    keys: Count | None = None
    value_bytes: Size | None = None


def intersect(request: Params, allowance: Params) -> Verdict:
    """The buckets that are asked for and allowed, and the lower of each bound; nothing when no bucket is left."""
    assert isinstance(request, KeyValueRequest)
    assert isinstance(allowance, KeyValueAllowance)
    buckets, refused = common(request.buckets, allowance.buckets)
    if not buckets:
        return Verdict(None, f"no bucket that is asked for is allowed (asked: {named(request.buckets) or 'none'})")
    granted = KeyValueRequest(
        buckets=buckets,
        bytes=lower(request.bytes, allowance.bytes),
        keys=lower(request.keys, allowance.keys),
        value_bytes=lower(request.value_bytes, allowance.value_bytes),
    )
    return Verdict(granted, f"buckets {named(buckets)}" + (f"; not allowed: {named(refused)}" if refused else ""))


SCHEMA = GrantSchema(
    id="wasi:keyvalue",
    version="0.2.0-draft2",
    summary="Keep values under keys, from one call to the next",
    interfaces=(STORE, ATOMICS, BATCH),
    request=KeyValueRequest,
    allowance=KeyValueAllowance,
    intersect=intersect,
)
