"""A program that tries what its surroundings let it reach: `PORT SOCKET PROCESS DIRECTORY...`; it writes JSON.

Each directory holds a file `data` and a program `true`. An outcome is "yes" or the name of an error.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path


def main(port: str, name: str, process: str, *directories: str) -> None:
    """Try everything."""
    attempts: dict[str, Callable[[], object]] = {
        "connect": lambda: socket.create_connection(("127.0.0.1", int(port))),
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "abstract-socket": lambda: socket.socket(socket.AF_UNIX).connect(f"\0{name}"),
        "signal": lambda: os.kill(int(process), 0),
        "signal-own": lambda: os.kill(os.getppid(), 0),
    }
    for directory in map(Path, directories):
        attempts |= {
            f"{directory.name}: read": (directory / "data").read_bytes,
            f"{directory.name}: write": partial((directory / "data").open, "r+b"),
            f"{directory.name}: make": (directory / "made").touch,
            f"{directory.name}: execute": partial(os.posix_spawn, directory / "true", ["true"], {}),
        }
    print(json.dumps({what: outcome(attempt) for what, attempt in attempts.items()}))


def outcome(attempt: Callable[[], object]) -> str:
    """Whether it works."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "yes"


if __name__ == "__main__":
    main(*sys.argv[1:])
