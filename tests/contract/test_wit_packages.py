"""Every WIT package of ours parses, is gated and documented, is locked, and is implemented by its capability."""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from cloche.capabilities.config.host import Config
from cloche.capabilities.data.host import Data
from cloche.capabilities.keyvalue.host import AtomicsHost, Bucket, Cas, KeyValue
from cloche.capabilities.logging.host import Logging
from cloche.capabilities.telemetry.host import Telemetry
from cloche.version import WASI_VERSION
from cloche.wit.names import snake
from cloche.wit.tools import wasm_tools
from support.capability_rig import Rig

WIT = Path(__file__).parents[2] / "wit"
OURS = ["plugin", "host", "example", "script"]
STANDARD = ["deps/wasi-logging", "deps/wasi-config", "deps/wasi-keyvalue"]
# The engine's own WASI. That its functions are the engine's is for tests/integration/test_engine_wasi.py to show.
WASI = [f"deps/wasi-{name}" for name in ("cli", "clocks", "filesystem", "io", "random", "sockets")]
CAPABILITIES = [Logging(), Config(), KeyValue(), Data(), Telemetry()]


@cache
def document(package: str) -> Any:
    """The package as `wasm-tools component wit --json` sees it."""
    found = subprocess.run(
        [str(wasm_tools()), "component", "wit", "--json", str(WIT / package)], capture_output=True, check=False
    )
    assert found.returncode == 0, found.stderr.decode()
    return json.loads(found.stdout)


def items(package: str) -> Iterator[tuple[str, Any, bool]]:
    """Each item of the package itself: path, JSON, and whether it can carry a gate (fields and cases cannot)."""
    parsed = document(package)
    own = len(parsed["packages"]) - 1
    for world in parsed["worlds"]:
        if world["package"] == own:
            yield world["name"], world, True
    for number, interface in enumerate(parsed["interfaces"]):
        if interface["package"] != own:
            continue
        yield interface["name"], interface, True
        for function in interface["functions"].values():
            yield f"{interface['name']}.{function['name']}", function, True
        for type_ in parsed["types"]:
            if type_["owner"] != {"interface": number} or "type" in (
                type_["kind"] if isinstance(type_["kind"], dict) else {}
            ):
                continue
            path = f"{interface['name']}.{type_['name']}"
            yield path, type_, True
            for shape in type_["kind"].values() if isinstance(type_["kind"], dict) else ():
                for part in (
                    (shape.get("fields") or shape.get("cases") or shape.get("flags") or [])
                    if isinstance(shape, dict)
                    else []
                ):
                    yield f"{path}.{part['name']}", part, False


@pytest.mark.parametrize("package", [*OURS, *STANDARD, *WASI])
def test_package_is_read_alone(package: str) -> None:
    """Each directory is a whole package with everything it needs."""
    assert document(package)["packages"]


@pytest.mark.parametrize("package", OURS)
def test_every_item_is_documented(package: str) -> None:
    """Packages, interfaces, functions, types, fields, cases and worlds all carry a comment."""
    missing = [path for path, item, _ in items(package) if not item.get("docs", {}).get("contents")]
    assert missing == []
    assert document(package)["packages"][-1]["docs"]["contents"]


@pytest.mark.parametrize("package", OURS)
def test_every_item_is_gated(package: str) -> None:
    """Each item says since which version it exists, and none claims a version later than the package's."""
    version = document(package)["packages"][-1]["name"].rsplit("@", 1)[1]
    gates = {
        path: item.get("stability", {}).get("stable", {}).get("since") for path, item, gated in items(package) if gated
    }
    assert len(gates) > 3
    assert {path: gate for path, gate in gates.items() if gate is None or gate > version} == {}


@pytest.mark.parametrize("package", OURS)
def test_error_variants_leave_room(package: str) -> None:
    """A variant named `error` or `status` ends in `other`, because it is closed once released."""
    for type_ in document(package)["types"]:
        if type_["name"] in ("error", "status") and isinstance(type_["kind"], dict) and "variant" in type_["kind"]:
            assert type_["kind"]["variant"]["cases"][-1]["name"] in ("other", "io")


@pytest.mark.parametrize("package", [*OURS, *STANDARD, *WASI])
def test_comments_make_valid_docstrings(package: str) -> None:
    """No comment holds a backslash or triple quotes, which guest bindings would paste into a Python string."""
    for path, item, _ in items(package):
        text = item.get("docs", {}).get("contents") or ""
        assert "\\" not in text, path
        assert '"""' not in text, path


def test_dependencies_match_their_lock() -> None:
    """Files in deps/ and released/ are exactly those of the lock, byte for byte."""
    found = {
        str(path.relative_to(WIT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("deps", "released")
        for path in sorted((WIT / folder).glob("*/*.wit"))
    }
    assert json.loads((WIT / "deps.lock.json").read_text()) == found


@pytest.mark.parametrize("package", [*OURS, *WASI])
def test_links_carry_whole_packages(package: str) -> None:
    """Each dependency of a package has the same files, with the same content, as the package that it stands for."""
    for dependency in (WIT / package / "deps").glob("*"):
        source = (
            WIT / dependency.name.removeprefix("cloche-")
            if dependency.name.startswith("cloche-")
            else WIT / "deps" / dependency.name
        )
        assert {path.name: path.read_bytes() for path in dependency.glob("*.wit")} == {
            path.name: path.read_bytes() for path in source.glob("*.wit")
        }
        assert not dependency.is_symlink(), "the wheel builder follows a directory only once"


@pytest.mark.parametrize("package", WASI)
def test_wasi_is_of_the_engines_version_and_stable(package: str) -> None:
    """Each package is of the version that the grants name, and holds no item that the engine leaves out."""
    assert document(package)["packages"][-1]["name"] == f"wasi:{package.removeprefix('deps/wasi-')}@{WASI_VERSION}"
    assert "@unstable" not in (WIT / package / "package.wit").read_text()


@pytest.mark.parametrize("package", OURS)
def test_released_text_stays(package: str) -> None:
    """The text of a released version is never edited: a change needs a new version."""
    name = document(package)["packages"][-1]["name"].replace(":", "-")
    frozen = WIT / "released" / name
    if frozen.is_dir():
        assert {path.name: path.read_text() for path in frozen.glob("*.wit")} == {
            path.name: path.read_text() for path in (WIT / package).glob("*.wit")
        }


# Names, parameters and results as the standard packages publish them; a change here breaks every guest.
STANDARD_FUNCTIONS = {
    "deps/wasi-logging": {"log": ("level", "context", "message")},
    "deps/wasi-config": {"get": ("key",), "get-all": ()},
    "deps/wasi-keyvalue": {
        "open": ("identifier",),
        "[method]bucket.get": ("self", "key"),
        "[method]bucket.set": ("self", "key", "value"),
        "[method]bucket.delete": ("self", "key"),
        "[method]bucket.exists": ("self", "key"),
        "[method]bucket.list-keys": ("self", "cursor"),
        "[static]cas.new": ("bucket", "key"),
        "[method]cas.current": ("self",),
        "increment": ("bucket", "key", "delta"),
        "swap": ("cas", "value"),
        "get-many": ("bucket", "keys"),
        "set-many": ("bucket", "key-values"),
        "delete-many": ("bucket", "keys"),
        "on-set": ("bucket", "key", "value"),
        "on-delete": ("bucket", "key"),
    },
}


@pytest.mark.parametrize("package", STANDARD)
def test_standard_functions_are_unchanged(package: str) -> None:
    """The standard packages have exactly the published functions and parameters."""
    found = {
        name: tuple(param["name"] for param in function["params"])
        for interface in document(package)["interfaces"]
        for name, function in interface["functions"].items()
    }
    assert found == STANDARD_FUNCTIONS[package]


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda capability: capability.schema.id)
def test_capability_implements_its_interfaces(capability: Any, tmp_path: Path) -> None:
    """Each function of each interface has a method that takes as many parameters, on the object that stands for it."""
    package = str(capability.wit().relative_to(WIT))
    hosts = capability.open(capability.schema.request(), Rig(tmp_path).session())
    assert set(hosts) == set(capability.schema.interfaces)
    parsed = document(package)
    name = parsed["packages"][-1]["name"]
    head, version = name.split("@")
    by_id = {f"{head}/{interface['name']}@{version}": interface for interface in parsed["interfaces"]}
    for interface_id, host in hosts.items():
        for function in by_id[interface_id]["functions"].values():
            subject, method, count = target(host, function)
            signature = inspect.signature(getattr(subject, method))
            assert len(signature.parameters) == count, f"{interface_id} {function['name']}"
        host.close()


def target(host: Any, function: Any) -> tuple[Any, str, int]:
    """The object or class, the method's name and its number of parameters, by the rules of `HostInterface`."""
    name, count = function["name"], len(function["params"])
    if name.startswith("[method]"):
        resource, method = name.removeprefix("[method]").split(".")
        return {"bucket": Bucket, "cas": Cas}[resource], snake(method), count
    if name.startswith("[static]"):
        resource, method = name.removeprefix("[static]").split(".")
        assert isinstance(host, AtomicsHost)
        return host, f"{resource}_{snake(method)}", count
    return host, snake(name), count


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda capability: capability.schema.id)
def test_capability_is_found_by_its_entry_point(capability: Any) -> None:
    """The entry point of the same id gives the same capability."""
    (found,) = entry_points(group="cloche.capabilities", name=capability.schema.id)
    assert found.load()().schema is capability.schema
