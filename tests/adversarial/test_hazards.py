"""One guest for each harm that a guest can try, in both wasm tiers: what its caller is told, and that nobody is hurt.

Each case runs a few times. After each time the plugin serves its next call, where it has one, and so do two others that
keep a state, one in each tier. At the end the host holds what it held before: descriptors, threads, processes, files,
objects behind handles, memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.errors import ClocheError
from cloche.model import MIB, Tier
from cloche.observe.events import Event, EventKind
from cloche.runtime.plugin import Plugin
from support.guests import guest_home
from support.hazard_cases import CALLS, CASES, GUESTS, HARMLESS, PYTHON, TIERS, VALUES, WELL, Case
from support.hostile_guests import HostileCapability, HostileHost, dweller
from support.ledger import Ledger, grown, resident_bytes
from support.wat_plugins import BASICS, TRUSTED, open_host, shared_home, write_plugin

pytestmark = pytest.mark.adversarial

POLICY = 'format-version = 1\n[plugins."*".limits]\nrestarts = 10000\n'


class Stage:
    """A host with two witnesses, and each guest in each tier once it is asked for."""

    def __init__(self, host: Host, side: HostileHost, directory: Path, places: tuple[Path, ...]) -> None:
        self.side = side
        self._host, self._directory, self._places = host, directory, places
        self._loaded: dict[tuple[object, ...], Plugin] = {}
        self._seen = 0
        self.workers: dict[str, int] = {}
        """The worker of each plugin that has one."""
        host.events.add(self._note)
        self._witnesses = [
            self._load(f"witness-{tier.value}", BASICS, tier, "single", "restarts = 10000\n") for tier in TIERS
        ]

    def plugin(self, case: Case, tier: Tier) -> Plugin:
        """The plugin that does the harm."""
        key = case.guest, tier, case.instances, case.limits
        if key not in self._loaded:
            name = f"{case.guest}-{tier.value}-{len(self._loaded)}"
            self._loaded[key] = self._load(name, GUESTS[case.guest](), tier, case.instances, case.limits)
        return self._loaded[key]

    def _load(self, name: str, guest: str | bytes, tier: Tier, instances: str, limits: str) -> Plugin:
        folder = write_plugin(
            self._directory / name, guest, plugin_id=f"acme/{name}", instances=instances, more=f"[limits]\n{limits}"
        )
        plugin = self._host.load(folder, trust=TRUSTED if tier is Tier.TRUSTED else None)
        assert plugin.tier is tier
        return plugin

    def turn(self, case: Case, tier: Tier) -> None:
        """Do the harm once: the code, the next call, the witnesses, the objects of the host."""
        plugin = self.plugin(case, tier)
        self.side.action = lambda: None
        assert outcome(lambda: case.act(plugin, self.side)) == case.expected(tier)
        if case.guest in WELL:
            assert WELL[case.guest](plugin)
        self._seen += 1
        assert [witness[""].next() for witness in self._witnesses] == [self._seen] * len(self._witnesses)

    def ledger(self) -> Ledger:
        """What the process holds now."""
        return Ledger.take(*self._places)

    def _note(self, event: Event, /) -> None:
        if event.kind is EventKind.WORKER and "pid" in event.data:
            self.workers[str(event.plugin)] = int(event.data["pid"])


def outcome(act: Callable[[], object]) -> str:
    """The code that an act ends with."""
    try:
        act()
    except ClocheError as error:
        return error.code
    return HARMLESS


@contextmanager
def staged(directory: Path, home: Path, *places: Path) -> Iterator[Stage]:
    """A stage in an empty directory. `places` are those where no file may be left, beside that for temporary ones."""
    side, temporary = HostileHost(), directory / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        patch.setenv("TMPDIR", str(temporary))
        with open_host(POLICY, home=home, capabilities=[HostileCapability(side, directory / "wit")]) as host:
            yield Stage(host, side, directory, (temporary, *places))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), shared_home(), shared_home()) as made:
        yield made


@pytest.fixture(scope="module")
def python_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), guest_home()) as made:  # other processes write in this home
        yield made


def ensure_harmless(stage: Stage, case: Case, tier: Tier) -> None:
    """Its caller is told why it ended, everybody else is served, and nothing is left of it."""
    stage.turn(case, tier)  # what is made once is made
    before = stage.ledger()
    for _ in range(case.turns):
        stage.turn(case, tier)
    before.ensure_kept(24 * MIB)
    assert set(stage.side.forget()) <= {1}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_guest_harms_nobody(stage: Stage, case: Case, tier: Tier) -> None:
    """One that is written by hand."""
    ensure_harmless(stage, case, tier)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("case", PYTHON, ids=lambda case: case.name)
def test_a_hostile_python_guest_harms_nobody(python_stage: Stage, case: Case, tier: Tier) -> None:
    """One that carries an interpreter and the whole of WASI."""
    ensure_harmless(python_stage, case, tier)


def test_each_case_has_a_name_of_its_own() -> None:
    """And says which hazard it is."""
    cases = (*CASES, *PYTHON)
    assert len({case.name for case in cases}) == len(cases)
    assert all(word[0] == "H" and word[1:].isdigit() for case in cases for word in case.hazards.split())


ROUNDS = 4
TURNS = 6


@pytest.mark.parametrize("tier", TIERS)
def test_memory_stays_what_it_was(stage: Stage, tier: Tier) -> None:
    """Hundreds of harms one after the other leave no memory behind, in the host and in the worker that they ran in."""
    cases = [case for case in (*VALUES, *CALLS) if "eat" not in case.name]
    sizes: list[int] = []
    workers: list[int] = []
    for _ in range(ROUNDS):
        for _ in range(TURNS):
            for case in cases:
                stage.turn(case, tier)
        sizes.append(resident_bytes())
        if tier is Tier.UNTRUSTED:
            worker = stage.workers[stage.plugin(VALUES[0], tier).id]
            workers.append(resident_bytes(worker))
    assert set(stage.side.forget()) <= {1}
    print(sizes, workers)
    assert grown(sizes) <= 8 * MIB
    assert grown(workers) <= 8 * MIB


@pytest.mark.parametrize("tier", TIERS)
def test_clocks_and_randomness_are_as_granted(tmp_path: Path, tier: Tier) -> None:
    """Threat: a guest tells the time or gets random numbers although the policy denies it (H26)."""
    with open_host('format-version = 1\n[plugins."*"]\ndeny = ["wasi:clocks", "wasi:random"]\n') as host:
        trust = TRUSTED if tier is Tier.TRUSTED else None
        point = host.load(write_plugin(tmp_path, dweller(), instances="pooled"), trust=trust)[""]
        for _ in range(3):
            assert outcome(point.now) == "grant.denied"
            assert outcome(lambda: point.dice(8)) == "grant.denied"
            assert outcome(lambda: point.sleep(1)) == "grant.denied"
            assert point.answer() == 42


@pytest.mark.parametrize("tier", TIERS)
def test_a_plugin_that_could_sleep_is_refused_where_nobody_could_wake_it(tmp_path: Path, tier: Tier) -> None:
    """Threat: a sleep in the host's own thread (H1). Denied, the trusted tier does not load it; workers are killed."""
    with open_host('format-version = 1\n[plugins."*"]\ndeny = ["wasi:io/poll"]\n') as host:
        folder = write_plugin(tmp_path, dweller(), instances="pooled")
        if tier is Tier.TRUSTED:
            assert outcome(lambda: host.load(folder, trust=TRUSTED)) == "grant.refused"
        else:
            point = host.load(folder)[""]
            assert outcome(lambda: point.sleep(1)) == HARMLESS
            assert point.answer() == 42
