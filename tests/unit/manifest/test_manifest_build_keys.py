"""The keys of `[component]` that say how to build it."""

from __future__ import annotations

import pytest

from cloche.errors import ManifestError
from cloche.manifest.parse import parse_manifest

HEAD = 'format-version = 1\nid = "acme/x"\nname = "X"\nversion = "1.0.0"\n[component]\nsource = "app.py"\n'


@pytest.mark.parametrize(
    "line",
    [
        'language = "python"',
        'wit = "interfaces"',
        'world = "plugin"',
        'world = "acme:x/plugin@1.0.0"',
        'requirements = ["markdown-it-py>=3", "lark"]',
        "wasi = false",
    ],
)
def test_keys_for_building_are_accepted(line: str) -> None:
    """The schema knows them; what they mean is the build room's."""
    component = parse_manifest((HEAD + line + "\n").encode()).component
    assert component is not None
    assert component.source == "app.py"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('language = "perl"', "component.language"),
        ('wit = "../x"', "component.wit"),
        ('world = "--x"', "component.world"),
        ('requirements = "x"', "component.requirements"),
        ('wasi = "no"', "component.wasi"),
        ('requirments = ["x"]', "did you mean requirements"),
    ],
)
def test_wrong_values_for_building_are_refused_by_name(line: str, key: str) -> None:
    """Each mistake names its key, a misspelt one the nearest known."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest((HEAD + line + "\n").encode())
    assert key in str(caught.value)
