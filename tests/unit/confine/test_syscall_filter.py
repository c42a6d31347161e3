"""The system-call filter, judged by running its instructions on made-up calls."""

from __future__ import annotations

import struct

import pytest

from cloche.confine.seccomp import DENIED, GROUPS, Group, program
from cloche.confine.syscalls import TABLES

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ME = 4242
PROGRAM = (Group.COMPUTE, Group.THREADS, Group.NATIVE_CODE)


def verdict(code: bytes, machine: int, number: int, *arguments: int) -> int:
    """What the kernel would do: a classic BPF machine with the five instructions that the filter uses."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, machine, 0, *(value & (2**64 - 1) for value in padded))
    position, register = 0, 0
    while True:
        operation, when_true, when_false, value = struct.unpack_from("=HBBI", code, 8 * position)
        position += 1
        match operation:
            case 0x20:
                register = struct.unpack_from("=I", data, value)[0]
            case 0x15:
                position += when_true if register == value else when_false
            case 0x35:
                position += when_true if register >= value else when_false
            case 0x45:
                position += when_true if register & value else when_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


def judge(machine: str, call: str, *arguments: int, groups: tuple[Group, ...] = PROGRAM) -> int:
    """The verdict on a call by name, with the groups of a compile child."""
    return verdict(program(groups, machine, ME), ARCHITECTURE[machine], TABLES[machine][call], *arguments)


@pytest.mark.parametrize("machine", sorted(TABLES))
def test_numbers_are_known_and_distinct(machine: str) -> None:
    """Each number stands for one call, and every call of a group exists on at least one machine."""
    numbers = list(TABLES[machine].values())
    assert len(set(numbers)) == len(numbers)
    everywhere = set().union(*TABLES.values())
    assert {name for _, names in GROUPS.values() for name in names} <= everywhere


def test_no_call_is_both_denied_and_granted() -> None:
    """The published list of what is denied names nothing that a group holds."""
    granted = {name for _, names in GROUPS.values() for name in names}
    assert granted.isdisjoint(name for names, _ in DENIED for name in names)
    assert all(reason for _, reason in DENIED)
    assert set(GROUPS) == set(Group)


@pytest.mark.parametrize("machine", sorted(TABLES))
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("read", (0,), ALLOW),
        ("mmap", (0, 4096, 7), ALLOW),
        ("openat", (0,), EPERM),
        ("execve", (0,), EPERM),
        ("sendmsg", (3,), EPERM),
        ("clone3", (0,), ENOSYS),
        ("clone", (0x00010000 | 0x100,), ALLOW),
        ("clone", (0x003D0F00,), ALLOW),  # glibc's threads
        ("clone", (0x007D0F00,), ALLOW),  # musl's
        ("clone", (17,), EPERM),
        *(
            ("clone", (0x003D0F00 | flag,), EPERM)
            for flag in (
                *(0x80, 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000),
                *(0x2000, 0x1000),  # traced by who traces its parent; a descriptor of the new thread
            )
        ),
        ("tgkill", (ME, 1, 6), ALLOW),
        ("tgkill", (ME + 1, 1, 6), EPERM),
        ("tgkill", (ME | 1 << 32, 1, 6), EPERM),
        ("prlimit64", (0, 7, 0), ALLOW),
        ("prlimit64", (0, 7, 0x1000), EPERM),
        ("prlimit64", (0, 7, 1 << 40), EPERM),
        ("prlimit64", (1, 7, 0), EPERM),
        ("fcntl", (3, 3), ALLOW),
        ("fcntl", (3, 8), EPERM),
        ("fcntl", (3, 10), EPERM),
    ],
)
def test_a_compile_child_may_compute_and_nothing_else(
    machine: str, call: str, arguments: tuple[int, ...], expected: int
) -> None:
    """Threads, memory and time are allowed; processes, namespaces, files, other limits, signals to others are not."""
    assert judge(machine, call, *arguments) == expected


@pytest.mark.parametrize("machine", sorted(TABLES))
def test_memory_becomes_executable_only_with_native_code(machine: str) -> None:
    """Without that group neither mmap nor mprotect takes PROT_EXEC; both take the rest."""
    for call in ("mmap", "mprotect"):
        assert judge(machine, call, 0, 4096, 5, groups=(Group.COMPUTE,)) == EPERM
        assert judge(machine, call, 0, 4096, 3, groups=(Group.COMPUTE,)) == ALLOW


def test_calls_of_another_abi_kill() -> None:
    """Numbers mean something else under another architecture or the x32 ABI, so the process ends."""
    code = program(PROGRAM, "x86_64", ME)
    assert verdict(code, 0x40000003, 11) == KILL
    assert verdict(code, ARCHITECTURE["x86_64"], 0x40000000 | 39) == KILL


@pytest.mark.parametrize("machine", sorted(TABLES))
def test_unknown_numbers_are_denied(machine: str) -> None:
    """What a later kernel brings is denied, whatever groups are on."""
    code = program(tuple(Group), machine, ME)
    allowed = {number for number in range(1000) if verdict(code, ARCHITECTURE[machine], number, ME) == ALLOW}
    known = {TABLES[machine][name] for _, names in GROUPS.values() for name in names if name in TABLES[machine]}
    assert allowed <= known
    assert verdict(code, ARCHITECTURE[machine], 999) == EPERM
