"""What an author is told when a tool refuses the source. The texts are those of the tools' present versions."""

from __future__ import annotations

import pytest

from cloche.build import javascript, native, python
from cloche.build.failure import MAX_TOOL_CHARACTERS, build_error, trimmed

WRAPPED = """Traceback (most recent call last):
  File "<string>", line 1, in <module>
AssertionError: Traceback (most recent call last):
  File "/0/app.py", line 1, in <module>
    import pydantic
ModuleNotFoundError: No module named 'pydantic'


Caused by:
    ModuleNotFoundError: No module named 'pydantic'
"""


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (WRAPPED, "Put the package of pydantic into `requirements`"),
        ("ModuleNotFoundError: No module named '_ctypes'", "native libraries"),
        ("ModuleNotFoundError: No module named 'wit_world.imports.x'", "compare the import with wit/world.wit"),
        ("ImportError: cannot import name 'nothing' from 'wit_world.exports' (x)", "compare the import"),
        ("AttributeError: module 'app' has no attribute 'Greeter'. Did you mean", "Define or import Greeter in app"),
        (
            "TypeError: Can't instantiate abstract class Greeter without an implementation for abstract method 'greet'",
            "Implement 'greet' in Greeter",
        ),
        ("RuntimeError: can't start new thread", "no threads"),
        ("SyntaxError: invalid syntax", "Python 3.14"),
        ("Caused by:\n    interface not found in package\n", "wit/world.wit"),
        ("\nCaused by:\n    0: error while executing at wasm backtrace:\n", "at_start"),
        ("something new", ""),
    ],
)
def test_python_advice(output: str, words: str) -> None:
    """Each known failure of componentize-py leads to what to do."""
    advice = python.advice(output)
    assert words in advice
    assert bool(words) == bool(advice)


def test_python_traceback_is_the_plugins_own() -> None:
    """The tool's frames, its repetition and its paths are left out."""
    assert python.shortened(WRAPPED) == (
        "Traceback (most recent call last):\n"
        '  File "app.py", line 1, in <module>\n'
        "    import pydantic\n"
        "ModuleNotFoundError: No module named 'pydantic'"
    )


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ('Error: "source.js" does not export a "greeter" interface as expected', "Export greeter"),
        ('ReferenceError: Error loading module "lodash" (resolved path', "lodash is neither"),
        ("SyntaxError: Unexpected token", "Mend"),
        ("else", ""),
    ],
)
def test_javascript_advice(output: str, words: str) -> None:
    """Each known failure of componentize-js leads to what to do."""
    assert words in javascript.advice(output)


def test_javascript_stack_is_left_out() -> None:
    """Only the message remains of an exception of the tool."""
    before = "file:///x/componentize.js:616\n    throw new Error(msg);\n          ^\n\n"
    output = f"{before}Error: no\n    at f (file:///x:1:2)\n\nNode.js v24\n"
    assert javascript.shortened(output) == "Error: no"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("2: failed to find export of interface `a:b/c@1.0.0` function `d`", 'Export "a:b/c@1.0.0#d"'),
        ("wasm-ld: error: app.o: undefined symbol: foo", "foo is defined nowhere"),
        ("fatal error: 'stdio.h' file not found", "compiler's own headers"),
        ("module does not export a function named `cabi_realloc`", "cloche_guest.h"),
        ("else", ""),
    ],
)
def test_native_advice(output: str, words: str) -> None:
    """Each known failure of the C compiler and of wasm-tools leads to what to do."""
    assert words in native.advice(output)


def test_a_tools_words_are_bounded_and_without_terminal_controls() -> None:
    """The end is kept, escapes are dropped."""
    text = trimmed("\x1b[31mred\x1b[0m\x07\n" + "x" * 10_000 + "\nlast")
    assert len(text) <= MAX_TOOL_CHARACTERS
    assert text.endswith("last")
    assert trimmed("\x1b[31mred\x1b[0m\x07\n\n") == "red"


def test_the_error_names_plugin_cause_and_advice() -> None:
    """One message with everything."""
    error = build_error("acme/x", "it is so", advice="Do that", output="a\nb")
    assert (error.code, str(error)) == ("component.build", "acme/x cannot be built: it is so. Do that\na\nb")
