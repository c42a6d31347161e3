"""The beginning of programs that try in a process of their own what could kill it, and how their end is judged."""

from __future__ import annotations

import subprocess

SETUP = """
import asyncio, gc, os, signal, threading, time
from pathlib import Path
from support.gate_capability import Gate, GateHost
from support.wat_plugins import BASICS, load, open_host

side = GateHost()
folder = Path(sys.argv[1])

def later(seconds):
    def send():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send, daemon=True).start()

def interrupted(call, *args):
    try:
        call(*args)
    except KeyboardInterrupt:
        return "interrupted"
    return "not interrupted"
"""


def ensure_good(done: subprocess.CompletedProcess[str], expected: str) -> None:
    """The program ended by itself, said what it should, and nothing was printed about ignored exceptions."""
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == expected, done.stderr
    assert done.stderr == ""
