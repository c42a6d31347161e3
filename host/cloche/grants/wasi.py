"""Grant schemas of the WASI interfaces that the engine itself provides.

Clocks, waiting, randomness and captured stdio are default grants, which a policy can deny. Directories are mounts that
the operator binds, by name. Sockets cannot be granted in this version.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from cloche.grants.schema import GrantSchema, NoParams, Params, Verdict
from cloche.manifest.schema import MAX_ENTRIES, MountName
from cloche.version import WASI_VERSION

FILESYSTEM_ID = "wasi:filesystem"
POLL_ID = "wasi:io/poll"
"""Denied, plugins that can sleep in the host's thread are not loaded into the trusted tier (H1)."""


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


MountNames = Annotated[tuple[MountName, ...], BeforeValidator(_as_tuple), Field(max_length=MAX_ENTRIES)]


class FilesystemRequest(Params):
    """Names of mounts that a plugin wants to read, and to read and write. Default: none."""

    read: MountNames = ()
    write: MountNames = ()


class FilesystemAllowance(Params):
    """Names of mounts that the operator bound, by mode. Made from the policy's `mounts`, never written by hand."""

    ro: MountNames = ()
    rw: MountNames = ()


class FilesystemGrant(Params):
    """Names of mounts that are opened: for reading, and for reading and writing. No name is in both."""

    read: MountNames = ()
    write: MountNames = ()


def _intersect_nothing(request: Params, allowance: Params) -> Verdict:
    del request, allowance
    return Verdict(NoParams(), "")


def _intersect_filesystem(request: Params, allowance: Params) -> Verdict:
    assert isinstance(request, FilesystemRequest)
    assert isinstance(allowance, FilesystemAllowance)
    asked = tuple(dict.fromkeys((*request.read, *request.write)))
    if not asked:
        return Verdict(None, "it names no mount in read or write")
    write = tuple(name for name in asked if name in request.write and name in allowance.rw)
    read = tuple(name for name in asked if name not in write and name in (*allowance.ro, *allowance.rw))
    missing = [name for name in asked if name not in (*read, *write)]
    lowered = [name for name in read if name in request.write]
    parts = [f"read-only: {', '.join(read)}"] if read else []
    parts += [f"read and write: {', '.join(write)}"] if write else []
    parts += [f"bound read-only though writing is asked for: {', '.join(lowered)}"] if lowered else []
    parts += [f"not bound by the operator: {', '.join(missing)}"] if missing else []
    return Verdict(FilesystemGrant(read=read, write=write) if read or write else None, "; ".join(parts))


def _intersect_sockets(request: Params, allowance: Params) -> Verdict:
    del request, allowance
    return Verdict(None, "sockets cannot be granted in this version of Cloche")


def _ids(package: str, *names: str) -> tuple[str, ...]:
    return tuple(f"wasi:{package}/{name}@{WASI_VERSION}" for name in names)


CLOCKS = GrantSchema(
    id="wasi:clocks",
    version=WASI_VERSION,
    summary="Read the time and sleep",
    interfaces=_ids("clocks", "monotonic-clock", "wall-clock"),
    request=NoParams,
    allowance=NoParams,
    intersect=_intersect_nothing,
    default=True,
)
POLL = GrantSchema(
    id=POLL_ID,
    version=WASI_VERSION,
    summary="Sleep and wait, which nothing interrupts in the trusted tier; denied, plugins that could are not loaded",
    interfaces=_ids("io", "poll"),
    request=NoParams,
    allowance=NoParams,
    intersect=_intersect_nothing,
    default=True,
)
RANDOM = GrantSchema(
    id="wasi:random",
    version=WASI_VERSION,
    summary="Get random numbers",
    interfaces=_ids("random", "random", "insecure", "insecure-seed"),
    request=NoParams,
    allowance=NoParams,
    intersect=_intersect_nothing,
    default=True,
)
CLI = GrantSchema(
    id="wasi:cli",
    version=WASI_VERSION,
    summary="Write to standard output and error, which the host captures; no input, arguments or environment",
    interfaces=_ids(
        "cli",
        "environment",
        "exit",
        "stdin",
        "stdout",
        "stderr",
        "terminal-input",
        "terminal-output",
        "terminal-stdin",
        "terminal-stdout",
        "terminal-stderr",
    ),
    request=NoParams,
    allowance=NoParams,
    intersect=_intersect_nothing,
    default=True,
)
FILESYSTEM = GrantSchema(
    id=FILESYSTEM_ID,
    version=WASI_VERSION,
    summary="Read and write directories that the operator binds to names",
    interfaces=_ids("filesystem", "types", "preopens"),
    request=FilesystemRequest,
    allowance=FilesystemAllowance,
    intersect=_intersect_filesystem,
)
SOCKETS = GrantSchema(
    id="wasi:sockets",
    version=WASI_VERSION,
    summary="Open network connections (not available in this version)",
    interfaces=_ids(
        "sockets",
        "network",
        "instance-network",
        "tcp",
        "tcp-create-socket",
        "udp",
        "udp-create-socket",
        "ip-name-lookup",
    ),
    request=NoParams,
    allowance=NoParams,
    intersect=_intersect_sockets,
)

WASI_SCHEMAS: tuple[GrantSchema, ...] = (CLOCKS, POLL, RANDOM, CLI, FILESYSTEM, SOCKETS)
"""Everything that the engine provides; `app.py` adds the schemas of the capability packages."""
