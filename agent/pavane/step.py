"""Step: a function with the events it waits for, the events it gives, and its undo."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, Literal, ParamSpec, TypeVar, cast, overload

from pavane.context import Context, Outcome
from pavane.retry import ASK, UNDO, Retry
from pavane.signature import Parameter, Signature, read_reconciliation, read_undo
from pavane_events.errors import DeclarationError, Problem
from pavane_events.event import Event

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])
R_co = TypeVar("R_co", covariant=True)

Outputs = tuple[Event, ...]


class WrongOutput(TypeError):
    """A step returned something that its signature does not name. It is a bug in the step: it is not tried again."""


@dataclass(frozen=True, slots=True)
class Undo:
    """How a step is taken back: the function beside it, whether it asks for a context, and how patiently it is tried.

    ``within``: how long one attempt may take.
    """

    function: Callable[..., object]
    context: str | None
    retry: Retry
    within: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How it is found out whether a step took effect: a function, whether it asks for a context, how often it is tried.

    ``within``: how long one attempt may take.
    """

    function: Callable[..., object]
    context: str | None
    retry: Retry
    within: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a reconciliation found out. ``outputs``: what the step had returned, or would have; None unless it is done."""

    outcome: Outcome
    outputs: Outputs | None = None


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What a step's decorator says of it."""

    retry: Retry
    within: timedelta | None
    effects: bool
    retriable: bool
    observer: bool
    pivot: bool = field(default=False, kw_only=True)
    external: bool = field(default=False, kw_only=True)
    retiring: bool = field(default=False, kw_only=True)
    lock: Callable[..., str | None] | None = field(default=None, kw_only=True)
    lock_taken: Literal["wait", "refuse"] = field(default="wait", kw_only=True)
    model: str | None = field(default=None, kw_only=True)
    provider: str | None = field(default=None, kw_only=True)
    fallback: Callable[..., object] | None


class Step(Generic[P, R_co]):
    """A function that an agent listens with. It stays a plain callable: ``await compute_score(application, ctx)``.

    ``wire_name`` is ``agent/step``: it is written into events and stored facts, so it outlives the function's name.
    ``title`` is what people are shown: the same, but for a step that was renamed.
    """

    def __init__(
        self,
        wire_name: str,
        function: Callable[P, R_co],
        signature: Signature,
        options: StepOptions,
        title: str | None = None,
    ) -> None:
        self.wire_name = wire_name
        self.title = title or wire_name
        self.function = function
        self.signature = signature
        self.options = options
        self.undo: Undo | None = None
        self.reconciliation: Reconciliation | None = None
        self.is_join = len(signature.parameters) > 1
        """Whether it waits for more than one event of a saga."""
        self.holds = self.is_join or options.pivot or options.lock is not None
        """Whether its inputs are held in the lane's state until it may be called, once: of a join, a pivot, a lock."""

        self._by_type = {kind: each for each in reversed(signature.parameters) for kind in each.types}
        self._is_async = inspect.iscoroutinefunction(function)
        self._coroutine = cast("Callable[..., Awaitable[object]]", function)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Step {self.wire_name}>"

    @property
    def owes_undo(self) -> bool:
        """Whether a failed saga must have it undone."""
        return self.undo is not None

    def parameter_for(self, event_type: str) -> Parameter:
        """The parameter that an event of that type fills. KeyError where none does."""
        return self._by_type[event_type]

    @overload
    def compensate(self, function: F, /, *, retry: Retry = ..., within: timedelta | None = ...) -> F: ...

    @overload
    def compensate(
        self, function: None = None, /, *, retry: Retry = ..., within: timedelta | None = ...
    ) -> Callable[[F], F]: ...

    def compensate(
        self, function: Callable[..., object] | None = None, /, *, retry: Retry = UNDO, within: timedelta | None = None
    ) -> object:
        """Declare the undo: a function of the step's inputs under the same names, ``done`` and optionally a context.

        ``done`` is the output as returned, or None where nobody can know whether the step took effect. The undo must be
        safe to run twice, must accept that there is nothing to undo, and must leave a fence (:class:`pavane.Fence`)
        where the effect lives. If it keeps failing, the saga is parked and says so.

        ``within`` bounds each attempt: one that is still running then is cancelled, and has failed. Without it an undo that
        never answers keeps its saga from its end, and from being parked. A ``def`` runs on in its thread meanwhile.
        """
        if function is None:
            return functools.partial(self.compensate, retry=retry, within=within)
        (_, context), problems = read_undo(function, self.signature, f"{self.wire_name}.compensate")
        problems += _no_time(within, self.wire_name)
        if self.undo is not None:
            problems.append(Problem(self.wire_name, "undo.doubled", "a step has one undo"))
        if not self.options.effects:
            problems.append(Problem(self.wire_name, "undo.no-effects", "it says effects=False: drop that or the undo"))
        if self.options.observer:
            problems.append(Problem(self.wire_name, "undo.observer", "an observer owes nothing: make it a step"))
        if problems:
            raise DeclarationError(f"the undo of {self.wire_name} cannot work so", problems)
        self.undo = Undo(function, context, retry, within)
        return function

    @overload
    def reconcile(self, function: F, /, *, retry: Retry = ..., within: timedelta | None = ...) -> F: ...

    @overload
    def reconcile(
        self, function: None = None, /, *, retry: Retry = ..., within: timedelta | None = ...
    ) -> Callable[[F], F]: ...

    def reconcile(
        self, function: Callable[..., object] | None = None, /, *, retry: Retry = ASK, within: timedelta | None = None
    ) -> object:
        """Declare how to find out whether the step took effect: a function of its inputs under the same names, and a context.

        Asked before a step is undone of which nobody knows whether it did. It returns what the step would have returned
        where it happened (True where that is nothing), False where it did not, None where it cannot say; what it raises is
        tried again a few times, and then nobody knows. The undo is called in any case, and is told: ``done`` and
        ``ctx.outcome``. What did not happen has to be fenced all the same, for it may still come. ``within`` bounds each
        attempt, as that of an undo.
        """
        if function is None:
            return functools.partial(self.reconcile, retry=retry, within=within)
        context, problems = read_reconciliation(function, self.signature, f"{self.wire_name}.reconcile")
        problems += _no_time(within, self.wire_name)
        if self.reconciliation is not None:
            problems.append(Problem(self.wire_name, "reconcile.doubled", "a step has one reconciliation"))
        if not self.options.effects or self.options.observer:
            problems.append(Problem(self.wire_name, "reconcile.no-effects", "it changes nothing: nothing is to be found out"))
        if problems:
            raise DeclarationError(f"the reconciliation of {self.wire_name} cannot work so", problems)
        self.reconciliation = Reconciliation(function, context, retry, within)
        return function

    async def perform(self, inputs: Mapping[str, Event], context: Context | None) -> Outputs:
        """Call the function with its events; its outputs, checked against its signature (:class:`WrongOutput`).

        ``context`` may be None where the signature asks for none.
        A plain ``def`` runs in a thread, with the caller's context variables.
        """
        arguments: dict[str, object] = dict(inputs)
        if self.signature.context is not None:
            arguments[self.signature.context] = context
        if self._is_async:
            return self.check_outputs(await self._coroutine(**arguments))
        return self.check_outputs(await call(self.function, arguments, is_async=False))

    async def perform_undo(self, inputs: Mapping[str, Event], done: Outputs | None, context: Context) -> None:
        """Call the undo with the step's inputs and what it returned (None: unknown)."""
        undo = self.undo
        if undo is None:
            raise LookupError(f"{self.wire_name} has no undo")
        returned: object = None
        if done is not None:
            returned = done if self.signature.several else (done[0] if done else None)
        arguments: dict[str, object] = {**inputs, "done": returned}
        if undo.context is not None:
            arguments[undo.context] = context
        given = await call(undo.function, arguments)
        if inspect.isgenerator(given) or inspect.isasyncgen(given):
            raise WrongOutput(f"the undo of {self.wire_name} is a generator, of which nothing has run: write it without yield")

    async def perform_reconciliation(self, inputs: Mapping[str, Event], context: Context) -> Found:
        """Ask whether the step took effect, once. Raises what the function raises, and :class:`WrongOutput`."""
        asked = self.reconciliation
        if asked is None:
            return Found("unknown")
        arguments: dict[str, object] = dict(inputs)
        if asked.context is not None:
            arguments[asked.context] = context
        answer = await call(asked.function, arguments)
        if answer is None:
            return Found("unknown")
        if answer is False:
            return Found("not-done")
        return Found("done", self.check_outputs(None if answer is True else answer))

    def check_outputs(self, returned: object) -> Outputs:
        """What a function returned, as a tuple of the events that its signature names."""
        signature = self.signature
        kind_given = type(returned)
        if returned is None:
            if signature.nothing or self.options.observer:
                return ()
        elif signature.several:
            if isinstance(returned, tuple):
                events = cast("tuple[object, ...]", returned)
                if len(events) == len(signature.produces) and all(map(_is_one_of, events, signature.produces)):
                    return cast("Outputs", events)
        elif kind_given in signature.produces or any(_is_one_of(returned, kind) for kind in signature.produces):
            return (cast("Event", returned),)
        promised = ", ".join(kind.__name__ for kind in signature.produces) or "nothing"
        raise WrongOutput(f"{self.wire_name} returned {kind_given.__name__}, its signature promises {promised}")


async def call(function: Callable[..., object], arguments: dict[str, object], *, is_async: bool | None = None) -> object:
    """Await an ``async def``, run a ``def`` in a thread, and await what it gives where that is to be awaited: it is an
    ``async def`` in a decorator's wrapper."""
    if is_async if is_async is not None else inspect.iscoroutinefunction(function):
        return await cast("Awaitable[object]", function(**arguments))
    context = contextvars.copy_context()
    given = await asyncio.get_running_loop().run_in_executor(
        None, functools.partial(context.run, functools.partial(_in_thread, function, arguments))
    )
    return await cast("Awaitable[object]", given) if inspect.isawaitable(given) else given


def _no_time(within: timedelta | None, what: str) -> list[Problem]:
    if within is None or within > timedelta(0):
        return []
    return [Problem(what, "step.within", "within is a positive time: within=timedelta(seconds=30)")]


def _in_thread(function: Callable[..., object], arguments: dict[str, object]) -> object:
    try:
        return function(**arguments)
    except StopIteration as error:  # a future cannot hold it: it would never be done (until Python 3.12)
        raise RuntimeError("the function raised StopIteration") from error


def _is_one_of(event: object, kind: type[Event]) -> bool:
    """Whether an event is what was promised: a class of its own type that merely derives from it is another event."""
    return type(event) is kind or (isinstance(event, kind) and event.event_type == kind.event_type)


AnyStep = Step[..., object]
