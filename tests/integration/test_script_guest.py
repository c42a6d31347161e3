"""The guest that runs scripts, in its sandbox: what a script finds, how it ends, and what it cannot do."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cloche
from cloche.grants.policy_file import parse_policy
from support.guests import built, guest_dir, guest_home
from support.script_host import EXECUTOR, ScriptCapability, library_section, script

pytestmark = pytest.mark.slow
TRUSTED = cloche.Trusted("a test")


def add(a: int, b: int = 10) -> int:
    """A function of the host."""
    return a + b


def capability() -> ScriptCapability:
    """Functions of the host for scripts."""
    return ScriptCapability(answers={"broken": "{"}, add=add, echo=lambda *args, **kwargs: [args, kwargs])


@pytest.fixture(scope="module")
def host() -> Iterator[cloche.Host]:
    """One host for this file."""
    with cloche.Host(
        home=guest_home(), tenant="test-script", policy=cloche.Policy(), capabilities=[capability()]
    ) as host:
        host.load(guest_dir("script"), trust=TRUSTED)
        yield host


class Runner:
    """Runs scripts, and keeps what the last one printed."""

    def __init__(self, host: cloche.Host) -> None:
        self.host = host
        self.point: Any = host.plugin("cloche/script")[EXECUTOR]
        self.printed: dict[str, str] = {}

    def __call__(self, code: str, **fields: Any) -> Any:
        """The outcome of a script."""
        return self.call(self.point.execute, code, **fields)

    def call(self, function: Any, code: str, **fields: Any) -> Any:
        """The outcome, with limits of `function`."""
        before = self.host.events.counts().get(cloche.EventKind.OUTPUT, 0)
        try:
            return function(script(code, **fields))
        finally:
            count = self.host.events.counts().get(cloche.EventKind.OUTPUT, 0) - before
            found = self.host.events.recent(kind=cloche.EventKind.OUTPUT)[-count:] if count else []
            self.printed = {str(event.data["stream"]): str(event.data["text"]) for event in found}

    def value(self, code: str, **fields: Any) -> Any:
        """The value of a script that ends well."""
        outcome = self(code, **fields)
        assert outcome.traceback is None, outcome.traceback
        assert outcome.exit_status == 0
        return json.loads(outcome.value)

    def traceback(self, code: str, **fields: Any) -> str:
        """The traceback of a script that fails, which is also printed."""
        outcome = self(code, **fields)
        assert (outcome.exit_status, outcome.value) == (1, None)
        assert self.printed["stderr"] == outcome.traceback
        return str(outcome.traceback)


@pytest.fixture
def run(host: cloche.Host) -> Runner:
    """Each script in a fresh instance."""
    return Runner(host)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Runner]:
    """All scripts in one instance, with a directory of the host as /work."""
    (tmp_path / "work").mkdir()
    (tmp_path / "plugin").mkdir()
    manifest = (guest_dir("script") / "plugin.toml").read_text()
    manifest = manifest.replace('"per-call"', '"single"').replace('source = "app.py"', 'path = "script.wasm"')
    manifest = manifest.replace(
        '[capabilities."wasi:filesystem"]', '[capabilities."wasi:filesystem"]\nwrite = ["work"]'
    )
    (tmp_path / "plugin" / "plugin.toml").write_text(manifest)
    shutil.copy(built("script"), tmp_path / "plugin" / "script.wasm")
    policy = f'format-version = 1\n[plugins."cloche/script"]\nmounts.work = {{path = "{tmp_path}/work", mode = "rw"}}\n'
    with cloche.Host(
        home=guest_home(), tenant="test-script", policy=parse_policy(policy.encode()), capabilities=[capability()]
    ) as host:
        host.load(tmp_path / "plugin", trust=TRUSTED)
        yield Runner(host)


def test_the_extension_point_is_known(host: cloche.Host) -> None:
    """The plugin serves it; what scripts call is no extension point, and without functions each call is refused."""
    known = {interface.id for interface in host.catalog.extension_points}
    assert f"{EXECUTOR}@1.0.0" in known
    assert "cloche:script/functions@1.0.0" not in known
    assert [plugin.id for plugin in host.providers(EXECUTOR)] == ["cloche/script"]
    with cloche.Host(home=guest_home(), tenant="test-script", policy=cloche.Policy()) as plain:
        executor = plain.load(guest_dir("script"), trust=TRUSTED)[EXECUTOR]
        outcome = executor.execute(script("f()", functions=["f"]))
        assert outcome.traceback.endswith("scripts are granted no functions of the application\n")


def test_functions_of_an_application_need_the_operators_word() -> None:
    """Handed over in code, and still only for whom the policy allows them, and only those that it names."""
    ours = cloche.ScriptFunctions({"double": lambda number: 2 * number, "other": lambda: 1})
    code = (
        "try: print(double(21))\nexcept RuntimeError as e: print(e)\ntry: other()\nexcept RuntimeError as e: print(e)"
    )
    for allowed, expected in (
        ("", ["scripts are granted no functions of the application"] * 2),
        (
            'allow = { "cloche:script" = { functions = ["double"] } }',
            ["42", "there is no function 'other'; there are: double"],
        ),
    ):
        policy = parse_policy(f'format-version = 1\n[plugins."cloche/script"]\n{allowed}'.encode())
        with cloche.Host(home=guest_home(), tenant="test-script", policy=policy, capabilities=[ours]) as host:
            plugin = host.load(guest_dir("script"), trust=TRUSTED)
            plugin[EXECUTOR].execute(script(code, functions=["double", "other"]))
            written = [str(event.data["text"]) for event in host.events.recent(kind=cloche.EventKind.OUTPUT)]
            assert "".join(written).splitlines() == expected


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("6*7", "42"),
        ("x = 1", None),
        ("None", None),
        ("", None),
        ("'docstring'", '"docstring"'),
        ("result = {'a': (1, 2.5, 'ü', None)}\n5", '{"a": [1, 2.5, "ü", null]}'),
        ("'\\ud800'", '"\\ud800"'),
        ("from __future__ import annotations\ndef f(x: Gone): ...\nf.__annotations__", '{"x": "Gone"}'),
        ("result = 3\nimport sys\nsys.exit()", "3"),
    ],
)
def test_values(run: Runner, code: str, value: str | None) -> None:
    """The variable `result`, else the last expression, as JSON."""
    outcome = run(code)
    assert (outcome.exit_status, outcome.value, outcome.note, outcome.traceback) == (0, value, None, None)


@pytest.mark.parametrize("code", ["{1}", "float('nan')", "x = []\nx.append(x)\nx", "open", "b'x'"])
def test_values_that_are_not_json(run: Runner, code: str) -> None:
    """They are left out, and a note says so."""
    outcome = run(code)
    assert (outcome.exit_status, outcome.value) == (0, None)
    assert outcome.note.startswith("no value: ")


@pytest.mark.parametrize(
    ("argument", "status", "printed"),
    [("", 0, None), ("None", 0, None), ("7", 7, None), ("-1", 255, None), ("300", 44, None), ("'bye'", 1, "bye\n")],
)
def test_exit_statuses(run: Runner, argument: str, status: int, printed: str | None) -> None:
    """`sys.exit` means what it means for a process."""
    outcome = run(f"import sys\nprint('before')\nsys.exit({argument})\nprint('after')")
    assert (outcome.exit_status, outcome.traceback) == (status, None)
    assert run.printed == {"stdout": "before\n"} | ({"stderr": printed} if printed else {})


def test_traceback_has_the_scripts_own_lines(run: Runner) -> None:
    """Frames, numbers, source lines and marks are those of CPython, without the plugin's frames."""
    text = run.traceback("x = 1\n\ndef divide():\n    # ü\n    return x / 0 + 2\n\ndivide()\n", name="my script.py")
    assert text == (
        "Traceback (most recent call last):\n"
        '  File "my script.py", line 7, in <module>\n    divide()\n    ~~~~~~^^\n'
        '  File "my script.py", line 5, in divide\n    return x / 0 + 2\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    text = run.traceback("import json\njson.loads('{')")
    assert 'File "main.py", line 2, in <module>' in text
    assert "cloche" not in text
    text = run.traceback("try:\n    1/0\nexcept Exception as e:\n    raise ValueError('x') from e")
    assert "The above exception was the direct cause" in text
    assert "Did you mean: 'value'?" in run.traceback("value = 1\nvaleu")
    assert "ExceptionGroup: g (1 sub-exception)" in run.traceback("raise ExceptionGroup('g', [KeyError(1)])")


def test_syntax_errors(run: Runner) -> None:
    """A script that cannot be compiled ends with the line and the place; `validate` says the same."""
    text = run.traceback("a = 1\nb = = 2\n", name="s.py")
    assert text == '  File "s.py", line 2\n    b = = 2\n        ^\nSyntaxError: invalid syntax\n'
    with pytest.raises(cloche.GuestError) as caught:
        run.point.validate("a = 1\nb = = 2\n", "s.py")
    found: Any = caught.value.payload
    assert (found.message, found.line, found.column, found.text) == ("invalid syntax", 2, 5, "b = = 2")
    assert run.point.validate("print('not run')", "s.py") is None
    with pytest.raises(cloche.GuestError, match="null bytes"):
        run.point.validate("\0", "s.py")


def test_standard_input_arguments_and_environment(run: Runner) -> None:
    """They are what the caller says, and nothing else."""
    code = "import sys, os\n[sys.stdin.buffer.read(3).hex(), input('? '), sys.stdin.read(), sys.argv, dict(os.environ)]"
    found = run.value(
        code, stdin="äab\nx\ny".encode(), arguments=["-v", "ü"], environment=[("A", "1"), ("B", "ü"), ("A", "2")]
    )
    assert found == ["c3a461", "b", "x\ny", ["main.py", "-v", "ü"], {"A": "2", "B": "ü"}]
    assert run.printed == {"stdout": "? "}
    assert run.value("import os\n[__name__, __file__, dict(os.environ)]") == ["__main__", "main.py", {}]
    assert "EOFError" in run.traceback("input()")


def test_functions_of_the_host(run: Runner) -> None:
    """They take and give JSON; refusals and bad answers are exceptions of the script."""
    assert run.value("add(1, b=2)", functions=["add"]) == 3
    assert run.value("echo('ü', None, k=[1.5])", functions=["echo"]) == [["ü", None], {"k": [1.5]}]
    text = run.traceback("add()", functions=["add"])
    assert "HostFunctionError: TypeError: add() missing" in text
    assert text.count("File ") == 1
    assert "is not JSON" in run.traceback("broken()", functions=["broken"])
    assert "TypeError: add() takes what JSON can express" in run.traceback("add({1})", functions=["add"])
    assert run.value("try:\n    gone()\nexcept RuntimeError as e:\n    result = str(e)", functions=["gone"]) == (
        "there is no function gone"
    )
    assert "NameError" in run.traceback("add(1)")


@pytest.mark.parametrize(
    ("fields", "case"),
    [
        ({"functions": ["class"]}, "InvalidScript"),
        ({"functions": ["a.b"]}, "InvalidScript"),
        ({"environment": [("a=", "b")]}, "InvalidScript"),
        ({"name": "a\0b"}, "InvalidScript"),
        ({"directory": "/gone"}, "NoDirectory"),
    ],
)
def test_what_cannot_be_started(run: Runner, fields: dict[str, Any], case: str) -> None:
    """A record that makes no sense is an error value."""
    with pytest.raises(cloche.GuestError, match=case):
        run("1", **fields)


def test_output_keeps_its_order_and_is_whole(run: Runner) -> None:
    """Text in any script, many lines, and what was printed before an error."""
    run("print('✓ 🪴 ü', end='')\nraise SystemExit(2)")
    assert run.printed == {"stdout": "✓ 🪴 ü"}
    assert "surrogates not allowed" in run.traceback("print('\\ud800')")
    run("import atexit\natexit.register(print, 'bye')\nprint('hi')")
    assert run.printed == {"stdout": "hi\nbye\n"}
    run("import sys\nprint(1)\nsys.stdout.close()\nsys.stderr.close()")
    assert run.printed == {"stdout": "1\n"}
    assert run("for i in range(100_000): print(i)").exit_status == 0
    assert run.printed["stdout"] == "".join(f"{number}\n" for number in range(100_000))


def test_memory(run: Runner, session: Runner) -> None:
    """Memory that runs out is a MemoryError, and the instance lives on."""
    outcome = run("x = []\nwhile True:\n    x.append(bytes(1_000_000))")
    assert (outcome.exit_status, outcome.out_of_memory) == (1, True)
    assert outcome.traceback.endswith("MemoryError\n")
    assert "line 3" in outcome.traceback
    for keep in (False, True):
        assert session("x = []\nwhile True: x.append(bytes(1_000_000))", keep=keep).out_of_memory
        assert session.value("6 * 7") == 42
    assert run("raise KeyError").out_of_memory is False


def test_limits(run: Runner) -> None:
    """Fuel and deadline stop a script, and the next one runs."""
    with pytest.raises(cloche.LimitError, match="fuel"):
        run.call(run.point.execute.options(fuel="50M"), "print('first', flush=True)\nwhile True: pass")
    assert run.printed == {"stdout": "first\n"}
    started = time.monotonic()
    with pytest.raises(cloche.LimitError) as caught:
        run.call(run.point.execute.options(deadline="500ms"), "while True:\n    try:\n        1/0\n    except: pass")
    assert caught.value.code == "limit.deadline"
    assert time.monotonic() - started < 20
    assert run.value("6 * 7") == 42


def test_recursion(run: Runner) -> None:
    """Endless recursion of Python functions, also of cached ones, is a RecursionError."""
    text = run.traceback("def f(n): return f(n + 1)\nf(0)")
    assert "RecursionError: maximum recursion depth exceeded" in text
    assert "more times]" in text
    cached = "import functools\n@functools.lru_cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\n"
    assert run.value(cached + "[f(900) % 1000, f.cache_info().misses]") == [800, 901]
    assert "functools" not in run.traceback(cached.replace("n if", "1/0 if") + "f(9)")
    assert "RecursionError" in run.traceback(cached + "f(5000)")
    with pytest.raises(cloche.LimitError, match="stack"):
        run("class A:\n    def __getattr__(self, name): return getattr(self, name + 'x')\nA().a")


def test_leaving_at_once(run: Runner) -> None:
    """`os._exit` ends the instance, and what was printed arrives."""
    with pytest.raises(cloche.GuestTrap) as caught:
        run("import os\nprint('a')\nos._exit(3)")
    assert caught.value.code == "guest.exit"
    assert run.printed == {"stdout": "a\n"}


def test_instances_draw_different_numbers(run: Runner) -> None:
    """All sources of randomness differ between fresh instances, but for the hashes of texts."""
    code = """
import os, random, secrets, tempfile, uuid
[random.random(), random.Random().random(), str(uuid.uuid4()), str(uuid.uuid1()), secrets.token_hex(),
 os.urandom(8).hex(), next(tempfile._get_candidate_names())]
"""
    drawn = [run.value(code) for _ in range(3)]
    assert len({str(item) for row in drawn for item in row}) == 21


def test_long_texts_are_cut(run: Runner) -> None:
    """A traceback that nobody could read does not cost the answer."""
    outcome = run("raise ValueError('x' * 5_000_000)")
    assert outcome.exit_status == 1
    assert len(outcome.traceback) < 300_000
    assert "characters left out" in outcome.traceback
    outcome = run("raise ValueError('x' * 80_000_000)")  # too long even to cut
    assert (outcome.exit_status, outcome.traceback) == (1, "ValueError\n")


def test_an_instance_that_is_used_again_does_not_grow(session: Runner) -> None:
    """Scripts in cycles with themselves are freed before the next one."""
    code = "class A: pass\na = A()\na.a, a.b = a, bytearray(60_000_000)\ndef f(): return a\nlen(a.b)"
    for number in range(12):
        assert session.value(code, name=f"{number}.py") == 60_000_000


def test_sessions(session: Runner) -> None:
    """What a script with `keep` leaves is there for the next one with `keep` only; tracebacks know older lines."""
    assert session.value("x = 5\n\ndef f():\n    return x / 0\nx", keep=True) == 5
    assert session.value("x += 1\nx", keep=True) == 6
    assert "NameError" in session.traceback("x")
    assert session.value("result = 1", keep=True) == 1
    assert session.value("3", keep=True) == 3
    assert session.value("result = 1", keep=True) == 1
    assert '  File "main.py", line 4, in f\n    return x / 0\n           ~~^~~\n' in session.traceback("f()", keep=True)
    assert session.value("add(1)", keep=True, functions=["add"]) == 11
    assert "NameError" in session.traceback("add(1)", keep=True)


def test_scripts_without_keep_leave_nothing(session: Runner) -> None:
    """Modules, streams, builtins and limits are put back in the same instance."""
    session("import sys, builtins\ndel sys.modules['json']\nsys.modules['re'] = None\nsys.setrecursionlimit(50)")
    session(
        "import sys, builtins\nbuiltins.print = builtins.foo = None\ndel builtins.set\nsys.stdout = sys.argv = None"
    )
    session("import sys, os\nos.environ['A'] = '1'\nsys.path.append('x')\nsys.excepthook = print")
    code = "import json, re, sys, os\nset()\nprint(1)\n[sys.getrecursionlimit(), sys.path, dict(os.environ)]"
    assert session.value(code) == [2000, [], {}]
    assert "foo" in session.traceback("foo")


def test_a_directory_of_the_host(session: Runner, tmp_path: Path) -> None:
    """A script starts in its directory, and finds files and modules there."""
    (tmp_path / "work" / "mine.py").write_text("def divide():\n    return 1 / 0\n")
    (tmp_path / "work" / "part").mkdir()
    (tmp_path / "work" / "part" / "__init__.py").write_text("VALUE = 2\n")
    code = "import mine, part, os\nopen('out.txt', 'w').write('hi')\n[part.VALUE, os.getcwd(), sorted(os.listdir())]"
    assert session.value(code, directory="/work") == [2, "/work", ["mine.py", "out.txt", "part"]]
    assert (tmp_path / "work" / "out.txt").read_text() == "hi"
    text = session.traceback("import mine\nmine.divide()", directory="/work")
    assert '  File "/work/mine.py", line 2, in divide\n    return 1 / 0\n' in text
    assert "ModuleNotFoundError" in session.traceback("import mine")


def test_a_missing_module(run: Runner) -> None:
    """It is a ModuleNotFoundError, and the outcome has a note."""
    outcome = run("import numpy")
    assert outcome.traceback.endswith("ModuleNotFoundError: No module named 'numpy'\n")
    assert "numpy" in outcome.note
    assert run.value("import importlib.util\nimportlib.util.find_spec('numpy')\n1") == 1


def test_every_module_can_be_imported(run: Runner) -> None:
    """What the plugin imported at its build is there for scripts, and the README lists it."""
    imported, failed = run.value("from cloche_script import library\n[library.imported, library.failed]")
    assert len(imported) > 500
    code = (
        "import importlib, sys\nfor name in sys.stdin.read().split(): importlib.import_module(name)\nlen(sys.modules)"
    )
    assert run.value(code, stdin="\n".join(imported).encode()) >= len(imported)
    assert {"sqlite3", "xml.etree.ElementTree", "email.mime.text", "encodings.idna", "zoneinfo"} <= {*imported}
    assert {"ssl", "ctypes", "bz2", "lzma"} <= failed.keys()


def test_readme_lists_the_library(run: Runner) -> None:
    """The list in the guest's README is the component's."""
    found = run.value("from cloche_script import library\n[library.imported, library.failed]")
    text = (guest_dir("script") / "README.md").read_text()
    assert text.partition("<!-- library -->\n")[2].partition("\n<!-- end -->")[0] == library_section(*found)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("import datetime\nstr(datetime.datetime.strptime('2024-02-03', '%Y-%m-%d').date())", "2024-02-03"),
        ("import decimal, statistics\n[str(decimal.Decimal(1) / 7)[:6], statistics.median([1, 3])]", ["0.1428", 2]),
        ("import pickle, dataclasses as d\n@d.dataclass\nclass A: x: int\npickle.loads(pickle.dumps(A(3))).x", 3),
        ("import sqlite3\nsqlite3.connect(':memory:').execute('select 6*7').fetchone()", [42]),
        ("import inspect\ndef f(): return 1\ninspect.getsource(f)", "def f(): return 1\n"),
        ("import xml.etree.ElementTree as E\nE.fromstring('<a><b/></a>')[0].tag", "b"),
        ("import gzip, hashlib\n[hashlib.md5(b'').hexdigest()[:4], gzip.decompress(gzip.compress(b'a')).decode()]",
         ["d41d", "a"]),
        ("import asyncio\nasync def f():\n await asyncio.sleep(0.01)\n return await asyncio.to_thread(int, '5')\n"
         "asyncio.run(f())", 5),
        ("import asyncio\nasync def f():\n try:\n  async with asyncio.timeout(0.01): await asyncio.Event().wait()\n"
         " except TimeoutError: return 'late'\nasyncio.run(f())", "late"),
        ("import logging, io\ns = io.StringIO()\nlogging.basicConfig(stream=s)\nlogging.warning('%s', 1)\ns.getvalue()",
         "WARNING:root:1\n"),
    ],
)  # fmt: skip
def test_the_library_works(run: Runner, code: str, value: Any) -> None:
    """Also what it imports late."""
    assert run.value(code) == value


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import threading\nthreading.Thread(target=print).start()", "can't start new thread"),
        ("import subprocess\nsubprocess.run(['ls'])", "does not support processes"),
        ("open('/etc/passwd')", "FileNotFoundError"),
        ("import asyncio\nasync def f(): await asyncio.Event().wait()\nasyncio.run(f())", "nothing is left"),
        ("import zoneinfo\nzoneinfo.ZoneInfo('Europe/Berlin')", "ZoneInfoNotFoundError"),
    ],
)
def test_what_is_not_there_says_so(run: Runner, code: str, said: str) -> None:
    """What components do not have fails at once, in words."""
    assert said in run.traceback(code)
