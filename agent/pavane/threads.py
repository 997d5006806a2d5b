"""Threads: a pool whose work has the context of whoever gave it, so that spans begun there nest in the work at hand."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ContextThreads(ThreadPoolExecutor):
    """A pool of threads like any other; each call runs in a copy of the context in which it was given.

    ``pavane run`` makes it the default of its event loop, so that ``loop.run_in_executor(None, ...)`` carries context as
    ``asyncio.to_thread`` does. Who runs agents in a loop of his own does the same by ``loop.set_default_executor``.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the standard library's, with the caller's context."""
        return super().submit(copy_context().run, partial(fn, *args, **kwargs))
