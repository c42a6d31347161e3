"""Every error that Cloche raises, and the table of their codes.

    ClocheError
    ├── UsageError        the caller used the API or the command line wrongly
    ├── ManifestError     a plugin's manifest (or the operator's policy) cannot be read or breaks the schema
    ├── ContractError     a component's types do not fit the extension points and capabilities
    ├── TrustError        nobody vouches for the plugin in the way that the requested tier needs
    ├── RegistryError     a stored artifact is missing, damaged or in conflict
    ├── GrantError        something was asked for that the policy does not allow
    ├── LimitError        a limit (docs/limits-and-usage.md) was reached; `usage` says by how much
    ├── GuestError        the guest answered with the error case of its `result`; `payload` holds the value
    ├── GuestTrap         the guest was stopped by a trap of its own; its instance is finished
    ├── CapabilityError   a capability's backend failed; the guest saw only `other`
    └── EngineError       the host's own breakage: compiler, cache, engine

A code never changes its meaning. CLI exit status and metric labels derive from the code, never from the text.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from cloche.frozen import dataclass

if TYPE_CHECKING:
    from cloche.model import Usage


class Blame(StrEnum):
    """Who can mend the cause."""

    AUTHOR = "author"
    OPERATOR = "operator"
    GUEST = "guest"
    HOST = "host"
    CALLER = "caller"


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """What an error code stands for: who is to blame, the CLI's exit status, and one sentence for people."""

    blame: Blame
    exit_status: int
    summary: str


# Exit statuses: 1 guest error, 2 usage, 3 manifest/contract, 4 host; 123 other limit, 124 deadline, 125 fuel,
# 126 refused, 130 interrupted, 137 memory (docs/errors.md).
CODES: dict[str, CodeInfo] = {
    "usage.argument": CodeInfo(Blame.CALLER, 2, "An argument has the wrong type, range or count."),
    "usage.value": CodeInfo(
        Blame.CALLER, 2, "A value does not fit its WIT type; the message gives the path inside it."
    ),
    "usage.not-found": CodeInfo(Blame.CALLER, 2, "No such plugin, extension point, function or file."),
    "usage.closed": CodeInfo(Blame.CALLER, 2, "The host, plugin or handle is already closed."),
    "usage.interrupted": CodeInfo(Blame.CALLER, 130, "The call was cancelled or interrupted by its caller."),
    "usage.re-entry": CodeInfo(Blame.CALLER, 2, "An instance was entered again while it serves a call."),
    "usage.output": CodeInfo(Blame.CALLER, 4, "Standard output or standard error cannot be written."),
    "manifest.missing": CodeInfo(Blame.AUTHOR, 3, "The plugin directory has no plugin.toml."),
    "manifest.syntax": CodeInfo(Blame.AUTHOR, 3, "The manifest is not valid TOML or not UTF-8."),
    "manifest.too-large": CodeInfo(Blame.AUTHOR, 3, "The manifest is larger than its bound."),
    "manifest.version": CodeInfo(Blame.AUTHOR, 3, "The manifest's format-version is missing, unknown or too new."),
    "manifest.unknown-key": CodeInfo(Blame.AUTHOR, 3, "The manifest has a key that the schema does not know."),
    "manifest.value": CodeInfo(Blame.AUTHOR, 3, "A manifest key has a value of the wrong type or out of range."),
    "manifest.requires": CodeInfo(Blame.AUTHOR, 3, "This system does not meet the manifest's [requires]."),
    "policy.missing": CodeInfo(Blame.OPERATOR, 3, "The policy file does not exist or cannot be read."),
    "policy.syntax": CodeInfo(Blame.OPERATOR, 3, "The policy is not valid TOML or not UTF-8."),
    "policy.version": CodeInfo(Blame.OPERATOR, 3, "The policy's format-version is missing or unknown."),
    "policy.unknown-key": CodeInfo(Blame.OPERATOR, 3, "The policy has a key that the schema does not know."),
    "policy.value": CodeInfo(Blame.OPERATOR, 3, "A policy key has a value of the wrong type or out of range."),
    "component.missing": CodeInfo(Blame.AUTHOR, 3, "The component file does not exist or cannot be read."),
    "component.too-large": CodeInfo(Blame.AUTHOR, 3, "The component is larger than its bound."),
    "component.not-wasm": CodeInfo(
        Blame.AUTHOR, 3, "The file is not WebAssembly (text, native code or something else)."
    ),
    "component.core-module": CodeInfo(Blame.AUTHOR, 3, "The file is a core module, not a component."),
    "component.malformed": CodeInfo(Blame.AUTHOR, 3, "The component is truncated or does not validate."),
    "component.build": CodeInfo(Blame.AUTHOR, 3, "The component could not be built from its source."),
    "contract.mismatch": CodeInfo(
        Blame.AUTHOR, 3, "The component's imports or exports do not fit; the report lists each."
    ),
    "contract.unsupported": CodeInfo(
        Blame.AUTHOR,
        3,
        "The component uses stream, future, error-context, async functions or types that are too large.",
    ),
    "contract.wit": CodeInfo(Blame.HOST, 3, "A WIT package cannot be read."),
    "contract.inspect": CodeInfo(
        Blame.AUTHOR, 3, "Reading the component's types failed or took too much time or memory."
    ),
    "trust.untrusted-unavailable": CodeInfo(Blame.OPERATOR, 126, "The untrusted tier is not available on this system."),
    "trust.refused": CodeInfo(
        Blame.OPERATOR, 126, "The policy forbids this trust, or gives the plugin's id to a publisher."
    ),
    "grant.denied": CodeInfo(Blame.OPERATOR, 126, "The guest called a capability that it was not granted."),
    "grant.required": CodeInfo(
        Blame.OPERATOR, 126, "The manifest requires a capability that the policy does not grant."
    ),
    "grant.refused": CodeInfo(Blame.OPERATOR, 126, "An import has no provider, or the policy refuses it at load."),
    "limit.fuel": CodeInfo(Blame.GUEST, 125, "The call used up its fuel (guest and host together)."),
    "limit.deadline": CodeInfo(Blame.GUEST, 124, "The call did not end before its deadline."),
    "limit.memory": CodeInfo(Blame.GUEST, 137, "The instance reached its memory limit and could not go on."),
    "limit.stack": CodeInfo(Blame.GUEST, 123, "The guest's call stack is exhausted."),
    "limit.payload": CodeInfo(Blame.GUEST, 123, "Arguments or results are larger than the payload limit."),
    "limit.output": CodeInfo(Blame.GUEST, 123, "The guest wrote more output than allowed."),
    "limit.host-calls": CodeInfo(Blame.GUEST, 123, "The guest called the host too often, or with too many bytes."),
    "limit.handles": CodeInfo(Blame.GUEST, 123, "The guest holds too many live resources."),
    "limit.data": CodeInfo(Blame.GUEST, 123, "The plugin's storage quota is full."),
    "limit.queue": CodeInfo(Blame.HOST, 123, "Too many calls wait for this plugin."),
    "limit.restarts": CodeInfo(Blame.GUEST, 123, "The plugin failed too often and is quarantined."),
    "limit.range": CodeInfo(Blame.CALLER, 2, "A limit is not an integer in its range."),
    "guest.error": CodeInfo(Blame.GUEST, 1, "The guest returned the error case of its result."),
    "guest.trap": CodeInfo(Blame.GUEST, 1, "The guest trapped; its instance is finished."),
    "guest.exit": CodeInfo(Blame.GUEST, 1, "The guest called exit."),
    "guest.invalid-value": CodeInfo(Blame.GUEST, 1, "The guest handed over a value that breaks its type."),
    "capability.backend": CodeInfo(Blame.HOST, 4, "A capability's backend failed."),
    "capability.invalid": CodeInfo(Blame.HOST, 4, "A capability package is broken or two claim the same interface."),
    "engine.compile": CodeInfo(Blame.AUTHOR, 3, "The component does not compile within its bounds."),
    "engine.instantiate": CodeInfo(Blame.GUEST, 3, "The component cannot be instantiated."),
    "engine.cache": CodeInfo(Blame.HOST, 4, "The native-code cache cannot be used."),
    "engine.resources": CodeInfo(
        Blame.HOST, 4, "The system lacks the memory, descriptors or processes that compiling and loading take."
    ),
    "engine.unsupported": CodeInfo(Blame.HOST, 4, "The installed engine cannot be used; `cloche doctor` says why."),
    "engine.internal": CodeInfo(Blame.HOST, 4, "The engine failed in a way that no guest should be able to cause."),
    "engine.worker-start": CodeInfo(Blame.HOST, 4, "A worker process could not be started, or not be locked in."),
    "engine.worker-lost": CodeInfo(
        Blame.HOST, 4, "The plugin's worker ended during the call; whether the call took effect is not known."
    ),
    "engine.worker-protocol": CodeInfo(
        Blame.GUEST, 4, "The plugin's worker said what no worker says, and was killed: its code may be hostile."
    ),
    "registry.io": CodeInfo(Blame.HOST, 4, "Reading or writing a file failed (disk full, permissions)."),
}


def hides_ctrl_c(error: Exception) -> bool:
    """Whether this is a Ctrl-C in disguise: pydantic, while it builds a class, makes an error of one. Added in 0.1."""
    return "KeyboardInterrupt" in str(error)


class ClocheError(Exception):
    """Root of all errors. `code` is stable; `blame` says who can mend it; `plugin` whom it concerns, if anyone.

    `usage` is set on every error that ends a call. `str(error)` is one sentence that names the thing, the bound and
    the remedy. Added in 0.1.
    """

    default_code: ClassVar[str] = "engine.internal"

    def __init__(
        self, message: str, *, code: str | None = None, plugin: str | None = None, usage: Usage | None = None
    ) -> None:
        super().__init__(message)
        self.code: str = code or self.default_code
        self.plugin: str | None = plugin
        self.usage: Usage | None = usage
        if self.code not in CODES:
            raise AssertionError(f"error code {self.code!r} is not in CODES")

    @property
    def message(self) -> str:
        """The text without the code."""
        return str(self.args[0])

    @property
    def blame(self) -> Blame:
        """Who can mend the cause."""
        return CODES[self.code].blame

    @property
    def exit_status(self) -> int:
        """The exit status that the command line gives for this error."""
        return CODES[self.code].exit_status

    def to_json(self) -> dict[str, Any]:
        """The error as plain values, as `--json` prints it."""
        return {"code": self.code, "message": self.message, "blame": self.blame.value, "plugin": self.plugin}


class UsageError(ClocheError):
    """The caller used the API or the command line wrongly."""

    default_code = "usage.argument"


class _ListingError(ClocheError):
    """What the errors have in common that can hold several faults: `findings` is each of them, as text."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        plugin: str | None = None,
        usage: Usage | None = None,
        findings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, code=code, plugin=plugin, usage=usage)
        self.findings = findings

    def to_json(self) -> dict[str, Any]:
        """The error as plain values, with every finding."""
        return {**ClocheError.to_json(self), "findings": list(self.findings)}


class ManifestError(_ListingError):
    """A manifest or policy cannot be read or breaks its schema, or the system is not what the manifest requires.

    `findings` lists every problem as text, where several were looked for.
    """

    default_code = "manifest.value"


class ContractError(_ListingError):
    """A component's bytes or types do not fit. `findings` lists every mismatch as text, in the author's terms."""

    default_code = "contract.mismatch"


class TrustError(ClocheError):
    """Nobody vouches for the plugin in the way that the requested tier needs."""

    default_code = "trust.refused"


class RegistryError(ClocheError):
    """A stored artifact is missing, damaged or in conflict, or the home directory cannot be written."""

    default_code = "registry.io"


class GrantError(_ListingError):
    """Something was asked for that the policy does not allow. At load, `findings` lists each as text."""

    default_code = "grant.denied"


class LimitError(ClocheError):
    """A limit was reached. The code names which."""

    default_code = "limit.fuel"


class GuestError(ClocheError):
    """The guest answered with the error case of its `result`; `payload` is that value (None when it has none)."""

    default_code = "guest.error"

    def __init__(
        self, message: str, payload: Any = None, *, plugin: str | None = None, usage: Usage | None = None
    ) -> None:
        super().__init__(message, plugin=plugin, usage=usage)
        self.payload = payload


class GuestTrap(ClocheError):
    """The guest was stopped by a trap of its own. Its instance is finished; the plugin serves the next call.

    `kind` is the classifier's word (`unreachable`, `out-of-bounds`, `exit`, …), `traceback` the guest's own traceback
    where it wrote one (a Python guest's stands on its standard error), `backtrace` the wasm frames.
    """

    default_code = "guest.trap"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        plugin: str | None = None,
        usage: Usage | None = None,
        kind: str = "unknown",
        traceback: str | None = None,
        backtrace: str | None = None,
        exit_status_of_guest: int | None = None,
    ) -> None:
        super().__init__(message, code=code, plugin=plugin, usage=usage)
        self.kind = kind
        self.traceback = traceback
        self.backtrace = backtrace
        self.exit_status_of_guest = exit_status_of_guest

    def __str__(self) -> str:
        return f"{self.message}\n{self.traceback}" if self.traceback else self.message


class CapabilityError(ClocheError):
    """A capability's backend failed. The guest sees only an opaque error; the operator sees the cause.

    `capability` is its id, where a call of the guest met it.
    """

    default_code = "capability.backend"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        plugin: str | None = None,
        usage: Usage | None = None,
        capability: str | None = None,
    ) -> None:
        super().__init__(message, code=code, plugin=plugin, usage=usage)
        self.capability = capability

    def to_json(self) -> dict[str, Any]:
        """The error as plain values, with the capability."""
        return {**ClocheError.to_json(self), "capability": self.capability}


class EngineError(ClocheError):
    """The host's own breakage: compiler, cache or engine."""

    default_code = "engine.internal"
