"""Commits: what is finished since the last commit goes into the next one, whole: inputs, outputs, state, offsets."""

import asyncio
from collections.abc import Callable
from typing import Final

from pavane.marks import Marks
from pavane.overlay import Overlay
from pavane.progress import Progress
from pavane.units import Done
from pavane.waiting import Index
from pavane_events.bus import Lane
from pavane_events.forgetting import Forgetting
from pavane_events.patience import commit_patiently
from pavane_events.record import Message, Record

OUTBOX: Final = 500
"""While so many messages wait for the next commit, the lane takes in no more: it bounds commits and memory."""

OUTBOX_BYTES: Final = 1024 * 1024
"""The same, for messages that are large."""

WINDOW_BYTES: Final = 2 * 1024 * 1024
"""The same, for inputs that are large: those taken in and not yet finished."""


class Commits:
    """A lane's one committer. Work settles at any time; commits follow one another, each with all that has settled."""

    def __init__(
        self,
        lane: Lane,
        state: Overlay,
        index: Index,
        progress: Progress,
        marks: Marks,
        window: int,
        forgetting: Forgetting,
        extra: Callable[[], list[Message]],
    ) -> None:
        self._lane = lane
        self._state = state
        self._index = index
        self._progress = progress
        self._marks = marks
        self._window = window
        self._forgetting = forgetting
        self._extra = extra
        self._outbox: list[Message] = []
        self._outbox_bytes = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._dirty = asyncio.Event()
        self._roomy = asyncio.Event()
        self._crowded = False
        self._finishing = False
        self._closed_in = False

    def settle(self, record: Record, name: str, done: Done) -> None:
        """A unit is finished: input, messages and state go into the next commit together."""
        self._outbox.extend(done.messages)
        for message in done.messages:
            self._outbox_bytes += len(message.value or b"")
        if done.state:
            self._index.change(done.state)
        self._progress.finish(record.topic, record.offset, name)
        if not self._dirty.is_set():
            self._dirty.set()
        if self._crowded and self._has_room:
            self._roomy.set()

    def nudge(self) -> None:
        """Something is due without a unit having settled: an input without units, what a breaker did."""
        self._dirty.set()

    async def room(self) -> None:
        """Wait until fewer inputs than the window are unsettled, and what waits for its commit is little: back-pressure."""
        while not self._has_room:
            self._crowded = True
            self._roomy.clear()
            await self._roomy.wait()
        self._crowded = False

    @property
    def _has_room(self) -> bool:
        if len(self._outbox) >= OUTBOX or self._outbox_bytes >= OUTBOX_BYTES:
            return False
        return self._progress.unsettled < self._window and self._progress.unsettled_bytes < WINDOW_BYTES

    async def declare(self, message: Message) -> None:
        """The lane's first commit under a version: the declaration, and the begun mark with it."""
        self._outbox.append(message)
        self._state.change(self._marks.advance())
        await self._commit()

    async def mark(self) -> None:
        """A mark-only commit: returns when the begun mark covers what was received."""
        self._state.change(self._marks.advance())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._dirty.set()
        await future

    async def run(self) -> None:
        """Commit whenever something is due, until :meth:`finish`. Raises :class:`LaneLost`."""
        while not self._finishing or self._dirty.is_set():
            await self._dirty.wait()
            self._dirty.clear()
            await self._commit()

    def finish(self, *, drained: bool = False) -> None:
        """Commit what has settled, then end :meth:`run`. ``drained``: nothing that was begun is left unfinished."""
        if drained:
            self._state.change(self._marks.close_in())
            self._closed_in = True
        self._finishing = True
        self._dirty.set()

    async def _commit(self) -> None:
        self._outbox.extend(self._extra())
        done, remembered = self._progress.take()
        if remembered:
            self._state.change(remembered)
        if not self._closed_in:
            self._state.change(self._marks.refresh())
        self._state.change(self._forgetting.due())
        outputs, self._outbox, self._outbox_bytes = self._outbox, [], 0
        if self._has_room:
            self._roomy.set()
        waiting, self._waiting = self._waiting, []
        await commit_patiently(self._lane, done, outputs, self._state.begin_commit())
        self._state.end_commit()
        self._marks.committed()
        for future in waiting:
            if not future.done():
                future.set_result(None)
