"""Facts: what a saga's state is a function of. Two facts with one identity are one fact.

Facts are stored and travel on ``pavane.facts``, so the names of their fields are wire names. Whoever reads them ignores
fields that it does not know, as with events: a newer agent may say more. ``causes`` are sorted, always.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from sys import intern
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, TypeAdapter

from pavane_events.compact import read_json, write_json
from pavane_events.envelope import Envelope


def _in_order(causes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(causes))


Causes = Annotated[tuple[str, ...], AfterValidator(_in_order)]
"""The ids of the events that a step was called with, sorted."""

Corrected = tuple[tuple[str, str], ...]
"""Data as JSON text, by event type."""

How = Literal["done", "failed", "skipped"]
Verb = Literal["retry", "done", "skip", "abandon"]
Verdict = Literal["completed", "compensated", "abandoned"]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the engine knows of a step: ``consumes`` has one tuple of alternative types per parameter (several: a join).

    ``effects``: an undo is owed. ``observer``: outside the bookkeeping, owes nothing. ``pivot``: it begins on a grant, and
    when it is done the saga only goes forward. ``external``: it waits for an event from outside, for ``within_s`` seconds.
    ``locks``: it may wait for a lock. ``retriable``: it is only ever finished, never undone. ``retiring``: it takes
    nothing new. ``title``: what people are shown in place of its name, where that was another before.
    """

    name: str
    consumes: tuple[tuple[str, ...], ...]
    produces: tuple[str, ...]
    effects: bool
    observer: bool = False
    within_s: float | None = None
    pivot: bool = False
    external: bool = False
    retriable: bool = False
    locks: bool = False
    retiring: bool = False
    title: str = ""


_ONLY_IF_SO = frozenset({"pivot", "external", "locks", "retriable", "retiring", "title"})
"""What is said of a step only where it is so."""


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the saga was read. Its topic is its type; ``event`` is the event itself in structured mode."""

    id: str
    type: str
    step: str | None
    causes: Causes
    part: int
    parts: int
    offset: int
    declaration: str | None
    depth: int
    event: bytes

    @classmethod
    def of(cls, envelope: Envelope, offset: int) -> Self:
        """The fact that this event was read at that offset of its topic."""
        return cls(
            id=envelope.id,
            type=intern(envelope.type),
            step=None if envelope.step is None else intern(envelope.step),
            causes=tuple(sorted(envelope.causes)),
            part=envelope.part,
            parts=envelope.parts,
            offset=offset,
            declaration=None if envelope.declaration is None else intern(envelope.declaration),
            depth=envelope.depth,
            event=envelope.to_structured(),
        )

    @property
    def identity(self) -> str:
        """The event's own id."""
        return f"e:{self.id}"

    def to_json(self) -> bytes:
        """The fact as one JSON object. The event goes in as it is: it must be JSON, or empty."""
        members = {name: getattr(self, name) for name in self.__slots__ if name != "event"}
        head = write_json({"fact": "happened", **members})
        return b"".join((head[:-1], _EVENT, self.event or b"null", b"}"))


@dataclass(frozen=True, slots=True)
class Settled:
    """A step answered those causes without an event. ``began`` is False only where it provably was never called.

    ``retry``: the how manyth time that an operator asked for the step again; 0: nobody did.
    """

    step: str
    causes: Causes
    how: How
    began: bool = True
    code: str = ""
    reason: str = ""
    declaration: str | None = None
    retry: int = 0

    @property
    def identity(self) -> str:
        """Step, answer and causes; and the retry, if it is one."""
        again = f"|{self.retry}" if self.retry else ""
        return f"s:{self.step}|{self.how}|{self.began:d}|{self.code}|{','.join(self.causes)}{again}"

    def to_json(self) -> bytes:
        """The fact as one JSON object, without ``retry`` where it is none."""
        return _dump("settled", self)


@dataclass(frozen=True, slots=True)
class Answered:
    """An event from outside was admitted to the saga. Of a type there is one; ``event``: its id. Kept, never told."""

    type: str
    event: str

    @property
    def identity(self) -> str:
        """The type."""
        return f"q:{self.type}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("answered", self)


@dataclass(frozen=True, slots=True)
class Requested:
    """A step has its inputs and may not begin before its saga holds that lock. ``refuse``: it fails where another does.

    ``begun_under``: the version of its agent under which it may have begun without, by a process that died.
    """

    step: str
    causes: Causes
    lock: str
    refuse: bool = False
    begun_under: str | None = None

    @property
    def identity(self) -> str:
        """Step and causes."""
        return f"k:{self.step}|{','.join(self.causes)}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("requested", self)


@dataclass(frozen=True, slots=True)
class Locked:
    """The saga holds that lock, until it ends."""

    lock: str

    @property
    def identity(self) -> str:
        """The lock."""
        return f"l:{self.lock}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("locked", self)


@dataclass(frozen=True, slots=True)
class LockRefused:
    """Another saga holds that lock, and the step that asked for it does not wait."""

    lock: str
    holder: str

    @property
    def identity(self) -> str:
        """The lock."""
        return f"m:{self.lock}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("lockrefused", self)


Path = tuple[tuple[str, str], ...]
"""Who waits for what: saga and lock; each is held by the next saga of the path."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Told to a saga that holds the last lock of that path: whoever is on it waits for this saga. Not kept.

    Where this saga is on the path itself, all of them wait in a circle, and it is the one that gives way.
    """

    path: Path

    @property
    def identity(self) -> str:
        """The path."""
        return f"b:{self.path!r}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("blocked", self)


@dataclass(frozen=True, slots=True)
class Granted:
    """The coordinator let a step begin on those causes: the pivot, one whose lock the saga holds, or (``retry``) one that
    an operator asked for again.

    Written once, with the command that carries it.
    """

    step: str
    causes: Causes
    retry: int = 0

    @property
    def identity(self) -> str:
        """Step, causes and retry."""
        return f"g:{self.step}|{','.join(self.causes)}|{self.retry}"

    def to_json(self) -> bytes:
        """The fact as one JSON object, without ``retry`` where it is none."""
        return _dump("granted", self)


@dataclass(frozen=True, slots=True)
class Undone:
    """The undo of a step on those causes is confirmed."""

    step: str
    causes: Causes

    @property
    def identity(self) -> str:
        """Step and causes."""
        return f"u:{self.step}|{','.join(self.causes)}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("undone", self)


@dataclass(frozen=True, slots=True)
class UndoFailed:
    """The undo of a step on those causes failed for good: its effect may stand.

    ``retry``: the how manyth time that an operator asked for it; 0: the coordinator did.
    """

    step: str
    causes: Causes
    code: str = ""
    reason: str = ""
    retry: int = 0

    @property
    def identity(self) -> str:
        """Step, code and causes; and the retry, if it is one."""
        again = f"|{self.retry}" if self.retry else ""
        return f"v:{self.step}|{self.code}|{','.join(self.causes)}{again}"

    def to_json(self) -> bytes:
        """The fact as one JSON object, without ``retry`` where it is none."""
        return _dump("undofailed", self)


@dataclass(frozen=True, slots=True)
class Decided:
    """Somebody decided about an undo that failed, or about a step that failed after the pivot, or to abandon the saga
    (then ``step`` and ``causes`` are empty).

    ``retry``: it is asked for again, for the ``number``-th time, with the data of ``corrected`` events (JSON, by type) in
    place of what they said; ``done``: a person did it by hand; ``skip``: it stays undone, or not done. Whoever says the
    same first is on record.
    """

    verb: Verb
    step: str
    causes: Causes
    number: int
    who: str
    why: str
    at_ms: int
    corrected: Corrected = ()

    @property
    def identity(self) -> str:
        """What was decided about what, and for the how manyth time."""
        return f"o:{self.verb}|{self.step}|{self.number}|{','.join(self.causes)}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return write_json({"fact": "decided", **members, "corrected": dict(self.corrected)})


@dataclass(frozen=True, slots=True)
class Redriven:
    """Somebody had a dead letter tried again: of that agent, at that place of its dead letters, for the ``number``-th time."""

    agent: str
    letter: str
    step: str
    number: int
    who: str
    why: str
    at_ms: int

    @property
    def identity(self) -> str:
        """Which letter, and for the how manyth time."""
        return f"r:{self.agent}|{self.letter}|{self.number}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("redriven", self)


@dataclass(frozen=True, slots=True)
class Fired:
    """The coordinator's clock spoke: the deadline passed, or the start event of a saga never came.

    ``overdue``: the deadline of a saga passed that is to be reported only. It turns nothing back. ``deadlock``: it is one of
    several that wait for each other's locks, and the one that has to give way.
    """

    rule: Literal["deadline", "unknown", "overdue", "deadlock"]
    at_ms: int
    detail: str = ""

    @property
    def identity(self) -> str:
        """The rule."""
        return f"f:{self.rule}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("fired", self)


@dataclass(frozen=True, slots=True)
class Ended:
    """The coordinator's verdict."""

    verdict: Verdict
    at_ms: int

    @property
    def identity(self) -> str:
        """There is one end."""
        return "x:"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("ended", self)


@dataclass(frozen=True, slots=True)
class Declared:
    """A lane of an agent declared which steps answer from which offsets on. Of a lane, not of one saga.

    ``until``: by a retiring step and a topic, the offset from which on it takes nothing any more.
    """

    agent: str
    version: str
    steps: tuple[StepPlan, ...]
    since: tuple[tuple[str, int], ...]
    until: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()

    @property
    def free(self) -> frozenset[str]:
        """Its steps that owe no undo."""
        return frozenset(step.name for step in self.steps if not step.effects)

    @property
    def identity(self) -> str:
        """Agent and version."""
        return f"d:{self.agent}|{self.version}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        steps = [
            {name: value for name in step.__slots__ if (value := getattr(step, name)) or name not in _ONLY_IF_SO}
            for step in self.steps
        ]
        members = {"fact": "declared", "agent": self.agent, "version": self.version, "steps": steps}
        until = {"until": {step: dict(topics) for step, topics in self.until}} if self.until else {}
        return write_json({**members, "since": dict(self.since), **until})


Fact = (
    Happened
    | Settled
    | Answered
    | Requested
    | Locked
    | LockRefused
    | Blocked
    | Granted
    | Undone
    | UndoFailed
    | Decided
    | Redriven
    | Fired
    | Ended
    | Declared
)


def fact_from_json(data: bytes) -> Fact:
    """What ``to_json`` wrote. Raises :class:`ValueError` where it is no fact: what comes out has the types it names."""
    try:
        members = read_json(data)
    except RecursionError:
        raise ValueError("nested too deeply to be a fact") from None
    if not isinstance(members, dict):
        raise ValueError("a fact is one JSON object")
    fields = cast("dict[str, object]", members)
    kind = fields.pop("fact", None)
    if kind == "happened":
        fields["event"] = _event(data, fields.get("event"))
    elif kind == "decided" and isinstance(fields.get("corrected"), dict):
        fields["corrected"] = sorted(cast("dict[str, object]", fields["corrected"]).items())
    elif kind == "declared" and isinstance(fields.get("since"), dict):
        fields["since"] = sorted(cast("dict[str, object]", fields["since"]).items())
        until = fields.get("until")
        if isinstance(until, dict):
            by_step = cast("dict[str, dict[str, object]]", until)
            fields["until"] = sorted((step, sorted(topics.items())) for step, topics in by_step.items())
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise ValueError(f"no fact is called {kind!r}")
    return reader.validate_python(fields)


def _event(data: bytes, event: object) -> bytes:
    """The event's own bytes, untouched, where it is the last member, as ``to_json`` writes it; else the same JSON."""
    if event is None:
        return b""
    own = data.partition(_EVENT)[2][:-1]
    try:
        if read_json(own) == event:
            return own
    except ValueError:
        pass
    return write_json(event)


_EVENT = b',"event":'

_Plain = (
    Settled | Answered | Requested | Locked | LockRefused | Blocked | Granted | Undone | UndoFailed | Redriven | Fired | Ended
)

_READERS: Mapping[str, TypeAdapter[Fact]] = {
    "happened": TypeAdapter(Happened),
    "settled": TypeAdapter(Settled),
    "answered": TypeAdapter(Answered),
    "requested": TypeAdapter(Requested),
    "locked": TypeAdapter(Locked),
    "lockrefused": TypeAdapter(LockRefused),
    "blocked": TypeAdapter(Blocked),
    "granted": TypeAdapter(Granted),
    "undone": TypeAdapter(Undone),
    "undofailed": TypeAdapter(UndoFailed),
    "decided": TypeAdapter(Decided),
    "redriven": TypeAdapter(Redriven),
    "fired": TypeAdapter(Fired),
    "ended": TypeAdapter(Ended),
    "declared": TypeAdapter(Declared),
}


def _dump(kind: str, fact: "_Plain") -> bytes:
    members = {name: getattr(fact, name) for name in fact.__slots__}
    if not members.get("retry", True):
        del members["retry"]
    return write_json({"fact": kind, **members})
