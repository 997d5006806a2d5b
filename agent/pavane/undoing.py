"""Undoing: a step is taken back, by its inputs and outputs as the coordinator sends them."""

import functools
import logging
from collections.abc import Callable
from typing import Final

from pavane.answers import Answers
from pavane.asking import ask
from pavane.attempts import Failure, Policy, attempt, bounded
from pavane.context import Context, Outcome
from pavane.kit import Kit
from pavane.perform import read_event
from pavane.step import AnyStep, Found, Outputs
from pavane.tiers import Delay, to_tier
from pavane.units import UNDO_UNIT, Done, UndoUnit
from pavane_events.envelope import Envelope
from pavane_events.errors import ContractViolation, Problem
from pavane_events.event import Event
from pavane_events.ids import idempotency_key
from pavane_saga.facts import UndoFailed, Undone
from pavane_tracing.work import Work

log: Final = logging.getLogger("pavane.undo")


class Undoer:
    """Performs undos. Each comes to a fact: *undone*, or *undo-failed*, which parks the saga until somebody decides."""

    def __init__(self, kit: Kit, answers: Answers, aside: Callable[[bool], None]) -> None:
        self._kit = kit
        self._answers = answers
        self._aside = aside

    async def undo(self, unit: UndoUnit) -> Done:
        """Undo one step, or send it to a delay tier to be tried again. Raises :class:`Abandoned` where the lane stops."""
        record, request, way = unit.record, unit.request, unit.came_from
        work = self._kit.tracing.process(
            way.envelope,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=self._kit.plan.agent.name,
            step=request.step,
            links=(*(each.trace for each in request.outputs or request.inputs), *way.links),
            root=way.begins,
            undo=True,
        )
        work.attach()
        try:
            result = await self._try(unit, work)
            if isinstance(result, Delay):
                return self._delayed(unit, result, work)
            return self._finished(unit, result if isinstance(result, Failure) else None, work)
        finally:
            work.detach()
            work.end()

    async def _try(self, unit: UndoUnit, work: Work) -> object | Failure | Delay:
        request = unit.request
        step = self._kit.plan.by_wire_name.get(request.step)
        if step is None or step.undo is None:
            return Failure("undo.no-step", f"this agent has no undo for {request.step}", 0, dead=True)
        try:
            inputs = inputs_of(step, request.inputs)
            done = outputs_of(step, request.outputs) if request.outcome == "done" else None
        except ContractViolation as error:
            return Failure("undo.undecodable", "; ".join(f"{each.where} {each.code}" for each in error.problems), 0, dead=True)
        found = Found(request.outcome, done)
        if request.outcome == "unknown":
            asking = functools.partial(self._context, unit, outcome="unknown")
            found = await ask(step, inputs, asking, unit, self._kit, work, self._aside)

        undo = step.undo

        async def once(number: int) -> object:
            called = step.perform_undo(inputs, found.outputs, self._context(unit, number, found.outcome))
            await bounded(called, undo.within)
            return None

        return await attempt(once, Policy(undo.retry), unit, self._kit, work, self._aside)

    def _context(self, unit: UndoUnit, number: int, outcome: Outcome) -> Context:
        request, saga = unit.request, unit.envelope.saga or ""
        return Context(
            saga=saga,
            step=request.step,
            key=functools.partial(idempotency_key, self._kit.deployment, saga, request.step, request.causes),
            breakers=self._kit.breakers,
            attempt=number,
            outcome=outcome,
        )

    def _delayed(self, unit: UndoUnit, delay: Delay, work: Work) -> Done:
        message = to_tier(unit.record, self._kit.plan.agent.name, UNDO_UNIT, delay, work.carry("delayed_retry"))
        work.end()
        return self._answers.with_spans(Done([message]), work, unit.envelope.saga, unit.record.partition)

    def _finished(self, unit: UndoUnit, failure: Failure | None, work: Work) -> Done:
        request = unit.request
        saga = unit.envelope.saga or ""
        if failure is None:
            messages = [self._answers.fact(Undone(request.step, request.causes), saga, work)]
        else:
            log.error("undo of %s in saga %s failed, its effect may stand: %s", request.step, saga, failure.code)
            work.fail(failure.code, failure.reason)
            fact = UndoFailed(request.step, request.causes, failure.code, failure.reason, request.retry)
            problem = Problem("", failure.code, failure.reason)
            messages = [
                self._answers.fact(fact, saga, work),
                self._answers.dead(
                    unit.record, request.step, failure.code, attempt=failure.attempt, problems=[problem], work=work
                ),
            ]
        work.end()
        return self._answers.with_spans(Done(messages), work, saga, unit.record.partition)


def inputs_of(step: AnyStep, envelopes: tuple[Envelope, ...]) -> dict[str, Event]:
    """A step's inputs by parameter name. Raises :class:`ContractViolation`, also where one is missing."""
    found: dict[str, Event] = {}
    for parameter in step.signature.parameters:
        envelope = next((each for each in envelopes if each.type in parameter.types), None)
        if envelope is None:
            raise ContractViolation(step.wire_name, [Problem(parameter.name, "undo.input-missing", "no event fills it")])
        found[parameter.name] = read_event(envelope, parameter)
    return found


def outputs_of(step: AnyStep, envelopes: tuple[Envelope, ...]) -> Outputs:
    """What a step returned, in the order of its parts. Raises :class:`ContractViolation`."""
    found: list[Event] = []
    for envelope in sorted(envelopes, key=lambda each: each.part):
        view = next((kind for kind in step.signature.produces if kind.event_type == envelope.type), None)
        if view is None:
            raise ContractViolation(
                step.wire_name, [Problem("done", "undo.output-type", f"{envelope.type} is not its output")]
            )
        found.append(view.from_json(envelope.data))
    return tuple(found)
