"""Compile one component, or one core module, in a child process that can do nothing else.

Compiling cannot be interrupted and takes memory and time that no limit of the engine bounds (H22); its input is hostile
and its output will run natively. So it has a process of its own: one digest, limits on time, processor and memory, no
files, no network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cloche.binary.header import ensure_component
from cloche.confine.child import ChildOutcome, ChildResult, run_confined_python
from cloche.confine.level import Level
from cloche.confine.limits import ChildLimits
from cloche.confine.memory import new_memory_file
from cloche.confine.seccomp import Group
from cloche.confine.shortage import shortage
from cloche.engine import sealed
from cloche.engine.ffi import library
from cloche.engine.profile import Profile
from cloche.errors import ContractError, EngineError, RegistryError
from cloche.model import GIB, KIB, MIB, Digest
from cloche.text import one_line

MAX_INPUT_BYTES = 128 * MIB
"""A component or core module larger than this is not compiled. The largest Python guests have 40 MB."""

COMPILE_LIMITS = ChildLimits(
    wall_ms=300_000,
    cpu_seconds=180,
    memory_bytes=1 * GIB,  # an 18 MB Python guest takes 0.35 GB, the smallest compile bombs 1.6 GB (H22)
    output_bytes=64 * KIB,
    file_bytes=1 * GIB,
    open_files=32,
)
"""Bounds of one compile child unless the caller gives others."""

QUIET_MS = 1000
"""Progress is told only for what takes longer than this."""
PROGRESS_EVERY_MS = 250
"""And then this often."""


class CodeKind(StrEnum):
    """What is compiled."""

    COMPONENT = "component"
    MODULE = "module"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of something that takes time. `fraction` is None where nobody knows how long it takes. Added in 0.1."""

    stage: str
    fraction: float | None
    text: str


ProgressSink = Callable[[Progress], None]
"""Takes progress on the thread that waits; called at most four times a second."""


def compile_code(
    data: bytes,
    digest: Digest,
    kind: CodeKind,
    profile: Profile,
    *,
    limits: ChildLimits = COMPILE_LIMITS,
    nice: int = 0,
    progress: ProgressSink | None = None,
    cancelled: Callable[[], bool] | None = None,
    confined: Callable[[Level], None] | None = None,
) -> int:
    """Compile `data`, whose sha256 is `digest`, and return a sealed descriptor of native code; the caller closes it.

    Blocks for seconds, at most `limits.wall_ms` for each of two attempts (see `run_confined`); safe from many threads
    at once. `cancelled` is asked about fifty times a second and ends the child when it answers True; `confined` is told
    what confined the child.

    Raises: ContractError `component.*` for bytes that are no component or do not validate, `engine.compile` for a
        component that needs more than `limits` allow; EngineError `engine.unsupported` where no child can be started,
        `engine.resources` when the system lacks what it takes, `engine.internal` when the compiler breaks,
        `usage.interrupted` when cancelled; RegistryError (`registry.io`) when this process may not write as much.
        Added in 0.1.
    """
    ensure_compilable(data, digest, kind)
    lib = library()
    try:
        output = new_memory_file(f"cloche-{kind}")
    except OSError as error:
        raise shortage(f"there is nowhere to keep the native code of {kind} {digest[:12]}", error) from error
    try:
        order = {
            "library": str(lib.path),
            "version": lib.version,
            "kind": kind.value,
            "output": output,
            "profile": dataclasses.asdict(profile),
        }
        result = run_confined_python(
            "cloche.engine.compile_child",
            [json.dumps(order)],
            stdin=data,
            limits=limits,
            groups=(Group.COMPUTE, Group.THREADS, Group.NATIVE_CODE),
            pass_fds=(output,),
            nice=nice,
            watch=_Watch(digest, kind, progress, cancelled),
        )
        _ensure_compiled(result, output, digest, kind, limits)
        if confined is not None:  # one that was killed early may not have got as far
            confined(result.level)
        sealed.seal(output)
    except BaseException:
        os.close(output)
        raise
    return output


def ensure_compilable(data: bytes, digest: Digest, kind: CodeKind) -> None:
    """Refuse what is too large or not what `kind` says, by size and first bytes alone.

    Raises: ContractError `component.too-large`, `component.not-wasm`, `component.core-module`, `component.malformed`.
    """
    if len(data) > MAX_INPUT_BYTES:
        raise ContractError(
            f"{kind} {digest[:12]} has {len(data)} bytes, more than the {MAX_INPUT_BYTES} that are compiled; "
            "strip debug information or split it",
            code="component.too-large",
        )
    if kind is CodeKind.COMPONENT:
        ensure_component(data)
    elif data[:8] != b"\0asm\x01\0\0\0":
        raise ContractError(f"core module {digest[:12]} does not begin as one", code="component.malformed")


class _Watch:
    """Tells progress and asks for cancellation while a child compiles."""

    def __init__(
        self, digest: Digest, kind: CodeKind, progress: ProgressSink | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._what, self._progress, self._cancelled = f"{kind} {digest[:12]}", progress, cancelled
        self._next_ms: float = QUIET_MS

    def __call__(self, elapsed_ms: float) -> bool:
        if self._progress is not None and elapsed_ms >= self._next_ms:
            self._next_ms = elapsed_ms + PROGRESS_EVERY_MS
            self._progress(Progress("compile", None, f"compiling {self._what} ({elapsed_ms / 1000:.0f} s)"))
        return self._cancelled is None or not self._cancelled()


def _ensure_compiled(result: ChildResult, output: int, digest: Digest, kind: CodeKind, limits: ChildLimits) -> None:
    what = f"{kind} {digest[:12]}"
    match result.outcome:
        case ChildOutcome.OK:
            answer: object = None
            with contextlib.suppress(ValueError):
                answer = json.loads(result.stdout)
            if isinstance(answer, dict) and isinstance(answer.get("error"), str):
                raise _refusal(what, answer["error"])
            if isinstance(answer, dict) and "too-large" in answer:
                ours = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                if 0 <= ours < limits.file_bytes:
                    raise RegistryError(
                        f"the native code of {what} is larger than the {ours} bytes that this process may write to a "
                        "file; raise its limit (`ulimit -f`)"
                    )
                raise ContractError(
                    f"the native code of {what} is larger than {limits.file_bytes} bytes; make it smaller, or raise "
                    "the compile limits if it is trusted",
                    code="engine.compile",
                )
            if not isinstance(answer, dict) or answer.get("bytes") != os.fstat(output).st_size:
                raise EngineError(f"the compile child for {what} gave no usable answer; try again")
        case ChildOutcome.TIMEOUT:
            raise ContractError(
                f"compiling {what} took more than {limits.wall_ms / 1000:.1f} s of wall time or {limits.cpu_seconds} s "
                "of processor time; make its functions smaller, or raise the compile limits if it is trusted",
                code="engine.compile",
            )
        case ChildOutcome.MEMORY:
            raise ContractError(
                f"compiling {what} needs more than {limits.memory_bytes} bytes of memory; make its functions smaller, "
                "or raise the compile limits if it is trusted",
                code="engine.compile",
            )
        case ChildOutcome.CANCELLED:
            raise EngineError(f"compiling {what} was cancelled", code="usage.interrupted")
        case _:
            raise ContractError(
                f"the compiler broke on {what} (status {result.status}): {_last_line(result.stderr)}; "
                "tell its author, or build it again with current tools",
                code="engine.compile",
            )


def _refusal(what: str, text: str) -> ContractError:
    """The engine's own words, split into what does not validate and what the compiler cannot do."""
    first = " ".join(text.split())[:600]
    # The code generator's own limits; everything else comes from the parser and the validator.
    if "Compilation error" in text:
        return ContractError(f"{what} does not compile: {first}; make its functions smaller", code="engine.compile")
    return ContractError(
        f"{what} does not validate: {first}; build it again with current tools", code="component.malformed"
    )


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[-1])[:300] if lines else "no message"
