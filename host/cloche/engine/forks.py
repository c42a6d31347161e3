"""What has to begin anew in a forked child: threads are gone there, and locks may be held by threads that are gone.

Source: H5, H19. A fork during calls is never safe with an engine; this makes a host usable in a child that was
forked between them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_renewed: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def after_fork(subject: T, renew: Callable[[T], None]) -> None:
    """Call `renew(subject)` in each forked child, for as long as the subject lives."""
    _renewed[subject] = renew


def _begin_anew() -> None:
    for subject, renew in list(_renewed.items()):
        renew(subject)


os.register_at_fork(after_in_child=_begin_anew)
