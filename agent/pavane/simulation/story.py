"""Story: a history as somebody can read it: who did what, what was said, and what went wrong where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pavane.context import Outcome
from pavane.simulation.calls import WHOSE, Call
from pavane.simulation.points import Fault, Faults, Point
from pavane.simulation.world import World
from pavane_events.envelope import Envelope, parse
from pavane_events.errors import UndecodableRecord
from pavane_events.record import Record
from pavane_saga.facts import Decided, Fired, Settled, UndoFailed, Undone
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import COORDINATOR, ENDED, FACTS, GRANT, UNDO, asked_for, read_fact
from pavane_tracing.store import SPANS_TOPIC

_KINDS = {"do": "call", "undo": "undo", "ask": "did it happen?"}
_KNOWN: Mapping[Outcome, str] = {
    "done": "",
    "not-done": ", told that it did not happen",
    "unknown": ", nothing known of its answer",
}
_WORDS = {
    "crash-before": "dies before it",
    "crash-after": "dies after it",
    "taken": "loses its lane, and is told",
    "zombie": "loses its lane, and does not know",
    "twice": "twice",
    "late": "comes only when all else has happened",
    "twice-late": "twice, the second time when all else has happened",
    "late-1": "comes one receive later",
    "late-2": "comes two receives later",
    "late-past": "comes only when a saga's deadline has come",
    "fail-once": "fails once",
    "fail": "fails at every attempt",
    "fail-after": "has its effect, then fails, at every attempt",
    "reject": "says no",
    "hang": "does not answer in time",
    "done": "somebody does it by hand",
    "skip": "somebody leaves it so",
    "abandon": "somebody abandons the saga",
    "too-late": "comes when the saga is over",
    "never": "never comes",
    "upgrade": "its next version takes over",
}


@dataclass
class Teller:
    """Writes a history down while it is played. To be called at each point."""

    world: World
    faults: Faults
    lines: list[str] = field(default_factory=list[str])
    _calls: dict[int, str] = field(default_factory=dict[int, str])

    def __post_init__(self) -> None:
        self._arrivals = self.world.bus.arrivals
        self._wanted = {fault.point: fault for fault in self.faults}

    def __call__(self, point: Point) -> None:
        self.catch_up()
        fault = self._wanted.get(point)
        if fault is not None:
            self._say("!", _gone_wrong(fault))

    def catch_up(self) -> None:
        """Write down what happened since."""
        for call in self.world.calls.made:
            self._hear(call)
        for record in self.world.bus.written_since(self._arrivals):
            for who, what in _told(record):
                self._say(who, what)
        self._arrivals = self.world.bus.arrivals

    def _hear(self, call: Call) -> None:
        before = self._calls.get(id(call))
        if before == call.how:
            return
        self._calls[id(call)] = call.how
        what = _KINDS[call.kind]
        known = _KNOWN[call.outcome] if call.kind == "undo" else ""
        if before is None:
            self._say(call.step, f"{what}, attempt {call.attempt}{known}", call.began_s)
        if call.how == "raised":
            self._say(call.step, f"{what} raised {call.error}", call.ended_s)
        elif call.how == "ended":
            self._say(call.step, f"{what} returned", call.ended_s)

    def _say(self, who: str, what: str, at_s: float | None = None) -> None:
        found_s = self.world.loop.time() if at_s is None else at_s
        self.lines.append(f"{found_s - self.world.began_s:9.3f} s  {who:<34} {what}")


def _gone_wrong(fault: Fault) -> str:
    point, words = fault.point, _WORDS[fault.action]
    number = f" no. {point.number}" if point.number > 1 else ""
    if point.what in _KINDS:
        return f"{WHOSE[point.what]}{point.where}, call{number}: {words}"
    if point.what == "intake":
        return f"what lies on {point.where}{number}: {words}"
    if point.what == "parked":
        return f"{point.where} has failed for good{number}: {words}"
    if point.what == "answer":
        return f"the answer from outside to {point.where}{number}: {words}"
    if point.what == "commit":
        return f"{point.where}, commit{number}: its process {words}"
    group, _, topic = point.where.partition(" ")
    if point.what == "turn":
        return f"{group}, read or commit{number}: {words}"
    return f"{topic} is handed to {group} twice{number}" if point.what == "again" else f"{topic} for {group}{number}: {words}"


def _told(record: Record) -> Iterator[tuple[str, str]]:
    """What one record says, and who says it."""
    if record.topic == SPANS_TOPIC:
        return
    try:
        envelope = parse(record)
    except UndecodableRecord:
        return
    if record.topic == FACTS:
        yield from _fact(envelope)
    elif record.topic.endswith(".dead-letters"):
        yield record.topic, "dead letter"
    elif ".retry-" in record.topic:
        yield record.topic, "waits to be tried again"
    elif envelope.type == UNDO:
        asked = asked_for(envelope)
        yield COORDINATOR, f"undo {asked[0] if asked else '?'}!"
    elif envelope.type == GRANT:
        asked = asked_for(envelope)
        yield COORDINATOR, f"{asked[0] if asked else '?'} may begin"
    elif envelope.type == ENDED:
        yield COORDINATOR, "the saga turns back, or lets its joins go"
    elif envelope.type == SagaEnded.event_type:
        yield COORDINATOR, f"ended: {SagaEnded.from_json(envelope.data).verdict}"
    elif envelope.step is not None or envelope.saga is not None:
        yield envelope.step or COORDINATOR, f"says {envelope.type}"


def _fact(envelope: Envelope) -> Iterator[tuple[str, str]]:
    fact = read_fact(envelope)
    match fact:
        case Settled():
            yield fact.step, f"{fact.how} {fact.code}".rstrip()
        case Undone():
            yield fact.step, "undone"
        case UndoFailed():
            yield fact.step, f"undo failed: {fact.code}"
        case Decided():
            yield "operator", f"{fact.verb} {fact.step}"
        case Fired():
            yield COORDINATOR, fact.detail
        case _:
            pass
