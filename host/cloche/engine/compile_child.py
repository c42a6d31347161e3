"""What runs inside a compile child: one input, one engine, one output. Locked in before it sees the input.

A compiler that was taken over by its input can still write whatever native code it likes, so it compiles one digest and
ends. Started by `cloche.engine.compile`, which reads the answer from standard output.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from cloche.engine.ffi import ByteVec, Library, ptr, take_error
from cloche.engine.profile import Profile, new_engine
from cloche.model import Metering

_MESSAGE_CHARACTERS = 2000
_WRITE_BYTES = 16 << 20


def prepare(arguments: list[str]) -> Callable[[], int]:
    """Load the engine while files are in reach; the result compiles standard input into the descriptor `output`.

    `arguments` is one JSON object: `library`, `version`, `kind` (`component` or `module`), `output`, and the fields of
    the profile. The answer, one JSON object on standard output, has `bytes`, `error` (the
    engine's words), or `too-large` (bytes that it may not write).
    """
    order = json.loads(arguments[0])
    lib = Library(Path(order["library"]), order["version"])
    profile = Profile(**{**order["profile"], "metering": Metering(order["profile"]["metering"])})
    engine = new_engine(lib, profile)
    compile_kind, serialize_kind = (
        (lib.wasmtime_component_new, lib.wasmtime_component_serialize)
        if order["kind"] == "component"
        else (lib.wasmtime_module_new, lib.wasmtime_module_serialize)
    )
    output = int(order["output"])

    def run() -> int:
        with mmap.mmap(0, 0, access=mmap.ACCESS_COPY) as data:
            size = len(data)
            address = ctypes.addressof(ctypes.c_char.from_buffer(data))
            compiled, code = ptr(), ByteVec()
            error = compile_kind(engine, address, size, ctypes.byref(compiled))
            if not error:
                error = serialize_kind(compiled, ctypes.byref(code))
            if error:
                return _answer({"error": take_error(lib, error)[:_MESSAGE_CHARACTERS]})
            try:
                _write_all(output, code)
            except OSError as failure:
                if failure.errno != errno.EFBIG:
                    raise
                return _answer({"too-large": code.size})
            # The process ends here: freeing a hundred megabytes first would only take time.
            status = _answer({"bytes": code.size})
            os._exit(status)

    return run


def _answer(message: dict[str, object]) -> int:
    os.write(1, json.dumps(message).encode())
    return 0


def _write_all(descriptor: int, code: ByteVec) -> None:
    view = memoryview((ctypes.c_char * code.size).from_address(code.data or 0)).cast("B")
    # A child before this one may have been killed while it wrote.
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    offset = 0
    while offset < code.size:
        offset += os.write(descriptor, view[offset : offset + _WRITE_BYTES])
