"""The `cloche` command: hands the words to a command and turns every error into one block and an exit status.

typer and rich take 0.2 s to import, so they are imported only when a command needs them: `cloche --version` does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cloche.cli import streams

READER_WENT_AWAY = 141


def run(words: Sequence[str] | None = None) -> int:
    """Run the command line `words` (default: the process's own) and return the exit status. Added in 0.1."""
    is_program = words is None
    words = list(sys.argv[1:] if words is None else words)
    streams.open_missing()
    with streams.checked():
        try:
            try:
                status = _answer(words)
                if is_program and words[:1] == ["exec"]:
                    sys.stderr.flush()
                    os._exit(status)  # taking the interpreter apart would take a tenth of the command's time
                return status
            except KeyboardInterrupt:
                from cloche.cli.errors import interrupted, report

                return report(interrupted(), is_json=_wants_json(words))
        except BrokenPipeError:
            # The reader (`| head`) went away: say nothing.
            streams.silence(sys.stdout.fileno())
            return READER_WENT_AWAY
        except streams.OutputError as error:
            return _without_output(str(error))


def _answer(words: Sequence[str]) -> int:
    status = _version() if words == ["--version"] else _quick(words)
    if status is None:
        status = _run(words)
    sys.stdout.flush()
    return status


def _without_output(problem: str) -> int:
    """Standard output (else standard error, and then nothing can be said) takes no more."""
    from cloche.cli.errors import report
    from cloche.errors import UsageError

    streams.silence(sys.stdout.fileno())
    error = UsageError(problem, code="usage.output")
    try:
        return report(error, is_json=False)
    except streams.OutputError:
        streams.silence(sys.stderr.fileno())
        return error.exit_status


def _version() -> int:
    from cloche.version import VERSION

    sys.stdout.write(f"cloche {VERSION}\n")
    return 0


def _quick(words: Sequence[str]) -> int | None:
    """The answer of a command that must not wait for typer; None where typer has to read the words."""
    if words[:1] != ["exec"]:
        return None
    from cloche.cli.execute import parse, perform

    request = parse(words[1:])
    return None if request is None else perform(request)


def _wants_json(words: Sequence[str]) -> bool:
    """Whether `--json` was given, found without a parser, because errors of parsing are JSON too."""
    ours = words[: words.index("--")] if "--" in words else words
    return "--json" in ours


def _run(words: Sequence[str]) -> int:
    import typer

    from cloche.cli.commands import application
    from cloche.cli.errors import Told, interrupted, report, unexpected
    from cloche.errors import ClocheError, UsageError, hides_ctrl_c

    is_json = _wants_json(words)
    try:
        status = application()(list(words) or ["--help"], prog_name="cloche", standalone_mode=False)
    except Told as done:
        return done.status
    except ClocheError as error:
        return report(error, is_json=is_json)
    except typer.TyperException as error:
        return report(UsageError(error.format_message()), is_json=is_json)
    except typer.Abort:
        return report(interrupted(), is_json=is_json)
    except SystemExit as error:
        # Outside its stand-alone mode typer exits by itself only when the reader of its output went away.
        raise BrokenPipeError from error
    except (BrokenPipeError, KeyboardInterrupt, streams.OutputError):
        raise
    except Exception as error:
        if hides_ctrl_c(error):
            raise KeyboardInterrupt from error
        import traceback

        traceback.print_exc()
        return report(unexpected(error), is_json=is_json)
    if status == interrupted().exit_status:
        # typer turns Ctrl-C into this status without a word.
        return report(interrupted(), is_json=is_json)
    return int(status or 0)
