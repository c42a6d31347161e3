"""The contract check over values: what becomes of each import and export, every finding, and the error raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from cloche.contract.check import check
from cloche.contract.providers import CapabilityGrant, Provider
from cloche.contract.report import (
    MAX_FINDINGS,
    MAX_FINDINGS_SHOWN,
    REQUIRES,
    Disposition,
    Finding,
    Report,
    Severity,
)
from cloche.contract.suggest import MAX_SUGGESTIONS
from cloche.errors import ClocheError, ContractError, GrantError, ManifestError
from cloche.manifest.versions import Requirement
from cloche.model import Instances, Tier
from cloche.version import WASI_VERSION
from cloche.wit.types import (
    EnumType,
    ErrorContextType,
    Function,
    FutureType,
    Interface,
    ListType,
    MapType,
    OptionType,
    Prim,
    ResultType,
    StreamType,
    TupleType,
    Type,
    TypeName,
    World,
)
from support.wit_values import function, interface, record, resource

STORE = interface("wasi:keyvalue/store@0.2.1", function("open", (("identifier", Prim.STRING),)), function("close"))
GREETER = interface("cloche:example/greeter@1.2.0", function("greet", (("name", Prim.STRING),), Prim.STRING))
ENGINE = tuple(
    interface(f"wasi:{name}@{WASI_VERSION}", function("f"))
    for name in (
        "io/poll",
        "io/streams",
        "clocks/monotonic-clock",
        "clocks/wall-clock",
        "random/random",
        "cli/stdin",
        "cli/stdout",
        "cli/environment",
        "cli/exit",
        "filesystem/types",
        "sockets/tcp",
    )
)
ALL_WASI = tuple(
    CapabilityGrant(capability, granted=True, reason="because")
    for capability in ("wasi:cli", "wasi:clocks", "wasi:random", "wasi:filesystem", "wasi:sockets")
)


def provider(found: Interface = STORE) -> Provider:
    """A host-defined interface, of the capability that its package is named after."""
    return Provider(found.id.partition("/")[0], found)


def grants(*, granted: bool = True, required: bool = False) -> list[CapabilityGrant]:
    """The decision about the key-value store."""
    return [CapabilityGrant("wasi:keyvalue", granted, required, "because")]


def importing(*found: Interface) -> World:
    """A component that imports these and exports one function."""
    return World("root", imports=found, export_functions=(function("go"),))


def exporting(*found: Interface) -> World:
    """A component that exports these."""
    return World("root", exports=found)


def store(version: str = "0.2.1", *functions: Function) -> Interface:
    """The component's view of the key-value store."""
    return interface(f"wasi:keyvalue/store@{version}", *(functions or (function("close"),)))


def declaring(requirement: str, name: str = "cloche:example/greeter") -> dict[str, Requirement]:
    """What a manifest says that the component exports."""
    return {name: Requirement.parse(requirement)}


def errors(report: Report) -> list[str]:
    """The errors as text."""
    return [str(finding) for finding in report.errors]


def warnings(report: Report) -> list[str]:
    """The warnings as text."""
    return [str(finding) for finding in report.warnings]


@pytest.mark.parametrize(
    ("granted", "required", "disposition", "code"),
    [
        (True, False, Disposition.PROVIDED, None),
        (True, True, Disposition.PROVIDED, None),
        (False, False, Disposition.CLOSED, None),
        (False, True, Disposition.REFUSED, "grant.required"),
    ],
)
def test_known_imports(granted: bool, required: bool, disposition: Disposition, code: str | None) -> None:
    """A known import is provided when granted, else closed, else refused when the manifest cannot do without."""
    report = check(importing(store()), providers=[provider()], grants=grants(granted=granted, required=required))
    (binding,) = report.imports
    assert binding.disposition is disposition
    assert (binding.capability, binding.provider, binding.reason) == ("wasi:keyvalue", STORE.id, "because")
    assert binding.interface == store()
    assert [finding.code for finding in report.errors] == ([code] if code else [])
    assert report.closed == ((store().id,) if disposition is Disposition.CLOSED else ())


@pytest.mark.parametrize(
    ("version", "disposition"),
    [
        ("0.2.0", Disposition.PROVIDED),
        ("0.2.1", Disposition.PROVIDED),
        ("0.2.2", Disposition.REFUSED),
        ("0.3.0", Disposition.REFUSED),
        ("1.0.0", Disposition.REFUSED),
        ("0.2.1-draft", Disposition.REFUSED),
    ],
)
def test_versions_of_imports(version: str, disposition: Disposition) -> None:
    """An older patch of the same track is served; anything else names both versions."""
    report = check(importing(store(version)), providers=[provider()], grants=grants())
    assert report.imports[0].disposition is disposition
    if disposition is Disposition.REFUSED:
        assert errors(report) == [
            f"wasi:keyvalue/store@{version}: the component needs version {version}, the host has {STORE.id} "
            f"(build against {STORE.id})"
        ]
        assert report.errors[0].code == "contract.mismatch"


def test_an_import_without_a_version_needs_a_provider_without_one() -> None:
    """No version is not any version."""
    bare = interface("wasi:keyvalue/store", function("close"))
    for known, disposition in ((STORE, Disposition.REFUSED), (bare, Disposition.PROVIDED)):
        report = check(importing(bare), providers=[provider(known)], grants=grants())
        assert report.imports[0].disposition is disposition


def test_two_versions_side_by_side() -> None:
    """One interface at two versions is two imports, each with its own provider."""
    newer = interface("wasi:keyvalue/store@1.0.0", function("close"))
    report = check(importing(store("0.2.0"), newer), providers=[provider(), provider(newer)], grants=grants())
    assert [binding.provider for binding in report.imports] == [STORE.id, newer.id]
    assert report.findings == ()


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ({"0.2.1": True, "0.2.5": True, "0.2.3": True}, "0.2.5"),
        ({"0.2.0": True, "0.2.5": True}, "0.2.0"),
        ({"0.2.1": True, "0.2.5": False}, "0.2.1"),
        ({"0.2.0": False, "0.2.1": True}, "0.2.1"),
        ({"0.2.1": False, "0.2.5": False}, "0.2.5"),
    ],
)
def test_which_of_several_providers(offered: dict[str, bool], expected: str) -> None:
    """A granted provider goes before a denied one, then the very version, then the newest."""
    providers = [Provider(f"acme:store-{version}", store(version)) for version in offered]
    decided = [CapabilityGrant(f"acme:store-{version}", granted) for version, granted in offered.items()]
    for order in (providers, providers[::-1]):
        report = check(importing(store("0.2.0")), providers=order, grants=decided)
        assert report.imports[0].provider == f"wasi:keyvalue/store@{expected}"


def test_a_mistyped_import_names_the_place() -> None:
    """A wrong parameter type is found before linking, whether the import is granted or not."""
    wrong = store("0.2.1", function("open", (("identifier", Prim.U32),)))
    for granted in (True, False):
        report = check(importing(wrong), providers=[provider()], grants=grants(granted=granted))
        assert report.imports[0].disposition is Disposition.REFUSED
        assert errors(report) == [
            "wasi:keyvalue/store@0.2.1: function `open`: parameter 1 `identifier`: expected string, "
            "the component passes u32 (build against the WIT of wasi:keyvalue/store@0.2.1)"
        ]


def test_a_function_that_the_host_lacks_suggests_another() -> None:
    """An unknown function of a known interface is refused with the nearest name."""
    report = check(importing(store("0.2.1", function("opened"))), providers=[provider()])
    assert errors(report) == [
        "wasi:keyvalue/store@0.2.1: function `opened`: wasi:keyvalue/store@0.2.1 has no such function "
        "(did you mean `open`?)"
    ]


@pytest.mark.parametrize(
    "unknown",
    [
        interface("wasi:keyvalues/store@0.2.1", function("close")),
        interface("wasi:keyvalues/store@0.2.1"),
        interface("wasi:keyvalues/store@0.2.1", types=(("bucket", resource()),)),
    ],
    ids=["with a function", "empty", "a resource only"],
)
def test_unknown_imports_are_refused(unknown: Interface) -> None:
    """Nothing is a free pass: an import that nobody provides is refused, also when it is empty (H26)."""
    report = check(importing(unknown), providers=[provider()])
    assert report.imports[0].disposition is Disposition.REFUSED
    assert errors(report) == [
        "wasi:keyvalues/store@0.2.1: nothing in this host provides this interface (did you mean `wasi:keyvalue/store`?)"
    ]
    with pytest.raises(GrantError) as caught:
        report.ensure_ok("acme/x")
    assert caught.value.code == "grant.refused"


def test_an_empty_import_of_a_known_interface_is_bound_like_any_other() -> None:
    """An import without functions is still closed when it is not granted."""
    report = check(importing(interface(STORE.id)), providers=[provider()])
    assert report.closed == (STORE.id,)


def test_imports_of_types_only() -> None:
    """Plain types need nobody to provide them, but those that the host knows must be the same."""
    types = interface("acme:shapes/types@1.0.0", types=(("point", record(("x", Prim.F32))),))
    other = interface(types.id, types=(("point", record(("x", Prim.F64))),))
    unknown = check(importing(types))
    assert [(item.disposition, item.provider) for item in unknown.imports] == [(Disposition.TYPES, None)]
    known = check(importing(types), extension_points=[types])
    assert [(item.disposition, item.provider) for item in known.imports] == [(Disposition.TYPES, types.id)]
    wrong = check(importing(other), extension_points=[types])
    assert wrong.imports[0].disposition is Disposition.REFUSED
    assert errors(wrong) == [
        "acme:shapes/types@1.0.0: type `point`: field `x`: expected f32, the component has f64 "
        "(build against the WIT of acme:shapes/types@1.0.0)"
    ]


def test_an_extension_point_cannot_be_imported() -> None:
    """Importing what plugins export is refused in words of its own."""
    report = check(importing(GREETER), extension_points=[GREETER])
    assert "it is an extension point, which plugins export" in errors(report)[0]


@pytest.mark.parametrize("version", ["0.2.0", "0.2.3", WASI_VERSION, "0.2.99", "0.2.1+build"])
@pytest.mark.parametrize("known", ENGINE, ids=lambda known: known.id)
def test_the_engine_provides_wasi(known: Interface, version: str) -> None:
    """What the engine has, it links for any release of WASI 0.2, also one that is newer than its own."""
    found = interface(f"{known.id.partition('@')[0]}@{version}", *known.functions)
    report = check(importing(found), engine=ENGINE, grants=ALL_WASI)
    assert report.imports[0].disposition is Disposition.ENGINE
    assert report.imports[0].provider == known.id
    assert report.findings == ()


@pytest.mark.parametrize(
    ("imported", "said"),
    [
        (function("f", result=Prim.U64), "function `f`: result: expected nothing, the component expects u64"),
        (function("f", (("a", Prim.U8),)), "function `f`: expected no parameters, the component passes 1"),
        (function("later"), f"function `later`: wasi:random/random@{WASI_VERSION} has no such function"),
    ],
    ids=["a result", "a parameter", "a function"],
)
@pytest.mark.parametrize("version", ["0.2.0", "0.2.99"])
def test_the_engines_interfaces_are_compared_too(imported: Function, said: str, version: str) -> None:
    """A mistyped or unknown function of WASI is found here, in the same words as any other provider's."""
    report = check(importing(interface(f"wasi:random/random@{version}", imported)), engine=ENGINE, grants=ALL_WASI)
    assert report.imports[0].disposition is Disposition.REFUSED
    assert [(finding.code, finding.message) for finding in report.errors] == [("contract.mismatch", said)]


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("wasi:io/streams", Disposition.ENGINE),
        ("wasi:clocks/wall-clock", Disposition.CLOSED),
        ("wasi:random/random", Disposition.CLOSED),
        ("wasi:cli/stdout", Disposition.ENGINE),
        ("wasi:cli/environment", Disposition.ENGINE),
        ("wasi:cli/exit", Disposition.ENGINE),
        ("wasi:filesystem/types", Disposition.ENGINE),
        ("wasi:sockets/tcp", Disposition.ENGINE),
    ],
)
def test_wasi_without_a_grant(name: str, disposition: Disposition) -> None:
    """Without a grant clocks and randomness are closed; command line, files and sockets are linked over nothing."""
    report = check(importing(interface(f"{name}@0.2.9", function("f"))), engine=ENGINE)
    assert report.imports[0].disposition is disposition
    assert report.errors == ()


@pytest.mark.parametrize("imports", [(), ("clocks/wall-clock",), ("clocks/wall-clock", "clocks/monotonic-clock")])
def test_what_is_required_in_vain_is_said_once(imports: tuple[str, ...]) -> None:
    """A required capability that is not granted stops the load, however many of its interfaces are imported."""
    denied = CapabilityGrant("wasi:clocks", granted=False, required=True, reason="denied by the policy")
    world = importing(*(interface(f"wasi:{name}@0.2.9", function("f")) for name in imports))
    report = check(world, engine=ENGINE, grants=[denied])
    assert errors(report) == ["wasi:clocks: the manifest requires it, and it is not granted: denied by the policy"]
    assert [binding.disposition for binding in report.imports] == [Disposition.REFUSED] * len(imports)


def test_advice_stands_below_the_findings() -> None:
    """Lines that help with several findings at once come last, in the error and in JSON."""
    report = replace(check(importing(), grants=grants(granted=False, required=True)), advice=("write:", "allow = true"))
    with pytest.raises(GrantError, match=r"not granted: because\nwrite:\nallow = true$"):
        report.ensure_ok("acme/x")
    assert report.to_json()["advice"] == ["write:", "allow = true"]


def test_other_wasi_versions() -> None:
    """Another minor or a pre-release is refused, HTTP is not the engine's."""
    for identity in ("wasi:cli/stdin@0.3.0", "wasi:cli/stdin@0.2.0-rc-2023-12-05", "wasi:cli/stdin"):
        report = check(importing(interface(identity, function("f"))), engine=ENGINE, grants=ALL_WASI)
        assert f"the host has wasi:cli/stdin@{WASI_VERSION}" in errors(report)[0]
    report = check(importing(interface("wasi:http/types@0.2.9", function("f"))), engine=ENGINE, grants=ALL_WASI)
    assert report.imports[0].disposition is Disposition.REFUSED


def test_a_provider_goes_before_the_engine() -> None:
    """A host-defined clock replaces the engine's."""
    clock = interface("wasi:clocks/wall-clock@0.2.9", function("now"))
    report = check(importing(clock), providers=[provider(clock)], engine=ENGINE, grants=ALL_WASI)
    assert report.imports[0].disposition is Disposition.PROVIDED


@pytest.mark.parametrize(
    ("tier", "refuse_poll", "severity"),
    [
        (Tier.UNTRUSTED, "", None),
        (Tier.UNTRUSTED, "denied by somebody", None),
        (Tier.TRUSTED, "", Severity.WARNING),
        (Tier.TRUSTED, "denied by somebody", Severity.ERROR),
    ],
)
def test_guests_that_can_sleep(tier: Tier, refuse_poll: str, severity: Severity | None) -> None:
    """What can block this process is a warning in the trusted tier, and an error when the policy says so (H1)."""
    world = importing(
        interface("wasi:io/poll@0.2.9", function("f")),
        interface("wasi:clocks/monotonic-clock@0.2.9", function("f")),
        interface("wasi:random/random@0.2.9", function("f")),
    )
    report = check(world, engine=ENGINE, grants=ALL_WASI, tier=tier, refuse_poll=refuse_poll)
    assert [finding.severity for finding in report.findings] == ([severity] if severity else [])
    if severity:
        assert report.findings[0].subject == "wasi:io/poll@0.2.9 and wasi:clocks/monotonic-clock@0.2.9"
        assert report.findings[0].message.endswith(refuse_poll or "no limit wakes it up")


def test_functions_at_the_root() -> None:
    """Capabilities are interfaces: a function that is imported by itself is refused."""
    world = World("root", import_functions=(function("log", (("line", Prim.STRING),)),), exports=(GREETER,))
    report = check(world, providers=[provider(interface("acme:tools/log@1.0.0", function("log")))])
    assert [imported.name for imported in report.import_functions] == ["log"]
    assert errors(report) == [
        "function `log`: it is imported at the root of the world, and nothing provides it "
        "(put it into an interface that a capability of this host provides)"
    ]


def test_resources_at_the_root() -> None:
    """A resource of the world's own is refused; one brought in with `use` was judged at its interface."""
    own = World("root", import_types=(("r", resource("r", None)),), exports=(GREETER,))
    used = World("root", import_types=(("r", resource("r")), ("t", Prim.U8)), exports=(GREETER,))
    assert [finding.subject for finding in check(own).errors] == ["resource `r`"]
    assert check(used).errors == ()


NOT_OFFERED: list[tuple[Type, str]] = [
    (StreamType(Prim.U8), "stream<u8>"),
    (ListType(FutureType(None)), "future"),
    (OptionType(ErrorContextType()), "error-context"),
    (ResultType(None, StreamType(None)), "stream"),
    (ListType(OptionType(ListType(Prim.U8, 4))), "list<u8, 4>"),
    (MapType(Prim.STRING, FutureType(Prim.U8)), "future<u8>"),
    (TupleType((Prim.U8, StreamType(Prim.U8))), "stream<u8>"),
    (record(("s", StreamType(Prim.U8))), "stream<u8>"),
]


@pytest.mark.parametrize(("found", "shown"), NOT_OFFERED, ids=[shown for _, shown in NOT_OFFERED])
def test_types_that_are_not_offered(found: Type, shown: str) -> None:
    """Streams, futures, error-contexts and fixed-length lists in imports or exports are refused with their own code."""
    takes, returns = function("f", (("a", found),)), function("f", result=found)
    worlds = {
        importing(interface("a:b/c", takes)): "a:b/c: function `f`: parameter 1 `a`",
        importing(interface("a:b/c", types=(("t", found),))): "a:b/c: type `t`",
        exporting(interface("a:b/c", returns)): "a:b/c: function `f`: the result",
        World("root", import_functions=(returns,), exports=(GREETER,)): "the world: function `f`: the result",
        World("root", export_functions=(takes,)): "the world: function `f`: parameter 1 `a`",
    }
    for world, start in worlds.items():
        report = check(world)
        assert len(report.errors) == 1
        assert errors(report)[0].startswith(f"{start} contains {shown}, which this host does not offer")
        with pytest.raises(ContractError) as caught:
            report.ensure_ok("acme/x")
        assert caught.value.code == "contract.unsupported"


def nested(levels: int, wrap: Callable[[Type], Type]) -> Type:
    """A type inside so many others."""
    found: Type = Prim.U8
    for _ in range(levels):
        found = wrap(found)
    return found


TOO_MUCH: list[tuple[Type, str]] = [
    (EnumType(TypeName("a:b/c", "big"), tuple(f"c{index}" for index in range(1025))), "`a:b/c.big` has 1025"),
    (nested(70, OptionType), "deeper than 64 levels"),
    (nested(13, lambda inner: TupleType((inner, inner))), "more than 10000 parts"),
]


@pytest.mark.parametrize(("found", "words"), TOO_MUCH, ids=["wide", "deep", "large"])
def test_types_that_are_too_much_are_refused_at_load(found: Type, words: str) -> None:
    """A type whose code would take seconds to make is refused by the check, not at the first call (H7)."""
    for world in (
        importing(interface("a:b/c", function("f", (("a", found),)))),
        exporting(interface("a:b/c", function("f", result=found))),
        World("root", export_functions=(function("f", (("a", found),)),), exports=(GREETER,)),
    ):
        report = check(world)
        assert words in errors(report)[0]
        with pytest.raises(ContractError) as caught:
            report.ensure_ok("acme/x")
        assert caught.value.code == "contract.unsupported"


def test_async_functions_are_not_supported() -> None:
    """An async function is refused on either side."""
    for world in (
        importing(interface("a:b/c", function("f", is_async=True))),
        exporting(interface("a:b/c", function("f", is_async=True))),
    ):
        assert errors(check(world))[0].startswith("a:b/c: function `f` is async")


@pytest.mark.parametrize(
    ("version", "requirement", "message"),
    [
        ("1.2.0", "^1.0", None),
        ("1.0.0", "^1.0", None),
        ("1.9.0", "^1.0", None),
        ("1.2.0", "^2.0", "the manifest declares version ^2.0, the component exports 1.2.0"),
        ("2.0.0", "^2.0", "the component exports version 2.0.0, the host calls cloche:example/greeter@1.2.0"),
        ("1.2.0", "1.0", None),
        ("1.2.0", ">=1.0,<3", None),
        ("1.2.0", "<1.2", "the manifest declares version <1.2, the component exports 1.2.0"),
        ("1.2.0-rc.1", "*", "the component exports version 1.2.0-rc.1, the host calls cloche:example/greeter@1.2.0"),
    ],
)
def test_declared_extension_points(version: str, requirement: str, message: str | None) -> None:
    """What the manifest declares must be exported, at a version that it states and the host knows."""
    exported = interface(f"cloche:example/greeter@{version}", *GREETER.functions)
    report = check(exporting(exported), extension_points=[GREETER], declared=declaring(requirement))
    assert [finding.message for finding in report.errors] == ([message] if message else [])
    (binding,) = report.exports
    assert binding.is_declared
    assert binding.revision == int(version[0])
    is_known = version.startswith("1.") and "-" not in version
    assert (binding.extension_point == GREETER.id) is is_known


def test_a_declaration_without_an_export_suggests_one() -> None:
    """A misspelt or missing export is answered with what the component does export."""
    near = check(exporting(GREETER), declared=declaring("*", "cloche:example/greeting"))
    assert errors(near) == [
        "cloche:example/greeting: the manifest declares this extension point, but the component does not export it "
        "(did you mean `cloche:example/greeter`?)"
    ]
    far = check(exporting(GREETER), declared=declaring("*", "acme:other/thing"))
    assert errors(far)[0].endswith("(it exports cloche:example/greeter)")


@pytest.mark.parametrize(
    ("version", "functions", "fits"),
    [
        ("1.2.0", GREETER.functions, True),
        ("1.2.0", (*GREETER.functions, function("wave")), True),
        ("1.2.0", (function("wave"),), False),
        ("1.1.0", (), True),
        ("1.1.0", (function("wave"),), False),
        ("1.3.0", (*GREETER.functions, function("wave")), True),
        ("1.3.0", (function("wave"),), False),
        ("1.2.0", (function("greet", (("name", Prim.STRING),), Prim.U8),), False),
        ("1.2.0", (function("greet", (("who", Prim.STRING),), Prim.STRING),), False),
    ],
)
def test_types_of_exports(version: str, functions: tuple[Function, ...], fits: bool) -> None:
    """An export has what the host calls: an older one may lack what was added since, a newer one may have more."""
    exported = interface(f"cloche:example/greeter@{version}", *functions)
    declared = check(exporting(exported), extension_points=[GREETER], declared=declaring("*"))
    assert (not declared.errors) is fits
    assert (declared.exports[0].extension_point == GREETER.id) is fits
    bare = check(exporting(exported), extension_points=[GREETER])
    assert bare.errors == ()
    assert (bare.exports[0].extension_point == GREETER.id) is fits
    assert any("only be called dynamically" in text for text in warnings(bare)) is not fits


def test_the_host_may_know_several_versions() -> None:
    """Each export is held against the version on its own track."""
    second = interface("cloche:example/greeter@2.0.0", function("greet"))
    exported = interface("cloche:example/greeter@2.0.0", function("greet"))
    report = check(exporting(GREETER, exported), extension_points=[GREETER, second], declared=declaring("^2.0"))
    assert [binding.extension_point for binding in report.exports] == [GREETER.id, second.id]
    assert report.findings == ()


def test_an_export_without_a_version_meets_only_any_version() -> None:
    """A requirement names versions, and no version is none of them."""
    bare = interface("cloche:example/greeter", *GREETER.functions)
    assert check(exporting(bare), declared=declaring("*")).errors == ()
    assert errors(check(exporting(bare), declared=declaring(">=0.1"))) == [
        "cloche:example/greeter: the manifest declares version >=0.1, the component exports no version "
        "(mend [extension-points], or build against that version)"
    ]


def test_versions_are_listed_from_old_to_new() -> None:
    """The newest version that the host has is recommended, whatever the order of the texts."""
    known = [interface(f"cloche:example/greeter@{version}", function("greet")) for version in ("10.0.0", "2.0.0")]
    exported = interface("cloche:example/greeter@3.0.0", function("greet"))
    listed = "cloche:example/greeter@2.0.0 and cloche:example/greeter@10.0.0"
    remedy = "build against cloche:example/greeter@10.0.0"
    declared = check(exporting(exported), extension_points=known, declared=declaring("*"))
    assert [(finding.message.endswith(f"the host calls {listed}"), finding.remedy) for finding in declared.errors] == [
        (True, remedy)
    ]
    (warned,) = check(exporting(exported), extension_points=known).warnings
    assert warned.remedy == remedy
    (refused,) = check(importing(exported), providers=[provider(point) for point in known]).errors
    assert (refused.message.endswith(f"the host has {listed}"), refused.remedy) == (True, remedy)


def test_strangers_are_welcome() -> None:
    """A bare component with interfaces that the host has never seen passes, and stays callable."""
    world = World("root", exports=(interface("acme:x/y@3.1.0", function("f")), interface("inline", function("g"))))
    report = check(world, extension_points=[GREETER])
    report.ensure_ok("sha256-abc")
    assert [(item.id, item.revision, item.extension_point) for item in report.exports] == [
        ("acme:x/y@3.1.0", 3, None),
        ("inline", None, None),
    ]
    assert report.findings == ()


def test_what_componentize_py_leaves_behind_is_not_listed() -> None:
    """Its own interface `exports` is no function of the plugin; one of the same name that an author made is."""
    text, flag = Prim.STRING, Prim.BOOL
    own = interface("exports", function("init", (("app-name", text), ("symbols", text), ("stub-wasi", flag))))
    authors = interface("exports", function("init", (("name", text),)))
    assert [item.id for item in check(exporting(own, GREETER)).exports] == [GREETER.id]
    assert [item.id for item in check(exporting(authors)).exports] == ["exports"]


def test_a_component_that_exports_nothing() -> None:
    """A component without any function to call is a warning."""
    assert warnings(check(World("root"))) == ["the world: the component exports no function, so nothing can be called"]


LIFECYCLE = interface("cloche:plugin/lifecycle@1.0.0", function("initialize"), function("start"), function("stop"))


@pytest.mark.parametrize(
    ("instances", "functions", "count"),
    [
        (Instances.SINGLE, LIFECYCLE.functions, 0),
        (Instances.POOLED, LIFECYCLE.functions, 1),
        (Instances.PER_CALL, LIFECYCLE.functions, 1),
        (Instances.PER_CALL, LIFECYCLE.functions[:1], 0),
    ],
)
def test_start_and_stop_need_a_single_instance(
    instances: Instances, functions: tuple[Function, ...], count: int
) -> None:
    """Only a single instance is started and stopped, so exporting that elsewhere is a warning."""
    report = check(exporting(interface(LIFECYCLE.id, *functions)), instances=instances)
    assert len(report.warnings) == count
    assert report.errors == ()


def test_a_wrong_lifecycle_is_an_error() -> None:
    """The host calls the lifecycle by itself, so one of another type or version stops the load."""
    wrong = interface(LIFECYCLE.id, function("initialize", (("now", Prim.U8),)), *LIFECYCLE.functions[1:])
    other = interface("cloche:plugin/lifecycle@2.0.0", function("initialize"))
    for exported in (wrong, other):
        assert len(check(exporting(exported), extension_points=[LIFECYCLE], instances=Instances.SINGLE).errors) == 1


BAD_TYPE = importing(store("0.2.1", function("open")))
UNKNOWN = importing(interface("a:b/c@1.0.0", function("f")))
ASYNC = importing(interface("a:b/c@1.0.0", function("f", is_async=True)))
DENIED = CapabilityGrant("acme:dice", granted=False, required=True, reason="because")
UNMET = Finding(Severity.ERROR, REQUIRES, "[requires]", "gpu = true, no usable GPU was found")
RAISED: list[tuple[str, list[World], list[CapabilityGrant], list[Finding], type[ClocheError], str]] = [
    ("a type", [BAD_TYPE], [], [], ContractError, "contract.mismatch"),
    ("async", [ASYNC], [], [], ContractError, "contract.unsupported"),
    ("unknown", [UNKNOWN], [], [], GrantError, "grant.refused"),
    ("required", [], [DENIED], [], GrantError, "grant.required"),
    ("required and unknown", [UNKNOWN], [DENIED], [], GrantError, "grant.refused"),
    ("a type and required", [BAD_TYPE], [DENIED], [], ContractError, "contract.mismatch"),
    ("a type and async", [BAD_TYPE, ASYNC], [], [], ContractError, "contract.mismatch"),
    ("async and unknown", [ASYNC, UNKNOWN], [], [], ContractError, "contract.mismatch"),
    ("another system", [], [], [UNMET], ManifestError, "manifest.requires"),
    ("everything", [BAD_TYPE, ASYNC, UNKNOWN], [DENIED], [UNMET], ManifestError, "manifest.requires"),
]


@pytest.mark.parametrize(
    ("worlds", "decided", "unmet", "kind", "code"), [case[1:] for case in RAISED], ids=[case[0] for case in RAISED]
)
def test_what_is_raised(
    worlds: list[World],
    decided: list[CapabilityGrant],
    unmet: list[Finding],
    kind: type[ManifestError] | type[ContractError] | type[GrantError],
    code: str,
) -> None:
    """The error's class and code follow from all causes together; its text and its findings hold each of them."""
    world = importing(*(found for one in worlds for found in one.imports))
    report = check(world, providers=[provider()], grants=decided)
    report = replace(report, findings=(*unmet, *report.findings))
    with pytest.raises(kind) as caught:
        report.ensure_ok("acme/x")
    assert (caught.value.code, caught.value.plugin) == (code, "acme/x")
    assert list(caught.value.findings) == errors(report) == caught.value.to_json()["findings"]
    assert str(caught.value).count("\n  - ") == len(report.errors)
    for finding in report.errors:
        assert f"\n  - {finding}" in str(caught.value)


def test_many_findings_are_cut() -> None:
    """A component with thousands of faults gets a bounded answer, and warnings never push out errors."""
    world = World(
        "root",
        imports=tuple(interface(f"a:b/c{number}@1.0.0", function("f")) for number in range(1000)),
        exports=tuple(interface(f"cloche:example/greeter@1.0.{number}", function("x")) for number in range(1000)),
    )
    report = check(world, extension_points=[GREETER])
    assert (len(report.imports), len(report.exports)) == (1000, 1000)
    assert (len(report.errors), len(report.warnings)) == (MAX_FINDINGS, MAX_FINDINGS)
    with pytest.raises(GrantError, match=f"and {MAX_FINDINGS - MAX_FINDINGS_SHOWN} more"):
        report.ensure_ok("acme/x")


def test_a_report_is_plain_values_too() -> None:
    """The report goes through JSON unchanged."""
    world = World("root", (store(), GREETER), (GREETER,), (function("f"),), (function("g"),))
    report = check(world, providers=[provider()], grants=grants())
    value = report.to_json()
    assert json.loads(json.dumps(value)) == value
    assert [item["disposition"] for item in value["imports"]] == ["provided", "refused"]  # type: ignore[attr-defined]


def test_suggestions_are_rationed() -> None:
    """Looking for near names costs time, so only the first wrong names of a report are looked up."""
    world = importing(*(interface(f"wasi:keyvalue/stora@0.{number}.0", function("f")) for number in range(100)))
    found = [text for text in errors(check(world, providers=[provider()])) if "did you mean" in text]
    assert len(found) == MAX_SUGGESTIONS
