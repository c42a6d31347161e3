"""Signals of somebody else's, nested calls on one stack, and recursion limits, tried in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.process_programs import SETUP, ensure_good
from support.wat_plugins import run_program

RAISING = (
    SETUP
    + """
import random
def raising(number, frame):
    raise TimeoutError("too late")
MORE = "[limits]\\nhost-calls = 100000000\\n"
"""
)


@pytest.mark.parametrize("work", ["many", "spin", "loop"])
def test_a_handler_that_raises_ends_the_call_cleanly(tmp_path: Path, work: str) -> None:
    """An alarm whose handler raises, at any moment of a guest or of a callback, is the caller's exception (H15)."""
    source = (
        RAISING
        + f"""
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled", more=MORE)
    signal.signal(signal.SIGALRM, raising)
    def loop():
        while True: point.many(10)
    work = {{"many": lambda: point.many(100_000_000), "spin": point.spin, "loop": loop}}[{work!r}]
    pick = random.Random(1)
    for _ in range(15):
        signal.setitimer(signal.ITIMER_REAL, 0.003 + pick.random() * 0.03)
        try:
            work()
            print("no exception")
        except TimeoutError:
            pass
    print(point.many(3), len(point._backend._house._engine.instances) <= 1)
"""
    )
    ensure_good(run_program(source, tmp_path), "3 True\n")


def test_sigterm_that_exits_while_a_guest_calls_the_host(tmp_path: Path) -> None:
    """`sys.exit` in a SIGTERM handler ends the program with its status, with everything closed."""
    source = (
        RAISING
        + """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled", more=MORE)
    threading.Thread(target=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
    try:
        while True: point.many(10)
    finally:
        print("cleaning up", flush=True)
"""
    )
    done = run_program(source, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "cleaning up\n", "")


def test_handlers_are_looked_at_before_each_call(tmp_path: Path) -> None:
    """Guests run on the main thread, elsewhere while there is a foreign handler, and on the main thread again after."""
    source = (
        SETUP
        + """
where = []
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    side.action = lambda: where.append(threading.current_thread() is threading.main_thread())
    point.act()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    point.act()
    signal.signal(signal.SIGUSR1, before)
    point.act()
    own = signal.signal(signal.SIGINT, lambda *_: None)
    point.act()
    signal.signal(signal.SIGINT, own)
    point.act()
print(where)
"""
    )
    ensure_good(run_program(source, tmp_path), "[True, False, True, False, True]\n")


HOOKS = (
    SETUP
    + """
from support import life_plugin
BUSY = '''(local $n i32) (local $k i32)
  (local.set $n (i32.const 3000))
  (loop $more (local.set $k (i32.const 200000))
    (loop $burn (br_if $burn (local.tee $k (i32.sub (local.get $k) (i32.const 1)))))
    (drop (call $twice (i32.const 7)))
    (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))'''
DEEP = '(call $down)'
def hooked(body):
    core = life_plugin.CORE.replace(
        '#stop") (result i32) ', '#stop") (result i32) ' + body).replace(
        '#health") (result i32)', '#health") (result i32)' + body).replace(
        '(func (export "crash")', '(func $down (call $down)) (func (export "crash")')
    wit = "package cloche:plugin@1.0.0;\\n" + life_plugin.LIFECYCLE_WIT.read_text()
    return life_plugin.component_of(core, life_plugin.WORLD, {"gate": life_plugin.WIT, "plugin": wit})
MORE = "[limits]\\nhost-calls = 1000000\\n"
"""
)


@pytest.mark.parametrize("work", ["close", "health"])
def test_ctrl_c_while_a_hook_runs(tmp_path: Path, work: str) -> None:
    """Ctrl-C during `stop` or `health` is a KeyboardInterrupt after clean-up, and closing can be finished."""
    source = (
        HOOKS
        + f"""
with Gate(side, folder) as gate:
    plugin = load(gate.host, folder / "p", hooked(BUSY), plugin_id="acme/life", instances="single", more=MORE)
    plugin[""].next()
    later(0.3)
    print(interrupted(getattr(plugin, {work!r})))
    plugin.close()
    print(plugin.state, gate.host.plugins())
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted\nstopped []\n")


def test_hooks_run_where_the_stack_suffices(tmp_path: Path) -> None:
    """A plugin whose `stop` and `health` recurse without end is closed from a small thread, not a crash (H12)."""
    source = (
        HOOKS
        + """
with Gate(side, folder) as gate:
    plugin = load(gate.host, folder / "p", hooked(DEEP), plugin_id="acme/life", instances="single", more=MORE)
    codes = []
    def work():
        plugin[""].next()
        try: plugin.health()
        except Exception as error: codes.append(error.code)
        plugin[""].next()
        plugin.close()
    threading.stack_size(128 * 1024)
    thread = threading.Thread(target=work); thread.start(); thread.join()
    print(codes, plugin.state)
"""
    )
    ensure_good(run_program(source, tmp_path), "['limit.stack'] stopped\n")


@pytest.mark.parametrize("stack_kib", [0, 512, 1024, 2048, 8192])
def test_nested_guests_share_one_stack(tmp_path: Path, stack_kib: int) -> None:
    """A chain of plugins that call each other, the last one recursing, is an error on stacks of every size (H12)."""
    source = (
        SETUP
        + f"""
from cloche.errors import LimitError
LEVELS = 16
with Gate(side, folder) as gate:
    points = [gate.load(f"acme/p{{n}}", instances="pooled") for n in range(LEVELS)]
    deep = load(gate.host, folder / "b", BASICS, plugin_id="acme/basics", instances="pooled")[""]
    depth = [0]
    codes = []
    def act():
        depth[0] += 1
        try:
            (points[depth[0]].act if depth[0] < LEVELS else deep.recurse)()
        except LimitError as error:
            codes.append(error.code)
    side.action = act
    def work():
        for _ in range(3):
            depth[0] = 0
            points[0].act()
    threading.stack_size({stack_kib} * 1024)
    if {stack_kib}:
        thread = threading.Thread(target=work); thread.start(); thread.join()
    else:
        work()
    print(codes, depth[0] > 5)
    print(points[0].next(), deep.add(1, 2))
"""
    )
    ensure_good(run_program(source, tmp_path), "['limit.stack', 'limit.stack', 'limit.stack'] True\n1 3\n")


def test_pythons_own_recursion_limit(tmp_path: Path) -> None:
    """A RecursionError at any depth around a call or in its callback is an error, and the next call works (H15)."""
    source = (
        SETUP
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    point.act()
    seen = set()
    def at(depth):
        if depth:
            return at(depth - 1)
        point.act()
        return "fine"
    for depth in range(900, sys.getrecursionlimit()):
        try: seen.add(at(depth))
        except (RecursionError, Exception) as error: seen.add(getattr(error, "code", type(error).__name__))
    print("fine" in seen, len(seen) > 1, point.many(2))
"""
    )
    ensure_good(run_program(source, tmp_path), "True True 2\n")
