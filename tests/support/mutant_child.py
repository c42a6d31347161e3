"""A child of `support.mutants`: loads each mutant of a range in a host of this process and calls all that it exports.

One thing differs from an ordinary host: components are compiled in this process, so that a thousand mutants do not cost
a thousand children, and `wasm-tools` reads the types of those only that compile, and of every 25th.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cloche import app
from cloche.app import Host
from cloche.config import Settings
from cloche.confine.memory import new_memory_file
from cloche.engine import sealed
from cloche.engine.code import NativeCode
from cloche.engine.codec.handles import GuestResource
from cloche.engine.compile import CodeKind, _refusal, ensure_compilable
from cloche.engine.ffi import ByteVec, library, ptr, take_error
from cloche.engine.profile import Profile, new_engine
from cloche.errors import ClocheError
from cloche.grants.policy_file import parse_policy
from cloche.model import Digest, Err, Ok, Some, Trusted
from cloche.runtime.plugin import Plugin
from cloche.runtime.resources import handle_finder
from cloche.values import Case
from cloche.wit.tools import checked_world, describe_component
from cloche.wit.types import (
    BorrowType,
    EnumType,
    FlagsType,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
    World,
)
from support.mutant_corpus import Bucket, MutantCapability
from support.mutants import mutant, originals_in

T = TypeVar("T")

READ_EVERY = 25
CHECK_EVERY = 50
MOST_EXPORTS = 30
TRUSTED = Trusted("a test")
LIMITS = """
format-version = 1
[defaults.limits]
fuel = 5_000_000
deadline = "200ms"
memory = "16MiB"
payload = "1MiB"
output = "4KiB"
host-calls = 100
handles = 50
restarts = 1_000
"""
_TEXTS = ("", "ab", "ä" * 50)
_NUMBERS = {Prim.F32: (0.0, 1.5), Prim.F64: (0.0, -2.5), Prim.BOOL: (False, True), Prim.CHAR: ("a", "\U0001f600")}


class InProcessCode:
    """As `CodeStore`, without a cache and without children."""

    def __init__(self, home: Path, profile: Profile, **_: Any) -> None:
        self._engine = new_engine(library(), profile)

    def compile(self, component: bytes, digest: Digest) -> int:
        """A sealed descriptor of native code. Raises what the host's own compiler raises."""
        lib = library()
        ensure_compilable(component, digest, CodeKind.COMPONENT)
        compiled, code = ptr(), ByteVec()
        os.write(1, b"true\n")  # a child that ends from here on was ended by the compiler
        error = lib.wasmtime_component_new(self._engine, component, len(component), ctypes.byref(compiled))
        os.write(1, b"false\n")
        if error:
            raise _refusal(f"component {digest[:12]}", take_error(lib, error))
        try:
            error = lib.wasmtime_component_serialize(compiled, ctypes.byref(code))
            assert not error, take_error(lib, error or 0)
        finally:
            lib.wasmtime_component_delete(compiled)
        descriptor = new_memory_file("mutant")
        os.write(descriptor, ctypes.string_at(code.data or 0, code.size))
        lib.wasm_byte_vec_delete(ctypes.addressof(code))
        sealed.seal(descriptor)
        return descriptor

    def native(self, component: bytes, digest: Digest, *_: Any, **__: Any) -> NativeCode:
        """As `CodeStore.native`."""
        return NativeCode(self.compile(component, digest), (), compiled=1, wall_ms=0.0)

    def load(self, component: bytes, digest: Digest, use: Callable[[NativeCode], T], *_: Any) -> T:
        """As `CodeStore.load`."""
        with self.native(component, digest) as code:
            return use(code)

    def close(self) -> None:
        """Delete the engine."""
        if self._engine:
            library().wasm_engine_delete(self._engine)
            self._engine = 0


class QuickTypes:
    """As `TypeStore`, which keeps everything on disk; asks the compiler first, whose refusal costs no process."""

    def __init__(self) -> None:
        self.number = 0
        self._code = InProcessCode(Path(), Profile())

    def component_world(self, component: bytes, digest: Digest) -> World:
        """As `TypeStore.component_world`."""
        if self.number % READ_EVERY:
            os.close(self._code.compile(component, digest))
        return checked_world(component, describe_component(component))


def value_of(kind: Type, chance: random.Random, handles: Sequence[object]) -> object:
    """Some value of a WIT type; a handle that the guest gave out where there is one."""
    match kind:
        case Prim.STRING:
            return chance.choice(_TEXTS)
        case Prim() if kind in _NUMBERS:
            return chance.choice(_NUMBERS[kind])
        case Prim():
            return chance.choice((0, 1, 100))
        case ListType(element=element, length=length):
            count = chance.choice((0, 1, 3)) if length is None else length
            return [value_of(element, chance, handles) for _ in range(count)]
        case OptionType(payload=OptionType() as payload):
            return chance.choice((None, Some(value_of(payload, chance, handles))))
        case OptionType(payload=payload):
            return chance.choice((None, value_of(payload, chance, handles)))
        case ResultType(ok=ok, err=err):
            is_ok = chance.random() < 0.5
            inner = ok if is_ok else err
            value = None if inner is None else value_of(inner, chance, handles)
            return Ok(value) if is_ok else Err(value)
        case TupleType(items=items):
            return tuple(value_of(item, chance, handles) for item in items)
        case MapType(key=key, value=value):
            return {value_of(key, chance, handles): value_of(value, chance, handles)}
        case RecordType(fields=fields):
            return {item.name.replace("-", "_"): value_of(item.type, chance, handles) for item in fields}
        case VariantType(cases=cases):
            case = chance.choice(cases)
            return Case(case.name, None if case.type is None else value_of(case.type, chance, handles))
        case EnumType(cases=names):
            return chance.choice(names)
        case FlagsType(flags=names):
            return {name for name in names if chance.random() < 0.5}
        case OwnType() | BorrowType():
            return chance.choice(handles) if handles else None
    return None


class Run:
    """One mutant: what loading it gave, what its calls gave, and every exception that is not Cloche's."""

    def __init__(self, number: int) -> None:
        self.number, self.code = number, "loaded"
        self.calls: Counter[str] = Counter()
        self.foreign: list[str] = []

    def load(self, host: Host, data: bytes) -> None:
        """Load it, call everything, unload it."""
        try:
            plugin = host.load_bytes(data, trust=TRUSTED)
        except ClocheError as error:
            self.code = error.code
            return
        except Exception:
            self.code = "foreign"
            self.foreign.append(traceback.format_exc())
            return
        try:
            self._call_all(plugin, random.Random(self.number))
        finally:
            try:
                host.unload(plugin.id)
            except Exception:
                self.foreign.append(traceback.format_exc())

    def _call_all(self, plugin: Plugin, chance: random.Random) -> None:
        handles: list[object] = []
        functions = [function for name in plugin.interfaces() for function in plugin[name]][:MOST_EXPORTS]
        takers = [
            function
            for function in functions
            if any(handle_finder(item.type, plugin.limits) for item in function.wit.params)
        ]
        for function in [*functions, *takers]:  # once more with what the others gave out
            try:
                values = [value_of(param.type, chance, handles) for param in function.wit.params]
                answer = function.call(*values).value
                answers = answer[:4] if isinstance(answer, list) else [answer]
                handles += [item for item in answers if isinstance(item, GuestResource | Bucket)]
                self.calls["answered"] += 1
            except ClocheError as error:
                self.calls[error.code] += 1
                str(error), repr(error.usage), error.to_json()
                if error.usage is None and not error.code.startswith("usage."):
                    self.foreign.append(f"{error.code} without usage: {error}")
            except Exception:
                self.calls["foreign"] += 1
                self.foreign.append(traceback.format_exc())


def ensure_serving(host: Host, healthy: bytes) -> None:
    """The host still loads and calls a good plugin, and holds no instance of a bad one."""
    plugin = host.load_bytes(healthy, trust=TRUSTED)
    assert plugin[""].work(4) == 10
    host.unload(plugin.id)
    left = [instance for engine in host._engines.values() for instance in engine.instances.values()]
    assert not left, left


def main() -> None:
    """Words: the directory of originals, the first number, the number after the last; `confined` to change nothing."""
    faulthandler.enable()
    place, first, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    originals = originals_in(place)
    is_confined = sys.argv[4:] == ["confined"]
    if not is_confined:
        setattr(app, "CodeStore", InProcessCode)  # noqa: B010 - the host must take this one for its own
    home = place / "home"
    types = QuickTypes()
    hosts = []
    for is_granted in (True, False):
        host = Host(
            home=home,
            policy=parse_policy(LIMITS.encode()),
            settings=Settings(home=home),
            capabilities=[MutantCapability(place / "wit", default=is_granted)],
        )
        assert host.catalog
        if not is_confined:
            host._types = types  # type: ignore[assignment]
        hosts.append(host)
    for number in range(first, end):
        data = mutant(originals, number)
        types.number = number
        run = Run(number)
        run.load(hosts[number % 2], data)
        if number % CHECK_EVERY == 0 or number + 1 == end:
            types.number = 1
            for host in hosts:
                ensure_serving(host, originals[0])
        report = {"mutant": number, "code": run.code, "calls": run.calls, "foreign": run.foreign}
        os.write(1, json.dumps(report).encode() + b"\n")
    for host in hosts:
        host.close()
