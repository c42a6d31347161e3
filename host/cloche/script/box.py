"""Where scripts run: a worker for one kit, memory and set of mounts, and a fresh instance in it for each script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloche.errors import ClocheError, EngineError, LimitError, UsageError
from cloche.frozen import dataclass
from cloche.model import Err, Limits, Usage
from cloche.script.image import EXECUTOR
from cloche.script.result import ScriptResult
from cloche.wit.types import Export
from cloche.worker.house import House
from cloche.worker.ready import ReadyWorkers

if TYPE_CHECKING:
    from cloche.engine.instance import Cancellation, Target
    from cloche.engine.slots import HostSlot
    from cloche.engine.wasi import Mount
    from cloche.script.kit import Kit
    from cloche.worker.instance import RemoteInstance

Call = Callable[[str, str], object]
"""`cloche:script/functions.call` for one script."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script: the record `cloche:script/executor.script`, but for what its place decides."""

    code: str
    name: str = "script.py"
    arguments: Sequence[str] = ()
    stdin: bytes = b""
    environment: Sequence[tuple[str, str]] = ()
    functions: Sequence[str] = ()
    directory: str | None = None

    def record(self, *, keep: bool) -> dict[str, object]:
        """The value that the component is given."""
        return {
            "code": self.code,
            "name": self.name,
            "arguments": list(self.arguments),
            "stdin": self.stdin,
            "environment": list(self.environment),
            "functions": list(self.functions),
            "keep": keep,
            "directory": self.directory,
        }


class Box:
    """A worker that runs scripts. Thread-safe. Close it when done.

    Raises: as `House`. Added in 0.1.
    """

    def __init__(
        self,
        kit: Kit,
        limits: Limits,
        mounts: tuple[Mount, ...],
        tell: Callable[[str, Mapping[str, object]], None],
        ready: ReadyWorkers,
    ) -> None:
        lodging = kit.lodging_for(limits, mounts)
        name, interface = next(item for item in lodging.exports if (item[0] or "").partition("@")[0] == EXECUTOR)
        self._execute = Export(name, next(item for item in interface.functions if item.name == "execute"))
        self._house = House(lodging, tell, ready)

    def open(self, call: Call | None, limits: Limits, control: Cancellation | None = None) -> RemoteInstance:
        """A fresh instance. What making it cost counts for the first script. Raises: what a call raises."""
        instance = self._house.make(lambda _: _targets(self._house.slots, call), {}, control, limits)
        instance.charge_next_call(instance.made)
        return instance

    def run(
        self,
        instance: RemoteInstance,
        script: Script,
        limits: Limits,
        *,
        keep: bool = False,
        control: Cancellation | None = None,
    ) -> ScriptResult:
        """Run one script in `instance`, blocking.

        Raises: LimitError, also for output over its limit and an uncaught `MemoryError`; GuestTrap; EngineError;
            UsageError (`usage.argument`) for a script that cannot be started, `usage.interrupted`.
        """
        first = instance.first_cost
        try:
            answer, usage = instance.call(self._execute, [script.record(keep=keep)], limits, control)
        except ClocheError as error:
            error.usage = error.usage or Usage()  # what failed before the guest was called
            raise
        if first is not None:
            usage = first + usage
            instance.charge_next_call(None)
        plugin = instance.settings.plugin
        outcome: Any = getattr(answer, "value", None)
        if isinstance(answer, Err):
            text = getattr(outcome, "value", outcome)
            raise UsageError(f"the script was not started: {text}", plugin=plugin, usage=usage)
        output = instance.output
        if output.dropped:
            raise LimitError(
                f"the script wrote {output.limit + output.dropped} bytes to stdout and stderr; {output.limit} may be",
                code="limit.output",
                plugin=plugin,
                usage=usage,
            )
        if outcome.out_of_memory:
            last = (outcome.traceback or "MemoryError").strip().splitlines()
            raise LimitError(
                f"the script reached the memory limit of {limits.memory_bytes} bytes and did not catch the MemoryError "
                f"({_where(last)})",
                code="limit.memory",
                plugin=plugin,
                usage=usage,
            )
        return ScriptResult(
            ok=outcome.exit_status == 0,
            stdout=output.text(0),
            stderr=output.text(1),
            value=_value(outcome.value),
            exit_status=outcome.exit_status,
            traceback=outcome.traceback,
            usage=usage,
            note=outcome.note,
        )

    def end(self, instance: RemoteInstance) -> None:
        """Close an instance and forget it."""
        try:
            instance.close()
        finally:
            self._house.end(instance)

    def abandon(self) -> None:
        """End the worker at once, with all that runs in it: nothing of it is needed any more."""
        self._house.abandon()

    def close(self) -> None:
        """End the worker. Idempotent."""
        self._house.close()


def _targets(slots: Sequence[HostSlot], call: Call | None) -> list[Target]:
    def refused(*_: object) -> object:
        raise EngineError("a script called a function of the host that there is none")

    return [call if call is not None and not slot.closed else refused for slot in slots]


def _value(text: str | None) -> object:
    """The script's value. A guest may say anything, also what is no JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _where(traceback: Sequence[str]) -> str:
    lines = [line.strip() for line in traceback if line.strip().startswith("File ")]
    return lines[-1] if lines else traceback[-1]
