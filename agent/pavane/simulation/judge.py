"""Judge: what must hold when a history is over, read off what was written and called, never off the coordinator's word."""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

from pavane.simulation.calls import Call
from pavane.simulation.points import NEUTRAL
from pavane.simulation.verification import HistoryPlayed, SagaPlayed, Verification
from pavane.simulation.world import DEPLOYMENT, Played, Stuck, worded
from pavane_events.envelope import Envelope, parse
from pavane_events.ids import idempotency_key
from pavane_saga.facts import Settled
from pavane_saga.hops import sent_of
from pavane_saga.wire import FACTS, is_control, read_fact
from pavane_tracing.continuity import check_continuity
from pavane_tracing.sent import Sent
from pavane_tracing.span import SpanRow
from pavane_tracing.store import SPANS_TOPIC, decode

Unit = tuple[str, tuple[str, ...]]


class Violation(NamedTuple):
    """Something that must never happen and did: a stable code, and a sentence."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def judge(verification: Verification, played: Played, expected: str | None, *, trace: bool) -> list[Violation]:
    """Everything that is wrong with a history. ``expected``: how its saga ends where nothing goes wrong, if that is known."""
    if played.stuck is not None:
        return [Violation("stuck", played.stuck)]
    sagas = {saga: _Told(saga) for saga in played.sagas}
    rows: list[SpanRow] = []
    log: list[Sent] = []
    for record in played.records:
        if record.topic == SPANS_TOPIC:
            rows.extend(decode(record))
            continue
        if trace and (sent := sent_of(record)) is not None:
            log.append(sent)
        if record.key is not None and not is_control(record.topic):
            told = sagas.get(record.key.decode(errors="replace"))
            envelope = parse(record) if told is not None else None
            if told is not None and envelope is not None and envelope.saga is not None:  # an application is of no saga yet
                told.hear(envelope, is_fact=record.topic == FACTS)
    found: list[Violation] = []
    neutral = all(fault.action in NEUTRAL for fault in played.struck)
    for saga, told in sagas.items():
        calls = [call for call in played.calls if call.saga == saga]
        verdicts = played.verdicts.get(saga, [])
        listed = played.given_up.get(saga)
        found += _ended(verdicts, expected if neutral else None)
        found += _effects(verdicts[0] if verdicts else "", calls, listed)
        found += told.doubled()
        if listed is None:
            found += _order(told, calls)
        found += _known(told, calls)
        found += _turning(verification, told, calls)
    found += [Violation("undo.reason", f"{each.step} failed for good without a reason") for each in _silent(played.parked)]
    if trace:
        report = check_continuity(rows, log)
        found += [Violation("trace", str(finding)) for finding in report.findings]
    if verification.invariant is not None and not played.given_up:
        ended = [
            SagaPlayed(saga, played.sagas[saga], (played.verdicts.get(saga) or ["open"])[0], told.events)
            for saga, told in sagas.items()
        ]
        found += _invariant(verification, HistoryPlayed(ended))
    return found


class _Told:
    """What was said of one saga: its events, its settlements, and who used what."""

    def __init__(self, saga: str) -> None:
        self.saga = saga
        self.events: list[Envelope] = []
        self.outputs: dict[Unit, list[Envelope]] = {}
        self.units: dict[Unit, str] = {}
        self.ids: Counter[str] = Counter()

    def hear(self, envelope: Envelope, *, is_fact: bool) -> None:
        self.ids[envelope.id] += 1
        if is_fact:
            fact = read_fact(envelope)
            if isinstance(fact, Settled):
                self._unit(fact.step, fact.causes)
            return
        self.events.append(envelope)
        if envelope.step is not None:
            unit = self._unit(envelope.step, tuple(sorted(envelope.causes)))
            self.outputs.setdefault(unit, []).append(envelope)

    def _unit(self, step: str, causes: tuple[str, ...]) -> Unit:
        unit = step, causes
        if unit not in self.units:
            self.units[unit] = idempotency_key(DEPLOYMENT, self.saga, step, causes)
        return unit

    def doubled(self) -> Iterator[Violation]:
        """No output twice."""
        for event_id, times in self.ids.items():
            if times > 1:
                said = next((each.type for each in self.events if each.id == event_id), "a fact")
                yield Violation("output.doubled", f"{said} ({event_id}) was written {times} times")
        for (step, _), outputs in self.outputs.items():
            parts = Counter(each.part for each in outputs)
            if len(outputs) > max(each.parts for each in outputs) or max(parts.values()) > 1:
                yield Violation("output.doubled", f"{step} answered the same input with {len(outputs)} events")

    def users_of(self, unit: Unit) -> set[Unit]:
        """Every unit that used an output of this one, directly or not."""
        found: set[Unit] = set()
        todo = [unit]
        while todo:
            ids = {each.id for each in self.outputs.get(todo.pop(), ())}
            new = {other for other in self.units if other not in found and not ids.isdisjoint(other[1])}
            found |= new
            todo.extend(new)
        return found


def _ended(verdicts: Sequence[str], expected: str | None) -> Iterator[Violation]:
    if len(verdicts) != 1:
        yield Violation("end", f"the saga ended {len(verdicts)} times: {', '.join(verdicts) or 'not at all'}")
    elif expected is not None and verdicts[0] != expected:
        yield Violation("verdict", f"it ends {expected} where nothing goes wrong, and ended {verdicts[0]} here")


def _effects(verdict: str, calls: Sequence[Call], listed: Set[str] | None) -> Iterator[Violation]:
    """All effects stand or none do: nothing is called compensated that is not, and what is given up is said to stand.

    ``listed``: where somebody gave the saga up, the effects that are said to stand.
    """
    undone = {call.key for call in calls if call.kind == "undo" and call.worked}
    if verdict == "abandoned" and listed is None:
        yield Violation("verdict", "the saga is abandoned, and nobody gave it up")
    for key, call in {call.key: call for call in calls if call.kind == "do" and call.owes_undo}.items():
        if verdict == "completed" and key in undone:
            yield Violation("effect.undone", f"the saga is completed, and {call.step} was undone")
        elif verdict == "compensated" and key not in undone:
            yield Violation("effect.stands", f"the saga is called compensated, and {call.step} was never undone")
    if verdict == "abandoned" and listed is not None:
        worked = [call for call in calls if call.kind == "do" and call.worked and (call.owes_undo or call.lasts)]
        for key, call in {call.key: call for call in worked}.items():
            if key not in undone and key not in listed:
                yield Violation("effect.unlisted", f"the saga is abandoned, {call.step} stands, and nobody is told of it")


def _order(told: _Told, calls: Sequence[Call]) -> Iterator[Violation]:
    """Undo in reverse causal order: what used a step's output is undone before the step is."""
    begun = {call.key for call in calls if call.kind == "do" and call.owes_undo}
    first: dict[str, Call] = {}
    confirmed: dict[str, int] = {}
    for call in calls:
        if call.kind == "undo":
            first.setdefault(call.key, call)
            if call.worked and call.ended is not None:
                confirmed[call.key] = min(call.ended, confirmed.get(call.key, call.ended))
    for unit, key in told.units.items():
        if key not in first:
            continue
        for user in told.users_of(unit):
            other = told.units[user]
            if other in begun and confirmed.get(other, first[key].began) >= first[key].began:
                yield Violation("undo.order", f"{unit[0]} was undone before {user[0]}, which had used its answer")


def _known(told: _Told, calls: Sequence[Call]) -> Iterator[Violation]:
    """An undo is given what the step had answered, where it had."""
    answered = {told.units[unit] for unit in told.outputs}
    for call in calls:
        if call.kind == "undo" and call.blind and call.key in answered:
            yield Violation("undo.blind", f"{call.step} was undone as if nobody knew its answer, which was there")
            return


def _turning(verification: Verification, told: _Told, calls: Sequence[Call]) -> Iterator[Violation]:
    """Once its pivot is done nothing of a saga is undone; and the pivot is not called while another step is under way. Of a
    step that is one in every version."""
    steps = [step for agent in verification.agents for step in agent.steps.values()]
    later = {step.wire_name: step.options.pivot for agent in verification.next_versions for step in agent.steps.values()}
    pivots = {step.wire_name for step in steps if step.options.pivot and later.get(step.wire_name, True)}
    begun = next((call for call in calls if call.kind == "do" and call.step in pivots), None)
    if begun is None:
        return
    observers = {step.wire_name for step in steps if step.options.observer}
    for call in calls:
        if call.kind == "do" and call.step not in pivots | observers and _is_under_way(call, calls, begun.began):
            yield Violation("pivot.early", f"{begun.step} was called while {call.step} was under way")
    fails = {kind.event_type for saga in (*verification.sagas, *verification.next_sagas) for kind in saga.fails}
    taken = [call for call in calls if call.kind == "do" and call.step in pivots and call.worked]
    if not taken:
        return
    answers = [each for (step, _), outputs in told.outputs.items() if step in pivots for each in outputs]
    if answers and all(each.type not in fails for each in answers):
        for call in calls:
            if call.kind == "undo":
                yield Violation("pivot.undone", f"{call.step} was undone after the point of no return")
                return


def _is_under_way(call: Call, calls: Sequence[Call], place: int) -> bool:
    """Whether a call had begun and was not over; one that another holder of its lane has made to the end is."""
    if call.began > place or (call.ended is not None and call.ended < place):
        return False
    return not any(each.key == call.key and each.worked and each.ended is not None and each.ended < place for each in calls)


def _silent(parked: Sequence[Stuck]) -> list[Stuck]:
    return [each for each in parked if not each.code or not each.reason]


def _invariant(verification: Verification, history: HistoryPlayed) -> Iterator[Violation]:
    if verification.invariant is None:
        return
    try:
        verification.invariant(history)
    except AssertionError as error:
        yield Violation("invariant", worded(error) or "it does not hold")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also what is to end a test or a process: it was asked what holds
        yield Violation("invariant", f"it raised {type(error).__name__}: {worded(error)}")
