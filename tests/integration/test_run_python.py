"""Untrusted scripts as an application runs them: real workers, the shipped image, every limit."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cloche


@pytest.fixture(scope="module")
def runner() -> Iterator[cloche.ScriptRunner]:
    """One runner for all: what a test leaves must not be there in the next."""
    with cloche.ScriptRunner(policy=cloche.Policy()) as found:
        yield found


def children() -> set[str]:
    """Processes that this one has started."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set((task / "children").read_text().split())
    return found


# -- what comes back -----------------------------------------------------------------------------------------------


def test_a_script_prints_and_has_a_value(runner: cloche.ScriptRunner) -> None:
    """Output, the last expression as JSON, exit status and cost."""
    result = runner.run("import sys\nprint(6 * 7)\nprint('oh', file=sys.stderr)\n{'a': [1, None]}")
    assert (result.ok, result.stdout, result.stderr, result.exit_status) == (True, "42\n", "oh\n", 0)
    assert result.value == {"a": [1, None]}
    assert result.usage.guest_fuel is not None
    assert result.usage.guest_fuel > 100_000
    assert result.usage.instance_calls == 1


def test_the_global_result_is_the_value(runner: cloche.ScriptRunner) -> None:
    """`result` comes before the last expression."""
    assert runner.run("result = [1]\n2").value == [1]


def test_what_is_no_json_is_noted(runner: cloche.ScriptRunner) -> None:
    """A value that JSON cannot express is None, and a note says so."""
    result = runner.run("object()")
    assert result.value is None
    assert "object is not JSON" in str(result.note)


def test_an_exception_returns_with_the_scripts_own_lines(runner: cloche.ScriptRunner) -> None:
    """The traceback names the script, its line and its text."""
    result = runner.run("def f():\n    return 1 / 0\n\nf()", name="mine.py")
    assert (result.ok, result.exit_status) == (False, 1)
    assert 'File "mine.py", line 2, in f\n    return 1 / 0' in str(result.traceback)
    assert str(result.traceback) in result.stderr


def test_exit_statuses_are_the_scripts_own(runner: cloche.ScriptRunner) -> None:
    """`sys.exit` is an outcome, not an error."""
    result = runner.run("import sys\nsys.exit(7)")
    assert (result.ok, result.exit_status, result.traceback) == (False, 7, None)


def test_a_syntax_error_returns(runner: cloche.ScriptRunner) -> None:
    """What cannot be compiled is the script's failure, too."""
    result = runner.run("print(")
    assert result.exit_status == 1
    assert "SyntaxError" in str(result.traceback)


def test_arguments_stdin_and_environment(runner: cloche.ScriptRunner) -> None:
    """They are what was given, and nothing of this process."""
    result = runner.run(
        "import os, sys\n[sys.argv, sys.stdin.read(), dict(os.environ)]",
        name="s.py",
        arguments=["a", "b c"],
        stdin="hällo",
        environment={"K": "V"},
    )
    assert result.value == [["s.py", "a", "b c"], "hällo", {"K": "V"}]


def test_each_script_is_alone(runner: cloche.ScriptRunner) -> None:
    """Names, modules, and patches of one script are not there in the next; randomness differs."""
    runner.run("import json, builtins\njson.dumps = None\nbuiltins.print = None\nleft = 1")
    result = runner.run("import json\nprint(json.dumps('left' in globals()))")
    assert result.stdout == "false\n"
    seen = {str(runner.run("import random, uuid\n[random.random(), str(uuid.uuid4())]").value) for _ in range(3)}
    assert len(seen) == 3


def test_fuel_is_the_same_each_time(runner: cloche.ScriptRunner) -> None:
    """The same script in a fresh sandbox costs the same."""
    costs = {runner.run("x = sum(range(1000))").usage.guest_fuel for _ in range(4)}
    assert max(costs) - min(costs) < 1000, costs  # type: ignore[operator, type-var]


# -- files and mounts ----------------------------------------------------------------------------------------------


def test_files_go_in_and_out(runner: cloche.ScriptRunner) -> None:
    """The script starts among its files; new and changed ones come back, others and links do not."""
    result = runner.run(
        "import os, pathlib\n"
        "text = open('data/in.txt').read()\n"
        "open('out.bin', 'wb').write(text.upper().encode())\n"
        "pathlib.Path('sub').mkdir()\n"
        "open('sub/x', 'w').write('1')\n"
        "open('change', 'a').write('d')\n"
        "os.getcwd()",
        files={"data/in.txt": "hi", "same": b"\x00", "change": "ol"},
    )
    assert result.ok, result.stderr
    assert result.value == "/work"
    assert result.files == {"out.bin": b"HI", "sub/x": b"1", "change": b"old"}


def test_files_can_be_changed_as_usual(runner: cloche.ScriptRunner) -> None:
    """Appending, renaming, replacing, linking, copying, SQLite, removing: in a worker as without one."""
    code = """
import os, pathlib, shutil, sqlite3
open('a', 'w').write('1'); open('a', 'a').write('2')
os.mkdir('d'); os.rename('a', 'd/b'); os.link('d/b', 'c'); os.symlink('d/b', 'l')
open('e', 'w').write('3'); os.replace('e', 'c')
shutil.copy('d/b', 'copy'); os.truncate('copy', 1)
db = sqlite3.connect('db'); db.execute('create table t (x)'); db.commit(); db.close()
shutil.rmtree('d')
sorted(os.listdir('.'))
"""
    result = runner.run(code, files={})
    assert result.ok, result.stderr
    assert result.value == ["c", "copy", "db", "l"]
    assert (result.files["c"], result.files["copy"], "l" in result.files) == (b"3", b"1", False)


def test_without_files_there_are_none(runner: cloche.ScriptRunner) -> None:
    """No directory, no file of the host."""
    result = runner.run("open('/etc/passwd')")
    assert "FileNotFoundError" in str(result.traceback)
    result = runner.run("open('x', 'w')")
    assert "Error" in str(result.traceback)


def test_mounts_are_read_only_unless_said(runner: cloche.ScriptRunner, tmp_path: Path) -> None:
    """A mount shows a directory as /NAME; only `:rw` lets a script write."""
    (tmp_path / "f").write_text("seen")
    code = "print(open('/d/f').read())\nopen('/d/new', 'w').write('w')"
    refused = runner.run(code, mounts={"d": tmp_path})
    assert refused.stdout == "seen\n"
    assert "PermissionError" in str(refused.traceback)
    assert runner.run(code, mounts={"d": f"{tmp_path}:rw"}).ok
    assert (tmp_path / "new").read_text() == "w"


def test_a_mount_is_not_left_by_links(runner: cloche.ScriptRunner, tmp_path: Path) -> None:
    """Neither a link that lies there nor `..` leads out."""
    (tmp_path / "secret").write_text("no")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    code = (
        "for p in ('/d/link', '/d/../secret', '/secret'):\n  try: print(open(p).read())\n  except OSError: print('-')"
    )
    assert runner.run(code, mounts={"d": inside}).stdout == "-\n-\n-\n"


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(10**6): open(f'f{i}', 'w').close()",
        "f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        "import os\nfor _ in range(10**6): os.mkdir('d'); os.chdir('d')",
    ],
    ids=["many", "large", "deep"],
)
@pytest.mark.adversarial
def test_files_are_bounded_and_removed(runner: cloche.ScriptRunner, code: str, tmp_path: Path) -> None:
    """Too many, too large or too deep: the script is stopped, and nothing stays on the disk."""
    with pytest.raises(cloche.LimitError) as caught:
        runner.run(code, files={"a": "1"})
    assert caught.value.code == "limit.data"
    assert caught.value.usage is not None
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("cloche-script-*"))


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//b", ".", "a\0"])
def test_bad_file_names_are_refused(runner: cloche.ScriptRunner, name: str) -> None:
    """Files lie below the script's directory, whatever they are called."""
    with pytest.raises(cloche.UsageError, match="plain relative path"):
        runner.run("1", files={name: "x"})


# -- functions of the application ----------------------------------------------------------------------------------


def test_a_script_calls_functions_of_the_application(runner: cloche.ScriptRunner) -> None:
    """By position and by name; results are JSON."""

    def area(width: float, *, height: float = 2.0) -> dict[str, float]:
        return {"area": width * height}

    result = runner.run("[area(3.0), area(3, height=4)]", functions={"area": area})
    assert result.value == [{"area": 6.0}, {"area": 12.0}]
    assert result.usage.host_calls == 2


def test_arguments_are_checked_against_annotations(runner: cloche.ScriptRunner) -> None:
    """What does not fit never reaches the function."""
    seen: list[object] = []

    def take(number: int, *rest: str) -> None:
        seen.append((number, rest))

    code = (
        "def try_(f):\n  try: f()\n  except RuntimeError as e: print(e)\n"
        "try_(lambda: take('5'))\ntry_(lambda: take())\ntry_(lambda: take(1, 'a', 2))\ntry_(lambda: take(1, x=1))\n"
        "take(1, 'a')"
    )
    result = runner.run(code, functions={"take": take})
    assert seen == [(1, ("a",))]
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0] == "take(): number: Input should be a valid integer"


def test_a_script_learns_of_failures_only_what_it_should(runner: cloche.ScriptRunner) -> None:
    """The text of `FunctionError` gets there; of others the type alone, and the caller has the exception."""

    def refuse() -> None:
        raise cloche.FunctionError("not on Sundays")

    def fail() -> None:
        raise ValueError("password=hunter2")

    code = "for f in (refuse, fail):\n  try: f()\n  except RuntimeError as e: print(e)"
    result = runner.run(code, functions={"refuse": refuse, "fail": fail})
    assert result.stdout == "not on Sundays\nfail() failed in the application (ValueError)\n"
    assert [str(error) for error in result.failures] == ["password=hunter2"]


def test_quotas_and_the_limit_of_calls(runner: cloche.ScriptRunner) -> None:
    """A quota is an error that the script can catch; the limit of all calls ends it."""
    calls: list[int] = []
    functions = {"f": cloche.Quota(lambda: calls.append(1), 2)}
    result = runner.run("for _ in range(3):\n  try: f()\n  except RuntimeError as e: print(e)", functions=functions)
    assert result.stdout == "f() may be called 2 times by one script\n"
    assert len(calls) == 2
    with pytest.raises(cloche.LimitError) as caught:
        runner.run("while True: f()", functions={"f": lambda: calls.append(1)}, host_calls=10)
    assert caught.value.code == "limit.host-calls"
    assert len(calls) == 12


def test_functions_are_there_for_one_script_only(runner: cloche.ScriptRunner) -> None:
    """The next script, in the same worker, cannot call them."""
    runner.run("f()", functions={"f": lambda: 1})
    code = "from wit_world.imports import functions\nfunctions.call('f', '{\"args\": [], \"kwargs\": {}}')"
    with pytest.raises(cloche.ClocheError):
        runner.run(code)
    assert runner.run("1").value == 1


@pytest.mark.parametrize("bad", [{"f": 3}, {"not a name": print}, {"f": cloche.Quota(print, -1)}])
def test_what_is_no_function_is_refused(runner: cloche.ScriptRunner, bad: dict[str, object]) -> None:
    """Before the script starts."""
    with pytest.raises(cloche.UsageError):
        runner.run("1", functions=bad)  # type: ignore[arg-type]


# -- limits --------------------------------------------------------------------------------------------------------

LIMITS = {
    "fuel": ("while True: pass", {"fuel": "100M"}, "limit.fuel", 125),
    "spin": ("while True: pass", {"deadline": "300ms", "fuel": "1T"}, "limit.deadline", 124),
    "sleep": ("import time\ntime.sleep(60)", {"deadline": 0.3}, "limit.deadline", 124),
    "memory": ("bytearray(1 << 30)", {}, "limit.memory", 137),
    "little memory": ("x = [0] * (1 << 23)", {"memory": "48MiB"}, "limit.memory", 137),
    "output": ("for _ in range(2000): print('x' * 1000)", {}, "limit.output", 123),
    "stdin": ("1", {"stdin": bytes(65 << 20)}, "limit.payload", 123),
}


@pytest.mark.adversarial
@pytest.mark.parametrize(("code", "options", "expected", "status"), LIMITS.values(), ids=LIMITS)
def test_limits_stop_a_script(
    runner: cloche.ScriptRunner, code: str, options: dict[str, object], expected: str, status: int
) -> None:
    """Each with its own code, exit status and cost; the next script runs."""
    with pytest.raises(cloche.LimitError) as caught:
        runner.run(code, **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.exit_status) == (expected, status)
    assert caught.value.usage is not None
    assert runner.run("6 * 7").value == 42


def test_options_are_checked(runner: cloche.ScriptRunner) -> None:
    """Unknown names, units that are missing, numbers out of range."""
    with pytest.raises(cloche.UsageError, match="unknown option 'feul'"):
        runner.run("1", feul=3)  # type: ignore[call-arg]
    for bad in ({"fuel": "1"}, {"memory": 1 << 50}, {"deadline": -1}):
        with pytest.raises(cloche.LimitError) as caught:
            runner.run("1", **bad)
        assert caught.value.code == "limit.range"


def test_a_worker_that_is_killed_costs_one_script(runner: cloche.ScriptRunner) -> None:
    """Whoever was running is told; the next one has another worker."""
    events: list[cloche.Event] = []
    remove = runner.events.add(events.append)
    try:
        seen: list[Exception] = []

        def sleep() -> None:
            try:
                runner.run("import time\ntime.sleep(30)")
            except cloche.ClocheError as error:
                seen.append(error)

        runner.start()
        before = children()
        thread = threading.Thread(target=sleep)
        thread.start()
        for _ in range(200):
            if thread.is_alive() and children():
                break
        threading.Event().wait(0.5)
        for pid in before:
            if "cloche" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(int(pid), 9)
        thread.join(20)
        assert [getattr(error, "code", None) for error in seen] == ["engine.worker-lost"]
        assert runner.run("6 * 7").value == 42
    finally:
        remove()
    assert cloche.EventKind.WORKER in {event.kind for event in events}
    assert {event.tier for event in events} == {"untrusted"}


# -- sessions ------------------------------------------------------------------------------------------------------


def test_a_session_keeps_its_state(runner: cloche.ScriptRunner) -> None:
    """Names, imports and files; each script has its own output and cost."""
    with runner.session(files={"a": "1"}, functions={"now": lambda: 5}) as session:
        first = session.run("import math\nx = 41\nopen('b', 'w').write(open('a').read())")
        assert first.files == {"b": b"1"}
        second = session.run("print(x + now())\nmath.pi")
        assert (second.stdout, round(second.value, 2), second.files) == ("46\n", 3.14, {})
        failed = session.run("y = 1\n1 / 0")
        assert 'File "script.py", line 2' in str(failed.traceback)
        assert session.run("y").value == 1
        assert session.is_alive


def test_a_session_ends_with_its_limits(runner: cloche.ScriptRunner) -> None:
    """After a limit the state is gone, and the session says so; others go on."""
    with runner.session() as session, runner.session() as other:
        other.run("x = 1")
        with pytest.raises(cloche.LimitError):
            session.run("while True: pass", deadline="200ms")
        assert not session.is_alive
        with pytest.raises(cloche.UsageError) as caught:
            session.run("1")
        assert caught.value.code == "usage.closed"
        assert other.run("x").value == 1


def test_memory_of_a_session_counts_for_all_its_scripts(runner: cloche.ScriptRunner) -> None:
    """What earlier scripts hold is not free for later ones, which may let it go again."""
    with runner.session(memory="80MiB") as session:
        session.run("held = bytearray(30 << 20)")
        with pytest.raises(cloche.LimitError) as caught:
            session.run("more = bytearray(30 << 20)")
        assert caught.value.code == "limit.memory"
        assert session.run("len(held) >> 20").value == 30


# -- the process around it -----------------------------------------------------------------------------------------


def test_scripts_run_from_many_threads(runner: cloche.ScriptRunner) -> None:
    """Each caller has its own answer."""
    found: dict[int, object] = {}

    def work(number: int) -> None:
        found[number] = runner.run(f"import time\ntime.sleep({random.random() / 50})\n{number}").value

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(12)}


def test_asyncio(runner: cloche.ScriptRunner) -> None:
    """Several at once; cancelling stops the script before it raises."""

    async def main() -> list[object]:
        many = await asyncio.gather(*(runner.run_async(f"{number}") for number in range(5)))
        task = asyncio.create_task(runner.run_async("while True: pass", fuel="1T", deadline="60s"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [result.value for result in many]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_close_leaves_nothing() -> None:
    """No process and no descriptor; afterwards the runner says that it is closed."""
    before, descriptors = children(), len(list(Path("/proc/self/fd").iterdir()))
    runner = cloche.ScriptRunner(policy=cloche.Policy())
    session = runner.session()
    runner.run("1")
    runner.close()
    runner.close()
    assert children() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not session.is_alive
    with pytest.raises(cloche.UsageError) as caught:
        runner.run("1")
    assert caught.value.code == "usage.closed"


def test_run_python_keeps_its_worker() -> None:
    """The second script of a process starts none."""
    assert cloche.run_python("1").value == 1
    workers = children()
    assert cloche.run_python("2").value == 2
    assert children() == workers


# -- the operator --------------------------------------------------------------------------------------------------


def policy(tmp_path: Path, text: str) -> Path:
    """A policy file."""
    path = tmp_path / "policy.toml"
    path.write_text(f'format-version = 1\n[plugins."cloche/script"]\n{text}')
    return path


def test_the_policy_refuses_and_caps(tmp_path: Path) -> None:
    """Denied capabilities are refused with the place that denies them; limits above the ceiling, too."""
    file = policy(tmp_path, 'deny = ["wasi:filesystem", "cloche:script"]\nlimits = { fuel = "50M", memory = "64MiB" }')
    with cloche.ScriptRunner(policy=file) as runner:
        refused: tuple[dict[str, Any], ...] = ({"files": {}}, {"mounts": {"d": tmp_path}}, {"functions": {"f": print}})
        for options in refused:
            with pytest.raises(cloche.GrantError, match="denied by") as caught:
                runner.run("1", **options)
            assert (caught.value.code, caught.value.exit_status) == ("grant.refused", 126)
        with pytest.raises(cloche.LimitError) as over:
            runner.run("1", fuel="51M")
        assert over.value.code == "limit.range"
        with pytest.raises(cloche.LimitError) as stopped:
            runner.run("while True: pass")
        assert stopped.value.code == "limit.fuel"
        assert stopped.value.usage is not None
        assert stopped.value.usage.guest_fuel is not None
        assert stopped.value.usage.guest_fuel <= 50_000_000


def test_another_image_must_run_scripts(tmp_path: Path) -> None:
    """An image is any component with the executor; one without is refused, and so is none at all."""
    from cloche.resources import guests_dir

    with cloche.ScriptRunner(image=guests_dir() / "hello") as runner, pytest.raises(cloche.ContractError):
        runner.run("1")
    with pytest.raises(cloche.UsageError, match="no image"):
        cloche.ScriptRunner(image=tmp_path / "none")
    image = cloche.Image(guests_dir() / "script", stack_bytes=512 << 10)
    with cloche.ScriptRunner(image=image, policy=cloche.Policy()) as runner:
        assert runner.run("6 * 7").value == 42
