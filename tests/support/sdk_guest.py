"""A plugin that runs the Python text that it is handed, so that a test can try the SDK where it lives: in a component.

It exports a resource and no lifecycle, so that the first call of an instance may be a constructor. It calls methods of
its own at module level and in the constructor of its interface's class, both while it is built.
"""

from __future__ import annotations

from pathlib import Path

from support.guests import build_cache, build_directory

PLUGIN = "acme/tried"

MANIFEST = f"""format-version = 1
id = "{PLUGIN}"
name = "Tried"
version = "1.0.0"
description = "Runs what it is told."
license = "Apache-2.0"
instances = "pooled"
[component]
source = "app.py"
[capabilities."wasi:logging"]
[capabilities."wasi:keyvalue"]
[capabilities."cloche:host/data"]
[capabilities."cloche:host/telemetry".instruments.hits]
kind = "counter"
labels = {{ http-status = ["200"], name = ["a"] }}
[capabilities."cloche:host/telemetry".instruments.level]
kind = "gauge"
"""

WORLD = """package acme:tried@1.0.0;
interface run {
    /// What the text leaves in `result`, as text; an exception becomes the error value.
    text: func(code: string) -> result<string, string>;
}
interface tokens {
    /// What the constructor found in its instance.
    resource token {
        constructor();
        text: func() -> string;
        found: static func() -> string;
    }
}
world plugin {
    include cloche:plugin/services@1.0.0;
    export run;
    export tokens;
}
"""

APP = """
import random

import tokens
from wit_world import exports, imports
from wit_world.imports import batch

from cloche_guest import Err, ServiceError, at_start, data, export, fresh_random, keyvalue, log, telemetry

starts = tokens.starts
at_start(lambda: starts.append(random.getrandbits(64)))


@export
class Run(exports.Run):
    def __init__(self):
        self.text(code="result = 1")

    def text(self, code):
        return self.told(code, scope={**globals(), "run": self})

    def told(self, code, *, scope):
        try:
            exec(code, scope)
        except Exception as error:
            raise Err(f"{type(error).__name__}: {error}") from None
        return str(scope.get("result"))


Run().text("result = random.random()")
tokens.Token()
"""

TOKENS = """
import random

from wit_world.exports import tokens as wit

from cloche_guest import export, fresh_random

generator = fresh_random()
starts = []


def found():
    return f"{len(starts)} {random.getrandbits(64)} {generator.getrandbits(64)}"


@export
class Token(wit.Token):
    def __init__(self):
        self.seen = found()

    def text(self):
        return self.seen

    @classmethod
    def found(cls):
        return found()
"""


def write_sdk_guest(place: Path) -> Path:
    """The plugin's directory, made in `place`, with its component; built once for all tests."""
    for name, text in {"plugin.toml": MANIFEST, "wit/world.wit": WORLD, "app.py": APP, "tokens.py": TOKENS}.items():
        path = place / "plugin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    component = build_directory(place / "plugin", cache=build_cache()).path
    (place / "plugin" / "plugin.toml").write_text(MANIFEST.replace('source = "app.py"', f'path = "{component.name}"'))
    (place / "plugin" / component.name).write_bytes(component.read_bytes())
    return place / "plugin"
