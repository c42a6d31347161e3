"""How a call that did not return is explained: facts in, one error out. Pure. Counters come before text."""

from __future__ import annotations

from cloche.engine import traps
from cloche.errors import CapabilityError, ClocheError, EngineError, GuestTrap, LimitError, UsageError
from cloche.frozen import dataclass
from cloche.model import Limits

ENGINE_ELEMENTS = "about 2.7 million"
"""The engine's own bound on what a guest hands over in one call: 128 MiB at 48 bytes per element, fixed (H7)."""


class UnreachedError(EngineError):
    """The process of an instance was gone before anything of the call reached it: another instance may serve it."""

    default_code = "engine.worker-lost"


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known of a call that the engine ended.

    `what` names the function; `text` is the engine's words; `exit_status` is set when the guest called exit; `stderr`
    is the end of what it wrote there; `failure` is what host code raised, and `failed` the capability and function that
    did; `stop` says `deadline` or `interrupted` when we ended it; `memories` holds the final bytes of each linear
    memory (None: not known) and `memory_bound` what the engine allowed each; `is_new` is set while the instance was
    being made.
    """

    what: str
    plugin: str
    limits: Limits
    text: str
    exit_status: int | None
    stderr: str
    failure: BaseException | None
    stop: str | None
    memories: tuple[int, ...] | None
    memory_bound: int
    failed: tuple[str, str] | None = None
    is_new: bool = False


_IMPORT_ERRORS = ("ModuleNotFoundError: ", "ImportError: ")


def explain(end: Ending) -> BaseException:
    """The error for an ending. What is no Exception (a Ctrl-C in a host function, say) comes back as it is."""
    if end.failure is not None:
        return of_host(end.failure, end.failed, end.plugin)
    if end.stop is not None:
        return stopped(end.stop, end.limits, end.plugin)
    trap = traps.parse_trap(end.text)
    if trap.kind == "fuel":
        return over_fuel(end.limits, end.plugin)
    traceback = traps.python_traceback(end.stderr)
    if end.exit_status is not None:
        return GuestTrap(
            f"{end.what}: the guest called exit({end.exit_status})",
            code="guest.exit",
            kind="exit",
            exit_status_of_guest=end.exit_status,
            traceback=traceback,
        )
    if trap.kind == "stack":
        text = f"{end.what}: the guest's call stack of {end.limits.stack_bytes} bytes is exhausted"
        return LimitError(text, code="limit.stack")
    if _ran_out_of_memory(end, trap):
        found = sum(end.memories) if end.memories is not None else "an unknown number of"
        return LimitError(
            f"{end.what}: the guest ran out of memory at {found} of {end.limits.memory_bytes} bytes; "
            f"raise the limit `memory`",
            code="limit.memory",
        )
    if trap.kind == "handles":
        text = f"{end.what}: the guest holds more handles than the engine takes at once: {trap.reason}"
        return LimitError(text, code="limit.handles")
    if trap.kind == "memory":
        text = f"{end.what}: there is no memory left for what the guest made the engine keep: {trap.reason}"
        return LimitError(text, code="limit.memory")
    if trap.kind == "payload":
        return LimitError(
            f"{end.what}: the guest handed over more values than the engine takes at once ({ENGINE_ELEMENTS} list "
            f"elements); hand over several smaller lists, or a string",
            code="limit.payload",
        )
    if end.is_new and trap.kind == "unknown":
        return EngineError(f"the component cannot be instantiated: {trap.reason}", code="engine.instantiate")
    return GuestTrap(
        f"{end.what}: the guest {_last_words(traceback, end.stderr) or f'trapped: {trap.reason}'}",
        code="guest.invalid-value" if trap.kind == "invalid-value" else "guest.trap",
        kind=trap.kind,
        traceback=traceback,
        backtrace=trap.backtrace,
    )


def over_fuel(limits: Limits, plugin: str) -> LimitError:
    """Guest and host together used more than the call's fuel."""
    text = f"the call used up its {limits.fuel} fuel; raise the limit `fuel`"
    return LimitError(text, code="limit.fuel", plugin=plugin)


def over_host_bytes(limits: Limits, plugin: str) -> LimitError:
    """More bytes went to and from the host than one call may move."""
    return LimitError(
        f"more than {limits.host_call_bytes} bytes went to and from the host in one call; raise `host-bytes`",
        code="limit.host-calls",
        plugin=plugin,
    )


def over_host_calls(limits: Limits, plugin: str) -> LimitError:
    """The guest called the host more often than one call may."""
    return LimitError(
        f"more than {limits.host_calls} host calls in one call; raise the limit `host-calls`",
        code="limit.host-calls",
        plugin=plugin,
    )


def stopped(stop: str, limits: Limits, plugin: str) -> ClocheError:
    """We ended the call: at its deadline, or because its caller wanted that."""
    if stop == "deadline":
        return LimitError(
            f"the call did not end within {limits.deadline_ms} ms; raise the limit `deadline`",
            code="limit.deadline",
            plugin=plugin,
        )
    return UsageError("the call was cancelled by its caller", code="usage.interrupted", plugin=plugin)


def of_host(failure: BaseException, failed: tuple[str, str] | None, plugin: str) -> BaseException:
    """Errors of ours pass; what host code raised without saying so on purpose is a failure of the backend."""
    capability, function = failed or (None, "host code")
    if not isinstance(failure, Exception):
        return failure
    if isinstance(failure, CapabilityError):
        failure.capability = failure.capability or capability
    if isinstance(failure, ClocheError):
        return failure
    error = CapabilityError(f"{function} failed with {type(failure).__name__}", plugin=plugin, capability=capability)
    error.__cause__ = failure  # for the operator; the guest is told nothing
    return error


def _ran_out_of_memory(end: Ending, trap: traps.Trap) -> bool:
    # An allocator that gets no more memory may also answer with a place beyond its end.
    is_allocator = trap.kind == "invalid-value" and "realloc return" in trap.reason
    if trap.kind not in {"unreachable", "out-of-bounds", "unknown"} and not is_allocator:
        return False
    if traps.says_out_of_memory(end.stderr):
        return True
    # The engine's bound is on each memory; all of them together are within the limit by the plan.
    return bool(end.memories) and max(end.memories or ()) >= traps.MEMORY_NEAR_LIMIT * end.memory_bound


def _last_words(traceback: str | None, stderr: str) -> str | None:
    """What a Python guest raised, from its traceback, or which of its values could not be taken."""
    if traceback is None:
        problem = traps.python_misfit(stderr)
        return None if problem is None else f"gave a value that does not fit its WIT type: {problem[:500]}"
    line = traps.python_exception(traceback)[:500]
    hint = "; a call can import nothing: import it at the top" if line.startswith(_IMPORT_ERRORS) else ""
    return f"raised {line}{hint}"
