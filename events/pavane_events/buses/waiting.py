"""Waiting for something to happen within one event loop, without a task or a lock per wait."""

import asyncio
import math


class Bell:
    """Wakes whoever waits. Rings are not remembered: look at what you wait for, then wait, with no await between."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    def ring(self) -> None:
        """Wake every waiter. Costs next to nothing where nobody waits."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                _wake(waiter)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next ring, or when the time is up; the caller looks which. Cancelling is safe.

        Without a time, or with an infinite one, it is the ring alone, and no timer is set.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = None if timeout_s is None or timeout_s == math.inf else loop.call_later(timeout_s, _wake, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
