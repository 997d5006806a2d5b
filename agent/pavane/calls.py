"""Calls: a step is called with its events, and what comes of it: outputs, a failure, or a delay."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from pavane.answers import ROOM, Answers, Inputs, UnfitOutput
from pavane.asking import ask
from pavane.attempts import Failure, Policy, attempt
from pavane.context import Context, Outcome
from pavane.kit import Kit
from pavane.step import Outputs, call
from pavane.tiers import Delay, to_tier
from pavane.units import Done, Unit
from pavane.waiting import Waiting
from pavane_events.envelope import Envelope, Trace
from pavane_events.errors import Problem
from pavane_events.event import Event
from pavane_events.ids import idempotency_key
from pavane_events.record import Message
from pavane_tracing.conventions import MESSAGING
from pavane_tracing.genai import Invocation, invocation_attributes
from pavane_tracing.work import Work

Changes = dict[bytes, bytes | None]

_NO_LINKS: Final[tuple[Trace, ...]] = ()


class Calls:
    """Calls an agent's steps under their spans, and says what came of it. Keeps nothing."""

    def __init__(self, kit: Kit, answers: Answers, aside: Callable[[bool], None]) -> None:
        self._kit = kit
        self._answers = answers
        self._aside = aside
        agent = kit.plan.agent.name
        self._invoked = {
            step.wire_name: invocation_attributes(agent, step.options.model, step.options.provider)
            for step in kit.plan.by_wire_name.values()
            if step.options.model is not None
        }

    async def call(self, unit: Unit, envelopes: dict[str, Envelope], events: dict[str, Event], changes: Changes) -> Done:
        """Call the step, and again by its policy. ``changes`` go with whatever comes of it.

        Raises :class:`Abandoned` where the lane stops meanwhile.
        """
        step = unit.step
        inputs = Inputs(envelopes, unit.envelope)
        if step.owes_undo and inputs.size > ROOM:
            large = f"{inputs.size} bytes in all: {ROOM} fit into the command that would undo the step"
            return self.refused(unit, "input.too-large", [Problem("data", "input.too-large", large)])
        work = self.begin(unit, inputs)
        deadline_s = None
        if step.options.within is not None:
            deadline_s = unit.record.timestamp_ms / 1000 + step.options.within.total_seconds()

        def once(number: int) -> Awaitable[Outputs]:
            if step.options.model is not None:
                return self._invoke(unit, inputs, events, number, deadline_s, work)
            wants = step.signature.context is not None
            return step.perform(events, self._context(unit, inputs, number, deadline_s) if wants else None)

        fallback = self._fallback(unit, inputs, events, deadline_s) if step.options.fallback is not None else None
        policy = Policy(step.options.retry, deadline_s)
        work.attach()
        try:
            result: Outputs | Failure | Delay | None = None
            if unit.retry and step.reconciliation is not None:
                result = await self._found(unit, inputs, events, work)
            if result is None:
                result = await attempt(once, policy, unit, self._kit, work, self._aside, fallback)
            if isinstance(result, Delay):
                return self._delayed(unit, inputs, result, work, changes)
            if not isinstance(result, Failure):
                try:
                    messages = self._answers.outputs(step, inputs, result, work, unit.under)
                except UnfitOutput as error:
                    result = Failure(error.code, str(error), 1, dead=True)
                else:
                    return self.finished(unit, work, Done(messages, changes))
            return self._failed(unit, [inputs.causes], result, work, changes)
        finally:
            work.detach()
            work.end()

    async def _invoke(
        self, unit: Unit, inputs: Inputs, events: dict[str, Event], number: int, deadline_s: float | None, work: Work
    ) -> Outputs:
        """An attempt of a step that works with a model, under a span of its own."""
        step, content = unit.step, self._kit.tracing.content
        with work.invoke(self._kit.plan.agent.name, self._invoked[step.wire_name]) as invocation:
            if content:
                invocation.given(each.to_json().decode() for each in events.values())
            outputs = await step.perform(events, self._context(unit, inputs, number, deadline_s, invocation=invocation))
            if content:
                invocation.gave(each.to_json().decode() for each in outputs)
            return outputs

    async def _found(self, unit: Unit, inputs: Inputs, events: dict[str, Event], work: Work) -> Outputs | None:
        """What a step that is done again on somebody's word had brought about before, where it can be asked; else None."""

        def context(number: int) -> Context:
            return self._context(unit, inputs, number, None, outcome="unknown")

        found = await ask(unit.step, events, context, unit, self._kit, work, self._aside)
        return found.outputs if found.outcome == "done" else None

    def refused(self, unit: Unit, code: str, problems: Sequence[Problem]) -> Done:
        """An input that the step cannot take: it fails, and as it provably was never called it owes no undo."""
        work = self.begin(unit)
        work.fail(code, "; ".join(f"{each.where} {each.code}" for each in problems))
        messages: list[Message] = []
        saga, step = unit.envelope.saga, unit.step
        if saga is not None and not step.options.observer:
            reason = "; ".join(map(str, problems))[:500]
            messages.append(
                self._answers.settled(
                    step.wire_name,
                    saga,
                    [unit.envelope.id] if unit.granted is None else unit.granted.causes,
                    work,
                    how="failed",
                    began=False,
                    code=code,
                    reason=reason,
                    retry=unit.retry,
                )
            )
        messages.append(self._answers.dead(unit.record, step.wire_name, code, problems=problems, work=work))
        return self.finished(unit, work, Done(messages))

    def given_up(self, unit: Unit, calls: Sequence[tuple[str, ...]], failure: Failure, changes: Changes | None = None) -> Done:
        """A step that was called before and is not called again: it fails, and whatever it did is undone. ``calls``: by the
        causes of each."""
        return self._failed(unit, calls, failure, self.begin(unit), changes or {})

    def behind(self, unit: Unit, earlier: Waiting) -> Done:
        """An earlier input of the same saga, step and topic waits: this one waits behind it, however often it has to."""
        pause_s = max(0.0, earlier.due_ms / 1000 - self._kit.clock())
        inputs = Inputs({"": unit.envelope}, unit.envelope)
        return self._delayed(unit, inputs, Delay(unit.attempts, pause_s, "order.behind"), self.begin(unit), {})

    def begin(self, unit: Unit, inputs: Inputs | None = None) -> Work:
        """Begin a unit's span: child of its input's sender, or (a delayed one's) of what its last attempt has stamped."""
        record, envelope, links, root = unit.record, unit.envelope, _NO_LINKS, False
        if inputs is not None and len(inputs.envelopes) > 1:
            links = tuple(each.trace for each in inputs.envelopes.values() if each is not unit.envelope)
        if unit.delayed is not None:
            way = unit.came_from
            envelope, links, root = way.envelope, (*links, *way.links), way.begins
        return self._kit.tracing.process(
            envelope,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=self._kit.plan.agent.name,
            step=unit.step.wire_name,
            links=links,
            root=root,
        )

    def finished(self, unit: Unit, work: Work, done: Done) -> Done:
        """End the span. The unit waits nowhere any more, unless ``done`` says so."""
        work.end()
        if unit.delayed is not None and unit.place is not None and unit.place not in done.state:
            done = Done(done.messages, {**done.state, unit.place: None})
        return self._answers.with_spans(done, work, unit.envelope.saga, unit.record.partition)

    def failures(self, unit: Unit, calls: Sequence[tuple[str, ...]], failure: Failure, work: Work) -> list[Message]:
        """That these calls of a unit's step failed, for its saga; outside of one nobody waits for that."""
        saga = unit.envelope.saga
        if saga is None:
            return []
        return [
            self._answers.settled(
                unit.step.wire_name,
                saga,
                causes,
                work,
                how="failed",
                code=failure.code,
                reason=failure.reason,
                retry=unit.retry,
                under=unit.under,
            )
            for causes in calls
        ]

    def _failed(self, unit: Unit, calls: Sequence[tuple[str, ...]], failure: Failure, work: Work, changes: Changes) -> Done:
        work.fail(failure.code, failure.reason)
        step = unit.step
        messages = self.failures(unit, calls, failure, work) if not step.options.observer else []
        if failure.dead:
            problem = Problem("", failure.code, failure.reason)
            dead = self._answers.dead(
                unit.record, step.wire_name, failure.code, attempt=failure.attempt, problems=[problem], work=work
            )
            messages.append(dead)
        return self.finished(unit, work, Done(messages, changes))

    def _delayed(self, unit: Unit, inputs: Inputs, delay: Delay, work: Work, changes: Changes) -> Done:
        """To a delay tier, and into the index: one commit with the settlement of the input, or of where it waited last."""
        step = unit.step.wire_name
        message = to_tier(unit.record, self._kit.plan.agent.name, step, delay, work.carry("delayed_retry"))
        work.event("delayed", {"attempts": delay.attempts, "pause_s": delay.pause_s, MESSAGING.destination: message.topic})
        place = unit.place
        if place is not None:
            due_ms = int((self._kit.clock() + delay.pause_s) * 1000)
            arms = {name: each for name, each in inputs.envelopes.items() if each is not unit.envelope}
            changes = {**changes, place: Waiting(step, inputs.causes, delay.attempts, due_ms, arms).encode()}
        return self.finished(unit, work, Done([message], changes))

    def _context(
        self,
        unit: Unit,
        inputs: Inputs,
        number: int,
        deadline_s: float | None,
        *,
        outcome: Outcome = "done",
        invocation: Invocation | None = None,
    ) -> Context:
        saga = unit.envelope.saga
        name = unit.step.wire_name
        return Context(
            saga=saga,
            step=name,
            key=functools.partial(idempotency_key, self._kit.deployment, saga or "", name, inputs.causes),
            breakers=self._kit.breakers,
            attempt=number,
            deadline=datetime.fromtimestamp(deadline_s, UTC) if deadline_s is not None else None,
            outcome=outcome,
            invocation=invocation,
        )

    def _fallback(
        self, unit: Unit, inputs: Inputs, events: dict[str, Event], deadline_s: float | None
    ) -> Callable[[], Awaitable[Outputs]] | None:
        function = unit.step.options.fallback
        if function is None:
            return None
        step = unit.step

        async def fall_back() -> Outputs:
            arguments: dict[str, object] = dict(events)
            if step.signature.context is not None:
                arguments[step.signature.context] = self._context(unit, inputs, 1, deadline_s)
            return step.check_outputs(await call(function, arguments))

        return fall_back
