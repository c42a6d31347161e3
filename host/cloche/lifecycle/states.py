"""The transition table: state and event give the next state and the actions to perform. Pure.

`single` plugins get initialize, start and stop; `pooled` and `per-call` instances get initialize when each instance is
made, which is no event of the plugin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloche.errors import UsageError
from cloche.model import State


class Event(StrEnum):
    """What happens to a plugin."""

    VERIFY = "verify"
    LOAD = "load"
    INITIALIZE = "initialize"
    ACTIVATE = "activate"
    CRASH = "crash"
    RESTART = "restart"
    TOO_MANY_RESTARTS = "too-many-restarts"
    RESET = "reset"
    DRAIN = "drain"
    STOP = "stop"
    FAIL = "fail"


class Action(StrEnum):
    """What a performer does on a transition."""

    CALL_INITIALIZE = "call-initialize"
    CALL_START = "call-start"
    CALL_STOP = "call-stop"
    DROP_INSTANCES = "drop-instances"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Step:
    """The next state, and what to do on the way there, in order."""

    state: State
    actions: tuple[Action, ...] = ()


_LIVE = (State.LOADED, State.INITIALIZED, State.ACTIVE)

TABLE: dict[tuple[State, Event], Step] = {
    (State.DISCOVERED, Event.VERIFY): Step(State.VERIFIED),
    (State.VERIFIED, Event.LOAD): Step(State.LOADED),
    (State.LOADED, Event.INITIALIZE): Step(State.INITIALIZED, (Action.CALL_INITIALIZE,)),
    (State.INITIALIZED, Event.ACTIVATE): Step(State.ACTIVE, (Action.CALL_START,)),
    **{
        (state, Event.CRASH): Step(State.LOADED, (Action.DROP_INSTANCES, Action.REPORT))
        for state in (State.INITIALIZED, State.ACTIVE)
    },
    (State.LOADED, Event.TOO_MANY_RESTARTS): Step(State.QUARANTINED, (Action.REPORT,)),
    (State.QUARANTINED, Event.RESET): Step(State.LOADED, (Action.REPORT,)),
    **{(state, Event.DRAIN): Step(State.DRAINING) for state in _LIVE},
    (State.DRAINING, Event.STOP): Step(State.STOPPED, (Action.CALL_STOP, Action.DROP_INSTANCES)),
    (State.QUARANTINED, Event.DRAIN): Step(State.DRAINING),
    **{
        (state, Event.FAIL): Step(State.FAILED, (Action.DROP_INSTANCES, Action.REPORT))
        for state in (State.DISCOVERED, State.VERIFIED, *_LIVE, State.DRAINING)
    },
}


def step(state: State, event: Event) -> Step:
    """The transition for `event` in `state`. Raises: UsageError (`usage.argument`) when there is none."""
    found = TABLE.get((state, event))
    if found is None:
        possible = sorted(str(e) for s, e in TABLE if s is state)
        raise UsageError(f"a plugin that is {state} cannot {event}; possible: {', '.join(possible) or 'nothing'}")
    return found
