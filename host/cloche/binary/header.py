"""What a file is, judged by its first bytes, so that a wrong file is named and not called "malformed"."""

from __future__ import annotations

from typing import NoReturn

from cloche.binary.reader import Buffer
from cloche.binary.sections import COMPONENT_PREAMBLE, MODULE_PREAMBLE, PREAMBLE_BYTES
from cloche.errors import ContractError

_HEAD_BYTES = 4096
_MAGIC = b"\0asm"

# First bytes, what such a file is, and what its owner should do.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x7fELF", "native code (ELF, or an engine's compiled output)", "Hand over the component itself"),
    (b"MZ", "native code (Windows executable)", "Hand over the component itself"),
    (b"\xcf\xfa\xed\xfe", "native code (Mach-O)", "Hand over the component itself"),
    (b"\xca\xfe\xba\xbe", "native code or Java bytecode", "Hand over the component itself"),
    (b"\x1f\x8b", "compressed by gzip", "Decompress it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "Decompress it first"),
    (b"PK\x03\x04", "a zip archive", "Unpack it and hand over the component inside"),
    (b"!<arch>", "a static library", "Link it into a component first"),
    (b"BC\xc0\xde", "LLVM bitcode", "Build a component with `wasm-tools component new`"),
)


def is_component(data: Buffer) -> bool:
    """Whether `data` begins as a component in binary form. Added in 0.1."""
    return bytes(data[:PREAMBLE_BYTES]) == COMPONENT_PREAMBLE


def ensure_component(data: Buffer) -> None:
    """Refuse everything but a component in binary form, and say what was handed over instead.

    Only the first bytes are looked at. The engine would also take WAT *text*, which hash and scan tools do not see as
    wasm (H21), so text is refused here. Pure, never blocks.

    Raises: ContractError: `component.core-module` for a core module, `component.malformed` for an empty file, a cut-off
        header or an unknown version, `component.not-wasm` for everything else. Added in 0.1.
    """
    head = bytes(data[:_HEAD_BYTES])
    preamble = head[:PREAMBLE_BYTES]
    if preamble == COMPONENT_PREAMBLE:
        return
    if not head:
        _refuse("component.malformed", "The file is empty; expected a component. Build it again.")
    if preamble == MODULE_PREAMBLE:
        _refuse(
            "component.core-module",
            "The file is a core WebAssembly module, not a component. Make one of it with `wasm-tools component new`.",
        )
    if COMPONENT_PREAMBLE.startswith(preamble) or MODULE_PREAMBLE.startswith(preamble):
        _refuse(
            "component.malformed",
            f"The file ends after {len(preamble)} bytes, inside WebAssembly's 8-byte header. Copy or build it again.",
        )
    if preamble.startswith(_MAGIC):
        _refuse(
            "component.malformed",
            f"The file is WebAssembly of an unknown version (header {preamble.hex(' ')}, expected "
            f"{COMPONENT_PREAMBLE.hex(' ')}). Build it with current tools.",
        )
    for signature, what, remedy in _SIGNATURES:
        if head.startswith(signature):
            _refuse("component.not-wasm", f"The file is {what}, not a WebAssembly component. {remedy}.")
    if _is_text(head):
        if _first_token(head).startswith((b"(component", b"(module")):
            _refuse(
                "component.not-wasm",
                "The file is WebAssembly text, not binary. Turn it into a component with `wasm-tools parse -o`.",
            )
        _refuse("component.not-wasm", "The file is text, not a WebAssembly component. Build the component first.")
    _refuse(
        "component.not-wasm",
        f"The file is not WebAssembly: it begins with {preamble.hex(' ')}, expected {COMPONENT_PREAMBLE.hex(' ')}.",
    )


def _refuse(code: str, message: str) -> NoReturn:
    raise ContractError(message, code=code)


def _is_text(head: bytes) -> bool:
    # A cut inside the last character must not turn text into "binary".
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char in "\t\n\r\f\ufeff" for char in text)


def _first_token(head: bytes) -> bytes:
    for line in head.removeprefix(b"\xef\xbb\xbf").splitlines():
        code = line.strip()
        if code and not code.startswith(b";;"):
            return b"(" + code[1:].lstrip() if code.startswith(b"(") else code
    return b""
