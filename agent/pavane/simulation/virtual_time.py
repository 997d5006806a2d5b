"""Virtual time: an event loop on which nothing waits. When nothing is ready, the clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from pavane_events.errors import PavaneError

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TICK_S = 1e-6

MOST_TURNS = 100_000
"""Turns of an event loop in a row in which no time passes: a history comes to some hundred."""


class Restless(PavaneError):
    """Something goes round without ever waiting for a time: no time can pass. Let it sleep for more than nothing."""

    code = "verification.restless"

    def __init__(self) -> None:
        super().__init__(f"something goes on without a pause: in {MOST_TURNS:,} turns of the event loop no time has passed")


class NoNetwork(BaseException):
    """A step opened a connection in a simulated history: there nothing outside answers. Give the step a stand-in.

    No policy tries again what raised it: the history is over, and says so.
    """

    def __init__(self) -> None:
        super().__init__("a simulated history has no network: give the step a stand-in for the remote side")


class ProcessEnded(BaseException):
    """A step, its undo or its reconciliation called ``sys.exit``: it would take its agent along. Raise an error instead.

    No policy tries again what raised it: the history is over, and says so.
    """

    def __init__(self, step: str, code: object) -> None:
        super().__init__(f"{step} called sys.exit({code!r})")


class _Selector(selectors.BaseSelector):
    """Watches nothing: the first registration is the loop's own self-pipe, any other is a step's connection."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._turns = 0
        self.quiet: asyncio.Future[float | None] | None = None
        self._own: selectors.SelectorKey | None = None

    def register(self, fileobj: "FileDescriptorLike", events: int, data: Any = None) -> selectors.SelectorKey:
        if self._own is not None:
            raise NoNetwork
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._own = selectors.SelectorKey(fileobj, number, events, data)
        return self._own

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        if self._own is None or self._own.fileobj != fileobj:
            raise KeyError(fileobj)
        own, self._own = self._own, None
        return own

    def get_map(self) -> Mapping["FileDescriptorLike", selectors.SelectorKey]:
        return {self._own.fd: self._own} if self._own is not None else {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout < _TICK_S:
            self._turns += 1
            if self._turns > MOST_TURNS:
                self._turns = 0
                raise Restless
            if timeout > 0:  # asyncio fires what is due within its clock's resolution
                self.now_s += _TICK_S
            return []
        self._turns = 0
        quiet, self.quiet = self.quiet, None
        if quiet is not None and not quiet.done():
            quiet.set_result(timeout)
        elif timeout is None:
            raise RuntimeError("everybody waits for somebody else, and no timer is set")
        else:
            self.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose ``time()`` is virtual. What it runs is a function of what it is given: no clock, no thread.

    What would run in a thread (a ``def`` step) runs at once. Sockets are refused with :class:`NoNetwork`.
    """

    def __init__(self) -> None:
        self._silent = _Selector()
        super().__init__(self._silent)
        self._clock_resolution = _TICK_S
        """By how much a timer may come early. The machine's nanosecond is nothing beside half a year of seconds: a timer would
        be due and never fire."""

        self.exited: SystemExit | None = None
        """What a task raised that called ``sys.exit``, whoever waited for it."""

        self._interrupted: BaseException | None = None

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._silent.now_s

    def run_in_executor(  # type: ignore[override]  # the same for callers: something that can be awaited
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Run it now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it to its end. Another task that calls ``sys.exit`` ends, and nothing ends with it; :attr:`exited` says so.

        A Ctrl-C that strikes another task goes on to the caller, once: it comes up again with each task that waits for that
        one. What was not finished then is cancelled.
        """
        task = self.create_task(coroutine)
        try:
            while True:
                try:
                    return self.run_until_complete(task)
                except (SystemExit, KeyboardInterrupt) as error:
                    if isinstance(error, SystemExit):
                        self.exited = error
                    if task.done() or not (error is self.exited or error is self._interrupted):
                        self._interrupted = error
                        raise
        finally:
            task.cancel()

    def abandon(self) -> None:
        """Close it, and what has not ended in it by now: that would end when it is collected, and complain."""
        self.set_exception_handler(lambda loop, context: None)
        for task in asyncio.all_tasks(self):
            coroutine = task.get_coro()
            if isinstance(coroutine, Coroutine):
                with suppress(Exception, asyncio.CancelledError):
                    coroutine.close()
        self.close()

    async def quiet(self) -> float | None:
        """Wait until nothing can happen without time passing; seconds until the next timer, None where there is none."""
        self._silent.quiet = self.create_future()
        return await self._silent.quiet

    async def advance(self) -> None:
        """Let time pass until the next timer is due, and what it sets off has happened as far as it can."""
        wait_s = await self.quiet()
        if wait_s is not None:
            await asyncio.sleep(wait_s)
