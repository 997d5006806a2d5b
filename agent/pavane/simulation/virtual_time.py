"""Virtual time: an event loop on which nothing waits. When nothing is ready, the clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TICK_S = 1e-6


class NoNetwork(BaseException):
    """A step opened a connection in a simulated history: there nothing outside answers. Give the step a stand-in.

    No policy tries again what raised it: the history is over, and says so.
    """

    def __init__(self) -> None:
        super().__init__("a simulated history has no network: give the step a stand-in for the remote side")


class _Selector(selectors.BaseSelector):
    """Watches nothing: the first registration is the loop's own self-pipe, any other is a step's connection."""

    def __init__(self) -> None:
        self.now_s = 0.0
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
        if timeout is not None and timeout <= 0:
            return []
        if timeout is not None and timeout < _TICK_S:  # asyncio fires what is due within its clock's resolution
            self.now_s += _TICK_S
            return []
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

    async def quiet(self) -> float | None:
        """Wait until nothing can happen without time passing; seconds until the next timer, None where there is none."""
        self._silent.quiet = self.create_future()
        return await self._silent.quiet

    async def advance(self) -> None:
        """Let time pass until the next timer is due, and what it sets off has happened as far as it can."""
        wait_s = await self.quiet()
        if wait_s is not None:
            await asyncio.sleep(wait_s)
