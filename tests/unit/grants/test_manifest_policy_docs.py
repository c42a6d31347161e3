"""docs/manifest-and-policy.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloche.grants.policy_file import _PolicyTable, parse_policy
from cloche.grants.wasi import WASI_SCHEMAS
from cloche.manifest.explain import DocumentError
from cloche.manifest.limits import LIMIT_KEYS, format_limit
from cloche.manifest.parse import parse_manifest
from cloche.manifest.schema import ManifestTable
from cloche.model import BOUNDS

PAGE = (Path(__file__).parents[3] / "docs" / "manifest-and-policy.md").read_text("utf-8")
MANIFEST, POLICY = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_read() -> None:
    """Both files on the page are valid."""
    assert parse_manifest(MANIFEST.encode()).id == "acme/thumbnailer"
    assert "acme/thumbnailer" in parse_policy(POLICY.encode()).plugins


def test_every_limit_is_in_the_table() -> None:
    """The table of limits holds the numbers of model.BOUNDS."""
    for key, limit in LIMIT_KEYS.items():
        bound = BOUNDS[limit.name]
        numbers = " | ".join(format_limit(limit.name, number) for number in (bound.least, bound.default, bound.most))
        assert f"| `{key}` | {numbers} | {bound.unit} |" in PAGE


def test_every_key_is_named() -> None:
    """No key of either file is missing from the page."""
    for model in (ManifestTable, _PolicyTable):
        for info in model.model_fields.values():
            assert re.search(rf"`(?:\w|-)*{info.alias}|, `{info.alias}`", PAGE), info.alias
    for schema in WASI_SCHEMAS:
        assert f"| `{schema.id}`" in PAGE


def test_the_error_on_the_page_is_the_real_one() -> None:
    """The example of an error message is what a user sees."""
    text = MANIFEST.replace('memory = "256MiB"', 'memory = "1"\nfule = 1')
    with pytest.raises(DocumentError) as caught:
        parse_manifest(text.encode())
    assert str(caught.value) in PAGE
