"""Runs one script and says how it ended."""

import ast
import atexit
import contextlib
import json
import sys
import traceback
import types
from dataclasses import dataclass
from pathlib import PurePosixPath

from cloche_script import state

_HERE = str(PurePosixPath(__file__).parent) + "/"
_BALLAST_BYTES = 1 << 18
_MOST_CHARACTERS = 1 << 18  # of a traceback
_MISSING = object()


@dataclass
class Ran:
    """How a script ended; the WIT's `outcome`."""

    status: int = 0
    out_of_memory: bool = False
    value: str | None = None
    note: str | None = None
    traceback: str | None = None


def execute(script) -> Ran:
    """Run `script`. Raises: InvalidScript, NoDirectory."""
    state.check(script)
    main = state.main_module(script)
    ran = Ran()
    ballast = [bytearray(_BALLAST_BYTES)]  # given up when memory is short, so that there is some to say so with
    with state.prepared(script, main):
        value = _MISSING
        try:
            value = _run(script, main)
        except SystemExit as error:
            ran.status = _status(error)
            value = vars(main).get("result", _MISSING) if _sets_result(script.code) else _MISSING
        except BaseException as error:  # a script may raise anything
            ballast.clear()
            ran.status, ran.out_of_memory = 1, isinstance(error, MemoryError)
            ran.traceback = _report(error)
            ran.note = _hint(error)
        if value is not _MISSING:
            ran.value, ran.note = _as_json(value)
        _end()
    if not script.keep:
        state.forget(script.name, main)
    return ran


def _run(script, main: types.ModuleType) -> object:
    """Run it; its result, or `_MISSING`."""
    state.remember_source(script.name, script.code)
    tree = compile(script.code, script.name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if last is not None and not tree.body and isinstance(last.value, ast.Constant):
        main.__doc__ = last.value.value if isinstance(last.value.value, str) else None
    body = compile(tree, script.name, "exec", dont_inherit=True)
    futures = body.co_flags & _FUTURES
    end = None
    if last is not None:
        end = compile(ast.Expression(last.value), script.name, "eval", futures, dont_inherit=True)
    if script.keep:
        for code in filter(None, (body, end)):
            state.remember_code(code, script.code)
    before = vars(main).get("result", _MISSING)
    exec(body, vars(main))  # noqa: S102 - it is what this plugin is for
    value = _MISSING if end is None else eval(end, vars(main))  # noqa: S307 - likewise
    found = vars(main).get("result", _MISSING)
    if found is not _MISSING and (found is not before or _sets_result(script.code)):
        return found
    return _MISSING if value is None else value


_FUTURES = 0
for _name in __import__("__future__").all_feature_names:
    _FUTURES |= getattr(__import__("__future__"), _name).compiler_flag


def _sets_result(code: str) -> bool:
    """Whether the text assigns to the name `result` anywhere."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.Name) and node.id == "result" and isinstance(node.ctx, ast.Store)
        for node in ast.walk(tree)
    )


def _status(error: SystemExit) -> int:
    """The exit status that a process would have; a text is printed first."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(Exception):
        print(code, file=sys.stderr)
    return 1


def _as_json(value: object) -> tuple[str | None, str | None]:
    """A value as JSON, or a note why it is none."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:  # halves of surrogate pairs
                text = json.dumps(value, allow_nan=False)
    except MemoryError:
        return None, "no value: its JSON takes more memory than there is"
    except Exception as error:  # of the script's own classes, too
        return None, _shown(f"no value: a {type(value).__name__} is not JSON ({error})")
    return text, None


def _hint(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _shown(
            f"no module {error.name}: scripts can import the standard library that is in this plugin, and modules in"
            " their directory"
        )
    return None


def _report(error: BaseException) -> str:
    """Print the traceback as Python does, and return it."""
    if isinstance(error, MemoryError):
        _clear(error)
    try:
        text = _shown(_cut("".join(_formatted(error))))
    except (MemoryError, RecursionError):
        text = f"{type(error).__name__}\n"
    hook = sys.excepthook
    with contextlib.suppress(Exception):  # the script may have closed it
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        if hook is sys.__excepthook__:
            sys.stderr.write(text)
        else:
            hook(type(error), error, _own(error.__traceback__))
    return text


def _clear(error: BaseException) -> None:
    """Let go of what the frames of an exception hold."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        traceback.clear_frames(current.__traceback__)
        current = current.__cause__ or current.__context__


def _own(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without the frames that led to the script."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace


def _formatted(error: BaseException):
    found = traceback.TracebackException(type(error), error, error.__traceback__, lookup_lines=False, compact=True)
    _prune(found, error)
    return found.format()


def _prune(found, error: BaseException) -> None:
    """Take our own frames out of a traceback and of those that it came from, and give the others their lines."""
    seen: set[int] = set()
    left: list = [(found, error)]
    while left:
        each, raised = left.pop()
        if each is None or raised is None or id(each) in seen:
            continue
        seen.add(id(each))
        frames = list(traceback.walk_tb(raised.__traceback__))
        if len(frames) == len(each.stack):
            for summary, (frame, _) in zip(each.stack, frames, strict=True):
                lines = state.lines_of(frame.f_code)
                if lines and summary.lineno and summary.end_lineno:
                    those = lines[summary.lineno - 1 : summary.end_lineno]
                    summary._lines = "".join(line.rstrip() + "\n" for line in those)
        kept = [frame for frame in each.stack if not frame.filename.startswith(_HERE)]
        each.stack = traceback.StackSummary.from_list(kept) if kept else None
        left += [(each.__cause__, raised.__cause__), (each.__context__, raised.__context__)]
        left += zip(each.exceptions or (), getattr(raised, "exceptions", ()), strict=False)


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def _shown(text: str) -> str:
    """A text that can leave the component: without halves of surrogate pairs."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _end() -> None:
    """What a process does at its end."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
