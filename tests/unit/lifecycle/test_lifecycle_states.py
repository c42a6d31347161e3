"""The table of a plugin's life, as properties over every path through it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import UsageError
from cloche.lifecycle.performer import Life
from cloche.lifecycle.states import TABLE, Action, Event, step
from cloche.model import State

ENDS = {State.STOPPED, State.FAILED}


def reachable(start: State) -> set[State]:
    """Every state that some events lead to."""
    found, open_ = {start}, [start]
    while open_:
        state = open_.pop()
        for (before, _), after in TABLE.items():
            if before is state and after.state not in found:
                found.add(after.state)
                open_.append(after.state)
    return found


def test_every_state_is_used() -> None:
    """Each word for a state can be reached from the first one."""
    assert reachable(State.DISCOVERED) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state not in ENDS])
def test_every_life_can_end(state: State) -> None:
    """From each state that is not an end an end can be reached."""
    assert reachable(state) & ENDS


@pytest.mark.parametrize("state", sorted(ENDS))
def test_an_end_is_an_end(state: State) -> None:
    """A stopped or failed plugin goes nowhere, and the error says that nothing is possible."""
    for event in Event:
        with pytest.raises(UsageError, match="nothing"):
            step(state, event)


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_hooks_come_in_order_on_every_path(events: list[Event]) -> None:
    """Whatever happens: start follows initialize, a plugin is active only after start, stop comes at most once."""
    state = State.DISCOVERED
    actions: list[Action] = []
    for event in events:
        try:
            found = step(state, event)
        except UsageError:
            assert (state, event) not in TABLE
            continue
        state = found.state
        actions += found.actions
        hooks = [action for action in actions if action in {Action.CALL_INITIALIZE, Action.CALL_START}]
        assert all(
            hooks[index - 1] is Action.CALL_INITIALIZE for index, hook in enumerate(hooks) if hook is Action.CALL_START
        )
        if state is State.ACTIVE:
            assert hooks[-1] is Action.CALL_START
    assert actions.count(Action.CALL_STOP) <= 1


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_a_crash_drops_and_reports(events: list[Event]) -> None:
    """Each crash drops the instances and is reported, and quarantine ends by a reset only."""
    state = State.DISCOVERED
    for event in events:
        found = TABLE.get((state, event))
        if found is None:
            continue
        if event in {Event.CRASH, Event.FAIL}:
            assert set(found.actions) >= {Action.DROP_INSTANCES, Action.REPORT}
        if state is State.QUARANTINED and found.state is not State.DRAINING:
            assert event is Event.RESET
        state = found.state


@pytest.mark.parametrize("state", [State.LOADED, State.INITIALIZED, State.ACTIVE, State.QUARANTINED])
def test_a_loaded_plugin_can_be_drained(state: State) -> None:
    """Whatever a loaded plugin is doing, it can be drained and stopped."""
    assert step(state, Event.DRAIN).state is State.DRAINING
    assert step(State.DRAINING, Event.STOP).state is State.STOPPED


@pytest.mark.parametrize("state", [State.INITIALIZED, State.ACTIVE])
def test_what_was_made_can_crash(state: State) -> None:
    """An instance that refuses to initialize or to start is made anew like one that trapped."""
    assert step(state, Event.CRASH).state is State.LOADED


def test_an_impossible_event_names_the_possible_ones() -> None:
    """The error says what the plugin is, what cannot happen, and what can."""
    with pytest.raises(UsageError, match="discovered cannot activate; possible: fail, verify"):
        step(State.DISCOVERED, Event.ACTIVATE)


def test_life_reports_each_change_once() -> None:
    """The performer moves by the table and reports state before, event and state after; an impossible event nothing."""
    told: list[tuple[State, Event, State]] = []
    life = Life(lambda *change: told.append(change))
    assert life.apply(Event.VERIFY) == ()
    with pytest.raises(UsageError):
        life.apply(Event.STOP)
    life.apply(Event.LOAD)
    assert life.apply(Event.INITIALIZE) == (Action.CALL_INITIALIZE,)
    assert told == [
        (State.DISCOVERED, Event.VERIFY, State.VERIFIED),
        (State.VERIFIED, Event.LOAD, State.LOADED),
        (State.LOADED, Event.INITIALIZE, State.INITIALIZED),
    ]
    assert life.state is State.INITIALIZED


def test_one_of_many_threads_makes_the_change() -> None:
    """An event that is possible once happens once, whoever asks for it."""
    life = Life(lambda *_: None)
    life.apply(Event.VERIFY)
    failures: list[UsageError] = []

    def load() -> None:
        try:
            life.apply(Event.LOAD)
        except UsageError as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 7
