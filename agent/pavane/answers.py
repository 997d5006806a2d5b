"""Answers: the outcome of a unit of work as messages: output events, settlements, dead letters."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pavane.kit import Kit
from pavane.step import AnyStep, Outputs
from pavane.units import Done
from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.dead_letter import Reason, dead_letter
from pavane_events.envelope import Envelope
from pavane_events.errors import Problem
from pavane_events.event import Event
from pavane_events.ids import output_id
from pavane_events.record import Message, Record
from pavane_events.stamp import Stamp
from pavane_saga.facts import Fact, Settled
from pavane_saga.wire import fact_envelope, fact_message, timestamp
from pavane_tracing.store import encode
from pavane_tracing.work import Work

Settlement = Literal["done", "failed", "skipped"]

HEADROOM: Final = 65_536
"""Bytes of a record kept free, so that a dead letter's reason fits beside it, and the words of an undo around its events."""

ROOM: Final = MAX_RECORD_BYTES - HEADROOM
"""What one event may take; and, of a step that owes an undo, all inputs and outputs together: they are one command."""


class UnfitOutput(ValueError):
    """A step's event cannot be published: it is a bug in the step, or the data belongs elsewhere."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class Inputs:
    """What a step was called with: events' envelopes by parameter name, and the one that completed them.

    ``causes``: the ids of all of them, sorted. ``depth``: how deep an answer to them lies.
    """

    __slots__ = ("causes", "completing", "depth", "envelopes")

    def __init__(self, envelopes: Mapping[str, Envelope], completing: Envelope) -> None:
        self.envelopes = envelopes
        self.completing = completing
        self.causes: tuple[str, ...] = (completing.id,)
        self.depth = 1 + completing.depth
        if len(envelopes) > 1:
            self.causes = tuple(sorted(envelope.id for envelope in envelopes.values()))
            self.depth = 1 + max(envelope.depth for envelope in envelopes.values())

    @property
    def size(self) -> int:
        """The bytes of their data."""
        return sum(len(envelope.data) for envelope in self.envelopes.values())


class Answers:
    """Speaks for one agent: every message a unit leaves behind is made here, under the unit's trace."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._source = f"/agents/{kit.plan.agent.name}"
        self._version = kit.plan.manifest.version
        self._stamps: dict[tuple[str, str, int, int, str], Stamp] = {}

    def outputs(self, step: AnyStep, inputs: Inputs, events: Outputs, work: Work, under: str | None = None) -> list[Message]:
        """A step's events, or the fact that it is done where it gives none; ``under`` another version than this one. Raises
        :class:`UnfitOutput`."""
        completing = inputs.completing
        saga = completing.saga
        causes = inputs.causes
        if not events:
            if saga is None or step.options.observer:
                return []
            return [self.settled(step.wire_name, saga, causes, work, how="done", under=under)]
        now = timestamp(self._kit.clock())
        depth = inputs.depth
        name = step.wire_name
        owes_undo = step.owes_undo
        parts = len(events)
        version = under or self._version
        if parts > 1:
            work.split(parts)
        messages: list[Message] = []
        together = inputs.size if owes_undo else 0
        for part, event in enumerate(events, 1):
            data = _written(event)
            identity = output_id(saga or "", name, causes, part)
            kind = event.event_type
            schema = event.dataschema()
            envelope = Envelope(
                id=identity,
                source=self._source,
                type=kind,
                data=data,
                time=now,
                subject=completing.subject,
                dataschema=schema,
                saga=saga,
                causation=completing.id,
                causes=causes,
                step=name,
                depth=depth,
                part=part,
                parts=parts,
                declaration=version,
                trace=work.send(kind, identity, kind, saga=saga, size=len(data)),
            )
            stamp = self._stamps.get((name, schema, part, parts, version))
            if stamp is None:
                stamp = self._stamps[name, schema, part, parts, version] = Stamp(envelope)
            message = stamp.message(envelope)
            size = message.size()
            together += size
            if size > ROOM or (owes_undo and together > ROOM):
                raise UnfitOutput(
                    "output.too-large",
                    f"{event.event_type} has {size} bytes, {together} with the step's other events: {ROOM} fit",
                )
            messages.append(message)
        return messages

    def settled(
        self,
        step: str,
        saga: str,
        causes: Sequence[str],
        work: Work,
        *,
        how: Settlement,
        began: bool = True,
        code: str = "",
        reason: str = "",
        retry: int = 0,
        under: str | None = None,
    ) -> Message:
        """That a step is done without an event, has failed, or is skipped; ``under`` another version than this one."""
        fact = Settled(
            step=step,
            causes=tuple(sorted(causes)),
            how=how,
            began=began,
            code=code,
            reason=reason,
            declaration=under or self._version,
            retry=retry,
        )
        return self.fact(fact, saga, work)

    def fact(self, fact: Fact, saga: str, work: Work) -> Message:
        """A fact on the topic of facts."""
        envelope = fact_envelope(fact, saga=saga, source=self._source, time_s=self._kit.clock())
        trace = work.send("pavane.facts", envelope.id, envelope.type, saga=saga, size=len(envelope.data), edge="answer")
        return fact_message(envelope, trace)

    def dead(
        self,
        record: Record,
        step: str,
        code: str,
        *,
        attempt: int = 0,
        problems: Sequence[Problem] = (),
        work: Work | None = None,
    ) -> Message:
        """A record for the agent's dead letters, with the span that gave it up: a redrive is linked to it."""
        given_up = work.trace.traceparent if work is not None else None
        reason = Reason(code, step, attempt, self._version, tuple(problems), given_up)
        return dead_letter(record, self._kit.plan.agent.name, reason)

    def with_spans(self, done: Done, work: Work, saga: str | None, partition: int) -> Done:
        """The same, with the unit's spans where they are kept: they are in the commit that the unit is in."""
        spans = work.spans
        if not spans:
            return done
        return Done([*done.messages, encode(spans, saga, partition=partition)], done.state)


def _written(event: Event) -> bytes:
    try:
        return event.to_json()
    except Exception as error:  # whatever the user's own fields raise
        raise UnfitOutput("output.no-json", f"{event.event_type} cannot be written: {type(error).__name__}") from error
