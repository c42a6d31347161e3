"""What `cloche call` and `cloche run` make of what a plugin answers, and of words that do not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloche.cli.main import run
from support.binary_wat import parse
from support.cli_plugins import COMMAND, TOOLS
from support.life_plugin import component_of

EXIT = """
(component
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
  (alias export $exit "exit" (func $e))
  (core func $lowered (canon lower (func $e)))
  (core module $m (import "x" "exit" (func $exit (param i32)))
    (func (export "run") (result i32) (call $exit (i32.const %d)) (i32.const 1)))
  (core instance $i (instantiate $m (with "x" (instance (export "exit" (func $lowered))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.6" (instance $command)))
"""
# Writes, then traps.
WRITER_WIT = {
    "io": """package wasi:io@0.2.0;
interface error { resource error; }
interface streams {
  use error.{error};
  variant stream-error { last-operation-failed(error), closed }
  resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
}
""",
    "cli": """package wasi:cli@0.2.0;
interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
""",
}
WRITER_WORLD = "package test:writing;\nworld w { import wasi:cli/stdout@0.2.0; export write-and-trap: func(); }\n"
WRITER = """(module
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "before the trap\\0a")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "write-and-trap")
    (call $write (call $stdout) (i32.const 64) (i32.const 16) (i32.const 16))
    unreachable))
"""
# An option that is none, and many functions whose names are alike.
MANY = """
(component
  (core module $m
    (memory (export "m") 1)
    (func (export "none") (result i32) (i32.const 0))
    (func (export "nothing")))
  (core instance $i (instantiate $m))
  (func $none (result (option u8)) (canon lift (core func $i "none") (memory (core memory $i "m"))))
  (func $nothing (canon lift (core func $i "nothing")))
  (instance $all (export "none" (func $none)) (export "nothing" (func $nothing))
NAMES)
  (export "test:many/all@1.0.0" (instance $all)))
""".replace("NAMES", "\n".join(f'    (export "probe-{chr(97 + n)}" (func $nothing))' for n in range(20)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests here."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOCHE_HOME", str(home))


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """The tools plugin as a file."""
    return component(tmp_path, TOOLS)


def component(tmp_path: Path, wat: str) -> str:
    """The file of a component."""
    file = tmp_path / "plugin.wasm"
    file.write_bytes(parse(wat))
    return str(file)


def error_of(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The error of a command with `--json`, whose exit status is the error's own."""
    status = run(words)
    error: dict[str, Any] = json.loads(capfd.readouterr().out)["error"]
    assert status == error["exit_status"]
    return error


@pytest.mark.parametrize(("wat", "status"), [(COMMAND % 0, 0), (EXIT % 0, 0), (COMMAND % 1, 1), (EXIT % 1, 1)])
def test_a_command_has_its_own_status(tmp_path: Path, capfd: pytest.CaptureFixture[str], wat: str, status: int) -> None:
    """Returning and exiting say the same; a command that failed said why itself, and nothing is added."""
    assert run(["run", "--trust", component(tmp_path, wat)]) == status
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("wat", "code"), [(COMMAND % 1, "guest.error"), (EXIT % 1, "guest.exit")])
def test_a_failed_command_is_an_error_for_programs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], wat: str, code: str
) -> None:
    """In JSON, how it failed has its code, and an error without a value is not called None."""
    error = error_of(capfd, "run", "--json", "--trust", component(tmp_path, wat))
    assert (error["code"], error["exit_status"], "None" in error["message"]) == (code, 1, False)


def test_exit_in_any_other_function_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Only a command exits; `call` promises the result of a function."""
    assert error_of(capfd, "call", "--json", "--trust", component(tmp_path, EXIT % 0), "run")["code"] == "guest.exit"


def test_output_before_an_error_is_in_its_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the plugin wrote until then is often the only hint at what went wrong."""
    file = tmp_path / "writer.wasm"
    file.write_bytes(component_of(WRITER, WRITER_WORLD, WRITER_WIT))
    error = error_of(capfd, "call", "--json", "--trust", str(file), "write-and-trap")
    assert (error["code"], error["output"]) == ("guest.trap", {"stdout": "before the trap\n"})


def test_no_value_is_null_and_no_result_is_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An option that is none is an answer; a function without a result has none to print."""
    file = component(tmp_path, MANY)
    assert run(["call", "--trust", file, "none"]) == 0
    assert capfd.readouterr().out == "null\n"
    assert run(["call", "--trust", file, "nothing"]) == 0
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothin", "did you mean test:many/all@1.0.0.nothing"),
        ("al.nothing", "did you mean test:many/all@1.0.0.nothing"),
        ("test:many/all@1.0.0.nothink", "did you mean test:many/all@1.0.0.nothing"),
        ("entirely-different", "; and 10 more"),
    ],
)
def test_a_misspelt_function_leads_to_the_nearest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], target: str, words: str
) -> None:
    """The nearest names, or some of what there is: not the whole list of a large plugin."""
    error = error_of(capfd, "call", "--json", "--trust", component(tmp_path, MANY), target)
    assert (error["code"], words in error["message"]) == ("usage.not-found", True), error["message"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--memory", "0", "--memory must be from 64KiB to 4GiB, not 0"),
        ("--deadline", "25h", "--deadline must be from 1ms to 24h, not 25h"),
        ("--fuel", str(1 << 63), "fuel units, from 1 to 9_223_372_036_854_775_807"),
    ],
)
def test_a_limit_out_of_range_names_option_and_range(
    tools: str, capfd: pytest.CaptureFixture[str], option: str, value: str, words: str
) -> None:
    """In the units of the command line."""
    error = error_of(capfd, "call", "--json", "--trust", option, value, tools, "echo", "x")
    assert (error["code"], words in error["message"]) == ("limit.range", True), error["message"]


@pytest.mark.parametrize("device", [False, True])
def test_an_argument_file_is_a_file(
    tmp_path: Path, tools: str, capfd: pytest.CaptureFixture[str], device: bool
) -> None:
    """A pipe in which nobody writes, and a device without end, are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    name = "/dev/zero" if device else str(tmp_path / "pipe")
    error = error_of(capfd, "call", "--json", "--trust", tools, "echo", f"@{name}")
    assert (error["code"], "not a regular file" in error["message"]) == ("usage.not-found", True)


@pytest.mark.parametrize("words", [["run", "--trust", ""], ["call", "", "f"], ["inspect", ""], ["build", ""]])
def test_an_empty_name_is_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """An unset variable in a script must not run what lies in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.toml").write_text("")
    error = error_of(capfd, words[0], "--json", *words[1:])
    assert (error["code"], "is empty" in error["message"]) == ("usage.argument", True)
