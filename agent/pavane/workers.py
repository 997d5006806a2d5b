"""Workers: units one after another by key, side by side otherwise, without a task per unit.

A few tasks take units from one queue and run handlers inline. A worker that takes a unit while more are ready wakes
the next one first: where no handler waits, the first does everything and the second finds nothing; where one waits,
the next carries on at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from pavane.units import Abandoned, Interruption

FAIR: Final = 32
"""After so many units in a row a worker lets the event loop turn once."""


class Work(Protocol):
    """What workers hand out. ``key``: work of one key runs in order; None: at once, ahead of what waits."""

    @property
    def key(self) -> object: ...

    def interrupt(self, why: Interruption) -> None: ...


W = TypeVar("W", bound=Work)


class Workers(Generic[W]):
    """A lane's workers. All methods belong to the lane's event loop."""

    def __init__(self, perform: Callable[[W], Awaitable[None]], concurrency: int) -> None:
        self._perform = perform
        self._concurrency = concurrency
        self._ready: deque[W] = deque()
        self._queues: dict[object, deque[W] | None] = {}
        self._running: dict[object, W] = {}
        self._unkeyed: set[W] = set()
        self._waiters: dict[object, list[asyncio.Future[None]]] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._waking = False
        self._active = 0
        self._aside = 0
        self._stopping = False
        self._ended = False
        self._quiet = asyncio.Event()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Workers are made in this group as they are needed; what a unit raises ends the group."""
        self._group = group

    def submit(self, work: W) -> None:
        """Queue a unit; :meth:`wake` begins it."""
        key = work.key
        if key is None:
            self._ready.appendleft(work)
            return
        if key not in self._queues:
            self._queues[key] = None
            self._ready.append(work)
            return
        queue = self._queues[key]
        if queue is None:
            self._queues[key] = deque([work])
        else:
            queue.append(work)

    def wake(self) -> None:
        """See that somebody works, if there is work and room."""
        if self._waking or self._stopping or not self._ready or self._active >= self._concurrency:
            return
        self._waking = True
        if self._idle:
            self._idle.pop().set_result(None)
        elif self._group is not None:
            self._tasks.append(self._group.create_task(self._work()))

    def running(self, key: object) -> W | None:
        """The unit of that key that is being performed, pauses included."""
        return self._running.get(key)

    async def finished(self, key: object) -> None:
        """Wait until no unit of that key is being performed."""
        while key in self._running:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(key, []).append(future)
            await future

    def step_aside(self, away: bool) -> None:
        """A unit begins or ends a pause: its place among the running is free meanwhile."""
        self._active += -1 if away else 1
        self._aside += 1 if away else -1
        if away:
            self.wake()

    async def drain(self, timeout_s: float) -> bool:
        """Begin nothing more, end pauses, let what runs finish. False where time ran out: that work is given up."""
        self._stopping = True
        self._ready.clear()
        self._interrupt("stopping")
        self._note_quiet()
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def cancel(self) -> None:
        """End the workers, with whatever they still do. A step may make something else of its cancellation; what it answers
        counts no more, and nothing is begun or tried again after it.
        """
        self._ended = True
        self._interrupt("given up")
        for task in self._tasks:
            task.cancel()

    def _interrupt(self, why: Interruption) -> None:
        for work in [*self._running.values(), *self._unkeyed]:
            work.interrupt(why)

    def _note_quiet(self) -> None:
        if self._stopping and self._active == 0 and self._aside == 0:
            self._quiet.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._waking = False
            count = 0
            while self._ready and self._active < self._concurrency:
                work = self._ready.popleft()
                if self._ready and not self._waking:
                    self.wake()
                key = work.key
                if key is None:
                    self._unkeyed.add(work)
                else:
                    self._running[key] = work
                self._active += 1
                try:
                    await self._perform(work)
                except Abandoned:
                    pass
                finally:
                    self._active -= 1
                    self._has_ended(work, key)
                if self._ended:
                    return
                count += 1
                if count % FAIR == 0:
                    await asyncio.sleep(0)
            idle: asyncio.Future[None] = loop.create_future()
            self._idle.append(idle)
            await idle

    def _has_ended(self, work: W, key: object) -> None:
        if key is None:
            self._unkeyed.discard(work)
        else:
            del self._running[key]
            if self._waiters:
                for future in self._waiters.pop(key, ()):
                    if not future.done():
                        future.set_result(None)
        if self._stopping:
            self._note_quiet()  # nothing more begins: what waits stays uncommitted, for the lane's next holder
        elif key is not None:
            queue = self._queues[key]
            if queue:
                self._ready.append(queue.popleft())
            else:
                del self._queues[key]
