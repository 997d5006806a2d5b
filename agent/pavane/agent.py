"""Agent: one who listens and speaks. Steps, their undos, and observers, under one name."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar, cast, overload

from pavane.retry import Retry
from pavane.signature import accepts, read_signature
from pavane.step import AnyStep, Step, StepOptions
from pavane.trial import Trial
from pavane_events.errors import DeclarationError, Problem
from pavane_events.place import calling_place

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_STEP_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*")
_DEFAULT_RETRY = Retry()

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


class Agent:
    """An independent service: a name, which is its consumer group and service name, and the steps it performs.

    Declared at import, run by ``pavane run module:agent`` or :func:`pavane.runner.run_agents`. The name is on the wire
    (``ce_source``, topics ``<name>.commands`` and ``<name>.dead-letters``): choose it once.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name) or name.startswith("pavane"):
            raise DeclarationError(
                f"agent {name!r} cannot be named so",
                [Problem("name", "agent.name", "lower-case words joined by '-' or '.', not beginning with 'pavane'")],
            )
        self.name = name
        self.declared_at = calling_place()
        self.steps: dict[str, AnyStep] = {}
        self.breakers: dict[str, tuple[int, float]] = {}
        self._lifespan: Lifespan | None = None

    def __repr__(self) -> str:
        return f"<Agent {self.name}>"

    @overload
    def step(self, function: Callable[P, R], /) -> Step[P, R]: ...

    @overload
    def step(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry = ...,
        within: timedelta | None = None,
        effects: bool = True,
        retriable: bool = False,
        pivot: bool = False,
        external: bool = False,
        retiring: bool = False,
        formerly: str | None = None,
        lock: Callable[..., str | None] | None = None,
        lock_taken: Literal["wait", "refuse"] = "wait",
        model: str | None = None,
        provider: str | None = None,
        fallback: Callable[..., object] | None = None,
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def step(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry = _DEFAULT_RETRY,
        within: timedelta | None = None,
        effects: bool = True,
        retriable: bool = False,
        pivot: bool = False,
        external: bool = False,
        retiring: bool = False,
        formerly: str | None = None,
        lock: Callable[..., str | None] | None = None,
        lock_taken: Literal["wait", "refuse"] = "wait",
        model: str | None = None,
        provider: str | None = None,
        fallback: Callable[..., object] | None = None,
    ) -> Any:
        """Make a function a step: its annotations say which events it waits for and gives.

        Delivery: effectively once for its events and state, at least once for what it does outside, so give
        ``ctx.idempotency_key`` to whatever it changes. Order: one saga's events one after another, sagas side by side.
        ``retry``: for exceptions other than :class:`pavane.Rejected`. ``within``: from the append of its last input
        until its answer; past it the step fails. ``effects=False``: it changes nothing outside, there is nothing to
        undo; otherwise it needs a ``compensate`` or ``retriable=True``. ``pivot``: the point of no return: it begins when
        nothing else of its saga is under way and nothing has failed, and once it is done nothing is undone any more: what
        fails after it is done again until it succeeds. ``external``: it also waits for an event from outside, a person's
        answer (``Saga(answers=...)``); ``within`` then runs from the moment at which only that is missing, too.
        ``retiring``: it takes nothing new, and stays for what it has begun, and for its undo, until nothing of it is owed
        any more (``pavane sagas owed``). ``formerly``: the name under which sagas know it; the function may be called
        otherwise now, on the wire the step keeps that name.
        ``lock``: called with the step's events, it says what the saga must have to itself before the step begins, and keeps
        until it ends, also where it is undone: ``lock=lambda order: order.customer``; None: nothing. Another saga's step
        that needs the same waits for its turn, or (``lock_taken="refuse"``) fails. Sagas that wait for each other in a
        circle are found, and one of them fails. A lock is the deployment's: name what it is of, as in ``"customer/17"``.
        ``model``: the step works with that model, of that ``provider`` ("openai", "anthropic"...): each call of it is a span
        ``invoke_agent``, by OpenTelemetry's GenAI conventions; ``ctx.usage`` says what it cost.
        ``fallback``: called with the same arguments while a circuit breaker is open, instead of waiting; its event is the
        answer.
        Raises :class:`DeclarationError` with every reason why the signature cannot work.
        """
        options = StepOptions(
            retry,
            within,
            effects,
            retriable,
            observer=False,
            fallback=fallback,
            pivot=pivot,
            external=external,
            retiring=retiring,
            lock=lock,
            lock_taken=lock_taken,
            model=model,
            provider=provider,
        )

        def declare(declared: Callable[..., Any]) -> AnyStep:
            return self._declare(declared, name, options, formerly)

        return declare if function is None else declare(function)

    @overload
    def observe(self, function: Callable[P, R], /) -> Step[P, R]: ...

    @overload
    def observe(
        self, function: None = None, /, *, name: str | None = None, retry: Retry = ...
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def observe(
        self, function: Callable[..., Any] | None = None, /, *, name: str | None = None, retry: Retry = _DEFAULT_RETRY
    ) -> Any:
        """Make a function an observer: it listens outside the saga's bookkeeping and returns None.

        At least once, dead-lettered when its retries run out; owes no undo and holds up no saga. Only observers may
        listen to a saga's ``fails`` events and to :class:`pavane.SagaEnded`.
        """
        options = StepOptions(retry, None, effects=False, retriable=False, observer=True, fallback=None)

        def declare(declared: Callable[..., Any]) -> AnyStep:
            return self._declare(declared, name, options)

        return declare if function is None else declare(function)

    def breaker(self, name: str, *, failures: int = 5, reset: timedelta = timedelta(seconds=60)) -> None:
        """Settings of a circuit breaker of that name: how many failures in a row open it, and for how long."""
        self.breakers[name] = (failures, reset.total_seconds())

    def lifespan(self, function: Callable[[], AsyncIterator[None]]) -> Callable[[], AsyncIterator[None]]:
        """Hold connections: an async generator that opens, yields once, and closes, around the agent's whole run."""
        self._lifespan = asynccontextmanager(cast("Callable[[], AsyncGenerator[None]]", function))
        return function

    @asynccontextmanager
    async def alive(self) -> AsyncGenerator[None]:
        """Enter the lifespan, if there is one."""
        if self._lifespan is None:
            yield
        else:
            async with self._lifespan():
                yield

    def living(self, other: "Agent") -> None:
        """Take the lifespan of another."""
        self._lifespan = other._lifespan

    def test(self) -> Trial:
        """Try its steps without a bus: ``outputs = await agent.test().give(event)``. Each trial is a saga of its own."""
        return Trial(self)

    def problems(self) -> list[Problem]:
        """What start-up refuses: a step that changes something and says neither how to undo it nor that it need not."""
        found = [
            Problem(
                step.wire_name,
                "step.no-undo",
                f"it may change something and nothing undoes it: add @{name}.compensate, or say effects=False"
                " (it changes nothing), or retriable=True (it is only ever finished, never undone)",
            )
            for name, step in self.steps.items()
            if step.options.effects and not step.options.retriable and step.undo is None
        ]
        if not self.steps:
            found.append(Problem(self.name, "agent.no-step", "it has no step: decorate a function with @agent.step"))
        return found

    def _declare(
        self, function: Callable[..., Any], name: str | None, options: StepOptions, formerly: str | None = None
    ) -> AnyStep:
        called = name or str(getattr(function, "__name__", ""))
        step_name = formerly or called
        what = f"{self.name}/{step_name}"
        signature, problems = read_signature(function, what)
        if not _STEP_NAME.fullmatch(step_name):
            problems.append(Problem(what, "step.name", "give it a name of letters, digits, '_', '-' and '.': name=\"pay\""))
        if options.within is not None and options.within <= timedelta(0):
            problems.append(Problem(what, "step.within", "within is a positive time: within=timedelta(seconds=30)"))
        if signature is not None and options.fallback is not None and not accepts(options.fallback, signature):
            problems.append(Problem(what, "step.fallback", "a fallback is called with the step's own arguments, by name"))
        if options.pivot and options.retriable:
            problems.append(Problem(what, "pivot.retriable", "the pivot may be refused: give it a compensate, not retriable"))
        if options.pivot and options.lock is not None:
            problems.append(Problem(what, "lock.pivot", "a pivot waits for a grant already: put the lock on a step before it"))
        if signature is not None and options.lock is not None and not accepts(options.lock, signature, context=False):
            given = ", ".join(parameter.name for parameter in signature.parameters)
            problems.append(Problem(what, "step.lock", f"a lock is called with the step's events: lock=lambda {given}: ..."))
        if signature is not None and options.external and len(signature.parameters) < 2:
            two = "it takes an event of the saga and one from outside: async def decide(review: Review, answer: Answer)"
            problems.append(Problem(what, "external.alone", two))
        problems += _model_problems(options, what)
        if step_name in self.steps:
            problems.append(Problem(what, "step.doubled", "the agent has a step of that name: give name= another"))
        if signature is not None and options.observer and signature.produces:
            problems.append(Problem(f"{what} -> return", "observer.returns", "an observer returns None: make it a step"))
        if problems or signature is None:
            raise DeclarationError(f"{what} cannot work as it is declared", problems)
        if called != step_name and called in self.steps:
            taken = f"the step that is called {called} now was {formerly}, and another one has that name"
            raise DeclarationError(f"{what} cannot work as it is declared", [Problem(what, "step.doubled", taken)])
        step: AnyStep = Step(what, function, signature, options, f"{self.name}/{called}")
        self.steps[step_name] = step
        return step


def _model_problems(options: StepOptions, what: str) -> list[Problem]:
    if options.model or (options.model is None and options.provider is None):
        return []
    return [Problem(what, "step.model", 'say which model the step works with: model="gpt-5-mini", provider="openai"')]
