"""What the contract check found: one binding for each import and export, and every finding at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cloche.errors import ContractError, GrantError, ManifestError
from cloche.wit.types import Function, Interface

# A hostile component can break hundreds of thousands of rules. Kept for each severity, so that no number of warnings
# can push out an error; and shown in an error's message.
MAX_FINDINGS = 500
MAX_FINDINGS_SHOWN = 50
# Differences that are looked for in one interface, and parts that are not supported.
MAX_FINDINGS_PER_INTERFACE = 100

REQUIRES = "manifest.requires"
"""The code of a finding that the system is not what the manifest needs."""


class Severity(StrEnum):
    """Whether a finding stops the load."""

    ERROR = "error"
    WARNING = "warning"


class Disposition(StrEnum):
    """What becomes of an import.

    `provided`: linked to a capability's host object. `closed`: linked, but every function denies. `engine`: linked by
    the engine's own WASI. `types`: it brings types only, so there is nothing to link. `refused`: the load fails.
    """

    PROVIDED = "provided"
    CLOSED = "closed"
    ENGINE = "engine"
    TYPES = "types"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not fit, in the author's terms: what it concerns, what is wrong, and what to do.

    `remedy` is one clause.
    """

    severity: Severity
    code: str
    subject: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        said = f"{self.subject}: {self.message}"
        return f"{said} ({self.remedy})" if self.remedy else said


class Findings:
    """Gathers findings in order, up to `MAX_FINDINGS` of each severity."""

    __slots__ = ("_found", "_left")

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self._left = dict.fromkeys(Severity, MAX_FINDINGS)

    def error(self, code: str, subject: str, message: str, remedy: str = "") -> None:
        """Add what stops the load."""
        self.add(Finding(Severity.ERROR, code, subject, message, remedy))

    def warn(self, code: str, subject: str, message: str, remedy: str = "") -> None:
        """Add what does not."""
        self.add(Finding(Severity.WARNING, code, subject, message, remedy))

    def add(self, finding: Finding) -> None:
        """Add `finding` while there is room for its severity."""
        if self._left[finding.severity] > 0:
            self._left[finding.severity] -= 1
            self._found.append(finding)

    def all(self) -> tuple[Finding, ...]:
        """Everything that was added."""
        return tuple(self._found)


@dataclass(frozen=True, slots=True)
class ImportBinding:
    """An imported interface. `id` and `interface` are the component's own, `provider` is the host's interface id.

    `capability` is the grant that covers it; None where no grant is needed or nothing is known about it.
    """

    id: str
    disposition: Disposition
    capability: str | None
    provider: str | None
    interface: Interface
    reason: str


@dataclass(frozen=True, slots=True)
class ExportBinding:
    """An exported interface, known to the host or not. `revision` is its major version, None without a version.

    `extension_point` is the id of the host's interface that it fits, None when the host knows none or it does not fit:
    then it can only be called dynamically. `is_declared` says whether the manifest names it.
    """

    id: str
    revision: int | None
    interface: Interface
    extension_point: str | None = None
    is_declared: bool = False


@dataclass(frozen=True)
class Report:
    """The whole answer. It decides nothing more: `ensure_ok` raises, everything else is for linking and showing.

    `import_functions` are imported at the root of the world, where nothing is provided: each is refused. `advice` are
    lines for people that help with several findings at once, such as what to write into a policy.
    """

    imports: tuple[ImportBinding, ...] = ()
    import_functions: tuple[Function, ...] = ()
    exports: tuple[ExportBinding, ...] = ()
    export_functions: tuple[Function, ...] = ()
    findings: tuple[Finding, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the load."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that do not."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)

    @property
    def closed(self) -> tuple[str, ...]:
        """Ids of the imports that are linked but deny every call."""
        return tuple(binding.id for binding in self.imports if binding.disposition is Disposition.CLOSED)

    def ensure_ok(self, plugin: str) -> None:
        """Raise when anything stops the load of `plugin`: the message holds the first 50 errors, `findings` every one.

        Raises: ManifestError (`manifest.requires`) when this system is not what it needs, whatever else is wrong;
            GrantError (`grant.required`, `grant.refused`) when only grants are missing; ContractError
            (`contract.unsupported`) when only stream, future, error-context or async are in the way, else ContractError
            (`contract.mismatch`). Added in 0.1.
        """
        errors = self.errors
        if not errors:
            return
        codes = {finding.code for finding in errors}
        findings = tuple(str(finding) for finding in errors)
        more = len(errors) - MAX_FINDINGS_SHOWN
        lines = [f"\n  - {line}" for line in findings[:MAX_FINDINGS_SHOWN]]
        lines += [f"\n  - and {more} more"] if more > 0 else []
        what = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        message = "\n".join((f"`{plugin}` does not fit this host: {what}{''.join(lines)}", *self.advice))
        if REQUIRES in codes:
            raise ManifestError(message, code=REQUIRES, plugin=plugin, findings=findings)
        if codes <= {"grant.required", "grant.refused"}:
            code = errors[0].code if len(codes) == 1 else "grant.refused"
            raise GrantError(message, code=code, plugin=plugin, findings=findings)
        code = "contract.unsupported" if codes == {"contract.unsupported"} else "contract.mismatch"
        raise ContractError(message, code=code, plugin=plugin, findings=findings)

    def to_json(self) -> dict[str, object]:
        """The report as plain values, as `inspect --json` prints it."""
        return {
            "imports": [
                {
                    "id": item.id,
                    "disposition": item.disposition.value,
                    "capability": item.capability,
                    "provider": item.provider,
                    "functions": _names(item.interface.functions),
                    "reason": item.reason,
                }
                for item in self.imports
            ],
            "import_functions": _names(self.import_functions),
            "exports": [
                {
                    "id": item.id,
                    "revision": item.revision,
                    "extension_point": item.extension_point,
                    "declared": item.is_declared,
                    "functions": _names(item.interface.functions),
                }
                for item in self.exports
            ],
            "export_functions": _names(self.export_functions),
            "findings": [
                {
                    "severity": item.severity.value,
                    "code": item.code,
                    "subject": item.subject,
                    "message": item.message,
                    "remedy": item.remedy,
                }
                for item in self.findings
            ],
            "advice": list(self.advice),
        }


def _names(functions: Iterable[Function]) -> list[str]:
    return [function.name for function in functions]
