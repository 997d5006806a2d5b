"""Trial: try an agent's steps without a bus, as plain calls."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pavane.context import Context, Outcome
from pavane.step import AnyStep, Found, Outputs
from pavane_events.event import Event
from pavane_events.ids import derived, uuid7

if TYPE_CHECKING:
    from pavane.agent import Agent


class Trial:
    """One saga of one agent. What steps raise comes through as it is: no retries, no breaker that waits, no bus."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._saga = uuid7()
        self._held: dict[str, dict[str, Event]] = {}
        self._done: dict[str, tuple[dict[str, Event], Outputs]] = {}

    async def give(self, *events: Event) -> Outputs:
        """Give events; every step (observers too) that now has all it waits for is called once. What they return, in order.

        Raises LookupError where nobody listens to an event.
        """
        outputs: list[Event] = []
        for event in events:
            listeners = [step for step in self._agent.steps.values() if _listens(step, event)]
            if not listeners:
                raise LookupError(f"{self._agent.name} has no step for {event.event_type}")
            for step in listeners:
                outputs.extend(await self._fill(step, event))
        return tuple(outputs)

    async def undo(self, step: AnyStep, *, outcome_known: bool = True) -> None:
        """Undo a step that was called, with what it returned; or, as after a crash, with ``done=None``.

        After a crash its reconciliation is asked, where there is one.
        """
        inputs, done = self._done[step.wire_name]
        found = Found("done", done)
        if not outcome_known:
            found = await step.perform_reconciliation(inputs, self._context(step, "unknown"))
        await step.perform_undo(inputs, found.outputs, self._context(step, found.outcome))

    async def _fill(self, step: AnyStep, event: Event) -> Sequence[Event]:
        held = self._held.setdefault(step.wire_name, {})
        parameter = step.parameter_for(event.event_type)
        view = parameter.view(event.event_type)
        held[parameter.name] = view.from_json(event.to_json()) if view is not None else event
        if len(held) < len(step.signature.parameters):
            return ()
        inputs = self._held.pop(step.wire_name)
        self._done[step.wire_name] = (inputs, ())
        outputs = await step.perform(inputs, self._context(step))
        self._done[step.wire_name] = (inputs, outputs)
        return outputs

    def _context(self, step: AnyStep, outcome: Outcome = "done") -> Context:
        return Context.fake(saga=self._saga, key=derived("trial", self._saga, step.wire_name), outcome=outcome)


def _listens(step: AnyStep, event: Event) -> bool:
    return any(event.event_type in parameter.types for parameter in step.signature.parameters)
