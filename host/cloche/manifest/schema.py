"""The shape of plugin.toml, format-version 1, as it is written. `parse.py` turns it into the frozen `Manifest`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cloche.manifest.limits import LIMIT_KEYS, limit_expectation, parse_limit
from cloche.manifest.versions import Requirement, Version
from cloche.model import PLUGIN_ID

FORMAT_VERSION = 1
MAX_ID_CHARACTERS = 128
MAX_ENTRIES = 256  # of one table or array; the longest real one has about thirty

_KEBAB = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
INTERFACE_ID = re.compile(rf"{_KEBAB}:{_KEBAB}/{_KEBAB}")
CAPABILITY_ID = re.compile(rf"{_KEBAB}:{_KEBAB}(?:/{_KEBAB})?")
WORLD_NAME = re.compile(rf"(?:{_KEBAB}:{_KEBAB}/)?{_KEBAB}(?:@[0-9A-Za-z.+-]+)?")
CONFIG_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MOUNT_NAME = re.compile(rf"(?=.{{1,64}}\Z){_KEBAB}")
_BARE_ID = re.compile(r"local/x[0-9a-f]{12}")


def check_plugin_id(text: str) -> str:
    """A plugin id that an author may use. Raises: ValueError with what is expected."""
    if len(text) > MAX_ID_CHARACTERS or not PLUGIN_ID.fullmatch(text):
        raise ValueError('publisher/name in lower-case kebab, such as "acme/thumbnailer"')
    if _BARE_ID.fullmatch(text):
        raise ValueError("another id: this form is kept for components without a manifest")
    return text


def check_interface_id(text: str) -> str:
    """An interface id without version. Raises: ValueError with what is expected."""
    if len(text) > MAX_ID_CHARACTERS or not INTERFACE_ID.fullmatch(text):
        raise ValueError('an interface id without version, such as "cloche:speech/to-text"')
    return text


def check_capability_id(text: str) -> str:
    """A capability id without version. Raises: ValueError with what is expected."""
    if len(text) > MAX_ID_CHARACTERS or not CAPABILITY_ID.fullmatch(text):
        raise ValueError('a capability id without version, such as "wasi:keyvalue" or "cloche:host/data"')
    return text


def check_config_key(text: str) -> str:
    """A key of configuration. Raises: ValueError with what is expected."""
    if not CONFIG_KEY.fullmatch(text):
        raise ValueError("letters, digits, '_', '-' and '.', at most 128 characters")
    return text


def check_mount_name(text: str) -> str:
    """The name of a mount. Raises: ValueError with what is expected."""
    if not MOUNT_NAME.fullmatch(text):
        raise ValueError("a name in lower-case kebab, at most 64 characters")
    return text


def check_inner_path(text: str) -> str:
    """A path inside the plugin's directory, without NUL or line ends. Raises: ValueError with what is expected."""
    parts = text.split("/")
    if (
        len(text) > 512
        or not text.isprintable()
        or ":" in text
        or "\\" in text
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ValueError("a relative path with '/' inside the plugin's directory, without '..' or ':'")
    return text


def _check_version(text: str) -> str:
    Version.parse(text)
    return text


def _check_requirement(text: str) -> str:
    Requirement.parse(text)
    return text


def _check_world(text: str) -> str:
    if len(text) > MAX_ID_CHARACTERS or not WORLD_NAME.fullmatch(text):
        raise ValueError('the name of a world, such as "plugin"')
    return text


def _check_line(text: str) -> str:
    if "\n" in text:
        raise ValueError("one line")
    return text


def _check_url(text: str) -> str:
    if not re.fullmatch(r"https://[!-~]+", text):
        raise ValueError('an address that begins with "https://"')
    return text


Line = Annotated[str, Field(max_length=256), AfterValidator(_check_line)]
PluginIdText = Annotated[str, AfterValidator(check_plugin_id)]
InterfaceId = Annotated[str, AfterValidator(check_interface_id)]
CapabilityId = Annotated[str, AfterValidator(check_capability_id)]
ConfigKey = Annotated[str, AfterValidator(check_config_key)]
MountName = Annotated[str, AfterValidator(check_mount_name)]
InnerPath = Annotated[str, AfterValidator(check_inner_path)]
VersionText = Annotated[str, AfterValidator(_check_version)]
RequirementText = Annotated[str, AfterValidator(_check_requirement)]


def kebab(name: str) -> str:
    """The key in a file of a field in Python."""
    return name.replace("_", "-")


class Table(BaseModel):
    """Base of all tables in files: frozen, strict, closed to unknown keys, with kebab-case keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=kebab, hide_input_in_errors=True
    )


class LimitsTable(Table):
    """`[limits]` of a manifest and every limits table of a policy: see `limits.LIMIT_KEYS`."""

    fuel: int | None = None
    memory: int | None = None
    deadline: int | None = None
    stack: int | None = None
    payload: int | None = None
    output: int | None = None
    log_lines: int | None = None
    host_calls: int | None = None
    host_bytes: int | None = None
    handles: int | None = None
    data: int | None = None
    files: int | None = None
    concurrency: int | None = None
    queue: int | None = None
    restarts: int | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> int:
        key = kebab(str(info.field_name))
        try:
            return parse_limit(key, value, unit_required=True)
        except ValueError:
            raise ValueError(f"a value {limit_expectation(key)}") from None

    def by_name(self) -> dict[str, int]:
        """The limits that were written, by the names of `model.BOUNDS`."""
        numbers = {limit.name: getattr(self, key.replace("-", "_")) for key, limit in LIMIT_KEYS.items()}
        return {name: number for name, number in numbers.items() if number is not None}


class ComponentTable(Table):
    """`[component]`. All keys but `path` tell how to build `source`; the build room reads them."""

    path: InnerPath | None = None
    source: InnerPath | None = None
    language: Literal["python", "javascript", "c", "wat"] | None = None
    wit: InnerPath | None = None
    world: Annotated[str, AfterValidator(_check_world)] | None = None
    requirements: Annotated[list[Line], Field(max_length=64)] = []
    wasi: bool | None = None


class CapabilityTable(Table):
    """`[capabilities."ns:name"]`; the other keys are the capability's own."""

    model_config = ConfigDict(extra="allow")

    version: RequirementText = "*"
    required: bool = False

    def params(self) -> dict[str, Any]:
        """The keys that belong to the capability's schema."""
        return dict(self.model_extra or {})


class RequiresTable(Table):
    """`[requires]`."""

    host: RequirementText = "*"
    os: Annotated[list[Literal["linux", "macos", "windows"]], Field(max_length=3)] = []
    arch: Annotated[list[Literal["x86_64", "aarch64"]], Field(max_length=2)] = []
    gpu: bool = False


class ManifestTable(Table):
    """The whole of plugin.toml."""

    format_version: int
    id: PluginIdText
    name: Annotated[Line, Field(min_length=1)]
    version: VersionText
    description: Annotated[str, Field(max_length=4096)] = ""
    authors: Annotated[list[Line], Field(max_length=64)] = []
    license: Line | None = None
    repository: Annotated[Line, AfterValidator(_check_url)] | None = None
    kind: Literal["code", "skill", "composite"] = "code"
    instances: Literal["per-call", "pooled", "single"] = "per-call"
    component: ComponentTable | None = None
    extension_points: Annotated[dict[InterfaceId, RequirementText], Field(max_length=MAX_ENTRIES)] = {}
    capabilities: Annotated[dict[CapabilityId, CapabilityTable], Field(max_length=MAX_ENTRIES)] = {}
    limits: LimitsTable = LimitsTable()
    requires: RequiresTable = RequiresTable()
    config: Annotated[dict[ConfigKey, Annotated[str, Field(max_length=8192)]], Field(max_length=MAX_ENTRIES)] = {}
