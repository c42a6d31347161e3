"""A host keeps everything that it builds, compiles and reads below one cap."""

from __future__ import annotations

from pathlib import Path

from cloche.app import Host
from cloche.caches import Caches
from cloche.config import Settings
from cloche.grants.policy import Policy
from cloche.model import Trusted

CAP = 400 << 10
MANIFEST = """\
format-version = 1
id = "acme/p{number}"
name = "P"
version = "1.0.0"
[component]
source = "app.wat"
"""
# A hundred kilobytes of data make the component as large, and its native code larger.
WAT = """\
(component
  (core module $m
    (memory 2)
    (data (i32.const 0) "{data}")
    (func (export "f") (result i32) (i32.const {number})))
  (core instance $i (instantiate $m))
  (func (export "f") (result u32) (canon lift (core func $i "f"))))
"""


def test_built_and_compiled_code_share_the_cap(tmp_path: Path) -> None:
    """The cap holds after every load; what was used last stays, whether it was built or compiled."""
    settings = Settings(tmp_path / "home", cache_bytes=CAP, background_compile=False)
    with Host(policy=Policy.empty(), settings=settings) as host:
        for number in range(4):
            root = tmp_path / f"p{number}"
            root.mkdir()
            (root / "plugin.toml").write_text(MANIFEST.format(number=number))
            (root / "app.wat").write_text(WAT.format(number=number, data=f"{number}" * 100_000))
            plugin = host.load(root, trust=Trusted())
            entries = Caches(settings).entries()
            assert sum(entry.size_bytes for entry in entries) <= CAP
            assert {"component", "built"} <= {entry.kind for entry in entries}
            assert plugin[""].f() == number
    assert len([entry for entry in entries if entry.kind == "built"]) < 4
