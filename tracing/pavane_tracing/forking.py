"""Forked children: threads and locks do not come with them, and what waited for the parent's is not theirs."""

import os
import weakref
from collections.abc import Callable


def after_fork(begin: Callable[[], object]) -> None:
    """Call a method in every child that is forked, for as long as its object lives, which this does not prolong.

    Its class is not compiled: there are no weak references to compiled methods.
    """
    reborn = weakref.WeakMethod(begin)
    os.register_at_fork(after_in_child=lambda: (begin := reborn()) is not None and begin())
