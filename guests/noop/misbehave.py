"""What plugins should not do. Everything that a call needs is imported here: a call can import nothing."""

import encodings.idna  # noqa: F401 - name look-ups need it
import os
import random
import socket
import sys
import time

from componentize_py_types import Err
from wit_world import exports

from cloche_guest import fresh_random, keyvalue, log

MEBIBYTE = 1 << 20

_generator = fresh_random()
_kept: list[object] = []


class Misbehave(exports.Misbehave):
    """The interface `misbehave`."""

    def sleep(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)

    def exit(self, status: int) -> None:
        sys.exit(status)

    def crash(self, message: str) -> None:
        raise RuntimeError(message)

    def fail(self, message: str) -> None:
        raise Err(message)

    def spin(self) -> None:
        while True:
            pass

    def burn(self, rounds: int) -> int:
        total = 0
        for number in range(rounds):
            total = (total * 31 + number) & 0xFFFFFFFF
        return total

    def allocate(self, bytes: int, keep: bool) -> int:  # noqa: A002 - the WIT's name
        pieces = [b"\x01" * MEBIBYTE for _ in range(-(-bytes // MEBIBYTE))]
        if keep:
            _kept.append(pieces)
        return len(pieces) * MEBIBYTE

    def recurse(self, depth: int) -> int:
        return _recurse(depth)

    def print(self, text: str, times: int, to_stderr: bool) -> None:
        stream = sys.stderr if to_stderr else sys.stdout
        for _ in range(times):
            stream.write(text)

    def log_flood(self, lines: int) -> None:
        for number in range(lines):
            log.info(f"line {number}")

    def hoard(self, count: int) -> int:
        for _ in range(count):
            bucket = keyvalue.open()
            "" in bucket  # noqa: B015 - opens it
            _kept.append(bucket)
        return len(_kept)

    def read_file(self, path: str) -> bytes:
        return _tried(lambda: open(path, "rb").read())

    def write_file(self, path: str, contents: bytes) -> None:
        def write() -> None:
            with open(path, "wb") as file:
                file.write(contents)

        _tried(write)

    def list_files(self, path: str) -> list[str]:
        return _tried(lambda: sorted(os.listdir(path)))

    def connect(self, host: str, port: int) -> None:
        _tried(lambda: socket.create_connection((host, port), timeout=2).close())

    def environment(self) -> list[tuple[str, str]]:
        return sorted(os.environ.items())

    def randoms(self) -> tuple[bytes, int, int]:
        return os.urandom(16), random.getrandbits(64), _generator.getrandbits(64)

    def now(self) -> int:
        return int(time.time() * 1000)

    def import_late(self, name: str) -> None:
        __import__(name)


def _recurse(depth: int) -> int:
    return 0 if depth == 0 else 1 + _recurse(depth - 1)


def _tried(function):
    try:
        return function()
    except OSError as error:
        raise Err(f"{type(error).__name__}: {error}") from None
