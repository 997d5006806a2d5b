"""Forked children: threads and locks do not come with them, and what waited for the parent's is not theirs."""

import os
import weakref
from collections.abc import Callable
from multiprocessing.util import Finalize, register_after_fork
from typing import Final, TypeVar

T = TypeVar("T")

_LATE: Final = -10
"""Among what multiprocessing does as a child ends: behind its queues, and whatever else may still begin spans."""


def after_fork(begin: Callable[[], object]) -> None:
    """Call a method in every child that is forked, for as long as its object lives, which this does not prolong.

    Its class is not compiled: there are no weak references to compiled methods.
    """
    reborn = weakref.WeakMethod(begin)
    os.register_at_fork(after_in_child=lambda: (begin := reborn()) is not None and begin())


def before_child_ends(owner: T, end: Callable[[T], object]) -> None:
    """Do that with an object in every child that :mod:`multiprocessing` forks, as it ends: no exit handler is called there.

    For as long as the object lives, which this does not prolong. Whoever ends by ``os._exit`` sees to it himself.
    """
    register_after_fork(owner, lambda alive: Finalize(None, end, (alive,), exitpriority=_LATE))
