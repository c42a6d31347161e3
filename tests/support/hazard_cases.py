"""The table of harms that a guest can try, each with the code that its caller is told.

The numbers of hazards are those of docs/hazards.md. A case is done by a guest of `support.hostile_guests`, or by one of
a few lines here; `tests/adversarial/test_hazards.py` does each in both wasm tiers.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from cloche.engine.ffi import library
from cloche.model import Tier
from cloche.runtime.plugin import Plugin
from support.guests import built
from support.hostile_guests import LIES, HostileHost, dweller, liar
from support.wat_plugins import BASICS, START

HARMLESS = "answers"
"""Instead of a code: the call gives a value, and that is all."""
TIERS = (Tier.TRUSTED, Tier.UNTRUSTED)
FAST, SLOW = Tier.TRUSTED.value, Tier.UNTRUSTED.value


def start(body: str) -> str:
    """A component that runs `body` before anybody calls it."""
    return START.format(body=body, pages=1)


GUESTS: Mapping[str, Callable[[], str | bytes]] = {
    "basics": lambda: BASICS,
    "liar": liar,
    "dweller": dweller,
    "python": lambda: built("noop").read_bytes(),
    "start-spin": lambda: start("(loop (br 0))"),
    "start-trap": lambda: start("unreachable"),
    "start-eat": lambda: start("(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"),
    "start-recurse": lambda: start("(call $start)"),
}
WELL: Mapping[str, Callable[[Plugin], bool]] = {
    "basics": lambda plugin: plugin[""].add(3, 4) == 7,
    "liar": lambda plugin: plugin[""].answer() == 42,
    "dweller": lambda plugin: plugin[""].answer() == 42,
    "python": lambda plugin: plugin["cloche:noop/scalar"].add(3, 4) == 7,
}
"""What a plugin answers that is well. A guest whose start function never ends has nothing to answer."""

Act = Callable[[Plugin, HostileHost], object]


@dataclass(frozen=True)
class Case:
    """One harm: the hazards' numbers, a name, the threat in words, the guest, what is done, and the code expected.

    `code` is by tier where the tiers differ. `limits` are lines of the manifest's table.
    """

    hazards: str
    name: str
    threat: str
    guest: str
    act: Act
    code: str | Mapping[str, str]
    limits: str = ""
    instances: str = "pooled"
    turns: int = 3

    def expected(self, tier: Tier) -> str:
        """The code in one tier."""
        return self.code if isinstance(self.code, str) else self.code[tier.value]


def lie(name: str, *args: object, **options: Any) -> Act:
    """Call a function of the liar that gives its caller something."""
    return lambda plugin, _: plugin[LIES][name].options(**options)(*args)


def do(name: str, *args: object, **options: Any) -> Act:
    """Call a function at the root of a guest."""
    return lambda plugin, _: plugin[""][name].options(**options)(*args)


def armed(mode: int, name: str, *args: object) -> Act:
    """Call a function once the liar's reallocation is changed."""

    def act(plugin: Plugin, _: HostileHost) -> object:
        plugin[LIES].arm(mode)
        point = LIES if name.startswith("swallow") else ""
        return plugin[point][name].options(fuel=10_000_000)(*args)

    return act


def misbehave(name: str, *args: object, **options: Any) -> Act:
    """Call a function of the Python guest that does what plugins should not do."""
    return lambda plugin, _: plugin[MISBEHAVE][name].options(**options)(*args)


def acting(action: Callable[[Plugin], object], name: str, *args: object) -> Act:
    """Call a function during which the host does something."""

    def act(plugin: Plugin, side: HostileHost) -> object:
        side.action = lambda: action(plugin)  # type: ignore[assignment]
        return plugin[""][name](*args)

    return act


def fail(_: Plugin) -> None:
    raise ValueError("a mistake of the host")


def ensure(is_so: bool) -> None:
    assert is_so


def give_much(plugin: Plugin, _: HostileHost) -> object:
    """Two megabytes where one is allowed."""
    assert plugin[""].grow(40) == 1
    return plugin[""].give.options(payload=1_000_000)(2_000_000)


def leave(plugin: Plugin, side: HostileHost) -> None:
    """The caller gets what was raised, and nobody else."""
    side.action = lambda: sys.exit(3)
    with pytest.raises(SystemExit, match="3"):
        plugin[""].act(1)


def repeat_text(plugin: Plugin, _: HostileHost) -> object:
    """A list that fits the guest's 128 KiB of memory and says half a gigabyte."""
    plugin[LIES].swallow(struct.pack("<II", 65_536, 65_536) * 7_000)
    return plugin[LIES].texts(4_096, 7_000)


MISBEHAVE = "cloche:noop/misbehave"
BEYOND = 0xFFFFFFF0
MINUTE_NS = 60 * 10**9
TINY = 'memory = "4MiB"\n'
ALONE = f"{TINY}concurrency = 1\n"

SPINS = [
    Case("H2 H3", "fuel", "a loop without end, by fuel", "basics", do("spin", fuel=1_000_000), "limit.fuel"),
    Case("H3", "deadline", "a loop without end, by the clock", "basics", do("spin", deadline=0.05), "limit.deadline",
         "fuel = 9000000000000000000\n"),
    Case("H3", "start-spin", "a start function without end, by fuel", "start-spin", do("answer"),
         "limit.fuel", "fuel = 100000\n"),
    Case("H3", "start-deadline", "a start function without end, by the clock", "start-spin", do("answer"),
         "limit.deadline", 'deadline = "50ms"\nfuel = 9000000000000000000\n'),
    Case("H3", "start-trap", "a start function that traps", "start-trap", do("answer"), "guest.trap"),
    Case("H12", "start-recurse", "a start function without a bottom", "start-recurse", do("answer"), "limit.stack"),
    Case("H12", "recurse", "recursion without a bottom", "basics", do("recurse"), "limit.stack"),
    Case("H3", "late-spin", "post-return without end", "liar", lie("late_spin", fuel=1_000_000), "limit.fuel"),
    Case("H14", "late-trap", "a trap once the value is given", "liar", lie("late_trap"), "guest.trap"),
    Case("H13", "late-call", "a host call from post-return", "liar", lie("late_call"), "guest.trap"),
    # The trusted tier cannot end a sleep: it says so at load (see below), and the call ends late.
    Case("H1", "sleep", "a sleep in WASI", "dweller",
         lambda plugin, _: plugin[""].sleep.options(deadline=0.1)(
             MINUTE_NS if plugin.tier is Tier.UNTRUSTED else 150_000_000),
         {FAST: HARMLESS, SLOW: "limit.deadline"}),
    Case("H1", "wait", "a wait for many clocks in WASI", "dweller",
         lambda plugin, _: plugin[""].wait.options(deadline=0.1)(
             MINUTE_NS if plugin.tier is Tier.UNTRUSTED else 150_000_000, 500),
         "limit.deadline"),
    Case("H1", "watch", "asking a clock again and again", "dweller", do("watch", MINUTE_NS, deadline=0.05),
         "limit.deadline", "fuel = 9000000000000000000\n"),
]  # fmt: skip

FLOODS = [
    Case("H6", "memory", "all the memory there is", "basics", do("eat"), "limit.memory", 'memory = "64MiB"\n'),
    Case("H6", "start-memory", "all the memory there is, in a start function", "start-eat", do("answer"),
         "limit.memory", 'memory = "64MiB"\n'),
    Case("H6", "table", "a table of a hundred million elements", "basics",
         lambda plugin, _: ensure(plugin[""].widen(100_000_000) == -1), HARMLESS),
    Case("H6", "pages", "more pages than there are", "basics",
         lambda plugin, _: ensure(plugin[""].grow(65_536) == -1 and plugin[""].grow(2**32 - 1) == -1), HARMLESS),
    Case("H9", "cells", "handles of its own, which the engine keeps and nobody counts", "liar",
         lambda plugin, _: plugin[LIES].cells(50_000_000 if plugin.tier is Tier.UNTRUSTED else 50_000),
         # See docs/hazards.md: engines before 50 have no bound of their own, so in the trusted tier there is only fuel.
         {FAST: HARMLESS, SLOW: "limit.memory" if library().version < "50" else "limit.handles"},
         ALONE, instances="per-call", turns=2),
    Case("H9", "things", "more objects of the host than its limit", "liar", do("hold", 100_000), "limit.handles"),
    Case("H9", "clocks", "a million clocks to wait for", "dweller", do("subscribe", 1_000_000), "limit.handles"),
    Case("H2", "host-calls", "a million host calls", "liar", do("act", 1_000_000), "limit.host-calls"),
    Case("H2", "host-call-fuel", "host calls until there is no fuel", "liar", do("act", 1_000_000, fuel=100_000),
         "limit.fuel"),
    Case("H2", "host-bytes", "a gigabyte in host calls", "liar", do("shout", 100_000, 10_000), "limit.host-calls"),
    Case("H7", "heard", "an answer of the host above the limit", "liar", do("hear", 50_000, host_bytes=10_000),
         "limit.host-calls"),
    Case("H20", "stdout", "a flood on standard output", "dweller", do("print", False, 4096, 2_000), HARMLESS),
    Case("H20", "stderr", "a flood on standard error", "dweller", do("print", True, 4096, 2_000), HARMLESS),
    Case("H20", "print", "more in one write than the engine takes", "dweller", do("print", True, 8192, 1),
         "guest.trap"),
    Case("H39", "log", "a flood of log messages", "dweller", do("log", 4, 1024, 100, 9_000), HARMLESS),
    Case("H39", "log-bytes", "a flood of log text", "dweller", do("log", 4, 1024, 20_000, 9_000), "limit.host-calls"),
    Case("H7", "dice", "a terabyte of randomness", "dweller", do("dice", 2**40), "guest.trap"),
    Case("H7", "payload", "a result above the limit", "basics", give_much, "limit.payload"),
    Case("H7", "same-texts", "thousands of texts that are all the same 64 KiB", "liar", repeat_text, "limit.payload"),
]  # fmt: skip

VALUES = [
    Case("H7", "bytes-beyond", "bytes outside of memory", "liar", lie("bytes", BEYOND, 100), "guest.invalid-value"),
    Case("H7", "bytes-most", "four gigabytes of bytes", "liar", lie("bytes", 0, 2**32 - 1), "guest.invalid-value"),
    Case("H7", "text-beyond", "a text outside of memory", "liar", lie("text", BEYOND, 100), "guest.invalid-value"),
    Case("H7", "numbers-overflow", "a count whose bytes overflow", "liar", lie("numbers", 0, 2**29),
         "guest.invalid-value"),
    Case("H7", "texts-overflow", "a count of texts whose bytes overflow", "liar", lie("texts", 0, 2**29 + 1),
         "guest.invalid-value"),
    Case("H7", "texts-inside", "texts whose pointers lead outside", "liar", lie("texts", 256, 3),
         "guest.invalid-value"),
    Case("H7", "numbers-odd", "numbers that are not aligned", "liar", lie("numbers", 3, 2), "guest.invalid-value"),
    Case("H7", "area-beyond", "a result outside of memory", "liar", lie("area", BEYOND), "guest.invalid-value"),
    Case("H7", "area-edge", "a result across the end of memory", "liar", lie("area", 131_068),
         "guest.invalid-value"),
    Case("H7", "area-odd", "a result that is not aligned", "liar", lie("area", 17), "guest.invalid-value"),
    Case("H43", "utf-8", "a text that is not UTF-8", "liar", lie("text", 256, 3), "guest.invalid-value"),
    Case("H43", "utf-8-surrogate", "a text with half a character", "liar", lie("text", 272, 3),
         "guest.invalid-value"),
    Case("H43", "char-surrogate", "half a character", "liar", lie("letter", 0xD800), "guest.invalid-value"),
    Case("H43", "char-beyond", "a character that there is none", "liar", lie("letter", 0x110000),
         "guest.invalid-value"),
    Case("H18", "enum", "a case that there is none", "liar", lie("get_color", 3), "guest.invalid-value"),
    Case("H18", "enum-most", "the last case that there could be", "liar", lie("get_color", 2**32 - 1),
         "guest.invalid-value"),
    Case("H18", "variant", "a variant without such a case", "liar", lie("get_shape", 3), "guest.invalid-value"),
    Case("H7", "variant-text", "a variant whose text lies outside", "liar", lie("get_shape", 2),
         "guest.invalid-value"),
    Case("H18", "option", "an option that is neither", "liar", lie("perhaps", 2), "guest.invalid-value"),
    Case("H18", "result", "a result that is neither", "liar", lie("outcome", 2), "guest.invalid-value"),
    Case("H18", "flags", "flags that there are none", "liar",
         lambda plugin, _: ensure(plugin[LIES].get_marks(0xFF).value == 7), HARMLESS),
    Case("H18", "bool", "a bool of two", "liar", lambda plugin, _: ensure(plugin[LIES].truth(2) is True), HARMLESS),
    Case("H18", "small", "a byte of nine bits", "liar", lambda plugin, _: ensure(plugin[LIES].small(511) == 255),
         HARMLESS),
    Case("H42", "nan", "a number that is none, with a payload", "liar",
         lambda plugin, _: ensure(plugin[LIES].real(0x7FF0000000000001) != plugin[LIES].real(0xFFFFFFFFFFFFFFFF)),
         HARMLESS),
    Case("H42", "denormal", "the smallest number", "liar", lambda plugin, _: ensure(plugin[LIES].real(1) == 5e-324),
         HARMLESS),
    Case("H7", "alias", "a result that is the area that describes it", "liar",
         lambda plugin, _: ensure(plugin[LIES].bytes(16, 8) == b"\x10\0\0\0\x08\0\0\0"), HARMLESS),
    Case("H9", "cell", "a handle of its own that there is none", "liar", lie("get_cell", 77), "guest.trap"),
    Case("H9", "cell-zero", "the handle that never is one", "liar", lie("get_cell", 0), "guest.trap"),
    *(
        Case("H3", f"realloc-{name}-{of}", f"reallocation {what}", "liar", armed(mode, function, *args), code)
        for mode, name, what, code in (
            (1, "beyond", "that leads outside of memory", "guest.invalid-value"),
            (3, "trap", "that traps", "guest.trap"),
            (4, "spin", "without end", "limit.fuel"),
            (5, "eat", "that takes all memory", "limit.memory"),
            (6, "call", "that calls the host", "guest.trap"),
            (7, "recurse", "without a bottom", "limit.stack"),
        )
        for of, function, args in (("argument", "swallow", (b"x" * 100,)), ("host", "hear", (100,)))
    ),
    Case("H3", "realloc-odd", "reallocation that is not aligned", "liar", armed(2, "swallow_numbers", [1, 2]),
         "guest.invalid-value"),
]  # fmt: skip

CALLS = [
    Case("H7", "say-beyond", "a text for the host outside of memory", "liar", do("say", BEYOND, 100),
         "guest.invalid-value"),
    Case("H7", "say-most", "a text for the host of four gigabytes", "liar", do("say", 0, 2**32 - 1),
         "guest.invalid-value"),
    Case("H43", "say-utf-8", "a text for the host that is not UTF-8", "liar", do("say", 256, 3),
         "guest.invalid-value"),
    Case("H7", "total-overflow", "numbers for the host whose bytes overflow", "liar", do("total", 0, 2**29 + 1),
         "guest.invalid-value"),
    Case("H7", "texts-out", "texts for the host that lead outside", "liar", do("texts", 256, 3),
         "guest.invalid-value"),
    Case("H18", "paint", "a case for the host that there is none", "liar", do("paint", 2), "guest.invalid-value"),
    Case("H43", "spell", "half a character for the host", "liar", do("spell", 0xD800), "guest.invalid-value"),
    Case("H39", "log-level", "a log level that there is none", "dweller", do("log", 6, 1024, 10, 1),
         "guest.invalid-value"),
    Case("H39", "log-beyond", "a log message outside of memory", "dweller", do("log", 2, BEYOND, 1000, 1),
         "guest.invalid-value"),
    Case("H9", "give", "an object of the host that it never had", "liar", do("give", 99), "guest.trap"),
    Case("H9", "show", "a look at an object that it never had", "liar", do("show", 0), "guest.trap"),
    Case("H9", "forget", "dropping what it never had", "liar", do("forget", 7), "guest.trap"),
    Case("H9", "drop-twice", "dropping an object twice", "liar", do("drop_twice"), "guest.trap"),
    Case("H9", "give-twice", "giving an object away twice", "liar", do("give_twice"), "guest.trap"),
    Case("H9", "show-dropped", "a look at an object that it dropped", "liar", do("show_dropped"), "guest.trap"),
    Case("H13", "re-entry", "a host function that enters its caller again", "liar",
         acting(lambda plugin: plugin[""].next(), "act", 1), "usage.re-entry", "restarts = 10000\n",
         instances="single"),
    Case("H15", "host-error", "a host function that fails", "liar", acting(fail, "act", 1), "capability.backend"),
    Case("H15", "host-exit", "a host function that wants to end the process", "liar", leave, HARMLESS),
    Case("H14", "act-trap", "a trap after the host was called", "liar", do("act_trap"), "guest.trap"),
    Case("H14", "exit", "an exit in the middle", "dweller", do("leave", False), "guest.exit"),
    Case("H14", "exit-failed", "an exit that says failure", "dweller", do("leave", True), "guest.exit"),
    Case("H26", "found", "variables, arguments, directories or input of the host", "dweller",
         lambda plugin, _: ensure(plugin[""].found() == 0), HARMLESS),
]  # fmt: skip

PYTHON = [
    Case("H1", "python-sleep", "a Python plugin that sleeps", "python",
         lambda plugin, _: plugin[MISBEHAVE].sleep.options(deadline=0.1)(
             60_000 if plugin.tier is Tier.UNTRUSTED else 150),
         "limit.deadline"),
    Case("H2", "python-spin", "a Python loop without end", "python", misbehave("spin", fuel=50_000_000),
         "limit.fuel"),
    Case("H3", "python-deadline", "a Python loop without end, by the clock", "python",
         misbehave("spin", deadline=0.1), "limit.deadline", "fuel = 9000000000000000000\n"),
    Case("H10", "python-memory", "all the memory there is, in Python", "python",
         misbehave("allocate", 1 << 30, True), "limit.memory", 'memory = "64MiB"\n'),
    Case("H12", "python-recurse", "Python calls without a bottom", "python", misbehave("recurse", 1_000_000),
         "guest.trap"),
    Case("H14", "python-crash", "an exception that nobody catches", "python", misbehave("crash", "\x1b[2Jboom"),
         "guest.trap"),
    Case("H14", "python-exit", "sys.exit in the middle", "python", misbehave("exit", 3), "guest.exit"),
    Case("H20", "python-print", "a flood of prints", "python", misbehave("print", "x" * 1000, 5_000, True), HARMLESS),
    Case("H26", "python-bucket", "storage without a grant", "python", misbehave("hoard", 1_000), "guest.trap"),
    Case("H26", "python-connect", "a connection to the host's own network", "python",
         misbehave("connect", "127.0.0.1", 22), "guest.error"),
    Case("H26", "python-environment", "the environment of the host", "python",
         lambda plugin, _: ensure(plugin[MISBEHAVE].environment() == []), HARMLESS),
    Case("H26", "python-import", "a module that did not come along", "python", misbehave("import_late", "sqlite3"),
         "guest.trap"),
    *(
        Case("H27", f"python-{name}", f"reading {path}", "python", misbehave("read_file", path), "guest.error")
        for name, path in (("absolute", "/etc/passwd"), ("climbing", "../../../../etc/passwd"),
                           ("process", "/proc/self/environ"))
    ),
    Case("H27", "python-write", "writing a file of the host", "python",
         misbehave("write_file", "/tmp/cloche-python", b"x"), "guest.error"),
    Case("H27", "python-list", "listing the host's files", "python", misbehave("list_files", "/"), "guest.error"),
]  # fmt: skip
"""What a guest of `guests/noop` does; it takes a home in which Python guests are compiled."""

CASES = (*SPINS, *FLOODS, *VALUES, *CALLS)
