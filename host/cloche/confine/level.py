"""How well this system can confine a child, in words that policies and people use."""

from __future__ import annotations

import sys

from cloche.frozen import dataclass

WORDS = ("none", "rlimits", "seccomp", "landlock", "landlock+seccomp")
"""Every word for a level, weakest first."""
FULL = "landlock+seccomp"
"""What a child should be confined by; with less everything works, and the operator is told."""


@dataclass(frozen=True, slots=True)
class Level:
    """What confines a child: Landlock (its ABI, 0 for none), a seccomp filter, resource limits. Added in 0.1."""

    landlock_abi: int
    seccomp: bool
    rlimits: bool

    @property
    def word(self) -> str:
        """The level in one of `WORDS`."""
        if self.landlock_abi and self.seccomp:
            return "landlock+seccomp"
        if self.landlock_abi or self.seccomp:
            return "landlock" if self.landlock_abi else "seccomp"
        return "rlimits" if self.rlimits else "none"

    def meets(self, word: str) -> bool:
        """Whether everything that `word` names is here. Raises: ValueError for an unknown word."""
        if word not in WORDS:
            raise ValueError(f"{word!r:.80} is not a level of confinement; one of {', '.join(WORDS)}")
        needs = set(word.split("+")) - {"none"}
        return needs <= set(self.word.split("+")) | ({"rlimits"} if self.rlimits else set())


def offered() -> Level:
    """What this system offers. Asks the kernel each time, which takes microseconds. Added in 0.1."""
    from cloche.confine import landlock, seccomp  # noqa: PLC0415 - only who asks what there is pays for it

    return Level(landlock.abi(), seccomp.is_available(), sys.platform != "win32")
