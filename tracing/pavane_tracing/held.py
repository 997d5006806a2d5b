"""Spans of sagas that were not sampled, held for a while: where such a saga fails, it is traced after all."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from pavane_tracing.forking import after_fork

T = TypeVar("T")

MOST_SPANS: Final = 20_000
"""Held at most: some 10 MB. The sagas that began first go first, all of a saga at once."""
MOST_FAILED: Final = 10_000
"""Failed sagas that are remembered, so that what they do later is not held but exported."""


class HeldSpans:
    """Spans by saga, each with what exports it. Safe from any thread; nothing here blocks for long or raises.

    With room for none, every span is delivered at once.
    """

    def __init__(self, most_spans: int = MOST_SPANS) -> None:
        self._most_spans = most_spans
        self._lock = threading.RLock()
        """Reentrant: a span may end where garbage is collected, or in a signal's handler, while one is being held."""
        self._held: OrderedDict[str, list[Callable[[], object]]] = OrderedDict()
        self._count = 0
        self._failed: OrderedDict[str, None] = OrderedDict()
        after_fork(self._begin)

    def hold(self, saga: str, deliver: Callable[[T], object], span: T) -> None:
        """Hold a span of the saga until it fails; one of a saga that has failed is delivered now."""
        one, first = partial(deliver, span), list[Callable[[], object]]()
        with self._lock:
            failed = saga in self._failed
            if not failed and self._most_spans:
                self._held.setdefault(saga, first).append(one)
                self._count += 1
                while self._count > self._most_spans and self._held:
                    gone = len(self._held.popitem(last=False)[1])
                    self._count -= gone
        if failed or not self._most_spans:
            deliver(span)

    def fail(self, saga: str) -> None:
        """The saga has failed: deliver what is held of it, and all that comes. Idempotent."""
        with self._lock:
            self._failed[saga] = None
            self._failed.move_to_end(saga)
            if len(self._failed) > MOST_FAILED:
                self._failed.popitem(last=False)
            released = self._held.pop(saga, [])
            self._count -= len(released)
        for deliver in released:
            deliver()

    def follow(self, saga: str) -> None:
        """Something of the saga that is sampled has come: where spans of it are held, it has failed elsewhere."""
        if saga in self._held:
            self.fail(saga)

    def has_failed(self, saga: str) -> bool:
        """Whether the saga is known to have failed."""
        return saga in self._failed

    def _begin(self) -> None:
        """A forked process: what its parent holds is the parent's to deliver, and the lock may have been taken."""
        self._lock = threading.RLock()
        self._held = OrderedDict()
        self._count = 0
