"""Context: what a step may know of the work it does, beside its events."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal, Self

import structlog
from opentelemetry import trace

from pavane.breaker import Breaker, Breakers
from pavane_events.ids import uuid7
from pavane_tracing.genai import Invocation
from pavane_tracing.here import log_ids

log: Final = logging.getLogger("pavane.step")

_FAKE: Final = "fake/step"
_NO_MODEL: Final = {_FAKE}
"""The steps of which it was told that what a model used is lost; a fake one has nowhere to put it."""

Outcome = Literal["done", "not-done", "unknown"]


class Context:
    """The work at hand. One per call of a step, observer or undo; do not keep it.

    ``saga``: the saga's id (None outside one). ``attempt``: from 1. ``idempotency_key``: the name of this step's effect,
    the same in every re-run and in its undo: give it to whatever the step changes. ``deadline``: when the step stops
    being tried (``within``), None if never. ``outcome``: in an undo, *done* where the step answered or its
    reconciliation says that it happened, *not-done* where that says that it did not, *unknown* where nobody can know
    whether it took effect.
    """

    __slots__ = ("_breakers", "_invocation", "_key", "attempt", "deadline", "outcome", "saga", "step")

    def __init__(
        self,
        *,
        saga: str | None,
        step: str,
        key: str | Callable[[], str],
        breakers: Breakers,
        attempt: int = 1,
        deadline: datetime | None = None,
        outcome: Outcome = "done",
        invocation: Invocation | None = None,
    ) -> None:
        self.saga = saga
        self.step = step
        self.attempt = attempt
        self.deadline = deadline
        self.outcome: Outcome = outcome
        self._key = key
        self._breakers = breakers
        self._invocation = invocation

    @property
    def idempotency_key(self) -> str:
        """A uuid5 of deployment, saga, step and the causes: stable over every re-run, on any machine."""
        if not isinstance(self._key, str):
            self._key = self._key()
        return self._key

    @property
    def span(self) -> trace.Span:
        """The span of this call (``process <topic>``): add attributes and events to it."""
        return trace.get_current_span()

    @property
    def logger(self) -> structlog.typing.FilteringBoundLogger:
        """A logger that says saga, step, attempt and trace with every line."""
        ids = {"saga_id": self.saga, **log_ids()}
        logger: structlog.typing.FilteringBoundLogger = structlog.get_logger("pavane.step").bind(
            step=self.step, attempt=self.attempt, **ids
        )
        return logger

    def usage(self, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Tell how many tokens a model took and gave. What several calls of it used within this attempt is added up.

        They are told on the attempt's span ``invoke_agent``; a step that does not say ``model=`` has none: a line in the log
        says so, once.
        """
        if self._invocation is not None:
            self._invocation.used(input_tokens, output_tokens)
        elif self.step not in _NO_MODEL:
            _NO_MODEL.add(self.step)
            log.warning("%s tells what a model used, which nothing records: say @agent.step(model=...)", self.step)

    def breaker(self, name: str) -> Breaker:
        """The circuit breaker of that name, shared by all work of this agent in this process."""
        return self._breakers.get(name)

    def remaining_s(self, now: datetime | None = None) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        if self.deadline is None:
            return None
        return max(0.0, (self.deadline - (now or datetime.now(UTC))).total_seconds())

    @classmethod
    def fake(cls, *, saga: str | None = None, attempt: int = 1, outcome: Outcome = "done", key: str | None = None) -> Self:
        """A context for trying a step as a plain function, without a bus."""
        return cls(
            saga=saga or uuid7(),
            step=_FAKE,
            key=key or uuid7(),
            breakers=Breakers(time.time, {}),
            attempt=attempt,
            outcome=outcome,
        )
