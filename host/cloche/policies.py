"""Reads what the operator wrote: the policy, and the secrets that it refers to."""

from __future__ import annotations

import os
from pathlib import Path

from cloche.config import POLICY_FILE, Settings
from cloche.errors import GrantError, ManifestError
from cloche.files import read_regular
from cloche.grants.policy import Policy, SecretRef, SecretSource
from cloche.grants.policy_file import parse_policy
from cloche.manifest.document import MAX_DOCUMENT_BYTES
from cloche.text import one_line

MAX_SECRET_CHARS = 64 << 10


def read_policy(file: Path) -> Policy:
    """The policy in `file`. Blocks on the disk.

    Raises: ManifestError (`policy.missing` when the file cannot be read, else `policy.*` for what is wrong with it).
    """
    try:
        data = read_regular(file, MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        text = f"the policy {one_line(file)} cannot be read: {error.strerror or error}"
        raise ManifestError(text, code="policy.missing") from error
    return parse_policy(data, str(file))


def operator_policy(settings: Settings, file: Path | None = None) -> Policy:
    """The policy in `file`, else in the settings' own; without either the empty one, named for where one would be read.

    Blocks on the disk. Raises: as `read_policy`.
    """
    found = file or settings.policy_file()
    return Policy(file=str(settings.home / POLICY_FILE)) if found is None else read_policy(found)


def read_secret(name: str, reference: SecretRef) -> str:
    """The text of a secret that the policy refers to. Read where the plugin is loaded, never logged.

    Raises: GrantError (`grant.refused`) naming the secret and where it should have been.
    """
    if reference.source is SecretSource.VALUE:
        return reference.text
    if reference.source is SecretSource.ENV:
        text = os.environ.get(reference.text)
        if text is None:
            raise GrantError(
                f"secret {name}: the variable {reference.text}, which the policy names, is not set",
                code="grant.refused",
            )
        return text
    try:
        with open(reference.text, encoding="utf-8") as file:  # noqa: PTH123 - one read, whatever the file is
            text = file.read(MAX_SECRET_CHARS + 2).removesuffix("\n")
    except (OSError, UnicodeError) as error:
        raise GrantError(
            f"secret {name}: {reference.text}, which the policy names, cannot be read: {error}", code="grant.refused"
        ) from error
    if len(text) > MAX_SECRET_CHARS:
        raise GrantError(
            f"secret {name}: {reference.text} has more than {MAX_SECRET_CHARS} characters", code="grant.refused"
        )
    return text
