"""Redrive: what it means to try a dead letter again, and when that may not be. Pure."""

from dataclasses import dataclass

from pavane_events.dead_letter import PREFIX, reason_headers
from pavane_events.envelope import Envelope, Trace, carried_trace, headers_of, parse
from pavane_events.errors import ConfigurationError, Problem, UndecodableRecord
from pavane_events.record import Message, Record
from pavane_saga.manifest import Directory
from pavane_saga.wire import ADMISSIONS, COORDINATOR, FACTS, GRANT, GrantCommand, commands_topic, read_grant


@dataclass(frozen=True, slots=True)
class Redrive:
    """A dead letter that may be tried again: by its agent, or (``step`` is empty) by the intake that refused it.

    ``event``: what it carries, where it is one; ``traces``: the span that gave it up, where it says so, and who sent it.
    ``decides``: it is a saga's own, and is tried again where the saga waits for a decision about it: by that decision.
    """

    letter: str
    step: str
    topic: str
    partition: int
    saga: str | None
    event: Envelope | None
    record: Record
    traces: tuple[Trace, ...]
    decides: bool = False

    def message(self, number: int, trace: Trace, time_s: float) -> Message:
        """What is published, under that trace: to the intake as it came, to the agent as a command with the event."""
        record = self.record
        if not self.step:
            headers = [pair for pair in record.headers if pair[0].lower() not in ("traceparent", "tracestate")]
            carried = [(name, value.encode()) for name, value in trace.said().items() if name != "baggage"]
            return Message(self.topic, record.value, record.key, (*headers, *carried))
        event = self.event
        if event is None:
            raise ValueError("a step is redriven with its event")
        command = GrantCommand(self.saga, self.step, (event.id,), (event.to_structured(),), number)
        key = (record.key or event.id.encode()).decode(errors="replace")
        envelope = command.envelope(time_s).with_trace(trace)
        return envelope.to_message(self.topic, key=self.saga or key, partition=self.partition)


def redrive_of(letter: Record, agent: str, directory: Directory, untouched: Record | None = None) -> Redrive:
    """What redriving that letter of that agent does. ``untouched``: the record itself, where the letter had no room for it.

    A step in a saga, or its undo, is redriven by the decision to try it again, where its saga is parked for want of one;
    else its failure has turned the saga back (docs/decisions/0017-a-failed-step-is-not-redriven.md).
    Raises :class:`ConfigurationError` with the reason.
    """
    reason = reason_headers(letter.headers)
    place = f"{letter.partition}@{letter.offset}"
    record = untouched or _untouched(letter)
    source, step = reason.get("source_topic", ""), reason.get("error_step", "")
    headers = headers_of(record.headers)
    given_up = reason.get("error_traceparent")
    traces = (*((Trace(given_up),) if given_up is not None else ()), carried_trace(headers))
    if agent == COORDINATOR:
        if source not in {ADMISSIONS, *(saga.intake for saga in directory.sagas.values())}:
            raise _refused(place, "redrive.inside", f"it came from {source}, where nothing from outside may be published")
        return Redrive(place, "", source, letter.partition, None, None, record, traces)
    event = _event(record, place)
    known = {each.name: each for each in directory.steps()}
    if step not in known:
        message = f"{agent} has no step {step or 'that took it'}: what nobody reads cannot be redriven"
        raise _refused(place, "redrive.no-step", message)
    decides = event.saga is not None and not known[step].observer
    topic = FACTS if decides else commands_topic(agent)
    return Redrive(place, step, topic, letter.partition, event.saga, event, record, traces, decides)


def _untouched(letter: Record) -> Record:
    headers = tuple((name, value) for name, value in letter.headers if not name.startswith(PREFIX))
    return Record(letter.topic, letter.partition, letter.offset, letter.key, letter.value, headers, letter.timestamp_ms)


def _event(record: Record, place: str) -> Envelope:
    """The event in a letter: the record itself, or what a command carried that was redriven before."""
    try:
        envelope = parse(record)
        return read_grant(envelope).inputs[-1] if envelope.type == GRANT else envelope
    except UndecodableRecord as error:
        raise _refused(place, "redrive.undecodable", f"it is no event: {error.problems[0].message}") from None


def _refused(place: str, code: str, message: str) -> ConfigurationError:
    return ConfigurationError("nothing was redriven", [Problem(place, code, message)])


def turned_back(redrive: Redrive, why: str) -> ConfigurationError:
    """A step of a saga that does not wait for a decision about it cannot go on."""
    message = f"{redrive.step} is a step of saga {redrive.saga}, which does not wait for it: {why}; start it anew"
    return _refused(redrive.letter, "redrive.decided", message)
