"""Every recorded saga is judged as it was: whatever the order, doubled facts, and wherever a coordinator began anew."""

from pathlib import Path
from random import Random

import pytest

from pavane_saga.commands import Command, End
from pavane_saga.engine import decide, due
from pavane_saga.facts import Fact
from pavane_saga.history import History, Plan
from support.histories import FOLDER, judgement, read

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


def test_there_are_histories_of_every_kind_of_end() -> None:
    kinds = {path.stem.split("-")[1] for path in FILES}
    assert kinds >= {"completed", "compensated", "abandoned", "parked"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_judged_as_it_was(path: Path) -> None:
    recorded = read(path)
    assert judgement(recorded.plan, recorded.facts) == recorded.judged
    for seed in range(ORDERS):
        assert judgement(recorded.plan, shuffled(recorded.facts, seed)) == recorded.judged


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
