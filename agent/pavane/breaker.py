"""Circuit breaker: stop calling what is down, try it again with one call, and say so."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Literal, Self

from pavane_events.errors import PavaneError

BreakerState = Literal["closed", "open", "half-open"]

_LOOK_AGAIN_S = 1.0
"""While a trial call is under way, whoever waits looks again so soon: it may close the breaker any moment."""


class BreakerOpen(PavaneError):
    """The breaker is open: the call was not made. A step that lets it pass waits until ``retry_at_s``, costing no attempt."""

    code: ClassVar[str] = "breaker.open"

    def __init__(self, name: str, retry_at_s: float) -> None:
        self.name = name
        self.retry_at_s = retry_at_s
        super().__init__(f"the circuit breaker {name!r} is open")


@dataclass(frozen=True, slots=True)
class Transition:
    """A breaker changed its state; published on ``pavane.breakers``. ``at_s``: seconds since the epoch."""

    name: str
    before: BreakerState
    after: BreakerState
    failures: int
    at_s: float


class Breaker:
    """Closed until ``failures`` calls in a row failed; then open for ``reset_s`` seconds; then one trial call decides.

    ``async with ctx.breaker("bureau"): ...`` guards a call: leaving by an exception counts as a failure, leaving
    normally as a success, entering while it is open raises :class:`BreakerOpen`. Calls that were under way when it opened
    say nothing any more, whichever way they end. One breaker serves every lane of an agent's process; nothing is shared
    between processes. Not for use from threads.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        reset_s: float = 60.0,
        clock: Callable[[], float],
        heard: Callable[[Transition], None],
    ) -> None:
        self.name = name
        self.state: BreakerState = "closed"
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._heard = heard
        self._failures = 0
        self._opened_at_s = 0.0
        self._trial: asyncio.Task[object] | None = None

    def enter(self) -> None:
        """A call is about to be made. Raises :class:`BreakerOpen`."""
        if self.state == "closed":
            return
        now = self._clock()
        due = self._opened_at_s + self._reset_s
        if self.state == "open" and now >= due:
            self._opened_at_s = now
            self._become("half-open")
            return
        if self.state == "half-open" and now >= due:
            self._opened_at_s = now  # the trial call never came back: let another one try
            return
        raise BreakerOpen(self.name, due if self.state == "open" else min(due, now + _LOOK_AGAIN_S))

    def succeeded(self) -> None:
        """The call came back."""
        if self.state == "open":
            return  # it began before the breaker opened
        self._failures = 0
        if self.state == "half-open":
            self._become("closed")

    def failed(self) -> None:
        """The call failed."""
        self._failures += 1
        if self.state == "half-open" or (self.state == "closed" and self._failures >= self._limit):
            self._opened_at_s = self._clock()
            self._become("open")

    async def __aenter__(self) -> Self:
        self.enter()
        if self.state == "half-open":
            self._trial = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state == "half-open" and self._trial is not asyncio.current_task():
            return  # it is not the trial call
        if error is None:
            self.succeeded()
        elif isinstance(error, Exception):
            self.failed()

    def _become(self, after: BreakerState) -> None:
        before, self.state = self.state, after
        self._heard(Transition(self.name, before, after, self._failures, self._clock()))


class Breakers:
    """The breakers of one agent in one process, made when first asked for. ``listeners`` are told of each transition."""

    def __init__(self, clock: Callable[[], float], settings: dict[str, tuple[int, float]]) -> None:
        self._clock = clock
        self._settings = settings
        self._breakers: dict[str, Breaker] = {}
        self._transitions: list[Transition] = []
        self.listeners: set[Callable[[], None]] = set()

    def get(self, name: str) -> Breaker:
        """The breaker of that name; with the agent's settings for it, else five failures and sixty seconds."""
        breaker = self._breakers.get(name)
        if breaker is None:
            failures, reset_s = self._settings.get(name, (5, 60.0))
            breaker = self._breakers[name] = Breaker(
                name, failures=failures, reset_s=reset_s, clock=self._clock, heard=self._heard
            )
        return breaker

    def take_transitions(self) -> list[Transition]:
        """What changed since the last call: to be published with the next commit."""
        taken = self._transitions[:]
        self._transitions.clear()
        return taken

    def _heard(self, transition: Transition) -> None:
        self._transitions.append(transition)
        for listener in self.listeners:
            listener()
