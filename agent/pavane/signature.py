"""Signature: what a step's annotations say. The types are the subscription, the contract and the topic."""

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Union, cast

from pavane.context import Context
from pavane_events.envelope import MOST_CAUSES, MOST_PARTS
from pavane_events.errors import Problem
from pavane_events.event import Event

EventType = type[Event]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One event that a step waits for: its name in the function and the classes it may have."""

    name: str
    views: tuple[EventType, ...]

    def view(self, event_type: str) -> EventType | None:
        """The class through which this parameter reads events of that type."""
        for view in self.views:
            if view.event_type == event_type:
                return view
        return None

    @property
    def types(self) -> tuple[str, ...]:
        """The event types that fill this parameter."""
        return tuple(view.event_type for view in self.views)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a step takes and gives. ``several``: it returns a tuple with one event of each of ``produces``."""

    parameters: tuple[Parameter, ...]
    context: str | None
    produces: tuple[EventType, ...]
    several: bool
    nothing: bool


def read_signature(function: Callable[..., object], what: str) -> tuple[Signature | None, list[Problem]]:
    """The signature of a step or observer, or every reason why it cannot be one."""
    problems: list[Problem] = []
    hints = _hints(function, what, problems)
    if hints is None:
        return None, problems
    parameters: list[Parameter] = []
    context: str | None = None
    for name, parameter in inspect.signature(function).parameters.items():
        where = f"{what}({name})"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            problems.append(Problem(where, "step.variadic", "name each event: *args and **kwargs cannot be subscribed to"))
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            problems.append(Problem(where, "step.positional", "events are given by name: take the / out of the signature"))
        elif name not in hints:
            problems.append(Problem(where, "step.unannotated", f"say which event it is: {name}: ScoreComputed"))
        elif hints[name] is Context:
            if context is not None:
                problems.append(Problem(where, "step.context-doubled", f"{context!r} is the context already: take one out"))
            context = name
        else:
            views = _events_of(hints[name], where, problems, "parameter")
            if views:
                parameters.append(Parameter(name, views))
    _check_parameters(parameters, what, problems)
    produces, several, nothing = _returns(hints.get("return", inspect.Signature.empty), what, problems)
    if problems:
        return None, problems
    return Signature(tuple(parameters), context, produces, several, nothing), []


def read_undo(function: Callable[..., object], step: Signature, what: str) -> tuple[tuple[bool, str | None], list[Problem]]:
    """Whether an undo takes ``done`` and its context's name; with every reason why it does not fit its step."""
    problems: list[Problem] = []
    hints = _hints(function, what, problems)
    if hints is None:
        return (False, None), problems
    found = inspect.signature(function).parameters
    names = [name for name in found if hints.get(name) is not Context]
    contexts = [name for name in found if hints.get(name) is Context]
    context = contexts[0] if contexts else None
    wanted = [parameter.name for parameter in step.parameters]
    shown = ", ".join([*wanted, "done", "ctx"])
    is_named = all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in found.values())
    if names != [*wanted, "done"] or len(contexts) > 1 or not is_named:
        problems.append(
            Problem(what, "undo.parameters", f"an undo takes its step's inputs under the same names, then done: ({shown})")
        )
    elif type(None) not in typing.get_args(hints.get("done")) and hints.get("done") is not type(None):
        given = " | ".join(each.__name__ for each in step.produces) or "object"
        problems.append(
            Problem(
                f"{what}(done)",
                "undo.done-optional",
                f"it must accept None, for a process can die between effect and answer: write done: {given} | None",
            )
        )
    for parameter in step.parameters:
        _check_undo_type(hints.get(parameter.name), parameter, f"{what}({parameter.name})", problems)
    return (True, context), problems


def read_reconciliation(function: Callable[..., object], step: Signature, what: str) -> tuple[str | None, list[Problem]]:
    """The name of the context that a reconciliation takes, if any; with every reason why it does not fit its step."""
    problems: list[Problem] = []
    hints = _hints(function, what, problems)
    if hints is None:
        return None, problems
    found = inspect.signature(function).parameters
    names = [name for name in found if hints.get(name) is not Context]
    contexts = [name for name in found if hints.get(name) is Context]
    wanted = [parameter.name for parameter in step.parameters]
    is_named = all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in found.values())
    if names != wanted or len(contexts) > 1 or not is_named:
        shown = ", ".join([*wanted, "ctx"])
        message = f"a reconciliation takes its step's inputs under the same names, no more: ({shown})"
        problems.append(Problem(what, "reconcile.parameters", message))
    for parameter in step.parameters:
        _check_undo_type(hints.get(parameter.name), parameter, f"{what}({parameter.name})", problems)
    return (contexts[0] if contexts else None), problems


def accepts(function: Callable[..., object], signature: Signature, *, context: bool = True) -> bool:
    """Whether a function can be called as a step of that signature is: with its events, and its context, by name.

    ``context``: False where it is given the events alone.
    """
    names = [parameter.name for parameter in signature.parameters]
    if context and signature.context is not None:
        names.append(signature.context)
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _check_undo_type(hint: object, parameter: Parameter, where: str, problems: list[Problem]) -> None:
    """An undo that names another event than its step is a mistake; one that names a wider class, or none, is not."""
    kinds = [each for each in _alternatives(hint) if isinstance(each, type) and issubclass(each, Event)]
    if kinds and not all(issubclass(view, tuple(kinds)) for view in parameter.views):
        given = " | ".join(view.__name__ for view in parameter.views)
        problems.append(Problem(where, "undo.parameter-type", f"it is what the step was given: {parameter.name}: {given}"))


def _alternatives(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _hints(function: Callable[..., object], what: str, problems: list[Problem]) -> dict[str, object] | None:
    try:
        return cast("dict[str, object]", typing.get_type_hints(function))
    except Exception as error:  # whatever an annotation raises is the user's to see
        problems.append(Problem(what, "step.annotations", f"its annotations cannot be read: {error}"))
        return None


def _check_parameters(parameters: list[Parameter], what: str, problems: list[Problem]) -> None:
    if not parameters and not problems:
        problems.append(Problem(what, "step.no-event", "a step takes at least one event: def step(score: ScoreComputed)"))
    if len(parameters) > MOST_CAUSES:
        too_many = f"a join waits for at most {MOST_CAUSES} events: let another step join some of them first"
        problems.append(Problem(what, "step.too-many-events", too_many))
    seen: dict[str, str] = {}
    for parameter in parameters:
        for event_type in parameter.types:
            if event_type in seen:
                problems.append(
                    Problem(
                        f"{what}({parameter.name})",
                        "step.same-type",
                        f"{event_type} already fills {seen[event_type]!r}: parameters are matched by type, so each type once",
                    )
                )
            seen[event_type] = parameter.name


def _events_of(hint: object, where: str, problems: list[Problem], kind: str) -> tuple[EventType, ...]:
    found: list[EventType] = []
    for each in _alternatives(hint):
        if each is type(None):
            problems.append(
                Problem(where, "step.optional", "an event that may be missing cannot be waited for: make it another step")
            )
        elif isinstance(each, type) and issubclass(each, Event) and each is not Event:
            found.append(each)
        else:
            problems.append(
                Problem(where, f"step.{kind}-type", f"{each!r} is no event: use a class derived from pavane.Event")
            )
    return tuple(found)


def _returns(hint: object, what: str, problems: list[Problem]) -> tuple[tuple[EventType, ...], bool, bool]:
    where = f"{what} -> return"
    if hint is inspect.Signature.empty:
        problems.append(Problem(where, "step.return-missing", "say what it returns: -> ScoreComputed, or -> None"))
        return (), False, False
    if hint is None or hint is type(None):
        return (), False, True
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if Ellipsis in parts:
            problems.append(Problem(where, "step.return-length", "name each event of the tuple: tuple[A, B]"))
            return (), True, False
        if any(len(_alternatives(part)) > 1 for part in parts):
            either = "a tuple is always the same events: for one of several tuples write two steps, or return one event"
            problems.append(Problem(where, "step.return-union-in-tuple", either))
            return (), True, False
        if len(parts) > MOST_PARTS:
            problems.append(Problem(where, "step.too-many-outputs", f"a step gives at most {MOST_PARTS} events at once"))
        return tuple(view for part in parts for view in _events_of(part, where, problems, "return")), True, False
    arms = _alternatives(hint)
    nothing = type(None) in arms
    events = tuple(view for arm in arms if arm is not type(None) for view in _events_of(arm, where, problems, "return"))
    return events, False, nothing
