"""What could kill or wear out the process, tried in processes of their own: signals, stacks, storms, leaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.process_programs import SETUP, ensure_good
from support.wat_plugins import run_program


def test_ctrl_c_during_a_guests_loop(tmp_path: Path) -> None:
    """SIGINT while pure wasm runs on the main thread is a KeyboardInterrupt, twice in a row, and the host serves on."""
    source = (
        SETUP
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    for _ in range(2):
        later(0.3)
        print(interrupted(point.spin))
        print(point.many(3), point.next())
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted\n3 1\ninterrupted\n3 1\nTrue\n")


def test_ctrl_c_during_a_host_callback(tmp_path: Path) -> None:
    """SIGINT while the guest waits for the host never raises inside the callback: it ends, then the caller gets it."""
    source = (
        SETUP
        + """
ends = []
def slow():
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        sum(range(100))
    ends.append(1)
side.action = slow
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    for function in (point.act, point.act_spin):
        later(0.3)
        print(interrupted(function), len(ends))
        print(point.many(3), point.next())
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted 1\n3 1\ninterrupted 2\n3 1\n")


@pytest.mark.parametrize("call", ["outer.act_spin()", "other.size(Acting(nested, 1))"])
def test_ctrl_c_that_a_nested_call_kept_to_itself(tmp_path: Path, call: str) -> None:
    """A host function, or an argument, that swallows what stopped its own call keeps nobody else from being stopped."""
    source = (
        SETUP
        + f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from cloche.errors import UsageError
from test_conversions import Acting, BASICS
def nested():
    later(0.3)
    try:
        inner.spin()
    except UsageError as error:
        print(error.code)
side.action = nested
with Gate(side, folder) as gate:
    inner = plugins.load(gate.host, folder / "inner", BASICS, plugin_id="acme/inner")[""]
    other = plugins.load(gate.host, folder / "other", BASICS, plugin_id="acme/other", instances="pooled")[""]
    outer = gate.load(instances="pooled")
    end = interrupted(lambda: {call})
    codes = {{event.data["code"] for event in gate.host.events.recent() if "code" in event.data}}
    print(end, codes, outer.next(), other.next.call().usage.instance_calls)
"""
    )
    ensure_good(run_program(source, tmp_path), "usage.interrupted\ninterrupted {'usage.interrupted'} 1 1\n")


def test_ctrl_c_while_waiting_in_the_queue(tmp_path: Path) -> None:
    """SIGINT while the main thread waits for an instance ends its wait and nobody else's call."""
    source = (
        SETUP
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="single")
    results = []
    busy = threading.Thread(target=lambda: (point.block(), results.append("done")))
    busy.start()
    side.entered.wait(30)
    for _ in range(2):
        later(0.3)
        print(interrupted(point.next))
    side.go.set()
    busy.join(30)
    print(results, point.next())
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted\ninterrupted\n['done'] 1\n")


def test_ctrl_c_at_any_moment_of_small_calls(tmp_path: Path) -> None:
    """SIGINT amid thousands of small calls is always one KeyboardInterrupt, and each next call is a whole one."""
    source = (
        SETUP
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    point.many(1)
    caught = 0
    for turn in range(40):
        try:
            later(0.002 + turn * 0.0007)
            end = time.monotonic() + 20
            while time.monotonic() < end:
                assert point.many(2) == 2
        except KeyboardInterrupt:
            caught += 1
        for _ in range(50):
            assert point.many(2) == 2
    print(caught)
"""
    )
    ensure_good(run_program(source, tmp_path), "40\n")


def test_ctrl_c_with_two_hosts(tmp_path: Path) -> None:
    """Two hosts, closed in the order they were opened, share Ctrl-C and give it back with the wake-up descriptor."""
    source = (
        SETUP
        + """
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)
first = Gate(side, folder / "a"); a = first.load(); a.next()
second = Gate(side, folder / "b"); b = second.load(); b.next()
for point in (a, b):
    later(0.2)
    print(interrupted(point.spin))
first.__exit__(None, None, None)
later(0.2)
print(interrupted(b.spin), b.next())
second.__exit__(None, None, None)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
third = Gate(side, folder / "c"); third.load().next(); third.__exit__(None, None, None)
print(signal.set_wakeup_fd(-1) in (-1, writer), len(os.read(reader, 100)) >= 2)
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted\ninterrupted\ninterrupted 1\nTrue\nTrue True\n")


def test_ctrl_c_after_an_inner_host_is_closed(tmp_path: Path) -> None:
    """A host that was opened later and is closed first takes nothing of the earlier one's along."""
    source = (
        SETUP
        + """
from cloche.model import Metering
with Gate(side, folder / "a", metering=Metering.DEADLINE) as first:
    point = first.load(); point.next()
    with Gate(side, folder / "b") as second:
        second.load().next()
    later(0.2)
    print(interrupted(point.spin), point.next())
"""
    )
    ensure_good(run_program(source, tmp_path, timeout=20), "interrupted 1\n")


def test_signals_are_as_before_once_the_last_host_is_closed(tmp_path: Path) -> None:
    """The handler and the wake-up descriptor that a program has set, and the lack of one, come back."""
    source = (
        SETUP
        + """
def own(number, frame):
    print("own handler")
reader, writer = os.pipe2(os.O_NONBLOCK)
for handler, descriptor in ((signal.default_int_handler, -1), (own, writer)):
    signal.signal(signal.SIGINT, handler)
    signal.set_wakeup_fd(descriptor)
    with Gate(side, folder) as gate:
        gate.load().next()
        print(signal.getsignal(signal.SIGINT) is handler)
    print(signal.getsignal(signal.SIGINT) is handler, signal.set_wakeup_fd(descriptor) == descriptor)
os.kill(os.getpid(), signal.SIGINT)
print(os.read(reader, 100) == bytes([signal.SIGINT]))
"""
    )
    expected = "False\nTrue True\n" * 2 + "own handler\nTrue\n"
    ensure_good(run_program(source, tmp_path), expected)


def test_a_hosts_pipe_number_is_not_written_to_after_it_is_closed(tmp_path: Path) -> None:
    """After an earlier host is closed, a Ctrl-C for a later one writes nothing into files that reuse its numbers."""
    source = (
        SETUP
        + """
first = Gate(side, folder / "a"); first.load().next()
second = Gate(side, folder / "b"); point = second.load(); point.next()
first.__exit__(None, None, None)
files = [open(folder / f"file{n}", "wb") for n in range(20)]
later(0.2)
print(interrupted(point.spin))
second.__exit__(None, None, None)
for file in files: file.close()
print([path.stat().st_size for path in folder.glob("file*")] == [0] * 20)
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted\nTrue\n")


def test_ctrl_c_when_the_host_began_on_another_thread(tmp_path: Path) -> None:
    """A host whose plugin was loaded on another thread still handles Ctrl-C of calls on the main thread."""
    source = (
        SETUP
        + """
found = []
def begin():
    found.append(Gate(side, folder)); found.append(found[0].load(instances="pooled"))
thread = threading.Thread(target=begin); thread.start(); thread.join()
gate, point = found
side.action = lambda: time.sleep(0.8)
later(0.3)
print(interrupted(point.act), point.next())
gate.__exit__(None, None, None)
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted 1\n")


def test_ctrl_c_during_compiling(tmp_path: Path) -> None:
    """SIGINT while a plugin is compiled ends the load at once, leaves no child, and the same load works afterwards."""
    source = (
        SETUP
        + """
from support.compile_wat import many_functions, binary
from cloche.model import Trusted
wasm = binary(many_functions(60_000))
def children():
    return [entry for entry in os.listdir("/proc") if entry.isdigit() and os.path.exists(f"/proc/{entry}/stat")
            and open(f"/proc/{entry}/stat").read().rsplit(")")[1].split()[1] == str(os.getpid())]
with open_host(home=folder / "home") as host:
    host.load_bytes(binary('(component)'), trust=Trusted())
    for _ in range(2):
        later(0.7)
        print(interrupted(lambda: host.load_bytes(wasm, trust=Trusted())), host.plugins().__len__(), children())
    print(host.load_bytes(wasm, trust=Trusted()).state)
"""
    )
    done = run_program(source, tmp_path, timeout=300)
    ensure_good(done, "interrupted 1 []\ninterrupted 1 []\nactive\n")


@pytest.mark.parametrize("stack_kib", [0, 64, 128, 256, 512, 1024])
def test_deep_recursion_on_any_thread(tmp_path: Path, stack_kib: int) -> None:
    """A guest that recurses for ever is `limit.stack` on threads of every stack size, and calls work there (H12)."""
    source = (
        SETUP
        + f"""
from cloche.errors import LimitError
codes = []
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    basics = load(gate.host, folder / "b", BASICS, plugin_id="acme/basics", instances="pooled")[""]
    def work():
        for _ in range(3):
            try:
                basics.recurse()
            except LimitError as error:
                codes.append(error.code)
        codes.append(point.many(2))
    threading.stack_size({stack_kib} * 1024)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(sorted(map(str, codes)))
"""
    )
    ensure_good(run_program(source, tmp_path), f"{sorted(['limit.stack'] * 9 + ['2'] * 3)}\n")


def test_recursion_through_the_host(tmp_path: Path) -> None:
    """Calling back and forth between two plugins without end is an error, not a crash, on small and large stacks."""
    source = (
        SETUP
        + """
from cloche.errors import ClocheError
outcomes = []
with Gate(side, folder) as gate:
    point = gate.load(instances="per-call", more="[limits]\\nconcurrency = 1\\n")
    side.action = point.act
    def work():
        try:
            point.act()
        except ClocheError as error:
            outcomes.append(error.code)
    work()
    threading.stack_size(128 * 1024)
    thread = threading.Thread(target=work); thread.start(); thread.join()
    print(outcomes)
"""
    )
    ensure_good(run_program(source, tmp_path), "['usage.re-entry', 'usage.re-entry']\n")


STORM = (
    SETUP
    + """
from cloche.errors import ClocheError
import random
ALLOWED = {"usage.closed", "usage.not-found", "guest.trap", "limit.queue", "usage.interrupted"}
wrong = []
MODES = ("per-call", "pooled", "single")
more = "[limits]\\nrestarts = 10000\\nqueue = 1000\\n"
policy = 'format-version = 1\\n[defaults]\\nlimits = { restarts = 10000, queue = 1000 }\\n'
with Gate(side, folder, policy=policy) as gate:
    for mode in MODES:
        gate.load(f"acme/{mode}", instances=mode, more=more)
    def call(number):
        pick = random.Random(number)
        for _ in range(400):
            try:
                point = gate.host.plugin("acme/" + pick.choice(MODES))[""]
                match pick.randrange(4):
                    case 0:
                        if point.many(3) != 3: wrong.append("many")
                    case 1: point.keep(3)
                    case 2: point.crash()
                    case 3: point.make_drop()
            except ClocheError as error:
                if error.code not in ALLOWED: wrong.append(repr(error) + repr(error.__cause__))
            except BaseException as error:
                wrong.append(repr(error))
    def reload():
        pick = random.Random(99)
        for _ in range(25):
            mode = pick.choice(MODES)
            try:
                gate.host.unload(f"acme/{mode}")
                gate.load(f"acme/{mode}", instances=mode, more=more)
            except BaseException as error:
                wrong.append(repr(error))
    threads = [threading.Thread(target=call, args=(n,)) for n in range(6)] + [threading.Thread(target=reload)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(wrong[:5])
print(set(thing.closed for thing in side.things), side.opened == side.closed)
"""
)


def test_a_storm_of_calls_traps_and_unloads(tmp_path: Path) -> None:
    """Six threads call, trap and leave handles while a seventh unloads and loads: no abort, no odd error (H17)."""
    ensure_good(run_program(STORM, tmp_path, timeout=300), "[]\n{1} True\n")


LEAKS = (
    SETUP
    + """
def state():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    rss = int(status.split("VmRSS:")[1].split()[0])
    return rss, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), threading.active_count()

def measure(work, turns, kib):
    work(turns // 2)
    before = state()
    work(turns)
    after = state()
    print("flat" if after[0] - before[0] < kib else f"grew {after[0] - before[0]} KiB", after[1:] == before[1:])

with Gate(side, folder) as gate:
    pooled = gate.load("acme/pooled", instances="pooled")
    fresh = gate.load("acme/fresh")
    measure(lambda n: [pooled.many(1) for _ in range(n)], 10_000, 3000)
    measure(lambda n: [fresh.many(1) for _ in range(n)], 1_000, 3000)
    def trap(n):
        for _ in range(n):
            try: fresh.keep_crash(3)
            except Exception: pass
        side.things.clear()
    measure(trap, 300, 3000)
    def load_again(n):
        for turn in range(n):
            gate.load("acme/again").many(1)
            gate.host.unload("acme/again")
        side.things.clear()
    measure(load_again, 60, 6000)
"""
)


def test_nothing_leaks(tmp_path: Path) -> None:
    """Memory, threads and descriptors stay flat over 10,000 calls, 1,000 instances, 300 traps and 60 loads (H11)."""
    ensure_good(run_program(LEAKS, tmp_path, timeout=300), "flat True\n" * 4)


def test_hosts_leave_nothing(tmp_path: Path) -> None:
    """Opening and closing a host over and over leaves no thread and no descriptor behind."""
    source = (
        SETUP
        + """
def turn():
    with Gate(side, folder) as gate:
        point = gate.load(instances="pooled")
        asyncio.run(point.many.call_async(1))
def count():
    for _ in range(200):
        if threading.active_count() == 1: break
        time.sleep(0.01)
    return threading.active_count(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
turn(); before = count()
for _ in range(20): turn()
print(count() == before, before[0])
"""
    )
    ensure_good(run_program(source, tmp_path), "True 1\n")


def test_optimised_python_is_as_safe(tmp_path: Path) -> None:
    """With `python -O` nothing that guards the engine is left out (H18)."""
    source = (
        SETUP
        + """
from cloche.errors import ClocheError
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    for action in (lambda: 1 / 0, lambda: (_ for _ in ()).throw(KeyboardInterrupt())):
        side.action = action
        try: point.act()
        except BaseException as error: print(type(error).__name__)
    side.twice = lambda n: -1
    try: point.many(1)
    except ClocheError as error: print(error.code)
    side.act = lambda: 5
    try: point.act()
    except ClocheError as error: print(error.code)
"""
    )
    done = run_program(source, tmp_path, optimise=True)
    ensure_good(done, "CapabilityError\nKeyboardInterrupt\ncapability.invalid\ncapability.invalid\n")


def test_ctrl_c_when_the_main_threads_stack_is_small(tmp_path: Path) -> None:
    """With too small a stack on the main thread the guest runs elsewhere, and Ctrl-C still stops it."""
    source = (
        SETUP
        + """
import resource
resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    for _ in range(2):
        later(0.3)
        print(interrupted(point.spin), len(point._backend._house._engine.instances), point.next())
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted 0 1\ninterrupted 0 1\n")


def test_ctrl_c_while_asyncio_waits_for_a_guest(tmp_path: Path) -> None:
    """Ctrl-C during `asyncio.run` ends it with KeyboardInterrupt, and the guest is stopped before that."""
    source = (
        SETUP
        + """
with Gate(side, folder) as gate:
    point = gate.load(instances="pooled")
    for _ in range(2):
        later(0.3)
        print(interrupted(lambda: asyncio.run(point.spin.call_async())), len(point._backend._house._engine.instances))
        print(asyncio.run(point.many.call_async(2)).value)
"""
    )
    ensure_good(run_program(source, tmp_path), "interrupted 0\n2\ninterrupted 0\n2\n")
