"""From an image to a kit: built, examined, decided by the policy and compiled, by way of the host's own rooms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.app import Host
from cloche.artifact import plugin_id
from cloche.capabilities.script.host import ScriptFunctions
from cloche.errors import ContractError, TrustError
from cloche.grants.layer import layer_policy
from cloche.script.image import EXECUTOR, Image
from cloche.script.kit import FILES, FUNCTIONS, Kit
from cloche.worker.process import is_available

if TYPE_CHECKING:
    from cloche.config import Settings
    from cloche.engine.compile import ProgressSink
    from cloche.grants.policy import Policy
    from cloche.loading import Candidate
    from cloche.observe.events import Sink


def prepare(
    image: Image,
    *,
    policy: Policy | Path | str | None = None,
    home: Path | str | None = None,
    settings: Settings | None = None,
    sinks: Sequence[Sink] = (),
    progress: ProgressSink | None = None,
    anew: bool = False,
) -> Kit:
    """Everything that is decided about an image before any script of it runs; `anew` compiles it once more.

    Blocks: 0.3 s when its code is cached, half a minute when it is built and compiled; `progress` is told.
    Raises: as `Host.load`; ContractError (`contract.mismatch`) for a component that runs no scripts.
    """
    with Host(policy=policy, home=home, settings=settings, sinks=sinks, capabilities=[ScriptFunctions()]) as host:
        name = plugin_id(image.source)
        ceilings = {key: source.value for key, source in host.policy.rules_for(name).limits.items()}
        stack = min(image.stack_bytes, ceilings.get("stack_bytes", image.stack_bytes))
        host.policy = layer_policy(host.policy, name, allow=[FUNCTIONS], limits={"stack_bytes": stack})
        candidate = host.inspect(image.source, progress=progress)
        candidate.report.ensure_ok(name)
        if not any(item.id.partition("@")[0] == EXECUTOR for item in candidate.world.exports):
            raise ContractError(f"{name} exports no {EXECUTOR} and cannot run scripts", plugin=name)
        if not is_available():
            raise TrustError(
                "scripts run in workers only, and this system has none; `cloche doctor` says what it lacks",
                code="trust.untrusted-unavailable",
                plugin=name,
            )
        lodging, key = host.lodging(candidate, progress=progress, anew=anew)
    return Kit(lodging, lambda: candidate.survey, ceilings, dict(_denied(candidate)), key)


def _denied(candidate: Candidate) -> Iterator[tuple[str, str]]:
    functions = candidate.grants.decision(FUNCTIONS)
    if functions is None or not functions.granted:
        yield FUNCTIONS, "the image does not ask for it" if functions is None else functions.reason
    files = candidate.grants.decision(FILES)
    denial = candidate.grants.policy.rules_for(candidate.grants.plugin).deny.get(FILES)
    if files is None:
        yield FILES, "the image does not ask for it"
    elif denial is not None:
        yield FILES, f"denied by {denial.said_in(candidate.grants.policy.file)}"
