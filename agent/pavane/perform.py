"""Perform: one unit from its input to its answer: what waits, tombstone, contract, arms, and then the call."""

from collections.abc import Callable, Sequence
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
    tombstone_key,
)
from pavane.attempts import ENDED_WAITING, Failure
from pavane.calls import Calls, Changes
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
from pavane_saga.facts import Requested
from pavane_saga.wire import GrantRead

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
            return self._calls.given_up(unit, waiting, _refusal(found, unit.attempts))
        envelopes, events = found
        return await self._calls.call(unit, envelopes, events, {})

    def _refused(self, unit: Unit, violation: ContractViolation) -> Done:
        """The contract refuses an input: the step was never called with it. Unless an earlier holder of the lane, of a version
        that takes it, may have been in the middle of that call: nobody knows what that did, so it failed, and is undone.
        """
        if unit.otherwise and unit.owes_undo and unit.envelope.saga is not None:
            if unit.granted is not None:
                return self._begun_otherwise(unit, unit.granted.causes, violation)
            if not unit.step.options.pivot:  # that begins on its grant
                return self._held_otherwise(unit, unit.envelope.saga, violation)
        return self._calls.refused(unit, "contract", violation.problems)

    def _held_otherwise(self, unit: Unit, saga: str, violation: ContractViolation) -> Done:
        """As the other version took it: an arm of a join is held, for it was called with that if it was called."""
        step, envelope = unit.step, unit.envelope
        name = step.parameter_for(envelope.type).name
        row = self._state.get(arms_key(saga, step.wire_name)) if step.holds else None
        arms = decode_arms(row)
        if name in filled_arms(row) or arms.setdefault(name, envelope).id != envelope.id:
            return self._calls.refused(unit, "contract", violation.problems)
        if len(arms) == len(step.signature.parameters):
            filled = encode_filled(arms, self._clock())
            return self._begun_otherwise(unit, tuple(sorted(each.id for each in arms.values())), violation, filled)
        changes: Changes = {arms_key(saga, step.wire_name): encode_arms(arms)}
        return self._calls.finished(unit, self._calls.begin(unit), Done((), changes))

    def _begun_otherwise(
        self, unit: Unit, causes: tuple[str, ...], violation: ContractViolation, arms: bytes | None = None
    ) -> Done:
        """``arms``: what is noted of them, where it is a join."""
        step = unit.step
        changes: Changes = {arms_key(unit.envelope.saga or "", step.wire_name): arms} if step.holds else {}
        return self._calls.given_up(unit, Waiting(step.wire_name, causes, 0, 0, {}), _refusal(violation, 1), changes)

    def _ended(self, unit: Unit, waiting: Waiting) -> Done:
        """The saga ended while a holder that died then tried the unit again: nobody knows what it did."""
        changes: Changes = {}
        if unit.step.holds:
            changes[arms_key(unit.envelope.saga or "", unit.step.wire_name)] = None
        return self._calls.given_up(unit, waiting, ENDED_WAITING, changes)

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
        fills = len(arms) == len(step.signature.parameters)
        failed = unit.owes_undo and unit.may_have_begun and fills and not step.options.pivot
        work = self._calls.begin(unit)
        message = self._answers.settled(
            step.wire_name,
            saga,
            list(arms.values()) if failed else [*held.values(), envelope.id],
            work,
            how="failed" if failed else "skipped",
            began=failed,
            code="saga.ended",
            reason="its saga had ended; whether it began is not known" if failed else "",
            under=unit.under,
        )
        changes: Changes = {}
        if step.holds:
            let_go[step.wire_name] = arms
            changes[tombstone_key(saga)] = encode_tombstone(let_go, self._clock())
            if held:
                changes[key] = None
        return self._calls.finished(unit, work, Done([message], changes))

    def _skipped(self, unit: Unit) -> Done:
        """What the step's contract refuses never began it, and fills no arm."""
        work = self._calls.begin(unit)
        saga, step = unit.envelope.saga or "", unit.step.wire_name
        message = self._answers.settled(
            step, saga, [unit.envelope.id], work, how="skipped", began=False, code="saga.ended", reason=""
        )
        return self._calls.finished(unit, work, Done([message]))

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
        waiting = Waiting(unit.step.wire_name, granted.causes, 0, 0, {})
        return self._calls.given_up(unit, waiting, ENDED_WAITING, {key: None})

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
            return self._calls.refused(unit, "join.arm-filled", [Problem("ce_id", "join.arm-filled", both)])
        arms[parameter.name] = envelope
        if len(arms) < len(step.signature.parameters) or step.options.pivot:
            return self._calls.finished(unit, self._calls.begin(unit), Done((), {key: encode_arms(arms)}))
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
        """Ask for the lock that the step needs with these events; None where it needs none, and may be called."""
        step = unit.step
        try:
            key = lock(**events)
            if key is None:
                return None
            if not 0 < len(key) <= LONGEST_LOCK:
                raise ValueError(f"a lock is a text of 1 to {LONGEST_LOCK} characters, or None")
            key.encode()
        except Exception as error:
            problem = Problem("lock", "lock.failed", f"what is to be locked cannot be told: {type(error).__name__}")
            return self._calls.refused(unit, "lock.failed", [problem])
        saga = unit.envelope.saga or ""
        work = self._calls.begin(unit)
        causes = tuple(sorted(each.id for each in arms.values()))
        asked = Requested(step.wire_name, causes, key, step.options.lock_taken == "refuse")
        message = self._answers.fact(asked, saga, work)
        return self._calls.finished(unit, work, Done([message], {arms_key(saga, step.wire_name): encode_arms(arms)}))


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
