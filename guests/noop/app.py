"""The fixture's main module: componentize-py looks here for a class for each exported interface."""

import misbehave
import services
from counters import Counter
from wit_world import exports

from cloche_guest import Err, export

Misbehave = export(misbehave.Misbehave)
Services = export(services.Services)
Lifecycle = export(services.Life)


@export
class Greeter(exports.Greeter):
    """The extension point `cloche:example/greeter`."""

    def greet(self, name: str) -> str:
        return f"Hello, {name}!"


@export
class Scalar(exports.Scalar):
    """The interface `scalar`."""

    def __init__(self) -> None:
        self.count = 0

    def nothing(self) -> None:
        self.count += 1

    def add(self, a: int, b: int) -> int:
        self.count += 1
        return (a + b) & 0xFFFFFFFF

    def calls(self) -> int:
        self.count += 1
        return self.count


@export
class Counters(exports.Counters):
    """The functions of the interface `counters`; its resource is in the module of that name."""

    def make(self, start: int) -> Counter:
        return Counter(start)

    def total(self, counters: list[Counter]) -> int:
        return sum(counter.number for counter in counters)

    def finish(self, counter: Counter) -> int:
        return counter.number


def _same(_self, value):
    return value


@export
class Values(exports.Values):
    """The interface `values`."""

    echo_bool = echo_u8 = echo_u16 = echo_u32 = echo_u64 = _same
    echo_s8 = echo_s16 = echo_s32 = echo_s64 = echo_f32 = echo_f64 = _same
    echo_char = echo_string = echo_bytes = echo_integers = echo_floats = echo_strings = _same
    echo_points = echo_tuple = echo_option = echo_nested_option = echo_results = _same
    echo_shape = echo_color = echo_access = echo_item = _same

    def echo_result(self, value) -> int:
        if isinstance(value, Err):
            raise value
        return value.value

    def measure(self, value: bytes) -> int:
        return len(value)

    def produce(self, length: int, fill: int) -> bytes:
        return bytes([fill]) * length
