"""Facts: what a saga's state is a function of. Two facts with one identity are one fact."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

from pavane_events.envelope import Envelope

How = Literal["done", "failed", "skipped"]
Verdict = Literal["completed", "compensated", "abandoned"]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the engine knows of a step: ``consumes`` has one tuple of alternative types per parameter (several: a join).

    ``effects``: an undo is owed. ``observer``: outside the bookkeeping, owes nothing.
    """

    name: str
    consumes: tuple[tuple[str, ...], ...]
    produces: tuple[str, ...]
    effects: bool
    observer: bool = False
    within_s: float | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the saga was read. Its topic is its type; ``event`` is the event itself in structured mode."""

    id: str
    type: str
    step: str | None
    causes: tuple[str, ...]
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
            type=envelope.type,
            step=envelope.step,
            causes=tuple(sorted(envelope.causes)),
            part=envelope.part,
            parts=envelope.parts,
            offset=offset,
            declaration=envelope.declaration,
            depth=envelope.depth,
            event=envelope.to_structured(),
        )

    @property
    def identity(self) -> str:
        """The event's own id."""
        return f"e:{self.id}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        members = {name: getattr(self, name) for name in self.__slots__ if name != "event"}
        head = json.dumps({"fact": "happened", **members}, separators=(",", ":")).encode()
        return head[:-1] + b',"event":' + self.event + b"}"


@dataclass(frozen=True, slots=True)
class Settled:
    """A step answered those causes without an event. ``began`` is False only where it provably was never called."""

    step: str
    causes: tuple[str, ...]
    how: How
    began: bool = True
    code: str = ""
    reason: str = ""
    declaration: str | None = None

    @property
    def identity(self) -> str:
        """Step, answer and causes."""
        return f"s:{self.step}|{self.how}|{self.began:d}|{self.code}|{','.join(self.causes)}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("settled", self)


@dataclass(frozen=True, slots=True)
class Undone:
    """The undo of a step on those causes is confirmed."""

    step: str
    causes: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Step and causes."""
        return f"u:{self.step}|{','.join(self.causes)}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("undone", self)


@dataclass(frozen=True, slots=True)
class UndoFailed:
    """The undo of a step on those causes failed for good: its effect may stand."""

    step: str
    causes: tuple[str, ...]
    code: str = ""
    reason: str = ""

    @property
    def identity(self) -> str:
        """Step, code and causes."""
        return f"v:{self.step}|{self.code}|{','.join(self.causes)}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        return _dump("undofailed", self)


@dataclass(frozen=True, slots=True)
class Fired:
    """The coordinator's clock spoke: the deadline passed, or the start event of a saga never came."""

    rule: Literal["deadline", "unknown"]
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
    """A lane of an agent declared which steps answer from which offsets on. Of a lane, not of one saga."""

    agent: str
    version: str
    steps: tuple[StepPlan, ...]
    since: tuple[tuple[str, int], ...]

    @property
    def identity(self) -> str:
        """Agent and version."""
        return f"d:{self.agent}|{self.version}"

    def to_json(self) -> bytes:
        """The fact as one JSON object."""
        steps = [{name: getattr(step, name) for name in step.__slots__} for step in self.steps]
        members = {"fact": "declared", "agent": self.agent, "version": self.version, "steps": steps}
        return json.dumps({**members, "since": dict(self.since)}, separators=(",", ":")).encode()


Fact = Happened | Settled | Undone | UndoFailed | Fired | Ended | Declared


def fact_from_json(data: bytes) -> Fact:
    """What ``to_json`` wrote. Raises ValueError, KeyError or TypeError where it is no fact."""
    members = cast("dict[str, object]", json.loads(data))
    kind = members.pop("fact")
    if kind == "declared":
        return _declared(members)
    if "causes" in members:
        members["causes"] = tuple(str(cause) for cause in cast("list[object]", members["causes"]))
    if kind == "happened":
        members["event"] = json.dumps(members["event"], separators=(",", ":"), ensure_ascii=False).encode()
        return Happened(**members)  # type: ignore[arg-type]
    found = _KINDS.get(str(kind))
    if found is None:
        raise ValueError(f"no fact is called {kind!r}")
    return found(**members)  # type: ignore[arg-type]


_KINDS: Mapping[str, type[Settled | Undone | UndoFailed | Fired | Ended]] = {
    "settled": Settled,
    "undone": Undone,
    "undofailed": UndoFailed,
    "fired": Fired,
    "ended": Ended,
}


def _declared(members: Mapping[str, object]) -> Declared:
    steps: list[StepPlan] = []
    for each in cast("list[dict[str, object]]", members["steps"]):
        consumes = tuple(tuple(names) for names in cast("list[list[str]]", each["consumes"]))
        produces = tuple(cast("list[str]", each["produces"]))
        steps.append(
            StepPlan(
                name=str(each["name"]),
                consumes=consumes,
                produces=produces,
                effects=bool(each["effects"]),
                observer=bool(each.get("observer")),
                within_s=cast("float | None", each.get("within_s")),
            )
        )
    since = tuple(sorted(cast("dict[str, int]", members["since"]).items()))
    return Declared(str(members["agent"]), str(members["version"]), tuple(steps), since)


def _dump(kind: str, fact: Settled | Undone | UndoFailed | Fired | Ended) -> bytes:
    members = {name: getattr(fact, name) for name in fact.__slots__}
    return json.dumps({"fact": kind, **members}, separators=(",", ":")).encode()
