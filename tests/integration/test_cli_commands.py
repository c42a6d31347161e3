"""The command line from words to exit status, in this process and on real components."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cloche.cli.main import run
from cloche.errors import CODES
from support.cli_plugins import write_plugins

DOCS = Path(__file__).parents[2] / "docs"
VERBS = ["demo", "new", "build", "check", "inspect", "call", "run", "exec", "doctor", "grants explain"]
GROUPS = ("grants", "cache")
VERBS += ["cache list", "cache gc", "cache clear"]


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small plugins by name."""
    return write_plugins(tmp_path_factory.mktemp("plugins"))


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests here, so that each plugin is compiled once."""
    return tmp_path_factory.mktemp("home")


class Cli:
    """Runs commands in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str], plugins: dict[str, Path]) -> None:
        self._capfd, self._plugins = capfd, plugins

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error; `{name}` in a word stands for a plugin's file."""
        self._capfd.readouterr()
        status = run([word.format(**self._plugins) if word.startswith("{") else word for word in words])
        out, err = self._capfd.readouterr()
        return status, out, err

    def json(self, *words: str) -> tuple[int, Any]:
        """Exit status and the one document of a command with `--json`."""
        verb = 2 if words[0] in GROUPS else 1
        status, out, err = self(*words[:verb], "--json", *words[verb:])
        assert err == ""
        return status, json.loads(out)


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str], plugins: dict[str, Path], shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """The command line with a home of its own."""
    monkeypatch.setenv("CLOCHE_HOME", str(shared_home))
    return Cli(capfd, plugins)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["test:cli/tools@1.2.0.echo", "Ada"], "Ada\n"),
        (["test:cli/tools.echo", "Ada"], "Ada\n"),
        (["tools.echo", "a\nb\n"], "a\nb\n"),
        (["echo", '"[bold]€"'], "[bold]€\n"),
        (["add", "40", "2"], "42\n"),
        (["bytes", '"AAH/"'], "AAH/\n"),
        (["bytes", "[0, 1, 255]"], "AAH/\n"),
    ],
)
def test_call_prints_the_value(cli: Cli, words: list[str], expected: str) -> None:
    """Text comes out as it is, other values as JSON, whichever way the function is named."""
    status, out, err = cli("call", "--trust", "{tools}", *words)
    assert (0, expected, "") == (status, out, err)


def test_call_reads_files(cli: Cli, tmp_path: Path) -> None:
    """`@FILE` hands over the file's bytes."""
    (tmp_path / "data").write_bytes(b"\x00\xfe")
    status, document = cli.json("call", "--trust", "{tools}", "bytes", f"@{tmp_path / 'data'}")
    assert (0, base64.b64encode(b"\x00\xfe").decode()) == (status, document["value"])


def test_call_tells_what_it_cost(cli: Cli) -> None:
    """Usage is on standard error on request, and always in the document."""
    status, out, err = cli("call", "--trust", "--usage", "{tools}", "add", "1", "2")
    assert (status, out) == (0, "3\n")
    assert re.match(r"cost: fuel \d+ \(guest \d+, host \d+\)", err)
    document = cli.json("call", "--trust", "{tools}", "add", "1", "2")[1]
    assert document["usage"]["guest_fuel"] > 0
    assert (
        document["tier"],
        document["interface"],
        document["function"],
        document["value"],
    ) == ("trusted", "test:cli/tools@1.2.0", "add", 3)


FAILURES: list[tuple[list[str], str]] = [
    (["call", "--trust", "/no/such/plugin", "echo"], "usage.not-found"),
    (["call", "--trust", "{text}", "echo"], "component.not-wasm"),
    (["call", "--trust", "{core}", "echo"], "component.core-module"),
    (["call", "--trust", "{truncated}", "echo"], "component.malformed"),
    (["call", "--trust", "{stranger}", "ask"], "grant.refused"),
    (["call", "--trust", "{tools}", "ecko", "x"], "usage.not-found"),
    (["call", "--trust", "{tools}", "other:pkg/tools.echo", "x"], "usage.not-found"),
    (["call", "--trust", "{tools}", "echo"], "usage.argument"),
    (["call", "--trust", "{tools}", "add", "1", "x"], "usage.value"),
    (["call", "--trust", "{tools}", "add", "1", "-1"], "usage.argument"),
    (["call", "--trust", "{tools}", "add", "--", "1", "-1"], "usage.value"),
    (["call", "--trust", "{tools}", "add", "1", "4294967296"], "usage.value"),
    (["call", "--trust", "{tools}", "bytes", "@/no/such/file"], "usage.not-found"),
    (["call", "--trust", "{tools}", "trap"], "guest.trap"),
    (["call", "--trust", "{tools}", "refuse", "no"], "guest.error"),
    (["call", "--trust", "--fuel", "1M", "{tools}", "spin"], "limit.fuel"),
    (["call", "--trust", "--deadline", "50ms", "{tools}", "spin"], "limit.deadline"),
    (["call", "--trust", "--memory", "64KiB", "{tools}", "echo", "x" * 100_000], "limit.memory"),
    (["call", "--trust", "--fuel", "-1", "{tools}", "spin"], "limit.range"),
    (["call", "--trust", "--fuel", "0", "{tools}", "spin"], "limit.range"),
    (["call", "--trust", "--fuel", "18446744073709551616", "{tools}", "spin"], "limit.range"),
    (["call", "--trust", "--fuel", "NaN", "{tools}", "spin"], "limit.range"),
    (["call", "--trust", "--memory", "1", "{tools}", "spin"], "limit.range"),
    (["call", "--trust", "--deadline", "10", "{tools}", "spin"], "limit.range"),
    (["call", "--trust", "--allow", "wasi:keyvalu", "{tools}", "spin"], "usage.argument"),
    (["call", "--trust", "--allow", "wasi:keyvalue={ bukets = [] }", "{tools}", "spin"], "usage.argument"),
    (["grants", "explain", "--allow", "wasi:logging={ level = 'inf' }", "{tools}"], "usage.argument"),
    (["call", "--trust", "--config", "no key", "{tools}", "spin"], "usage.argument"),
    (["call", "--trust", "--mount", "in=/no/such/directory", "{tools}", "spin"], "usage.argument"),
    (["call", "--trust", "--allow", "No Such", "{tools}", "spin"], "usage.argument"),
    (["call", "--trust", "--allow", "wasi:logging=[", "{tools}", "spin"], "usage.argument"),
    (["call", "--trust", "--policy", "/no/such/policy.toml", "{tools}", "spin"], "policy.missing"),
    (["call"], "usage.argument"),
    (["call", "--no-such-option"], "usage.argument"),
    (["no-such-verb"], "usage.argument"),
    (["grants"], "usage.argument"),
    (["inspect", "{truncated}"], "component.malformed"),
    (["check", "/tmp/no-such-plugin"], "usage.not-found"),
    (["run", "--trust", "{tools}"], "usage.not-found"),
    (["cache", "gc", "--max", "lots"], "usage.argument"),
    (["build", "/no/such/directory"], "manifest.missing"),
    (["new", "No Such Name"], "usage.argument"),
    (["new", "--language", "cobol", "shout"], "usage.argument"),
]


@pytest.mark.parametrize(("words", "code"), FAILURES, ids=lambda value: "_".join(value)[:60])
def test_every_failure_has_its_code_and_status(cli: Cli, words: list[str], code: str) -> None:
    """An error is one block on standard error, or one JSON document on standard output, with the code's exit status."""
    status, out, err = cli(*words)
    assert (CODES[code].exit_status, "") == (status, out), err
    assert err.startswith(f"error[{code}] "), err
    assert "remedy: " in err
    assert "Traceback" not in err
    status, document = cli.json(*words)
    assert (CODES[code].exit_status, code) == (status, document["error"]["code"])


def test_the_error_value_of_a_guest_is_in_the_document(cli: Cli) -> None:
    """A program gets the payload of the guest's own error."""
    status, document = cli.json("call", "--trust", "{tools}", "refuse", "not today")
    assert (status, document["error"]["payload"]) == (1, "not today")


def test_the_next_call_works_after_every_failure(cli: Cli) -> None:
    """A trap or a limit leaves nothing behind that would disturb the next command."""
    for failing in (["trap"], ["spin"]):
        assert cli("call", "--trust", "--fuel", "1M", "{tools}", *failing)[0] != 0
        assert cli("call", "--trust", "{tools}", "echo", "still here")[:2] == (0, "still here\n")


def test_broken_policies_name_the_key(cli: Cli, tmp_path: Path) -> None:
    """A policy with an unknown key is refused with the nearest key that exists."""
    policy = tmp_path / "policy.toml"
    policy.write_text('format-version = 1\n[plugins."a/b"]\nalow = {}\n')
    status, document = cli.json("check", "--policy", str(policy), "{tools}")
    assert (status, document["error"]["code"]) == (3, "policy.unknown-key")
    assert "allow" in document["error"]["message"]


def test_a_policy_can_trust_a_digest(cli: Cli, tmp_path: Path) -> None:
    """Without --trust a plugin runs when the policy names its digest."""
    digest = cli.json("inspect", "{tools}")[1]["digest"]
    policy = tmp_path / "policy.toml"
    policy.write_text(f'format-version = 1\n[trust.digests]\n"sha256:{digest}" = "trusted"\n')
    status, out, err = cli("call", "--policy", str(policy), "{tools}", "add", "1", "1")
    assert (status, out, err) == (0, "2\n", "")


def test_a_limit_on_the_command_line_stands_in_place_of_the_manifests(
    cli: Cli, plugins: dict[str, Path], tmp_path: Path
) -> None:
    """It raises what the author wrote, up to what the policy allows; more is refused and not cut."""
    (tmp_path / "tools.wasm").write_bytes(plugins["tools"].read_bytes())
    (tmp_path / "plugin.toml").write_text(
        'format-version = 1\nid = "acme/tools"\nname = "Tools"\nversion = "1.0.0"\n'
        '[component]\npath = "tools.wasm"\n[limits]\nfuel = 1\n'
    )
    policy = tmp_path / "policy.toml"
    policy.write_text('format-version = 1\n[plugins."acme/tools"]\nlimits = { fuel = "1M" }\n')
    add = (str(tmp_path), "add", "1", "2")
    assert cli.json("call", "--trust", *add)[1]["error"]["code"] == "limit.fuel"
    assert cli("call", "--trust", "--fuel", "20G", *add)[:2] == (0, "3\n")
    assert cli("call", "--trust", "--policy", str(policy), "--fuel", "1M", *add)[:2] == (0, "3\n")
    status, document = cli.json("call", "--trust", "--policy", str(policy), "--fuel", "2M", *add)
    assert (status, document["error"]["code"]) == (2, "limit.range")
    assert f'the 1M that [plugins."acme/tools"] of {policy} allows' in document["error"]["message"]


def test_the_explanation_ends_with_what_can_be_pasted(cli: Cli, plugins: dict[str, Path], tmp_path: Path) -> None:
    """The block at the end, and the same in JSON, is a policy with which nothing is refused any more."""
    (tmp_path / "tools.wasm").write_bytes(plugins["tools"].read_bytes())
    (tmp_path / "plugin.toml").write_text(
        'format-version = 1\nid = "acme/tools"\nname = "Tools"\nversion = "1.0.0"\n[component]\npath = "tools.wasm"\n'
        '[capabilities."wasi:keyvalue"]\nrequired = true\n[capabilities."cloche:host/data"]\nrequired = true\n'
    )
    policy = tmp_path / "policy.toml"
    text = cli("grants", "explain", str(tmp_path))[1]
    document = cli.json("grants", "explain", str(tmp_path))[1]
    assert (document["tier"], document["trust"]["refused"]) == ("untrusted", None)
    shown = text.partition("to change all of this, write into")[2].partition("\n")[2]
    for pasted in (shown, "\n".join(document["remedy"]["append"])):
        policy.write_text(pasted)
        after = cli.json("grants", "explain", "--policy", str(policy), str(tmp_path))[1]
        assert (after["tier"], after["remedy"]) == ("trusted", {"append": [], "within": {}})
        assert cli("call", "--policy", str(policy), str(tmp_path), "add", "1", "2")[:2] == (0, "3\n")


def test_a_misspelt_setting_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown CLOCHE_ variable is not ignored."""
    monkeypatch.setenv("CLOCHE_HOEM", "/tmp")
    status, document = cli.json("call", "--trust", "{tools}", "echo", "x")
    assert (status, document["error"]["code"]) == (2, "usage.argument")


@pytest.mark.parametrize(("plugin", "words", "expected"), [("{single}", [], "42\n"), ("{good-command}", [], "")])
def test_run_does_the_obvious_thing(cli: Cli, plugin: str, words: list[str], expected: str) -> None:
    """A single simple function is called; a command is run."""
    status, out, err = cli("run", "--trust", plugin, *words)
    assert (0, expected, "") == (status, out, err)


def test_run_lists_what_it_cannot_choose_from(cli: Cli) -> None:
    """When nothing is obvious the error lists the functions as their author wrote them."""
    err = cli("run", "--trust", "{tools}", "a", "b")[2]
    assert "test:cli/tools@1.2.0.add(a: u32, b: u32) -> u32" in err


def test_inspect_shows_a_strangers_component(cli: Cli) -> None:
    """Exports, digest and findings of any component, without an error for what does not fit."""
    status, document = cli.json("inspect", "{stranger}")
    assert status == 0
    assert document["contract"]["imports"][0]["id"] == "nobody:knows/this@1.0.0"
    assert document["contract"]["findings"]
    status, out, err = cli("inspect", "{tools}")
    assert (status, err) == (0, "")
    assert "refuse(why: string) -> result<u32, string>" in out


def test_check_says_what_is_asked_for_in_vain(cli: Cli, plugins: dict[str, Path], tmp_path: Path) -> None:
    """A capability that nobody provides is no misfit, yet its misspelt name is shown."""
    (tmp_path / "tools.wasm").write_bytes(plugins["tools"].read_bytes())
    (tmp_path / "plugin.toml").write_text(
        'format-version = 1\nid = "acme/tools"\nname = "Tools"\nversion = "1.0.0"\n'
        '[component]\npath = "tools.wasm"\n[capabilities."wasi:confg"]\n'
    )
    status, document = cli.json("check", str(tmp_path))
    assert (status, list(document["not_granted"])) == (0, ["wasi:confg"])
    assert "not granted: wasi:confg: " in cli("check", str(tmp_path))[1]


REQUIRED = "required = true\n"
UNLOADABLE: list[tuple[str, list[str], str]] = [
    (f'[capabilities."wasi:keyvalue"]\n{REQUIRED}', ["grant.required"], "grant.required"),
    (f'[capabilities."wasi:confg"]\n{REQUIRED}', ["grant.required"], "grant.required"),
    (f'[capabilities."wasi:random"]\nversion = "^0.3"\n{REQUIRED}', ["grant.required"], "grant.required"),
    ('[requires]\nos = ["windows"]\nhost = ">=99"\n', ["manifest.requires"] * 2, "manifest.requires"),
    (
        f'[capabilities."wasi:keyvalue"]\n{REQUIRED}[extension-points]\n"test:cli/tools" = "^2.0"\n',
        ["grant.required", "contract.mismatch"],
        "contract.mismatch",
    ),
    (
        f'[requires]\narch = ["aarch64"]\n[capabilities."wasi:keyvalue"]\n{REQUIRED}'
        '[extension-points]\n"test:cli/tols" = "*"\n',
        ["manifest.requires", "grant.required", "contract.mismatch"],
        "manifest.requires",
    ),
]


@pytest.mark.parametrize(("more", "codes", "code"), UNLOADABLE, ids=[" ".join(case[1]) for case in UNLOADABLE])
def test_check_says_what_load_would_say(
    cli: Cli,
    plugins: dict[str, Path],
    tmp_path: Path,
    more: str,
    codes: list[str],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever keeps a plugin from being loaded is a finding of `check`, and all of it is in one error of `call`."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "tools.wasm").write_bytes(plugins["tools"].read_bytes())
    (tmp_path / "plugin.toml").write_text(
        'format-version = 1\nid = "acme/tools"\nname = "Tools"\nversion = "1.0.0"\n'
        f'[component]\npath = "tools.wasm"\n{more}'
    )
    status, checked = cli.json("check", str(tmp_path))
    assert (status, checked["ok"]) == (3, False)
    assert [finding["code"] for finding in checked["findings"]] == codes
    assert "fits" not in cli("check", str(tmp_path))[1]
    inspected = cli.json("inspect", str(tmp_path))[1]["contract"]["findings"]
    assert inspected == checked["findings"]
    status, called = cli.json("call", "--trust", str(tmp_path), "echo", "x")
    assert (status, called["error"]["code"]) == (CODES[code].exit_status, code)
    assert len(called["error"]["findings"]) == len(codes)
    err = cli("call", "--trust", str(tmp_path), "echo", "x")[2]
    for finding, said in zip(checked["findings"], called["error"]["findings"], strict=True):
        assert said.startswith(f"{finding['subject']}: {finding['message']}")
        assert " ".join(err.split()).count(finding["message"]) == 1


def test_another_host_is_named_before_words_that_this_one_does_not_know(
    cli: Cli, plugins: dict[str, Path], tmp_path: Path
) -> None:
    """A manifest for a newer Cloche may ask in its words: what has to be newer is the answer, not the word."""
    (tmp_path / "tools.wasm").write_bytes(plugins["tools"].read_bytes())
    (tmp_path / "plugin.toml").write_text(
        'format-version = 1\nid = "acme/tools"\nname = "Tools"\nversion = "1.0.0"\n'
        '[component]\npath = "tools.wasm"\n[requires]\nhost = ">=99"\n[capabilities."wasi:logging"]\ncolour = "red"\n'
    )
    for command in (("check", str(tmp_path)), ("call", "--trust", str(tmp_path), "echo", "x")):
        status, document = cli.json(*command)
        assert (status, document["error"]["code"]) == (3, "manifest.requires")


def test_check_reports_misfits_with_its_status(cli: Cli) -> None:
    """`check` ends with 3 when something does not fit and prints the report either way."""
    status, document = cli.json("check", "{stranger}")
    assert (status, document["ok"]) == (3, False)
    assert "nobody:knows/this" in document["findings"][0]["subject"]
    assert cli.json("check", "{tools}")[0] == 0
    assert "fits" in cli("check", "{tools}")[1]


def test_grants_are_explained(cli: Cli) -> None:
    """Each decision has an answer and a reason, and limits say where they come from."""
    status, document = cli.json("grants", "explain", "--allow", "cloche:host/data", "{tools}")
    assert status == 0
    assert all(item["reason"] for item in document["capabilities"])
    assert {item["limit"] for item in document["limits"]} >= {"fuel", "memory", "deadline"}
    assert "limits" in cli("grants", "explain", "{tools}")[1]


def test_the_cache_can_be_listed_shrunk_and_emptied(cli: Cli) -> None:
    """What was compiled is listed; gc obeys its cap; clear leaves nothing."""
    cli("call", "--trust", "{tools}", "echo", "x")
    listed = cli.json("cache", "list")[1]
    assert listed["bytes"] == sum(entry["size_bytes"] for entry in listed["entries"]) > 0
    assert cli.json("cache", "gc", "--max", "1TiB")[1] == {"freed_bytes": 0}
    assert cli.json("cache", "clear")[1] == {"freed_bytes": listed["bytes"]}
    assert cli.json("cache", "list")[1] == {"entries": [], "bytes": 0}
    assert "0 entries" in cli("cache", "list")[1]


def test_doctor_finds_this_machine_fit(cli: Cli) -> None:
    """Nothing fails where the tests run, and each check says what it found."""
    status, document = cli.json("doctor")
    assert (status, document["ok"]) == (0, True), document
    assert all(check["detail"] for check in document["checks"])


def test_doctor_says_how_a_worker_is_locked_in(cli: Cli) -> None:
    """Each part is a fact in JSON; the text has the level."""
    _, document = cli.json("doctor")
    (found,) = [item for item in document["checks"] if item["name"] == "worker"]
    facts = found["facts"]
    assert set(facts) == {
        "level",
        "landlock_abi",
        "seccomp",
        "no_new_privileges",
        "privileges",
        "limits",
        "self_test",
        "missing",
        "demanded",
    }
    assert (facts["missing"] == []) == (found["status"] == "ok")
    assert facts["limits"]["open_files"] == 1024
    assert f"locked in by {facts['level']}" in found["detail"]


def test_doctor_fails_on_a_broken_policy(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that cannot be read is a failed check with a remedy, not an exception."""
    (tmp_path / "policy.toml").write_text("format-version = 99\n")
    monkeypatch.setenv("CLOCHE_POLICY", str(tmp_path / "policy.toml"))
    status, document = cli.json("doctor")
    failed = [check for check in document["checks"] if check["status"] == "fail"]
    assert (status, [check["name"] for check in failed]) == (4, ["policy"])
    assert failed[0]["remedy"]


def test_build_makes_a_component_that_runs(cli: Cli, tmp_path: Path) -> None:
    """A WAT plugin is built to the path of its manifest, and taken from the cache the second time."""
    from support.cli_plugins import SINGLE

    (tmp_path / "app.wat").write_text(SINGLE)
    (tmp_path / "plugin.toml").write_text(
        'format-version = 1\nid = "test/single"\nname = "Single"\nversion = "1.0.0"\n[component]\nsource = "app.wat"\n'
    )
    status, document = cli.json("build", str(tmp_path), "--out", str(tmp_path / "made.wasm"))
    assert (status, document["cached"]) == (0, False)
    assert cli.json("build", str(tmp_path), "--out", str(tmp_path / "made.wasm"))[1]["cached"] is True
    assert cli("run", "--trust", str(tmp_path / "made.wasm"))[1] == "42\n"
    assert cli("run", "--trust", str(tmp_path))[1] == "42\n"


@pytest.mark.parametrize("language", ["c"])
def test_a_new_plugin_runs_as_it_is(cli: Cli, tmp_path: Path, language: str) -> None:
    """`cloche new` writes a project that builds and answers without a change."""
    status, document = cli.json("new", "--language", language, "--in", str(tmp_path), "acme/shout")
    assert status == 0
    assert {"plugin.toml", "README.md"} <= set(document["files"])
    status, out, err = cli("run", "--trust", document["path"], "Ada")
    assert (status, err) == (0, "")
    assert "Ada" in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(cli: Cli, verb: str) -> None:
    """`--help` works for each verb, and shows how it is used."""
    status, out, _ = cli(*verb.split(), "--help")
    assert status == 0
    assert f"Example:  cloche {verb}" in out
    assert "--json" in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    """docs/cli.md has a section with the help of each verb."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"<!-- generated: help {verb} -->" in page


def test_no_verb_is_left_out_of_the_tests(cli: Cli) -> None:
    """The list of verbs above is what the program has."""
    from cloche.cli.commands import application

    app = application()
    found = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for info in group.typer_instance.registered_commands:
            assert info.callback is not None
            found.append(f"{group.name} {info.name or info.callback.__name__}")
    assert sorted(VERBS) == sorted(found)


def test_nothing_asked_shows_the_help(cli: Cli) -> None:
    """`cloche` alone lists the verbs and is no error."""
    status, out, err = cli()
    assert (status, err) == (0, "")
    assert "inspect" in out
