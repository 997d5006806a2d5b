"""Calls: a user's steps and undos as they are called in a history, each with what goes wrong in it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pavane.context import Context, Outcome
from pavane.retry import Rejected
from pavane.simulation.script import Script
from pavane.simulation.virtual_time import ProcessEnded
from pavane.step import AnyStep, Found, Outputs
from pavane_events.buses.memory_lanes import HELD
from pavane_events.event import Event

Kind = Literal["do", "undo", "ask"]
WHOSE: Final[Mapping[str, str]] = {"do": "", "undo": "the undo of ", "ask": "the reconciliation of "}
"""What a call is, by its kind, before the step's name."""

How = Literal["under way", "ended", "raised", "died"]


Play = Callable[[], Awaitable[Outputs | None]]


class InjectedFailure(Exception):
    """A simulated history has this call fail."""


@dataclass(slots=True)
class Call:
    """One call of a step or of its undo. ``began`` and ``ended`` are places in the history; the times are virtual.

    ``owes_undo``: the step has an undo; ``lasts``: it is retriable, and nothing undoes what it does. ``outcome``: what an
    undo was told; ``blind``: nothing of what the step had answered. ``worked``: the function returned, whatever became of
    its process then. ``fate``: what was done to it, where that shows only later, if at all: in how it ends, or in what
    becomes of the next. ``holder``: the lane it was made in and its token, also where its holder does not know that he lost
    it; None: somebody did it by hand.
    """

    kind: Kind
    saga: str
    step: str
    key: str
    attempt: int
    owes_undo: bool
    began: int
    began_s: float
    ended_s: float = 0.0
    outcome: Outcome = "done"
    blind: bool = False
    ended: int | None = None
    how: How = "under way"
    worked: bool = False
    error: str = ""
    fate: str = ""
    holder: tuple[int, int] | None = None
    lasts: bool = False


@dataclass
class Calls:
    """Every call of one history, in order, and those that are to go wrong for as long as it lasts."""

    script: Script
    patience_s: float
    made: list[Call] = field(default_factory=list[Call])
    zombies: "list[asyncio.Future[None]]" = field(default_factory=list["asyncio.Future[None]"])
    sticky: dict[tuple[Kind, str], str] = field(default_factory=dict[tuple[Kind, str], str])
    places: int = 0
    _last: dict[tuple[Kind, str], tuple[AnyStep, Context, Play]] = field(
        default_factory=dict[tuple[Kind, str], tuple[AnyStep, Context, Play]]
    )

    async def do(self, step: AnyStep, inputs: Mapping[str, Event], context: Context) -> Outputs:
        """Call a step."""
        made = self._begin("do", step, context)
        call = self._known(made, step, context, lambda: step.perform(inputs, context))
        action = self._action(made, ("fail", "fail-after", "reject"))
        if action == "hang":
            await self._hang(made)
        if action == "reject":
            self._raised(made, "Rejected")
            raise Rejected("no, says the simulated history")
        return await self._play(made, action, call)

    async def undo(self, step: AnyStep, inputs: Mapping[str, Event], done: Outputs | None, context: Context) -> None:
        """Call an undo."""
        made = self._begin("undo", step, context)
        made.outcome, made.blind = context.outcome, done is None
        call = self._known(made, step, context, lambda: step.perform_undo(inputs, done, context))
        action = self._action(made, ("fail", "fail-after"))
        if action == "hang":
            await self._hang(made)
        await self._play(made, action, call)
        if action == "twice":
            await self._called(made, call)

    def wake_zombies(self) -> bool:
        """Let those go on who do not know that they lost their lane; whether there was one."""
        zombies = [each for each in self.zombies if not each.done()]
        self.zombies.clear()
        for each in zombies:
            each.set_result(None)
        return bool(zombies)

    async def ask(self, step: AnyStep, inputs: Mapping[str, Event], context: Context) -> Found:
        """Call a reconciliation."""
        made = self._begin("ask", step, context)
        found = Found("unknown")

        async def once() -> None:
            nonlocal found
            found = await step.perform_reconciliation(inputs, context)

        action = self._action(made, ("fail",))
        if action == "hang":
            await self._hang(made)
        await self._play(made, action, once)
        return found

    def begin(self) -> None:
        """Another history begins."""
        self.made, self.zombies, self.sticky, self.places = [], [], {}, 0
        self._last.clear()

    async def by_hand(self, kind: Kind, key: str) -> bool:
        """Somebody does what was called last, and failed, himself, as it should have been done; whether he can."""
        if (kind, key) not in self._last:
            return False
        step, context, call = self._last[kind, key]
        try:
            await self._play(self._begin(kind, step, context), None, call)
        except Exception:  # the step's own: nobody can do it, as it is
            return False
        return True

    def _known(self, made: Call, step: AnyStep, context: Context, call: Play) -> Play:
        self._last[made.kind, made.key] = step, context, call
        return call

    async def _hang(self, made: Call) -> None:
        try:
            await asyncio.sleep(self.patience_s)
        except asyncio.CancelledError:
            self._raised(made, "no answer in time")
            raise

    def _begin(self, kind: Kind, step: AnyStep, context: Context) -> Call:
        self.places += 1
        saga, key = context.saga or "", context.idempotency_key
        now_s = asyncio.get_running_loop().time()
        made = Call(kind, saga, step.wire_name, key, context.attempt, step.owes_undo, self.places, now_s)
        made.lasts = step.options.retriable
        lane = HELD.get()
        made.holder = (lane.partition, lane.token) if lane is not None else None
        self.made.append(made)
        return made

    def _action(self, made: Call, lasting: tuple[str, ...]) -> str | None:
        """What goes wrong with this call: now, or since an earlier call of the same."""
        action = self.script.at(made.kind, made.step) or self.sticky.get((made.kind, made.key))
        if action in lasting:
            self.sticky[made.kind, made.key] = action
        made.fate = action or ""
        return action

    async def _play(self, made: Call, action: str | None, call: Play) -> Outputs:
        if action == "crash-before":
            await self._die(made)
        if action == "zombie":
            return await self._thawed(made, await self._freeze(), call)
        if action in ("fail", "fail-once"):
            self._raised(made, "InjectedFailure")
            raise InjectedFailure(made.step)
        try:
            returned = await self._called(made, call)
        except BaseException as error:
            self._raised(made, type(error).__name__)
            raise
        made.worked = True
        if action == "fail-after":
            self._raised(made, "InjectedFailure")
            raise InjectedFailure(made.step)
        self._end(made, "ended")
        if action == "crash-after":
            await self._die(made)
        return returned or ()

    async def _called(self, made: Call, call: Play) -> Outputs | None:
        process = os.getpid()
        try:
            return await call()
        except SystemExit as error:  # an event loop would let it through: it would end whoever plays
            raise ProcessEnded(made.step, error.code) from error
        finally:
            if os.getpid() != process:
                os.write(2, f"{made.step} called os.fork, and its copy came back from it: the copy is ended\n".encode())
                os._exit(1)  # it would play on, beside the one that was copied

    async def _thawed(self, made: Call, cancelled: asyncio.CancelledError | None, call: Play) -> Outputs:
        """The old holder does it after all, and only then hears what it was told while it stood still."""
        try:
            return await self._play(made, None, call)
        finally:
            if cancelled is not None:
                raise cancelled

    async def _freeze(self) -> asyncio.CancelledError | None:
        """The process stands still while its lane goes elsewhere. Whoever cancels the call meanwhile is heard after it."""
        _take_away(told=False)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.zombies.append(woken)
        cancelled: asyncio.CancelledError | None = None
        while not woken.done():
            try:
                await asyncio.shield(woken)
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled

    async def _die(self, made: Call) -> None:
        self._end(made, "died")
        _take_away(told=True)
        await asyncio.get_running_loop().create_future()

    def _raised(self, made: Call, error: str) -> None:
        made.error = error
        self._end(made, "raised")

    def _end(self, made: Call, how: How) -> None:
        self.places += 1
        made.how, made.ended, made.ended_s = how, self.places, asyncio.get_running_loop().time()


def _take_away(*, told: bool) -> None:
    """From the process that makes this call its lane goes elsewhere, if it has not yet; it hears of that or not."""
    lane = HELD.get()
    if lane is not None:
        lane.take_away(told=told)
