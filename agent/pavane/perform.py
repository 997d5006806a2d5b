"""Perform: one unit from its input to its answer: tombstone, contract, arms, attempts, outputs or failure."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import cast

from pavane.answers import ROOM, Answers, Inputs, UnfitOutput
from pavane.arms import (
    arms_key,
    decode_arms,
    decode_tombstone,
    encode_arms,
    encode_filled,
    encode_tombstone,
    filled_arms,
    tombstone_key,
)
from pavane.attempts import Failure, Policy, attempt
from pavane.context import Context
from pavane.kit import Kit
from pavane.overlay import Overlay
from pavane.signature import Parameter
from pavane.step import Outputs, call
from pavane.units import Done, Unit
from pavane_events.envelope import Envelope, Trace
from pavane_events.errors import ContractViolation, Problem
from pavane_events.event import Event
from pavane_events.ids import idempotency_key
from pavane_events.record import Message
from pavane_tracing.work import Work


class Performer:
    """Performs an agent's units against a lane's state. What it returns is committed with the input, or never happened."""

    def __init__(self, kit: Kit, state: Overlay, answers: Answers, aside: Callable[[bool], None]) -> None:
        self._kit = kit
        self._state = state
        self._answers = answers
        self._aside = aside

    async def perform(self, unit: Unit) -> Done:
        """The answer to one unit. Raises :class:`Abandoned` where the lane stops meanwhile."""
        row = None
        if unit.envelope.saga is not None and not unit.step.options.observer:
            row = self._state.get(tombstone_key(unit.envelope.saga))
        if row is not None:
            return self._at_tombstone(unit, row)
        parameter = unit.step.parameter_for(unit.envelope.type)
        try:
            event = read_event(unit.envelope, parameter)
        except ContractViolation as error:
            return self._refused(unit, "contract", error.problems)
        if unit.step.is_join:
            return await self._join(unit, parameter, event)
        return await self._call(unit, {parameter.name: unit.envelope}, {parameter.name: event}, {})

    def _at_tombstone(self, unit: Unit, row: bytes) -> Done:
        """The saga ended: *skipped* where the step provably never began, else *failed*, so that it is undone.

        Arms that are still held were those of a join that ran when the end came, and died with its process: they are
        settled here, with the event that the join had been called for.
        """
        envelope, step = unit.envelope, unit.step
        saga = envelope.saga or ""
        let_go = decode_tombstone(row)
        name = step.parameter_for(envelope.type).name
        key = arms_key(saga, step.wire_name)
        held = {each: arm.id for each, arm in decode_arms(self._state.get(key) if step.is_join else None).items()}
        if name in held:
            held = {}  # a second event of that arm: not the one that the join was called for
        arms = {**let_go.get(step.wire_name, {}), **held, name: envelope.id}
        fills = len(arms) == len(step.signature.parameters)
        failed = step.owes_undo and unit.may_have_begun and fills
        work = self._begin(unit)
        message = self._answers.settled(
            step.wire_name,
            saga,
            list(arms.values()) if failed else [*held.values(), envelope.id],
            work,
            how="failed" if failed else "skipped",
            began=failed,
            code="saga.ended",
            reason="its saga had ended; whether it began is not known" if failed else "",
        )
        changes: dict[bytes, bytes | None] = {}
        if step.is_join:
            let_go[step.wire_name] = arms
            changes[tombstone_key(saga)] = encode_tombstone(let_go)
            if held:
                changes[key] = None
        return self._finished(unit, work, Done([message], changes))

    def _refused(self, unit: Unit, code: str, problems: Sequence[Problem]) -> Done:
        """An input that the step cannot take: it fails, and as it provably was never called it owes no undo."""
        work = self._begin(unit)
        work.fail(code, "; ".join(f"{each.where} {each.code}" for each in problems))
        messages: list[Message] = []
        saga, step = unit.envelope.saga, unit.step
        if saga is not None and not step.options.observer:
            reason = "; ".join(map(str, problems))[:500]
            messages.append(
                self._answers.settled(
                    step.wire_name, saga, [unit.envelope.id], work, how="failed", began=False, code=code, reason=reason
                )
            )
        messages.append(self._answers.dead(unit.record, step.wire_name, code, problems=problems))
        return self._finished(unit, work, Done(messages))

    async def _join(self, unit: Unit, parameter: Parameter, event: Event) -> Done:
        envelope, step = unit.envelope, unit.step
        if envelope.saga is None:
            problem = Problem("ce_sagaid", "join.no-saga", "a join waits by saga, and the event belongs to none")
            return self._refused(unit, "join.no-saga", [problem])
        key = arms_key(envelope.saga, step.wire_name)
        row = self._state.get(key)
        arms = decode_arms(row)
        held = arms[parameter.name].id if parameter.name in arms else filled_arms(row).get(parameter.name)
        if held is not None:
            if held == envelope.id:
                return self._finished(unit, self._begin(unit), Done())
            both = f"{held} fills the arm {parameter.name!r} of this saga already, {envelope.id} came, too"
            return self._refused(unit, "join.arm-filled", [Problem("ce_id", "join.arm-filled", both)])
        arms[parameter.name] = envelope
        if len(arms) < len(step.signature.parameters):
            return self._finished(unit, self._begin(unit), Done((), {key: encode_arms(arms)}))
        events = {parameter.name: event}
        try:
            for other in step.signature.parameters:
                if other is not parameter:
                    events[other.name] = read_event(arms[other.name], other)
        except ContractViolation as error:  # held under an older, wider contract
            return self._refused(unit, "contract", error.problems)
        return await self._call(unit, arms, events, {key: encode_filled(arms)})

    async def _call(
        self, unit: Unit, envelopes: dict[str, Envelope], events: dict[str, Event], changes: dict[bytes, bytes | None]
    ) -> Done:
        step = unit.step
        inputs = Inputs(envelopes, unit.envelope)
        if step.owes_undo and inputs.size > ROOM:
            large = f"{inputs.size} bytes in all: {ROOM} fit into the command that would undo the step"
            return self._refused(unit, "input.too-large", [Problem("data", "input.too-large", large)])
        work = self._begin(unit, inputs)
        deadline_s = None
        if step.options.within is not None:
            deadline_s = unit.record.timestamp_ms / 1000 + step.options.within.total_seconds()

        async def once(number: int) -> object:
            return await step.perform(events, self._context(unit, inputs, number, deadline_s))

        policy = Policy(step.options.retry, deadline_s, self._fallback(unit, inputs, events, deadline_s))
        work.attach()
        try:
            result = await attempt(once, policy, unit, self._kit, work, self._aside)
            if not isinstance(result, Failure):
                try:
                    messages = self._answers.outputs(step, inputs, cast("Outputs", result), work)
                except UnfitOutput as error:
                    result = Failure(error.code, str(error), 1, dead=True)
                else:
                    return self._finished(unit, work, Done(messages, changes))
            return self._failed(unit, inputs, result, work, changes)
        finally:
            work.detach()
            work.end()

    def _failed(self, unit: Unit, inputs: Inputs, failure: Failure, work: Work, changes: dict[bytes, bytes | None]) -> Done:
        work.fail(failure.code, failure.reason)
        messages: list[Message] = []
        saga, step = unit.envelope.saga, unit.step
        if saga is not None and not step.options.observer:
            messages.append(
                self._answers.settled(
                    step.wire_name, saga, inputs.causes, work, how="failed", code=failure.code, reason=failure.reason
                )
            )
        if failure.dead:
            problem = Problem("", failure.code, failure.reason)
            messages.append(
                self._answers.dead(unit.record, step.wire_name, failure.code, attempt=failure.attempt, problems=[problem])
            )
        return self._finished(unit, work, Done(messages, changes))

    def _context(self, unit: Unit, inputs: Inputs, number: int, deadline_s: float | None) -> Context:
        saga = unit.envelope.saga
        name = unit.step.wire_name
        return Context(
            saga=saga,
            step=name,
            key=functools.partial(idempotency_key, self._kit.deployment, saga or "", name, inputs.causes),
            breakers=self._kit.breakers,
            attempt=number,
            deadline=datetime.fromtimestamp(deadline_s, UTC) if deadline_s is not None else None,
        )

    def _fallback(
        self, unit: Unit, inputs: Inputs, events: dict[str, Event], deadline_s: float | None
    ) -> Callable[[], Awaitable[object]] | None:
        function = unit.step.options.fallback
        if function is None:
            return None
        step = unit.step

        async def fall_back() -> object:
            arguments: dict[str, object] = dict(events)
            if step.signature.context is not None:
                arguments[step.signature.context] = self._context(unit, inputs, 1, deadline_s)
            return step.check_outputs(await call(function, arguments))

        return fall_back

    def _begin(self, unit: Unit, inputs: Inputs | None = None) -> Work:
        record = unit.record
        others: tuple[Trace, ...] = ()
        if inputs is not None and len(inputs.envelopes) > 1:
            others = tuple(each.trace for each in inputs.envelopes.values() if each is not unit.envelope)
        return self._kit.tracing.process(
            unit.envelope,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=self._kit.plan.agent.name,
            step=unit.step.wire_name,
            links=others,
        )

    def _finished(self, unit: Unit, work: Work, done: Done) -> Done:
        work.end()
        return self._answers.with_spans(done, work, unit.envelope.saga, unit.record.partition)


def read_event(envelope: Envelope, parameter: Parameter) -> Event:
    """The event through the class that the parameter names. Raises :class:`ContractViolation`."""
    view = parameter.view(envelope.type)
    if view is None:
        raise ContractViolation(envelope.type, [Problem("ce_type", "contract.type", "the step does not take that type")])
    version = envelope.version()
    if version is not None and version > view.event_version:
        found = f"version {version}, and this agent knows version {view.event_version}: upgrade it before its producers"
        raise ContractViolation(envelope.type, [Problem("ce_dataschema", "contract.future-version", found)])
    return view.from_json(envelope.data)
