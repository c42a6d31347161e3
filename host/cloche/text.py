"""Text of strangers, made fit for messages, logs and terminals."""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1, and the marks that change the direction of text: what a terminal acts on.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: object) -> str:
    """`text` with control characters shown as `\\x1b` instead of acted on; tabs and line ends stay."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(text).replace("\r\n", "\n"))


def show(value: object) -> str:
    """`value` as an error message shows it: its repr in at most 60 characters. Never fails, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a huge number"  # Python does not write out numbers of more than some thousand digits
    try:
        shown = repr(value)
    except Exception:
        return f"this {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "..."


def one_line(text: object) -> str:
    """`clean` text on one line."""
    return clean(text).replace("\n", "\\n").replace("\t", " ")
