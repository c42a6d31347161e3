"""How `cloche:host/data` is asked for and allowed. Denied unless the policy allows it: it writes to the host's disk."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from cloche.capabilities.params import CapabilityParams, Count, Size, lower
from cloche.grants.schema import GrantSchema, Params, Verdict

INTERFACE = "cloche:host/data@1.0.0"


class Access(StrEnum):
    """What a plugin may do with its files."""

    READ = "read"
    READ_WRITE = "read-write"


def _as_access(value: object) -> object:
    return Access(value) if isinstance(value, str) and value in list(Access) else value


class DataParams(CapabilityParams):
    """What a plugin may keep in files: `access`, and bytes and number of files (None: the plugin's limit `data`)."""

    access: Annotated[Access, BeforeValidator(_as_access)] = Access.READ_WRITE
    bytes: Size | None = None
    files: Count | None = None


def intersect(request: Params, allowance: Params) -> Verdict:
    """The weaker access and the lower of each bound."""
    assert isinstance(request, DataParams)
    assert isinstance(allowance, DataParams)
    granted = DataParams(
        access=Access.READ if Access.READ in (request.access, allowance.access) else Access.READ_WRITE,
        bytes=lower(request.bytes, allowance.bytes),
        files=lower(request.files, allowance.files),
    )
    return Verdict(granted, f"{granted.access} access to its own directory")


SCHEMA = GrantSchema(
    id="cloche:host/data",
    version="1.0.0",
    summary="Keep files in a directory of its own",
    interfaces=(INTERFACE,),
    request=DataParams,
    allowance=DataParams,
    intersect=intersect,
)
