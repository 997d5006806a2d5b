"""Every recorded saga is judged as it was: whatever the order, doubled facts, and wherever a coordinator began anew."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pavane_saga.commands import Command, End, Undo
from pavane_saga.engine import decide, due, standing, status, undo_owed
from pavane_saga.facts import (
    Decided,
    Fact,
    Fired,
    Granted,
    Happened,
    Locked,
    Redriven,
    Settled,
    UndoFailed,
    Undone,
)
from pavane_saga.history import History, Plan
from support.histories import FOLDER, Recorded, judgement, read

FILES = sorted(FOLDER.glob("*.json"))
ORDERS = 5


def shuffled(facts: tuple[Fact, ...], seed: int) -> list[Fact]:
    again = [*facts, *facts[: len(facts) // 3]]
    Random(seed).shuffle(again)
    return again


def issued(plan: Plan, facts: list[Fact]) -> list[Command]:
    """What a coordinator issues that reads these one by one, and stops when the saga has ended."""
    history, found = History(), list[Command]()
    for fact in facts:
        history, commands = decide(plan, history, [fact])
        found += commands
        if any(isinstance(each, End) for each in commands):
            break
    return found


def has(kind: type[Fact], holds: Callable[[Any], bool] = lambda fact: True) -> Callable[[Recorded], bool]:
    return lambda recorded: any(isinstance(fact, kind) and holds(fact) for fact in recorded.facts)


def answered_under_two_versions(recorded: Recorded) -> bool:
    """An agent has two declarations, and of its deployment's versions earlier ones and later ones answered."""
    earlier = {each.version for known in recorded.plan.earlier.values() for each in known}
    said = {each.declaration for each in recorded.facts if isinstance(each, Happened) and each.step is not None}
    return bool(said & earlier and said - earlier)


KINDS: Mapping[str, Callable[[Recorded], bool]] = {
    "an undo": has(Undone),
    "an undo that failed": has(UndoFailed),
    "a step that failed": has(Settled, lambda fact: fact.how == "failed"),
    "a step that was skipped": has(Settled, lambda fact: fact.how == "skipped"),
    "an answer from outside": has(Happened, lambda fact: fact.step is None and fact.type == "credit.review-answered"),
    "a pivot that was granted": has(Granted),
    "a lock": has(Locked),
    "a circle of locks": has(Fired, lambda fact: fact.rule == "deadlock"),
    "a deadline that turned it back": has(Fired, lambda fact: fact.rule == "deadline"),
    "a deadline that was reported": has(Fired, lambda fact: fact.rule == "overdue"),
    "a retry": has(Decided, lambda fact: fact.verb == "retry" and not fact.corrected),
    "a retry with corrected data": has(Decided, lambda fact: bool(fact.corrected)),
    "done by hand": has(Decided, lambda fact: fact.verb == "done"),
    "left": has(Decided, lambda fact: fact.verb == "skip"),
    "abandoned": has(Decided, lambda fact: fact.verb == "abandon"),
    "an observer's redrive": has(Redriven),
    "an upgrade in mid-saga": answered_under_two_versions,
}


def test_there_are_histories_of_every_kind_of_end() -> None:
    kinds = {path.stem.split("-")[1] for path in FILES}
    assert kinds >= {"completed", "compensated", "abandoned", "parked"}


def test_there_are_histories_of_every_kind() -> None:
    recorded = [read(path) for path in FILES]
    assert [kind for kind, holds in KINDS.items() if not any(map(holds, recorded))] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_judged_as_it_was(path: Path) -> None:
    recorded = read(path)
    assert judgement(recorded.plan, recorded.facts) == recorded.judged
    for seed in range(ORDERS):
        assert judgement(recorded.plan, shuffled(recorded.facts, seed)) == recorded.judged


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_owes_an_undo_stands_and_besides_only_what_nothing_undoes(path: Path) -> None:
    recorded = read(path)
    history = History().with_facts(recorded.facts)
    stands, owed = set(standing(recorded.plan, history)), set(undo_owed(recorded.plan, history))
    assert stands >= owed
    assert {step for step, _ in stands - owed} <= recorded.plan.lasting
    assert (stands > owed) == any(step in recorded.plan.lasting for step, _ in history.answers())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_in_any_order_it_comes_to_the_same_verdict_and_asks_for_each_undo_once(path: Path) -> None:
    recorded = read(path)
    verdict = path.stem.split("-")[1]
    for seed in range(ORDERS):
        commands = issued(recorded.plan, shuffled(recorded.facts, seed))
        assert len(set(commands)) == len(commands)
        assert [each.verdict for each in commands if isinstance(each, End)] == ([] if verdict == "parked" else [verdict])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_coordinator_that_begins_anew_anywhere_has_issued_the_same_in_the_end(path: Path) -> None:
    recorded = read(path)
    facts = list(recorded.facts)
    whole = History().with_facts(facts)
    for cut in range(len(facts)):
        earlier = History().with_facts(facts[:cut])
        later, commands = decide(recorded.plan, earlier, facts[cut:])
        assert {*due(recorded.plan, earlier), *commands} >= {*due(recorded.plan, later)}
        assert set(due(recorded.plan, later)) == set(due(recorded.plan, whole))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_failed_before_the_pivot_has_turned_its_saga_back_and_is_asked_to_be_undone_at_once(path: Path) -> None:
    recorded = read(path)
    plan = recorded.plan
    for cut in range(len(recorded.facts)):
        history = History().with_facts(recorded.facts[: cut + 1])
        failed = [each for each in history.failing.values() if not plan.is_observer(each.step)]
        if not failed or history.granted or history.abandoned:
            continue
        assert status(plan, history) in ("compensating", "parked")
        asked = {(each.step, each.causes) for each in due(plan, history) if isinstance(each, Undo)}
        for each in failed:
            if each.began and plan.has_effects(each.step) and history.events.keys() >= set(each.causes):
                assert (each.step, each.causes) in asked
