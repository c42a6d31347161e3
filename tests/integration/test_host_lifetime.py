"""The end of hosts and plugins: closing at any moment and from anywhere, forked children, hosts that nobody closed."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloche.app import Host
from cloche.config import Settings
from cloche.errors import ClocheError, LimitError, UsageError
from cloche.grants.policy import Policy
from cloche.model import State
from cloche.runtime import pool as pool_module
from support.gate_capability import Gate, GateHost
from support.life_plugin import life_component
from support.process_programs import SETUP, ensure_good
from support.wat_plugins import (
    BASICS,
    TRUSTED,
    events,
    fuel_of,
    load,
    open_host,
    run_program,
    shared_home,
    write_plugin,
)

# -- closing -----------------------------------------------------------------------------------------------------------


def test_closing_while_another_thread_loads(tmp_path: Path) -> None:
    """However far a load has come when the host is closed: it succeeds or says that the host is closed (H17)."""
    source = (
        SETUP
        + """
from cloche.errors import ClocheError
from cloche.app import Host
from cloche.config import Settings
from support.wat_plugins import TRUSTED, shared_home, write_plugin
home = shared_home()
place = write_plugin(folder / "p", BASICS, plugin_id="acme/x")
outcomes = set()
for turn in range(40):
    host = Host(home=home, settings=Settings(home=home, background_compile=False))
    assert host.catalog
    def work():
        try:
            host.load(place, trust=TRUSTED)[""].add(1, 2)
        except ClocheError as error:
            outcomes.add(error.code)
    thread = threading.Thread(target=work); thread.start()
    time.sleep(turn % 20 / 1000)
    host.close(); thread.join(); host.close()
    assert not any(engine.instances for engine in host._engines.values())
    assert all(engine._deleted for engine in host._engines.values())
print(outcomes <= {"usage.closed"})
"""
    )
    ensure_good(run_program(source, tmp_path), "True\n")


def test_closing_a_plugin_from_two_threads_under_calls(tmp_path: Path) -> None:
    """Unload, close of the plugin and of the host at once, under calls: all wait for the first, nothing crashes."""
    source = (
        SETUP
        + """
import random
from cloche.errors import ClocheError
pick, odd = random.Random(1), set()
for turn in range(40):
    with Gate(side, folder) as gate:
        point = gate.load(instances=pick.choice(["per-call", "pooled", "single"]))
        plugin, host = gate.plugin, gate.host
        def call():
            for _ in range(2000):
                try: point.many(1)
                except ClocheError as error:
                    if error.code != "usage.closed": odd.add(repr(error))
                    return
        def end(how):
            try: how()
            except ClocheError as error:
                if error.code != "usage.not-found": odd.add(repr(error))
            if plugin.state != "stopped": odd.add(f"returned while {plugin.state}")
        threads = [threading.Thread(target=call) for _ in range(3)]
        ends = [threading.Thread(target=end, args=(how,)) for how in (plugin.close, lambda: host.unload("acme/gated"))]
        for thread in threads: thread.start()
        time.sleep(pick.random() * 0.01)
        for thread in ends: thread.start()
        end(host.close)
        for thread in (*threads, *ends): thread.join()
print(odd)
"""
    )
    ensure_good(run_program(source, tmp_path, timeout=300), "set()\n")


def test_closing_that_ctrl_c_cuts_short_is_finished_later(tmp_path: Path) -> None:
    """Ctrl-C ends the wait for a running call, and closing once more frees everything."""
    source = (
        SETUP
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    running = threading.Thread(target=point.block); running.start(); side.entered.wait(30)
    later(0.3)
    print(interrupted(gate.host.close), gate.plugin.state)
    side.go.set(); running.join()
    gate.plugin.close(); gate.host.close()
    print(gate.plugin.state, side.opened == side.closed, gate.host.plugins())
"""
    )
    done = run_program(source, tmp_path)
    assert (done.returncode, done.stdout) == (0, "interrupted draining\nstopped True []\n"), done.stderr


def test_a_closed_plugin_is_not_listed(gate: Gate) -> None:
    """`close` of the plugin itself, or its `with`, gives its id free like `unload`."""
    for _ in range(2):
        gate.load()
        with gate.plugin:
            assert gate.host.plugins() == [gate.plugin]
        assert gate.host.plugins() == []


def test_a_load_that_fails_late_leaves_nothing(tmp_path: Path) -> None:
    """A secret that is missing keeps the plugin out, its native code is given back, and its life ends as failed."""
    policy = """
    format-version = 1
    [plugins."*"]
    secrets.token = { env = "NO_SUCH_VARIABLE_FOR_CLOCHE" }
    allow."wasi:config" = { secrets = ["token"] }
    """
    more = '[capabilities."wasi:config"]\nsecrets = ["token"]\n'
    with open_host(policy) as host:
        for _ in range(3):
            with pytest.raises(ClocheError, match="NO_SUCH_VARIABLE"):
                load(host, tmp_path, BASICS, more=more)
        assert not any(engine._linkers for engine in host._engines.values())
        states = [event.state for event in host.events.recent(plugin="acme/test") if event.kind == "state"]
        assert states[-1] == "failed"


def test_a_host_that_nobody_closed_is_freed_with_a_warning(tmp_path: Path, side: GateHost) -> None:
    """Its threads end, its instances go, and a ResourceWarning says what to do."""

    def use() -> None:
        home = shared_home()
        host = Host(home=home, policy=Policy.empty(), settings=Settings(home=home, background_compile=False))
        plugin = host.load(write_plugin(tmp_path, BASICS, instances="pooled"), trust=TRUSTED)
        assert plugin[""].add(1, 2) == 3

    def tickers() -> int:
        return sum(thread.name in {"cloche-ticker", "cloche-interrupts"} for thread in threading.enumerate())

    gc.collect()
    before = tickers()
    use()
    with pytest.warns(ResourceWarning, match="was not closed"):
        gc.collect()
    for _ in range(200):
        if tickers() == before:
            break
        time.sleep(0.01)
    assert tickers() == before


# -- forks -------------------------------------------------------------------------------------------------------------

FORKED = (
    SETUP
    + """
import warnings
from cloche.errors import LimitError
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # from Python 3.12 on
def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        try: print("child", work(), flush=True)
        except BaseException as error: print("child", repr(error), flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def deadline():
    try: point.spin.options(deadline=0.2)()
    except LimitError as error: return error.code
def small():
    answers = []
    threading.stack_size(256 * 1024)
    thread = threading.Thread(target=lambda: answers.append(point.many(3))); thread.start(); thread.join()
    threading.stack_size(0)
    return answers
def awaited():
    return asyncio.run(point.many.call_async(3)).value
def ctrl_c():
    later(0.2)
    return interrupted(point.spin.options(deadline=20))
"""
)


@pytest.mark.parametrize(
    ("work", "answer"), [("deadline", "limit.deadline"), ("small", "[3]"), ("awaited", "3"), ("ctrl_c", "interrupted")]
)
def test_a_forked_child_has_all_means(tmp_path: Path, work: str, answer: str) -> None:
    """Deadlines, threads of ours, awaited calls and Ctrl-C work in a forked child as in its parent (H5, H19)."""
    source = (
        FORKED
        + f"""
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    print("parent", {work}())
    in_child({work})
    print("parent", {work}())
"""
    )
    ensure_good(run_program(source, tmp_path), f"parent {answer}\nchild {answer}\nparent {answer}\n")


def test_a_childs_signals_and_end_are_its_own(tmp_path: Path) -> None:
    """SIGINT to a child does not reach its parent's call, and a host closed in the child goes on in the parent."""
    source = (
        FORKED
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    point.many(1)
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGINT, lambda *_: os._exit(7))
        time.sleep(30)
    threading.Thread(target=lambda: (time.sleep(0.3), os.kill(pid, signal.SIGINT)), daemon=True).start()
    try: point.spin.options(deadline=1)()
    except LimitError as error: print(error.code, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    in_child(gate.host.close)
    print(ctrl_c(), point.many(2))
"""
    )
    ensure_good(run_program(source, tmp_path), "limit.deadline 7\nchild None\ninterrupted 2\n")


# -- waiting in turn ---------------------------------------------------------------------------------------------------


def test_callers_are_served_in_turn(gate: Gate, side: GateHost) -> None:
    """Who calls a `single` plugin again right after a call of its own comes after those that were waiting."""
    point = gate.load(instances="single")
    pool = point._backend.pool  # type: ignore[attr-defined]
    order: dict[str, int] = {}

    def call(name: str, *, first: bool = False) -> None:
        if first:
            point.block()
        order[name] = point.next()

    threads = [threading.Thread(target=call, args=("hog",), kwargs={"first": True})]
    threads[0].start()
    side.entered.wait(30)
    for waiting, name in enumerate(("early", "late"), 1):
        threads.append(threading.Thread(target=call, args=(name,)))
        threads[-1].start()
        while len(pool._line) < waiting:
            time.sleep(0.001)
    side.go.set()
    for thread in threads:
        thread.join()
    assert order == {"early": 1, "late": 2, "hog": 3}


def test_awaited_calls_of_one_plugin_hold_up_no_other(gate: Gate, side: GateHost, tmp_path: Path) -> None:
    """As many calls as threads may block in one plugin: another's are served at once."""

    async def run() -> None:
        blocked = gate.load("acme/blocked", more="[limits]\nconcurrency = 8\n")
        free = load(gate.host, tmp_path / "free", BASICS, plugin_id="acme/free")[""]
        calls = [asyncio.create_task(blocked.block.call_async()) for _ in range(8)]
        await asyncio.to_thread(side.entered.wait, 30)
        assert (await free.add.call_async(1, 2)).value == 3
        side.go.set()
        await asyncio.gather(*calls)

    asyncio.run(run())


def test_awaited_calls_queue_like_others(gate: Gate, side: GateHost) -> None:
    """More than may run and wait are refused at once, those that wait end at their deadline or when cancelled."""

    async def run() -> None:
        point = gate.load(more="[limits]\nconcurrency = 1\nqueue = 2\n")
        busy = asyncio.create_task(point.block.call_async())
        await asyncio.to_thread(side.entered.wait, 30)
        late = asyncio.create_task(point.next.options(deadline=0.2).call_async())
        cancelled = asyncio.create_task(point.next.call_async())
        await asyncio.sleep(0)
        with pytest.raises(LimitError) as refused:
            await point.next.call_async()
        assert refused.value.code == "limit.queue"
        with pytest.raises(LimitError) as waited:
            await late
        assert waited.value.code == "limit.deadline"
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        side.go.set()
        await busy
        assert (await point.next.call_async()).value == 1

    asyncio.run(run())


def test_a_closed_plugin_refuses_awaited_calls_and_small_threads(gate: Gate) -> None:
    """After `close` the answer is `usage.closed`, whichever way a call would have gone."""
    point = gate.load()
    gate.plugin.close()
    with pytest.raises(UsageError) as awaited:
        asyncio.run(point.next.call_async())
    codes: list[str] = []

    def call() -> None:
        try:
            point.next()
        except UsageError as error:
            codes.append(error.code)

    before = threading.stack_size(128 << 10)
    try:
        small = threading.Thread(target=call)
        small.start()
    finally:
        threading.stack_size(before)
    small.join()
    assert [awaited.value.code, *codes] == ["usage.closed", "usage.closed"]


# -- restarts, memory, handles -----------------------------------------------------------------------------------------


def test_quarantine_lasts_until_it_is_reset(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time alone does not end a quarantine; `Plugin.reset` does."""
    point = gate.load(instances="single", more="[limits]\nrestarts = 1\n")
    for _ in range(2):
        with pytest.raises(ClocheError):
            point.crash()
    later = time.monotonic() + 3600
    for _ in range(2):
        with pytest.raises(LimitError) as refused:
            point.next()
        assert refused.value.code == "limit.restarts"
        assert gate.plugin.state is State.QUARANTINED
        monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=lambda: later))
    gate.plugin.reset()
    assert point.next() == 1
    assert gate.plugin.state is State.ACTIVE


def test_an_instance_that_filled_its_memory_is_replaced(tmp_path: Path) -> None:
    """A pooled guest that grew to its limit and went on serves no further call; one that did not grow does (H10)."""
    with open_host() as host:
        more = '[limits]\nmemory = "1MiB"\nconcurrency = 1\n'
        point = load(host, tmp_path, BASICS, instances="pooled", more=more)[""]
        assert [point.next(), point.next()] == [1, 2]
        while point.grow(1) != -1:
            pass
        point.work(100_000)  # enough work that its memory is looked at
        assert point.next() == 1


def test_making_an_instance_belongs_to_the_call(tmp_path: Path) -> None:
    """A fresh instance's start function is bounded by the call's own limits and counted in its usage."""
    wat = """
    (component
      (core module $m
        (func $start (local $n i32) (local.set $n (i32.const 1000000))
          (loop $more (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
        (start $start)
        (func (export "answer") (result i32) (i32.const 42)))
      (core instance $i (instantiate $m))
      (func (export "answer") (result u32) (canon lift (core func $i "answer"))))
    """
    with open_host() as host:
        fresh = load(host, tmp_path / "f", wat, plugin_id="acme/fresh")[""].answer
        first, second = fresh.call(), fresh.call()
        assert fuel_of(first.usage) == fuel_of(second.usage) > 1_000_000
        assert (first.usage.instance_calls, second.usage.instance_calls) == (1, 1)
        with pytest.raises(LimitError) as caught:
            fresh.options(fuel=1000)()
        assert caught.value.code == "limit.fuel"
        pooled = load(host, tmp_path / "p", wat, plugin_id="acme/pooled", instances="pooled")[""].answer
        assert fuel_of(pooled.options(fuel=2000).call().usage) < 100


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_hooks_are_no_calls_but_their_cost_is_told(gate: Gate, side: GateHost, tmp_path: Path, instances: str) -> None:
    """`instance_calls` is 1 for the first call whatever hooks ran before; what they cost is in a usage or an event."""
    made: list[dict[str, int]] = []
    gate.host.events.add(lambda event: made.append(event.data["usage"]) if event.kind == "instance" else None)
    plugin = load(gate.host, tmp_path / "p", life_component(), plugin_id="acme/life", instances=instances)
    usage = plugin[""].next.call().usage
    assert usage.instance_calls == 1
    hooks = {"per-call": 1, "pooled": 1, "single": 2}[instances]
    if instances == "per-call":
        assert (usage.host_calls, made) == (hooks, [])
    else:
        assert usage.host_calls == 0
        assert [usage["host_calls"] for usage in made] == [hooks]


def test_a_destructor_that_calls_back_is_refused_at_once(gate: Gate, side: GateHost) -> None:
    """A host object whose `close` calls its own `single` plugin gets `usage.re-entry`, in a call and at the end."""
    point = gate.load(instances="single")
    codes: list[str] = []

    def call_back() -> None:
        try:
            point.next()
        except UsageError as error:
            codes.append(error.code)

    side.on_thing_close = call_back
    point.make_drop()
    point.keep(1)
    gate.plugin.close()
    assert codes == ["usage.re-entry", "usage.closed"]
    assert events(gate.host, "backend-error") == []


# -- a system that has nothing to give ---------------------------------------------------------------------------------


def test_a_system_without_threads_is_an_error_and_no_more(tmp_path: Path) -> None:
    """Loading, calls from a small stack and awaited calls say what is lacking; with threads all of them work (H12)."""
    source = (
        SETUP
        + """
import _thread
from cloche.errors import ClocheError
names = ("start_new_thread", "_start_new_thread", "_start_joinable_thread")  # the last one from Python 3.13 on
places = [(module, name) for module in (_thread, threading) for name in names if hasattr(module, name)]
given = [(module, name, getattr(module, name)) for module, name in places]
def refuse(*_, **__):
    raise RuntimeError("can't start new thread")
def allow(yes):
    for module, name, function in given:
        setattr(module, name, function if yes else refuse)
def attempt(work):
    try: return work()
    except ClocheError as error: return error.code
before = signal.getsignal(signal.SIGINT)
with Gate(side, folder) as gate:
    def make():
        point = gate.load(instances="pooled")
        return point.many(2), point
    def awaited():
        return asyncio.run(point.many.call_async(3)).value
    allow(False)
    print(attempt(make), signal.getsignal(signal.SIGINT) is before)
    allow(True)
    answer, point = make()
    allow(False)
    print(answer, attempt(awaited), point.many(4))
    allow(True)
    print(attempt(awaited))
"""
    )
    ensure_good(run_program(source, tmp_path), "engine.resources True\n2 engine.resources 4\n3\n")
