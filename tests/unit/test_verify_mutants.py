"""The verification, verified: engine, lanes, bus and credit agents are broken in one place each, and it must notice."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

import pytest

from pavane import Context, Fence, commits
from pavane.marks import Marks
from pavane.overlay import Overlay
from pavane.perform import Performer
from pavane.testing import Verification, VerificationFailed, verify
from pavane_credit.ledger import Ledger
from pavane_credit.verification import credit
from pavane_events.bus import Lane
from pavane_events.buses.memory_lanes import MemoryLane
from pavane_events.envelope import NO_TRACE, Trace
from pavane_events.ids import uuid7
from pavane_events.patience import commit_patiently
from pavane_events.record import Message, Record
from pavane_saga import clerk, coordinator, engine
from pavane_saga.backlog import Backlog
from pavane_saga.commands import End, Grant, Undo
from pavane_saga.desk import Desk
from pavane_saga.engine import Failure
from pavane_saga.facts import Fact, Happened, Settled
from pavane_saga.history import History, Plan, Unit
from pavane_saga.locks import LockBook, LockOrder, order_message
from pavane_saga.view import View
from pavane_saga.wire import ADMISSIONS
from pavane_tracing.work import Work
from support import dances
from support.compiled import sources_only

ENOUGH = 3_500
"""Histories within which each must be noticed; most are within a hundred."""

State = Mapping[bytes, bytes | None]


_undo_order = cast("Callable[[View], Iterator[Undo]]", vars(engine)["_undo_order"])
_owes_undo = View.owes_undo
_with_facts = History.with_facts
_failure = engine.failure
_follow = LockBook.follow
_get = Overlay.get
_apply = cast("Callable[[MemoryLane, Mapping[str, int], State | None], None]", vars(MemoryLane)["_apply"])
_do = Ledger.do
_undo = Ledger.undo


# --- the engine ---------------------------------------------------------------------------------------------------


def nobody(view: View, unit: Unit) -> set[Unit]:
    return set()


def blindly(view: View) -> Iterator[Undo]:
    for undo in _undo_order(view):
        yield replace(undo, outputs=(), outcome="unknown")


def only_if_it_answered(view: View, unit: Unit) -> bool:
    return _owes_undo(view, unit) and unit in view.history.outputs


def at_once(view: View) -> Iterator[End]:
    yield End("compensated")


def deaf_to_failed_steps(plan: Plan, history: History) -> Failure | None:
    found = _failure(plan, history)
    return found if found is None or found.step is None or found.code in plan.fails else None


def never_parked(history: History, unit: Unit) -> int:
    return 0


def deaf_to_late_success(history: History, facts: Iterable[Fact]) -> History:
    if not history.failing and not history.fired:
        return _with_facts(history, facts)
    return _with_facts(history, [_never_began(each) for each in facts])


def _never_began(fact: Fact) -> Fact:
    if isinstance(fact, Happened) and fact.step is not None:
        return Settled(fact.step, fact.causes, "skipped", began=False)
    return fact


# --- lanes and bus ------------------------------------------------------------------------------------------------


async def inputs_before_outputs(
    lane: Lane, done: Mapping[str, int], outputs: Sequence[Message] = (), state: State | None = None
) -> None:
    await commit_patiently(lane, done, (), state or {})
    if outputs:
        await commit_patiently(lane, {}, outputs, {})


async def outputs_before_inputs(
    lane: Lane, done: Mapping[str, int], outputs: Sequence[Message] = (), state: State | None = None
) -> None:
    if outputs:
        await commit_patiently(lane, {}, outputs, {})
    await commit_patiently(lane, done, (), state or {})


async def outputs_in_two_commits(
    lane: Lane, done: Mapping[str, int], outputs: Sequence[Message] = (), state: State | None = None
) -> None:
    await commit_patiently(lane, done, outputs, state or {})
    if outputs:
        await commit_patiently(lane, {}, outputs, {})


def without_tombstones(state: Overlay, key: bytes) -> bytes | None:
    return None if key.startswith(b"t/") else _get(state, key)


def nothing_began(marks: Marks, record: Record) -> bool:
    return False


def offsets_without_state(lane: MemoryLane, done: Mapping[str, int], state: State | None) -> None:
    _apply(lane, done, None)


def unfenced(lane: MemoryLane) -> None:
    return None


def by_attempt(context: Context, *, key: str | Callable[[], str], attempt: int = 1, **others: object) -> None:
    """The attempt's number leaks into the key, and so into what the undo takes back."""
    found = key if isinstance(key, str) else key()
    _AS_IT_IS(context, key=f"{found}#{attempt}", attempt=attempt, **others)


_AS_IT_IS: Callable[..., None] = Context.__init__


# --- the credit agents --------------------------------------------------------------------------------------------


def by_another_key(
    ledger: Ledger, context: Context, application_id: str, kind: str, amount_dm: int = 0, line_dm: int | None = None
) -> bool:
    return _do(ledger, Context.fake(saga=context.saga, key=uuid7()), application_id, kind, amount_dm, line_dm)


def twice_over(ledger: Ledger, context: Context) -> bool:
    stood = _undo(ledger, context)
    _ = vars(ledger)["_connection"].execute("UPDATE line SET booked_dm = booked_dm - ?", (0 if stood else 1,))
    return stood


def only_what_is_known(ledger: Ledger, context: Context) -> bool:
    return _undo(ledger, context) if context.outcome == "done" else False


def forgetful_fence(fence: Fence, connection: "Connection", key: str) -> bool:
    return connection.execute("DELETE FROM pavane_effects WHERE key = ? RETURNING 1", (key,)).fetchone() is not None


class Cursor(Protocol):
    def fetchone(self) -> object: ...


class Connection(Protocol):
    def execute(self, sql: str, parameters: tuple[object, ...] = ..., /) -> Cursor: ...


MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "a step is undone before those that used its answer": (View, "users_of", nobody),
    "an undo is not told the answer that came": (engine, "_undo_order", blindly),
    "a step that failed after its effect owes no undo": (View, "owes_undo", only_if_it_answered),
    "a saga is called compensated at once": (engine, "_compensated", at_once),
    "a failed step does not turn its saga back": (engine, "failure", deaf_to_failed_steps),
    "an undo asked for again is the same undo": (History, "retry_of", never_parked),
    "late success ignored": (History, "with_facts", deaf_to_late_success),
    "a debt settled twice": (commits, "commit_patiently", outputs_in_two_commits),
    "an agent's offsets are committed before its outputs": (commits, "commit_patiently", inputs_before_outputs),
    "an agent's outputs are committed before its offsets": (commits, "commit_patiently", outputs_before_inputs),
    "the coordinator's offsets are committed before its commands": (
        coordinator,
        "commit_patiently",
        inputs_before_outputs,
    ),
    "an agent forgets that a saga has ended": (Overlay, "get", without_tombstones),
    "what an earlier holder began is taken for untouched": (Marks, "may_have_begun", nothing_began),
    "a lane's state is older than its offsets": (MemoryLane, "_apply", offsets_without_state),
    "a lane's former holder may commit": (MemoryLane, "_check_holder", unfenced),
    "the attempt leaks into the key of the effect": (Context, "__init__", by_attempt),
    "an effect is done under another key each time": (Ledger, "do", by_another_key),
    "an undo takes back twice": (Ledger, "undo", twice_over),
    "an undo passes over what nobody knows": (Ledger, "undo", only_what_is_known),
}


def at_the_first_sight(view: View) -> Iterator[Grant]:
    for debt in view.debts:
        if view.plan.is_pivot(debt.step):
            yield Grant(debt.step, (debt.event,))


def always_before(plan: Plan, history: History) -> str:
    return "before"


def taken_when_granted(plan: Plan, history: History) -> str:
    return "taken" if history.granted else "before"


def takes_nothing(marks: Marks, step: str, record: Record) -> bool:
    return step not in marks.until


UPGRADE_MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "a retiring step takes nothing that was begun before": (Marks, "takes", takes_nothing),
}


def begins_at_once(performer: Performer, *_: object) -> None:
    return None


def never_given_back(book: LockBook, order: LockOrder, trace: Trace = NO_TRACE) -> Iterator[tuple[str, Fact]]:
    return iter(()) if order.verb == "release" else _follow(book, order, trace)


def skipped_is_skipped(view: View, unit: Unit) -> bool:
    settled = view.history.settled.get(unit)
    return (settled is None or settled.how != "skipped") and _owes_undo(view, unit)


LOCK_MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "a step does not wait for its lock": (Performer, "_lock", begins_at_once),
    "a lock is not given back": (LockBook, "follow", never_given_back),
}
LET_BEGIN_MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "a step that was let begin and says skipped owes no undo": (View, "owes_undo", skipped_is_skipped),
}


def never_held_up(plan: Plan, history: History) -> bool:
    return False


PIVOT_MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "the pivot does not wait for the rest": (engine, "pivot_grants", at_the_first_sight),
    "what fails after the pivot turns the saga back": (engine, "point_of", always_before),
    "a pivot that was refused counts as taken": (engine, "point_of", taken_when_granted),
    "a saga completes although a step after its pivot failed": (engine, "is_held_up", never_held_up),
}


FENCE_MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "the fence lets a zombie through": (Fence, "undo", forgetful_fence),
}


def suspected() -> Verification:
    """The case of the credit decision that a single fault shows it in: all eight have 2,602 of them."""
    return replace(credit, starts={"suspected": credit.starts["suspected"]})


def one_in_both_rooms() -> Verification:
    """The case of the two rooms that a pair of faults shows it in soonest: no single one does."""
    rooms = dances.one_at_a_time()
    return replace(rooms, starts={"one": rooms.starts["one"]})


VERIFIED: Sequence[tuple[Callable[[], Verification], Mapping[str, tuple[object, str, object]]]] = (
    (lambda: credit, MUTANTS),
    (suspected, FENCE_MUTANTS),
    (dances.one_goes_one_is_renamed, UPGRADE_MUTANTS),
    (dances.one_at_a_time, LOCK_MUTANTS),
    (one_in_both_rooms, LET_BEGIN_MUTANTS),
    (dances.point_of_no_return, PIVOT_MUTANTS),
)
"""Each mutant with a choreography that it breaks."""


@sources_only
@pytest.mark.parametrize(
    ("made", "mutant"),
    [pytest.param(made, mutant, id=name) for made, mutants in VERIFIED for name, mutant in mutants.items()],
)
def test_a_mutant_is_caught(
    made: Callable[[], Verification], mutant: tuple[object, str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, function = mutant
    monkeypatch.setattr(owner, name, function)
    with pytest.raises(VerificationFailed) as caught:
        verify(made(), histories=ENOUGH)
    assert caught.value.report.findings[0].story


_order_message = order_message
_take_admission = cast("Callable[..., None]", vars(Desk)["_take_admission"])


def to_its_own_lane(order: LockOrder, work: Work, now_s: float) -> Message:
    message = _order_message(order, work, now_s)
    return Message(message.topic, message.value, order.saga.encode(), message.headers)


def deaf_to_other_lanes(self: Desk, record: Record, *, is_open: bool) -> None:
    if record.topic != ADMISSIONS:
        _take_admission(self, record, is_open=is_open)
    else:
        cast("Backlog", vars(self)["_backlog"]).done(record)


LANE_MUTANTS: Mapping[str, tuple[object, str, object]] = {
    "what is asked of a lock goes to the lane of its saga": (clerk, "order_message", to_its_own_lane),
    "what another lane took in is dropped": (Desk, "_take_admission", deaf_to_other_lanes),
}
"""With one lane there is nothing wrong with these."""


@sources_only
@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=name) for name, mutant in LANE_MUTANTS.items()])
def test_a_mutant_that_takes_two_lanes_is_caught_with_two(
    mutant: tuple[object, str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, function = mutant
    monkeypatch.setattr(owner, name, function)
    assert verify(dances.one_at_a_time(), histories=100, lanes=1).histories == 100
    with pytest.raises(VerificationFailed) as caught:
        verify(dances.one_at_a_time(), histories=100, lanes=2)
    assert ";lanes 2" in caught.value.report.findings[0].replay
