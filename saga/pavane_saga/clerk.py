"""The clerk: writes the engine's commands as messages, under the trace of the event that led to them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.envelope import Envelope, parse_structured, trace_headers
from pavane_events.ids import derived
from pavane_events.record import Message, size_of
from pavane_saga.commands import Acquire, Command, End, Grant, Halt, Park, Refuse, Undo
from pavane_saga.facts import Fact, Granted, Settled, UndoFailed
from pavane_saga.history import History
from pavane_saga.locks import LockOrder, order_message
from pavane_saga.saga import Saga, SagaEnded
from pavane_saga.wire import (
    COORDINATOR,
    ENDS,
    FACTS,
    GrantCommand,
    UndoCommand,
    commands_topic,
    end_envelope,
    fact_envelope,
    timestamp,
    under,
)
from pavane_tracing.conventions import SAGA_VERDICT
from pavane_tracing.edges import Edge
from pavane_tracing.metrics import count_ended, count_parked
from pavane_tracing.work import Work

log: Final = logging.getLogger("pavane.coordinator")

_TOLD_SPANS: Final = 32
"""Of a trace's budget, what is kept for what is told beside a command: that it was granted, which locks are free."""
_STAMP_BYTES: Final = len("tracestate" + "pavane=480,") + 512
"""What a message's trace context may have more than the one of the work that sends it: a budget, and what vendors said."""

Verdict = Literal["completed", "compensated", "abandoned"]


class Clerk:
    """Writes for one saga, once. ``verdict`` is set where the commands end it; ``stated``: the facts that they make."""

    def __init__(self, saga: Saga, saga_id: str, history: History, work: Work, now_s: float, started_s: float) -> None:
        self._saga = saga
        self._id = saga_id
        self._history = history
        self._work = work
        self._now_s = now_s
        self._started_s = started_s
        self.verdict: Verdict | None = None
        self.stated: list[Fact] = []

    def write(self, commands: Sequence[Command], *, beside: int = 0) -> list[Message]:
        """The messages that the commands become, in their order. ``beside``: so many more are sent under the same work."""
        self._share_out(commands, beside)
        messages: list[Message] = []
        for command in commands:
            if isinstance(command, Halt):
                messages.append(self._tell_agents(failed=True, code=command.code, reason=command.reason))
            elif isinstance(command, Undo):
                messages.append(self._undo(command))
            elif isinstance(command, Grant):
                messages.extend(self._grant(command))
            elif isinstance(command, Acquire):
                messages.append(self._order(LockOrder("acquire", command.lock, self._id, command.refuse)))
            elif isinstance(command, Refuse):
                reason = f"{command.lock!r} is held by saga {command.holder}"
                under = command.begun_under
                refused = Settled(command.step, command.causes, "failed", under is not None, "lock.taken", reason, under)
                messages.append(self._fact(refused))
            elif isinstance(command, Park):
                what = (
                    "%s failed after the point of no return, and has to be done"
                    if command.forward
                    else "the undo of %s failed, its effect may stand"
                )
                with self._work:  # the line and the measurement are of its trace
                    log.error(f"saga %s is parked: {what} (%s)", self._id, command.step, command.code)
                    count_parked(self._saga.name, command.step, command.code)
            else:
                messages.extend(self._end(command))
        return messages

    def _share_out(self, commands: Sequence[Command], beside: int) -> None:
        """What is left of the trace goes to the commands alike; what is only told beside them leads to little."""
        spoken = [each for each in commands if not isinstance(each, Park)]
        told = beside + sum(isinstance(each, Grant | End) for each in spoken)
        if len(spoken) > 1 or told:
            self._work.split(len(spoken), _TOLD_SPANS * told)

    def _tell_agents(self, *, failed: bool, code: str, reason: str) -> Message:
        envelope = end_envelope(self._id, failed=failed, code=code, reason=reason, time_s=self._now_s)
        return self._sent(envelope, ENDS, "end")

    def _undo(self, command: Undo) -> Message:
        corrected = self._corrected(command)
        order = UndoCommand(
            saga=self._id,
            step=command.step,
            causes=command.causes,
            inputs=self._events(command.causes, corrected),
            outputs=self._events(command.outputs, corrected),
            outcome=command.outcome,
            retry=command.retry,
        )
        message = self._command(command.step, order.envelope(self._now_s), "undo")
        if isinstance(message, Message):
            return message
        reason = f"its inputs and outputs take {message} bytes: no command carries them"
        return self._fact(UndoFailed(command.step, command.causes, "undo.too-large", reason, command.retry))

    def _grant(self, command: Grant) -> list[Message]:
        granted = Granted(command.step, command.causes, command.retry)
        self.stated.append(granted)
        inputs = self._events(command.causes, self._corrected(command))
        order = GrantCommand(self._id, command.step, command.causes, inputs, command.retry)
        message = self._command(command.step, order.envelope(self._now_s), "grant")
        if not isinstance(message, Message):
            reason = f"its inputs take {message} bytes: no command carries them"
            message = self._fact(
                Settled(command.step, command.causes, "failed", False, "input.too-large", reason, retry=command.retry)
            )
        return [self._fact(granted), message]

    def _command(self, step: str, envelope: Envelope, edge: Edge) -> Message | int:
        """The command to a step; where none can carry so much, how many bytes it takes: then no span says that it was sent."""
        topic = commands_topic(step.partition("/")[0])
        size = envelope.to_message(topic).size() + size_of(trace_headers(self._work.trace)) + _STAMP_BYTES
        return size if size > MAX_RECORD_BYTES else self._sent(envelope, topic, edge)

    def _order(self, order: LockOrder) -> Message:
        return order_message(order, self._work, self._now_s)

    def _corrected(self, command: Undo | Grant) -> Mapping[str, str]:
        """The data that an operator gave for this try, by event type."""
        decided = self._history.retries.get((command.step, command.causes))
        return dict(decided.corrected) if decided is not None else {}

    def _fact(self, fact: Fact) -> Message:
        return self._sent(fact_envelope(fact, saga=self._id, source=f"/{COORDINATOR}", time_s=self._now_s), FACTS, "answer")

    def _events(self, ids: Iterable[str], corrected: Mapping[str, str]) -> tuple[bytes, ...]:
        """Events in structured mode, as they were read, or with the data that an operator gave for their type."""
        found = [self._history.events[each] for each in ids if each in self._history.events]
        return tuple(
            replace(parse_structured(each.event), data=corrected[each.type].encode()).to_structured()
            if each.type in corrected
            else each.event
            for each in found
        )

    def _end(self, command: End) -> list[Message]:
        self.verdict = command.verdict
        count_ended(self._saga.name, command.verdict, self._now_s - self._started_s, self._work.context)
        self._work.point(f"saga {self._saga.name} end", attributes={SAGA_VERDICT: command.verdict})
        event = SagaEnded(saga=self._id, verdict=command.verdict)
        envelope = Envelope(
            id=derived("ended", self._id),
            source=f"/{COORDINATOR}",
            type=SagaEnded.event_type,
            data=event.to_json(),
            time=timestamp(self._now_s),
            dataschema=SagaEnded.dataschema(),
            saga=self._id,
        )
        messages = [self._sent(envelope, SagaEnded.event_type, "event")]
        locks = sorted({request.lock for request in self._history.requests.values()})
        messages += [self._order(LockOrder("release", lock, self._id)) for lock in locks]
        if command.let_go:
            reason = f"the saga is {command.verdict}; these arms can no longer be filled"
            messages.append(self._tell_agents(failed=False, code=f"saga.{command.verdict}", reason=reason))
        return messages

    def _sent(self, envelope: Envelope, topic: str, edge: Edge) -> Message:
        trace = self._work.send(topic, envelope.id, envelope.type, saga=self._id, size=len(envelope.data), edge=edge)
        return under(envelope, trace).to_message(topic)
