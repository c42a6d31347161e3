"""Errors on the command line: one block or one JSON document, and the documented exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloche.cli.errors import document, report, unexpected
from cloche.contract.report import Finding, Report, Severity
from cloche.errors import CODES, ClocheError, ContractError, GuestError, GuestTrap, LimitError
from cloche.model import Usage
from cloche.remedies import REMEDIES
from cloche.text import clean, one_line

ERRORS_PAGE = (Path(__file__).parents[3] / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_code_has_a_remedy() -> None:
    """No code without a remedy, and no remedy without a code."""
    assert set(CODES) == set(REMEDIES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_documented(code: str) -> None:
    """docs/errors.md has the code with its blame, exit status, meaning and remedy."""
    info = CODES[code]
    row = f"| `{code}` | {info.blame.value} | {info.exit_status} | {info.summary} | {REMEDIES[code]} |"
    assert row in ERRORS_PAGE, "run ./dev docs"


def test_every_exit_status_is_documented() -> None:
    """Each exit status that a code can give stands in the table of statuses."""
    missing = {info.exit_status for info in CODES.values() if f"\n| {info.exit_status} | " not in ERRORS_PAGE}
    assert missing == set()


@pytest.mark.parametrize("code", CODES)
def test_the_status_comes_from_the_code(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one document on standard output that agrees with the exit status."""
    status = report(ClocheError("it broke", code=code), is_json=True)
    out, err = capsys.readouterr()
    shown = json.loads(out)["error"]
    assert (status, code, CODES[code].blame.value, REMEDIES[code], "") == (
        shown["exit_status"],
        shown["code"],
        shown["blame"],
        shown["remedy"],
        err,
    )


def test_a_block_names_code_findings_cost_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    """People get everything in one block on standard error."""
    findings = tuple(Finding(Severity.ERROR, "contract.mismatch", name, "is gone") for name in ("a", "b"))
    with pytest.raises(ContractError) as caught:
        Report(findings=findings).ensure_ok("acme/hello")
    report(caught.value, is_json=False)
    out, err = capsys.readouterr()
    wanted = [
        "error[contract.mismatch] ",
        "2 problems",
        "  - a: is gone",
        "  - b: is gone",
        "plugin: acme/hello",
        "remedy: ",
    ]
    assert {word: err.count(word) for word in wanted} == dict.fromkeys(wanted, 1)
    assert out == ""
    assert document(caught.value)["error"]["findings"] == ["a: is gone", "b: is gone"]


def test_the_cost_of_a_stopped_call_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit shows what was used up."""
    usage = Usage(guest_fuel=900, host_fuel=100, wall_ms=1.25, peak_memory=3 << 20, host_calls=2)
    report(LimitError("used up", code="limit.fuel", usage=usage), is_json=False)
    assert "fuel 1,000 (guest 900, host 100), 1.2 ms, memory 3.0 MiB, 2 host calls" in capsys.readouterr().err


def test_a_trap_shows_the_guests_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The author sees where the plugin broke, in text and in JSON."""
    trap = GuestTrap("greet trapped", kind="unreachable", traceback="Traceback:\n  File app.py\nKeyError: 1")
    report(trap, is_json=False)
    assert "KeyError: 1" in capsys.readouterr().err
    assert document(trap)["error"]["traceback"] == trap.traceback


def test_a_hostile_message_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences of a guest are shown, not acted on, and its brackets are no markup."""
    report(GuestError("\x1b]0;owned\x07 [bold]x[/bold] \u202e \x9b2J"), is_json=False)
    err = capsys.readouterr().err
    assert not set("\x1b\x07\x9b\u202e") & set(err)
    assert "[bold]x[/bold]" in err


def test_cleaning_keeps_ordinary_text() -> None:
    """Accents, tabs and line ends stay; one_line folds them."""
    assert clean("é\tb\n€\r\n") == "é\tb\n€\n"
    assert one_line("a\nb\x00") == "a\\nb\\x00"


def test_an_unexpected_exception_is_the_hosts_fault() -> None:
    """What no room caught is reported as `engine.internal` with its type."""
    assert "KeyError" in str(unexpected(KeyError("x")))
    assert unexpected(KeyError("x")).exit_status == 4


def test_the_payload_of_a_guest_error_is_in_the_document() -> None:
    """A program that reads `--json` gets the error value itself."""
    assert document(GuestError("refused", "no"), payload="no")["error"]["payload"] == "no"
