"""The platform's own records: facts, undo commands and ends, and the topics they travel on."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, cast

from pavane_events.compact import read_json, write_json
from pavane_events.envelope import Envelope, Trace, read_structured
from pavane_events.errors import Problem, UndecodableRecord
from pavane_events.ids import derived
from pavane_events.partition import partition_of
from pavane_events.record import Message, Record
from pavane_saga.facts import Fact, fact_from_json

FACTS: Final = "pavane.facts"
ENDS: Final = "pavane.ends"
AGENTS: Final = "pavane.agents"
BREAKERS: Final = "pavane.breakers"
ADMISSIONS: Final = "pavane.admissions"
LOCKS: Final = "pavane.locks"
COORDINATOR: Final = "pavane.coordinator"

FACT_PREFIX: Final = "pavane.fact."
UNDO: Final = "pavane.undo"
GRANT: Final = "pavane.grant"
ENDED: Final = "pavane.ended"


def commands_topic(agent: str) -> str:
    """Where an agent is told to undo, and that a step may begin."""
    return f"{agent}.commands"


def is_control(topic: str) -> bool:
    """Whether a topic carries no events of sagas: ends, commands, what another lane took in or waits to be tried again, dead
    letters."""
    return topic in (ENDS, ADMISSIONS) or topic.endswith((".commands", ".dead-letters")) or ".retry-" in topic


def timestamp(seconds: float) -> str:
    """A time as CloudEvents writes it, to the microsecond."""
    whole = int(seconds)
    fraction = int((seconds - whole) * 1_000_000)
    return f"{_to_the_second(whole)}.{fraction:06d}+00:00" if fraction else f"{_to_the_second(whole)}+00:00"


@lru_cache(maxsize=64)
def _to_the_second(seconds: int) -> str:
    """A thousand events of one second share the work."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def fact_envelope(fact: Fact, *, saga: str | None, source: str, time_s: float) -> Envelope:
    """A fact as an event on :data:`FACTS`. Its id is derived, so that a fact said twice is one fact."""
    name = type(fact).__name__.lower()
    return Envelope(
        id=derived("fact", saga or "", name, fact.identity),
        source=source,
        type=FACT_PREFIX + name,
        data=fact.to_json(),
        time=timestamp(time_s),
        saga=saga,
    )


def fact_message(envelope: Envelope, trace: Trace, partition: int | None = None) -> Message:
    """A fact's envelope, under the trace of whoever states it, as a message."""
    return under(envelope, trace).to_message(FACTS, partition=partition)


def under(envelope: Envelope, trace: Trace) -> Envelope:
    """The event under that trace: itself where it is under it already, as all are where nothing is traced."""
    return envelope if envelope.trace == trace else envelope.with_trace(trace)


def read_fact(envelope: Envelope) -> Fact:
    """The fact in an event of :data:`FACTS`. Raises :class:`UndecodableRecord`."""
    try:
        fact = fact_from_json(envelope.data)
        fact.identity.encode()  # what is no Unicode text cannot be a key of state
        return fact
    except (ValueError, KeyError, TypeError) as error:
        raise UndecodableRecord("no fact", [Problem("data", "fact", f"not a fact: {type(error).__name__}")]) from None


@dataclass(frozen=True, slots=True)
class UndoCommand:
    """Undo that step on those inputs: the inputs and the outputs travel with it, so the agent needs no memory of them."""

    saga: str
    step: str
    causes: tuple[str, ...]
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    outcome: Literal["done", "unknown"]
    retry: int = 0

    def envelope(self, time_s: float) -> Envelope:
        """The command as an event for the agent's commands topic; inputs and outputs are structured-mode events."""
        again = {"retry": self.retry} if self.retry else {}
        head = write_json({"step": self.step, "causes": self.causes, "outcome": self.outcome, **again})
        data = b"".join(
            (
                head[:-1],
                b',"inputs":[',
                b",".join(self.inputs),
                b'],"outputs":[',
                b",".join(self.outputs),
                b"]}",
            )
        )
        return Envelope(
            id=derived("undo", self.saga, self.step, *self.causes, *([f"retry {self.retry}"] if self.retry else ())),
            source=f"/{COORDINATOR}",
            type=UNDO,
            data=data,
            time=timestamp(time_s),
            saga=self.saga,
        )


@dataclass(frozen=True, slots=True)
class GrantCommand:
    """A step may begin on those inputs: they travel with it. ``retry``: see :class:`~pavane_saga.facts.Granted`."""

    saga: str | None
    step: str
    causes: tuple[str, ...]
    inputs: tuple[bytes, ...]
    retry: int = 0

    def envelope(self, time_s: float) -> Envelope:
        """The command as an event for the agent's commands topic; inputs are structured-mode events."""
        again = {"retry": self.retry} if self.retry else {}
        head = write_json({"step": self.step, "causes": self.causes, **again})
        return Envelope(
            id=derived("grant", self.saga or "", self.step, *self.causes, *([f"retry {self.retry}"] if self.retry else ())),
            source=f"/{COORDINATOR}",
            type=GRANT,
            data=b"".join((head[:-1], b',"inputs":[', b",".join(self.inputs), b"]}")),
            time=timestamp(time_s),
            saga=self.saga,
        )


@dataclass(frozen=True, slots=True)
class GrantRead:
    """A grant as an agent reads it: inputs parsed as envelopes, their data not yet."""

    step: str
    causes: tuple[str, ...]
    inputs: tuple[Envelope, ...]
    retry: int = 0


def read_grant(envelope: Envelope) -> GrantRead:
    """The grant in an event. Raises :class:`UndecodableRecord`, also where an input of it is missing."""
    try:
        data = cast("dict[str, object]", read_json(envelope.data))
        step, causes, retry = _unit_of(data)
        inputs = tuple(map(read_structured, cast("list[object]", data["inputs"])))
        if not inputs or {each.id for each in inputs} != set(causes):
            raise ValueError("its inputs are not its causes")
        return GrantRead(step, causes, inputs, retry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UndecodableRecord("no grant", [Problem("data", "grant", f"not a grant: {type(error).__name__}")]) from None


@dataclass(frozen=True, slots=True)
class UndoRequest:
    """An undo command as an agent reads it: inputs and outputs parsed as envelopes, their data not yet."""

    step: str
    causes: tuple[str, ...]
    inputs: tuple[Envelope, ...]
    outputs: tuple[Envelope, ...]
    outcome: Literal["done", "unknown"]
    retry: int = 0


def read_undo_request(envelope: Envelope) -> UndoRequest:
    """The undo command in an event. Raises :class:`UndecodableRecord`."""
    try:
        data = cast("dict[str, object]", read_json(envelope.data))
        step, causes, retry = _unit_of(data)
        inputs = tuple(map(read_structured, cast("list[object]", data["inputs"])))
        outputs = tuple(map(read_structured, cast("list[object]", data["outputs"])))
        return UndoRequest(
            step=step,
            causes=causes,
            inputs=inputs,
            outputs=outputs,
            outcome="done" if data["outcome"] == "done" else "unknown",
            retry=retry,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UndecodableRecord(
            "no undo command", [Problem("data", "undo", f"not an undo command: {type(error).__name__}")]
        ) from None


def asked_for(envelope: Envelope) -> tuple[str, tuple[str, ...], int] | None:
    """Step, causes and retry that a command names, where it says so much, if it can be read as a whole or not."""
    try:
        return _unit_of(cast("dict[str, object]", read_json(envelope.data)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _unit_of(data: dict[str, object]) -> tuple[str, tuple[str, ...], int]:
    step, causes = str(data["step"]), tuple(str(each) for each in cast("list[object]", data["causes"]))
    "".join((step, *causes)).encode()  # what is no Unicode text is no name
    retry = data.get("retry", 0)
    return step, causes, retry if isinstance(retry, int) else 0


def end_envelope(saga: str, *, failed: bool, code: str, reason: str, time_s: float) -> Envelope:
    """A saga has ended, or turned back: every agent raises its tombstone and lets go of the arms it holds for it."""
    data = write_json({"failed": failed, "code": code, "reason": reason})
    return Envelope(
        id=derived("end", saga),
        source=f"/{COORDINATOR}",
        type=ENDED,
        data=data,
        time=timestamp(time_s),
        saga=saga,
    )


def has_failed(envelope: Envelope) -> bool:
    """Whether what :func:`end_envelope` made says that its saga failed."""
    try:
        document = read_json(envelope.data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and cast("dict[str, object]", document).get("failed") is True


def misplaced(record: Record, envelope: Envelope, partitions: int) -> list[Problem]:
    """Why a saga's record is not where its saga lives; nothing where it is."""
    saga = envelope.saga
    if saga is None:
        return []
    key = saga.encode()
    if record.key != key:
        return [Problem("key", "key.mismatch", "the record's key must be its saga id")]
    if partition_of(key, partitions) != record.partition:
        return [Problem("partition", "partition.misplaced", "the record is not where murmur2 of its key puts it")]
    return []
