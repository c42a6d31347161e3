"""A JSON document from a tool, read with checks: every name, index and list is bounded before it is used. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import NoReturn

from cloche.errors import ContractError

# A CPython guest with 25 WASI interfaces takes 90 KiB, all of WASI with HTTP 150 KiB.
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
MAX_NAME_CHARS = 512
MAX_DOCS_CHARS = 16_384

# Names of the component model, with ids and `[method]` prefixes: nothing that could disturb a terminal or a log.
_NAME = re.compile(r"[A-Za-z0-9\[\]._:/@+-]+")


class Document:
    """Checked access to what the tool printed. Every method raises ContractError with the document's `code`.

    `subject` begins each message ("The component's types cannot be read"). Added in 0.1.
    """

    def __init__(self, text: bytes, code: str, subject: str) -> None:
        self.code = code
        self._subject = subject
        self.root = self.table(self._parse(text), "the document")

    def _parse(self, text: bytes) -> object:
        if len(text) > MAX_DOCUMENT_BYTES:
            self.fail(f"its description takes {len(text)} bytes; at most {MAX_DOCUMENT_BYTES} are read")
        try:
            return json.loads(text, object_pairs_hook=self._object)
        except RecursionError:
            self.fail("its description is nested too deeply")
        except ValueError as error:
            self.fail(f"its description is not JSON ({error})")

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        # The tool writes the third imported interface as `interface-2`, and a component may call an import of its own
        # exactly that. The last of two equal keys would then hide the other one, which is how an import goes unseen.
        result = dict(pairs)
        if len(result) != len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            self.fail(f"two items have the name `{twice:.80}`; give the one in your WIT world another name")
        return result

    def fail(self, message: str) -> NoReturn:
        """Refuse the document: `message` says what is wrong, without a full stop."""
        raise ContractError(f"{self._subject}: {message}.", code=self.code)

    def table(self, raw: object, what: str) -> dict[str, object]:
        """`raw` as an object."""
        if not isinstance(raw, dict):
            self.fail(f"{what} should be an object, not {type(raw).__name__}")
        return raw

    def entries(self, raw: object, what: str, most: int) -> list[object]:
        """`raw` as a list of at most `most` entries."""
        if not isinstance(raw, list):
            self.fail(f"{what} should be a list, not {type(raw).__name__}")
        if len(raw) > most:
            self.fail(f"{what}: {len(raw)} entries, at most {most} are allowed")
        return raw

    def single(self, raw: object, what: str) -> tuple[str, object]:
        """The key and value of an object that has exactly one key."""
        entry = self.table(raw, what)
        if len(entry) != 1:
            self.fail(f"{what} should have one key, not {len(entry)}")
        return next(iter(entry.items()))

    def pair(self, raw: object, what: str) -> tuple[object, object]:
        """The two entries of a list."""
        pair = self.entries(raw, what, 2)
        if len(pair) != 2:
            self.fail(f"{what} should have two entries, not {len(pair)}")
        return pair[0], pair[1]

    def index(self, raw: object, within: list[object], what: str) -> int:
        """`raw` as an index into `within`."""
        if type(raw) is not int or not 0 <= raw < len(within):
            self.fail(f"{what} has the index {raw!r:.40}, of {len(within)}")
        return raw

    def name(self, raw: object, what: str) -> str:
        """`raw` as a name of the component model."""
        if not isinstance(raw, str) or not raw:
            self.fail(f"{what} has no name")
        if len(raw) > MAX_NAME_CHARS:
            self.fail(f"{what} has a name of {len(raw)} characters; at most {MAX_NAME_CHARS} are allowed")
        if not _NAME.fullmatch(raw):
            self.fail(f"{what} has the name {raw!r:.80}, which is not one of WIT")
        return raw

    def docs(self, raw: dict[str, object]) -> str:
        """The documentation of an item, cut to MAX_DOCS_CHARS; empty without any."""
        docs = raw.get("docs")
        contents = docs.get("contents") if isinstance(docs, dict) else None
        return contents[:MAX_DOCS_CHARS] if isinstance(contents, str) else ""
