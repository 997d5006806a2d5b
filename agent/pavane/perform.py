"""Perform: one unit from its input to its answer: what waits, tombstone, contract, arms, and then the call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pavane.answers import Answers
from pavane.arms import (
    Held,
    arms_key,
    decode_arms,
    decode_tombstone,
    encode_arms,
    encode_filled,
    encode_tombstone,
    filled_arms,
    may_have_begun,
    tombstone_key,
)
from pavane.attempts import ENDED_IN_DOUBT, ENDED_WAITING, Failure
from pavane.calls import Calls, Changes
from pavane.doubt import calls_begun_by
from pavane.kit import Kit
from pavane.overlay import Overlay
from pavane.signature import Parameter
from pavane.step import AnyStep
from pavane.tiers import fits
from pavane.units import Done, Unit
from pavane.waiting import Index, Waiting
from pavane_events.envelope import Envelope
from pavane_events.errors import ContractViolation, Problem
from pavane_events.event import Event
from pavane_events.record import Message
from pavane_saga.facts import Requested
from pavane_saga.wire import GrantRead
from pavane_tracing.work import Work

LONGEST_LOCK: Final = 200
"""Characters of what a step locks."""


class Performer:
    """Performs an agent's units against a lane's state. What it returns is committed with the input, or never happened."""

    def __init__(self, kit: Kit, state: Overlay, index: Index, answers: Answers, aside: Callable[[bool], None]) -> None:
        self._state = state
        self._index = index
        self._answers = answers
        self._calls = Calls(kit, answers, aside)
        self._clock = kit.clock
        self._version = kit.plan.manifest.version

    async def perform(self, unit: Unit) -> Done:
        """The answer to one unit. Raises :class:`Abandoned` where the lane stops meanwhile."""
        place = unit.place if unit.delayed is not None or self._index.count else None
        waiting = None
        if unit.delayed is not None and place is not None:
            waiting = self._index.get(place)
            if waiting is None:
                return Done()  # the end of its saga settled it while it waited
        row = None
        if unit.envelope.saga is not None and not unit.step.options.observer:
            row = self._state.get(tombstone_key(unit.envelope.saga))
        if row is not None:
            return self._at_tombstone(unit, row) if waiting is None else self._ended(unit, waiting)
        if place is not None and not unit.step.holds and unit.granted is None:  # what is held has no order
            earlier = self._index.before(place)
            if earlier is not None and fits(unit.record):
                return self._calls.behind(unit, earlier)
        if waiting is not None:
            return await self._again(unit, waiting)
        if unit.granted is not None:
            return await self._granted(unit, unit.granted)
        parameter = unit.step.parameter_for(unit.envelope.type)
        try:
            event = read_event(unit.envelope, parameter)
        except ContractViolation as error:
            return self._refused(unit, error)
        if unit.step.holds:
            return await self._hold(unit, parameter, event)
        return await self._calls.call(unit, {parameter.name: unit.envelope}, {parameter.name: event}, {})

    async def _again(self, unit: Unit, waiting: Waiting) -> Done:
        """Try again what waited in a delay tier, with the same inputs as before."""
        found = read_inputs(unit.step, [*waiting.arms.values(), unit.envelope])
        if isinstance(found, ContractViolation):  # a newer version of the agent takes less
            return self._calls.given_up(unit, [waiting.causes], _refusal(found, unit.attempts))
        envelopes, events = found
        return await self._calls.call(unit, envelopes, events, {})

    def _refused(self, unit: Unit, violation: ContractViolation) -> Done:
        """The contract refuses an input: the step was never called with it. Unless an earlier holder of the lane, of a version
        that takes it, may have been in the middle of that call: nobody knows what that did, so it failed, and is undone.
        """
        saga = unit.envelope.saga
        if saga is not None and unit.owes_undo:
            key = arms_key(saga, unit.step.wire_name)
            row = self._state.get(key) if unit.step.holds else None
            if unit.granted is not None:
                if unit.otherwise or may_have_begun(row):
                    changes: Changes = {key: None} if row is not None else {}
                    return self._calls.given_up(unit, [unit.granted.causes], _refusal(violation, 1), changes)
            elif unit.otherwise:
                calls = calls_begun_by(unit.envelope, _types_of(decode_arms(row)), unit.begun_on)
                if calls:
                    return self._calls.given_up(unit, calls, _refusal(violation, 1))
                if not unit.step.options.pivot:  # that begins on its grant
                    return self._held_otherwise(unit, key, row, violation)
        return self._calls.refused(unit, "contract", violation.problems)

    def _held_otherwise(self, unit: Unit, key: bytes, row: bytes | None, violation: ContractViolation) -> Done:
        """As the other version took it: an arm of a join is held, for it was called with that if it was called."""
        step, envelope = unit.step, unit.envelope
        name = step.parameter_for(envelope.type).name
        arms = decode_arms(row)
        if name in filled_arms(row) or arms.setdefault(name, envelope).id != envelope.id:
            return self._calls.refused(unit, "contract", violation.problems)
        if len(arms) == len(step.signature.parameters):
            changes: Changes = {key: encode_filled(arms, self._clock())} if step.holds else {}
            return self._calls.given_up(unit, [_causes_of(arms)], _refusal(violation, 1), changes)
        return self._calls.finished(unit, self._calls.begin(unit), Done((), {key: encode_arms(arms)}))

    def _ended(self, unit: Unit, waiting: Waiting) -> Done:
        """The saga ended while a holder that died then tried the unit again: nobody knows what it did."""
        changes: Changes = {}
        if unit.step.holds:
            changes[arms_key(unit.envelope.saga or "", unit.step.wire_name)] = None
        return self._calls.given_up(unit, [waiting.causes], ENDED_WAITING, changes)

    def _at_tombstone(self, unit: Unit, row: bytes) -> Done:
        """The saga ended: *skipped* where the step provably never began, else *failed*, so that it is undone.

        Arms that are still held were those of a join that ran when the end came, and died with its process: they are
        settled here, with the event that the join had been called for.
        """
        envelope, step = unit.envelope, unit.step
        saga = envelope.saga or ""
        if unit.granted is not None:
            return self._granted_too_late(unit, unit.granted)
        if not unit.otherwise and _is_refused(unit):
            return self._skipped(unit)
        let_go = decode_tombstone(row)
        name = step.parameter_for(envelope.type).name
        key = arms_key(saga, step.wire_name)
        held = {each: arm.id for each, arm in decode_arms(self._state.get(key) if step.holds else None).items()}
        if name in held:
            held = {}  # a second event of that arm: not the one that the join was called for
        arms = {**let_go.get(step.wire_name, {}), **held, name: envelope.id}
        calls = self._begun_before(unit, arms) if unit.owes_undo and unit.may_have_begun else []
        begun = {each for causes in calls for each in causes}
        never = [each for each in (*held.values(), envelope.id) if each not in begun]
        work = self._calls.begin(unit)
        work.split(len(calls) + bool(never))
        messages = self._calls.failures(unit, calls, ENDED_IN_DOUBT, work)
        if never:
            messages.append(self._skip(unit, never, work))
        changes: Changes = {}
        if step.holds:
            let_go[step.wire_name] = arms
            changes[tombstone_key(saga)] = encode_tombstone(let_go, self._clock())
            if held:
                changes[key] = None
        return self._calls.finished(unit, work, Done(messages, changes))

    def _begun_before(self, unit: Unit, arms: Mapping[str, str]) -> list[tuple[str, ...]]:
        """The calls for which an input was the last one, by causes: where it fills what is there, and as other versions began.
        ``arms``: ids by parameter."""
        step = unit.step
        kinds = {each.name: each.types for each in step.signature.parameters}
        others = {each: kinds.get(name, ()) for name, each in arms.items() if each != unit.envelope.id}
        calls = calls_begun_by(unit.envelope, others, unit.begun_on)
        whole = tuple(sorted(arms.values()))
        if len(whole) == len(kinds) and not step.options.pivot and whole not in calls:
            calls.append(whole)
        return calls

    def _skipped(self, unit: Unit) -> Done:
        """What the step's contract refuses never began it, and fills no arm."""
        work = self._calls.begin(unit)
        message = self._skip(unit, [unit.envelope.id], work)
        return self._calls.finished(unit, work, Done([message]))

    def _skip(self, unit: Unit, causes: Sequence[str], work: Work) -> Message:
        saga, step, code = unit.envelope.saga or "", unit.step.wire_name, ENDED_IN_DOUBT.code
        return self._answers.settled(step, saga, causes, work, how="skipped", began=False, code=code, under=unit.under)

    async def _granted(self, unit: Unit, granted: GrantRead) -> Done:
        """The coordinator lets the step begin, on the inputs that its command carries."""
        found = read_inputs(unit.step, granted.inputs)
        if isinstance(found, ContractViolation):
            return self._refused(unit, found)
        envelopes, events = found
        arms = {name: unit.envelope if each.id == unit.envelope.id else each for name, each in envelopes.items()}
        key = arms_key(unit.envelope.saga or "", unit.step.wire_name)
        changes: Changes = {}
        if unit.step.holds:
            changes[key] = encode_filled(arms, self._clock())
        elif not granted.retry:
            if not decode_arms(self._state.get(key)):  # it waits for no grant any more, and takes them by itself
                return self._calls.finished(unit, self._calls.begin(unit), Done())
            changes[key] = None  # an earlier version has held them
        return await self._calls.call(unit, arms, events, changes)

    def _granted_too_late(self, unit: Unit, granted: GrantRead) -> Done:
        """The saga has ended. Where its inputs are still held, the step was running when the end came: nobody knows."""
        key = arms_key(unit.envelope.saga or "", unit.step.wire_name)
        if not decode_arms(self._state.get(key)):
            return self._calls.finished(unit, self._calls.begin(unit), Done())
        return self._calls.given_up(unit, [granted.causes], ENDED_WAITING, {key: None})

    async def _hold(self, unit: Unit, parameter: Parameter, event: Event) -> Done:
        """An input of a join or of a pivot. A pivot is not called when it is whole: that is its request, for a grant."""
        envelope, step = unit.envelope, unit.step
        if envelope.saga is None:
            problem = Problem("ce_sagaid", "join.no-saga", "a join waits by saga, and the event belongs to none")
            return self._calls.refused(unit, "join.no-saga", [problem])
        key = arms_key(envelope.saga, step.wire_name)
        row = self._state.get(key)
        arms = decode_arms(row)
        held = arms[parameter.name].id if parameter.name in arms else filled_arms(row).get(parameter.name)
        if held is not None:
            if held == envelope.id:
                return self._calls.finished(unit, self._calls.begin(unit), Done())
            both = f"{held} fills the arm {parameter.name!r} of this saga already, {envelope.id} came, too"
            alone = calls_begun_by(envelope, {}, unit.begun_on) if unit.begun_on else []
            if alone:  # by a version that called the step with each
                return self._calls.given_up(unit, alone, Failure("join.arm-filled", both, 1, dead=True))
            return self._calls.refused(unit, "join.arm-filled", [Problem("ce_id", "join.arm-filled", both)])
        before = calls_begun_by(envelope, _types_of(arms), unit.begun_on) if unit.begun_on else []
        arms[parameter.name] = envelope
        is_whole = len(arms) == len(step.signature.parameters)
        begun = is_whole and before == [_causes_of(arms)]
        if before and not begun:  # on fewer inputs: to call it with these, too, might do it twice
            return self._calls.given_up(unit, before, _BEGUN_OTHERWISE)
        if not is_whole or step.options.pivot:
            changes: Changes = {key: encode_arms(arms, may_have_begun=begun)}
            return self._calls.finished(unit, self._calls.begin(unit), Done((), changes))
        events = {parameter.name: event}
        try:
            for other in step.signature.parameters:
                if other is not parameter:
                    events[other.name] = read_event(arms[other.name], other)
        except ContractViolation as error:  # held under an older, wider contract
            return self._refused(unit, error)
        if step.options.lock is not None:
            asked = self._lock(unit, step.options.lock, arms, events)
            if asked is not None:
                return asked
        return await self._calls.call(unit, arms, events, {key: encode_filled(arms, self._clock())})

    def _lock(self, unit: Unit, lock: Callable[..., str | None], arms: Held, events: dict[str, Event]) -> Done | None:
        """Ask for the lock that the step needs with these events; None where it needs none, and may be called. An earlier
        holder of the lane may have found that it needs none, and have begun."""
        step, causes = unit.step, _causes_of(arms)
        in_doubt = unit.may_have_begun and unit.owes_undo
        try:
            key = lock(**events)
            if key is None:
                return None
            if not 0 < len(key) <= LONGEST_LOCK:
                raise ValueError(f"a lock is a text of 1 to {LONGEST_LOCK} characters, or None")
            key.encode()
        except Exception as error:
            reason = f"what is to be locked cannot be told: {type(error).__name__}"
            if in_doubt:
                return self._calls.given_up(unit, [causes], Failure("lock.failed", reason, 1, dead=True))
            return self._calls.refused(unit, "lock.failed", [Problem("lock", "lock.failed", reason)])
        saga = unit.envelope.saga or ""
        work = self._calls.begin(unit)
        begun_under = (unit.under or self._version) if in_doubt else None
        asked = Requested(step.wire_name, causes, key, step.options.lock_taken == "refuse", begun_under)
        message = self._answers.fact(asked, saga, work)
        changes: Changes = {arms_key(saga, step.wire_name): encode_arms(arms, may_have_begun=in_doubt)}
        return self._calls.finished(unit, work, Done([message], changes))


_BEGUN_OTHERWISE: Final = Failure(
    "begun.otherwise", "an earlier version, of which the step takes other inputs, may have begun it", 1, dead=True
)


def _causes_of(arms: Held) -> tuple[str, ...]:
    return tuple(sorted([each.id for each in arms.values()]))


def _types_of(arms: Held) -> dict[str, tuple[str, ...]]:
    return {each.id: (each.type,) for each in arms.values()}


def _refusal(violation: ContractViolation, attempts: int) -> Failure:
    reason = "; ".join(f"{each.where} {each.code}" for each in violation.problems)
    return Failure("contract", reason, attempts, dead=True)


def _is_refused(unit: Unit) -> bool:
    try:
        read_event(unit.envelope, unit.step.parameter_for(unit.envelope.type))
    except ContractViolation:
        return True
    return False


def read_event(envelope: Envelope, parameter: Parameter) -> Event:
    """The event through the class that the parameter names. Raises :class:`ContractViolation`."""
    view = parameter.view(envelope.type)
    if view is None:
        raise ContractViolation(envelope.type, [Problem("ce_type", "contract.type", "the step does not take that type")])
    if envelope.dataschema != view.dataschema():
        version = envelope.version()
        if version is not None and version > view.event_version:
            found = f"version {version}, and this agent knows version {view.event_version}: upgrade it before its producers"
            raise ContractViolation(envelope.type, [Problem("ce_dataschema", "contract.future-version", found)])
    return view.from_json(envelope.data)


def read_inputs(
    step: AnyStep, envelopes: Sequence[Envelope]
) -> tuple[dict[str, Envelope], dict[str, Event]] | ContractViolation:
    """Envelopes and events of a call by parameter; the violation where the step no longer takes one of them."""
    named: dict[str, Envelope] = {}
    events: dict[str, Event] = {}
    for parameter in step.signature.parameters:
        envelope = next((each for each in envelopes if each.type in parameter.types), None)
        if envelope is None:
            return ContractViolation(step.wire_name, [Problem(parameter.name, "input-missing", "no event fills it")])
        try:
            events[parameter.name] = read_event(envelope, parameter)
        except ContractViolation as error:
            return error
        named[parameter.name] = envelope
    return named, events
