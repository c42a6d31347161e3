"""What the message says about how a Python guest failed."""

from __future__ import annotations

import pytest

from cloche.engine.endings import Ending, explain
from cloche.errors import GuestTrap
from cloche.model import Limits

TRACEBACK = 'Traceback (most recent call last):\n  File "/0/app.py", line 3, in f\n'
MISFIT = (
    "\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1494:89:\ncalled `Result::unwrap()` on an `Err` value: "
    "PyErr { type: <class 'TypeError'>, value: TypeError(\"'int' object is not an instance of 'str'\"), "
    "traceback: None }\n"
)


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("", "the guest trapped: wasm `unreachable` instruction executed"),
        (TRACEBACK + "ValueError: boom\n", "the guest raised ValueError: boom"),
        (
            TRACEBACK + "ModuleNotFoundError: No module named 'html'\n",
            "the guest raised ModuleNotFoundError: No module named 'html'; "
            "a call can import nothing: import it at the top",
        ),
        (
            MISFIT,
            "the guest gave a value that does not fit its WIT type: "
            "TypeError: 'int' object is not an instance of 'str'",
        ),
        (
            TRACEBACK + "app.ValidationError: 1 problem\nname\n  missing [type=missing]\n",
            "the guest raised app.ValidationError: 1 problem",
        ),
        (TRACEBACK + "ValueError: \x1b[2J\u202eboom\n", r"the guest raised ValueError: \x1b[2J\x202eboom"),
        (MISFIT.replace("TypeError", "Odd"), "the guest trapped: wasm `unreachable` instruction executed"),
    ],
)
def test_the_last_words_of_a_python_guest(stderr: str, words: str) -> None:
    """What a guest raised, or why its answer could not be taken, stands in the message itself."""
    error = explain(
        Ending(
            what="a:b/c.f",
            plugin="acme/x",
            limits=Limits(),
            text="wasm trap: wasm `unreachable` instruction executed",
            exit_status=None,
            stderr=stderr,
            failure=None,
            stop=None,
            memories=(65536,),
            memory_bound=1 << 28,
        )
    )
    assert isinstance(error, GuestTrap)
    assert all(char.isprintable() or char == "\n" for char in str(error))
    assert str(error).splitlines()[0] == f"a:b/c.f: {words}"
