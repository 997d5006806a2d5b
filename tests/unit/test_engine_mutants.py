"""The engine's tests, tested: each rule is broken in one place, and the tests must notice.

What random worlds can notice is looked for in them; the other rules are broken under the one test that names them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, cast

import pytest

from pavane_saga import engine
from pavane_saga import view as view_module
from pavane_saga.commands import Command
from pavane_saga.engine import Failure
from pavane_saga.facts import Fact, Happened, Settled, StepPlan, UndoFailed, Undone
from pavane_saga.history import History, Plan, Unit
from pavane_saga.view import Debt
from support.compiled import sources_only
from unit import test_engine_properties as properties
from unit import test_engine_rules as rules

SEEDS = range(4_000)
Break = Callable[[pytest.MonkeyPatch], None]


class View(Protocol):
    """The facts as the rules look at them."""

    plan: Plan
    history: History
    units: Collection[Unit]


def instead(name: str, function: Callable[..., object]) -> Break:
    """The same engine, with another function under that name."""
    return lambda monkeypatch: monkeypatch.setattr(f"pavane_saga.{name}", function)


def no_users(view: View, unit: Unit) -> set[Unit]:
    return set()


def makers(view: View, unit: Unit) -> set[Unit]:
    return {(event.step, event.causes) for event in _inputs(view, unit) if event.step is not None}


def _inputs(view: View, unit: Unit) -> Iterator[Happened]:
    return (view.history.events[cause] for cause in unit[1] if cause in view.history.events)


def free(view: View, unit: Unit) -> bool:
    return True


def over_when_settled(view: View, unit: Unit) -> bool:
    return view.history.is_settled(unit)


def owes_if_it_failed_at_all(view: View, unit: Unit) -> bool:
    settled = view.history.settled.get(unit)
    answered = unit in view.history.outputs or (settled is not None and settled.how != "skipped")
    return view.plan.has_effects(unit[0]) and answered


def owes_only_if_done(view: View, unit: Unit) -> bool:
    return view.plan.has_effects(unit[0]) and view.history.is_done(unit)


def any_part(history: History, unit: Unit) -> bool:
    return unit in history.outputs


def nothing_unseen(plan: Plan, history: History) -> tuple[str, ...]:
    return ()


_with_facts = History.with_facts
_failure = engine.failure
_owed_answers = cast("Callable[[View], Iterator[Debt]]", vars(view_module)["_owed_answers"])


def failed_undos_pass(history: History, facts: Iterable[Fact]) -> History:
    return _with_facts(history, [Undone(each.step, each.causes) if isinstance(each, UndoFailed) else each for each in facts])


def one_answer_settles_all(view: View) -> Iterator[Debt]:
    used = {cause for unit in view.units for cause in unit[1]}
    return (debt for debt in _owed_answers(view) if debt.event not in used)


def all_debts_wait(view: View) -> Iterator[Debt]:
    return (replace(debt, waiting=True) for debt in _owed_answers(view))


def no_debt_waits(view: View) -> Iterator[Debt]:
    return (replace(debt, waiting=False) for debt in _owed_answers(view))


def fails_events_pass(plan: Plan, history: History) -> Failure | None:
    return _failure(replace(plan, fails=frozenset()), history)


def completes_wins(plan: Plan, history: History) -> Failure | None:
    return None if plan.completes in history.types else _failure(plan, history)


def say_all_again(plan: Plan, history: History, facts: Iterable[Fact]) -> tuple[History, tuple[Command, ...]]:
    grown = history.with_facts(facts)
    return grown, engine.due(plan, grown)


def decide_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "decide", say_all_again)


IN_RANDOM_WORLDS: Mapping[str, Break] = {
    "an undo does not wait for the users of its output": instead("view.View.users_of", no_users),
    "undos run in the order of the steps forward": instead("view.View.users_of", makers),
    "an undo does not wait for answers that are owed": instead("view.View.is_free", free),
    "a skipped arm is over although its join may yet have been called": instead("view.is_over", over_when_settled),
    "began is ignored": instead("view.View.owes_undo", owes_if_it_failed_at_all),
    "a failed step is not undone": instead("view.View.owes_undo", owes_only_if_done),
    "parts are ignored": instead("history.History.has_all_parts", any_part),
    "what is unseen is ignored": instead("engine.unseen", nothing_unseen),
    "a failed undo counts as undone": instead("history.History.with_facts", failed_undos_pass),
    "one step's answer settles the debts of all": instead("view._owed_answers", one_answer_settles_all),
    "a saga completes while steps run": instead("view._owed_answers", all_debts_wait),
    "joins that wait in vain hold a saga up": instead("view._owed_answers", no_debt_waits),
    "fails events are ignored": instead("engine.failure", fails_events_pass),
    "completes wins over failure": instead("engine.failure", completes_wins),
    "commands are issued again": decide_anew,
}


@sources_only
@pytest.mark.parametrize("break_it", IN_RANDOM_WORLDS.values(), ids=IN_RANDOM_WORLDS.keys())
def test_random_worlds_notice_when(break_it: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    with pytest.raises(AssertionError, match=r"live\(\d+\)"):
        look_in_random_worlds()


def look_in_random_worlds() -> None:
    for seed in SEEDS:
        properties.check(seed)


def every_offset(plan: Plan, event: Happened) -> Iterator[StepPlan]:
    return (step for step, *_ in plan.steps_for(event.type))


def no_observer(plan: Plan, step: str) -> bool:
    return False


def all_equal(settled: Settled) -> int:
    return 0


def skipped_first(settled: Settled) -> int:
    return ("failed", "skipped", "done").index(settled.how)


UNDER_THE_TEST_THAT_NAMES_THEM: Mapping[str, tuple[Break, Callable[[], None]]] = {
    "skipped beats failed": (
        instead("history._strength", skipped_first),
        rules.TestStrongestSettlement().test_failed_counts_more_than_skipped,
    ),
    "the first settlement counts": (
        instead("history._strength", all_equal),
        rules.TestStrongestSettlement().test_a_failure_that_may_have_begun_counts_more_than_one_that_cannot,
    ),
    "events before the declared offset owe answers": (
        instead("history.Plan.owing", every_offset),
        rules.TestOwedAnswers().test_debts_follow_the_lane_events_before_the_declared_offset_owe_nothing,
    ),
    "an observer fails a saga": (
        instead("history.Plan.is_observer", no_observer),
        rules.TestFailure().test_an_observer_cannot_fail_a_saga,
    ),
}


@sources_only
@pytest.mark.parametrize(
    ("break_it", "notices"), UNDER_THE_TEST_THAT_NAMES_THEM.values(), ids=UNDER_THE_TEST_THAT_NAMES_THEM.keys()
)
def test_a_rule_test_notices_when(break_it: Break, notices: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    notices()
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        notices()
