"""A next version that undoes less than the last one: what that did, or may have begun, is never called compensated."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import pytest

from pavane.marks import Marks
from pavane.simulation import world
from pavane.simulation.player import Job, Outcome, Player
from pavane.simulation.points import Fault
from pavane.testing import Verification
from pavane_events.record import Record
from support import dances
from support.compiled import sources_only

CHANGES: Mapping[str, tuple[Callable[[], Verification], str]] = {
    "an event is taken no more": (lambda: dances.takes_less("an event"), "taker"),
    "an arm of a join is taken no more": (lambda: dances.takes_less("a join"), "taker"),
    "an arm of a step with a lock is taken no more": (lambda: dances.takes_less("a join with a lock"), "taker"),
    "an input of a pivot is taken no more": (lambda: dances.takes_less("a pivot"), "taker"),
    "a step has no effect any more": (dances.has_no_effect_any_more, "first"),
    "a step is retriable now": (lambda: dances.has_no_effect_any_more(retriable=True), "first"),
}


def upgraded_and_crashed(verification: Verification, agent: str) -> list[Outcome]:
    """An upgrade of the agent at every turn, and with it, after or before, each crash that it may have."""
    with closing(Player(verification, "none")) as player:
        return list(_played(player, verification, agent))


def _played(player: Player, verification: Verification, agent: str) -> Iterator[Outcome]:
    (scenario,) = verification.scenarios
    plain = player.play(Job(scenario, look=True))
    upgrades = [Fault(point, "upgrade") for point, _ in plain.ahead if (point.what, point.where) == ("turn", agent)]
    crashes = [
        Fault(point, action)
        for point, _ in plain.ahead
        if point.where.partition("/")[0] == agent
        for action in verification.possible.at(point)
        if action in ("crash-before", "crash-after", "untold", "zombie")
    ]
    for upgrade in upgrades:
        upgraded = player.play(Job(scenario, (upgrade,), look=True))
        yield upgraded
        for point, _ in upgraded.ahead:
            if point.where.partition("/")[0] == agent:
                for action in verification.possible.at(point):
                    if action in ("crash-before", "crash-after", "untold", "zombie"):
                        yield player.play(Job(scenario, (upgrade, Fault(point, action))))
    for crash in crashes:
        crashed = player.play(Job(scenario, (crash,), look=True))
        for point, _ in crashed.ahead:
            if (point.what, point.where) == ("turn", agent):
                yield player.play(Job(scenario, (crash, Fault(point, "upgrade"))))


def nothing_began(marks: Marks, record: Record) -> bool:
    return False


@pytest.fixture(autouse=True)
def asks_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is cleverer the third time: an undo that refuses its input refuses it again."""
    monkeypatch.setattr(world, "MOST_PARKED", 2)


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_last_version_may_have_done_waits_for_somebody_and_is_never_called_compensated(change: str) -> None:
    make, agent = CHANGES[change]
    played = upgraded_and_crashed(make(), agent)
    codes = {found.code for outcome in played for found in outcome.violations}
    assert "stuck" in codes
    wrong = [str(each.job) for each in played if {found.code for found in each.violations} - {"stuck", "verdict"}]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    "make",
    [
        lambda: dances.waits_now("nothing"),
        lambda: dances.waits_now("a lock"),
        lambda: dances.waits_now("a lock", twice=True),
        lambda: dances.waits_now("a lock after all"),
        lambda: dances.waits_now("a lock after all", twice=True),
        lambda: dances.waits_now("a grant"),
    ],
    ids=[
        "nothing",
        "a lock",
        "a lock that is taken",
        "a lock after all",
        "a taken lock after all",
        "a grant",
    ],
)
def test_what_the_last_version_began_at_once_is_undone_where_the_next_one_waits_for_more(
    make: Callable[[], Verification],
) -> None:
    wrong = [
        (str(each.job), *map(str, each.violations))
        for each in upgraded_and_crashed(make(), "taker")
        if {found.code for found in each.violations} - {"verdict"}
    ]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    ("waits", "refuse"),
    [("an input more", "other"), ("an input more", "last"), ("a grant, and takes less", "other"), ("a grant", "last")],
)
def test_what_no_undo_takes_any_more_or_was_let_go_past_its_pivot_waits_for_somebody(waits: dances.Waits, refuse: str) -> None:
    played = upgraded_and_crashed(dances.waits_now(waits, refuse), "taker")
    assert "stuck" in {found.code for each in played for found in each.violations}
    wrong = [
        (str(each.job), *map(str, each.violations))
        for each in played
        if {found.code for found in each.violations} - {"stuck", "verdict"}
    ]
    assert not wrong, wrong[:5]


@sources_only
@pytest.mark.parametrize("change", sorted(CHANGES.keys() - {"a step is retriable now"}))  # that does again what it did
def test_without_what_a_lane_remembers_of_other_versions_effects_are_left(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Marks, "may_have_begun_otherwise", nothing_began)
    make, agent = CHANGES[change]
    assert any(found.code == "effect.stands" for each in upgraded_and_crashed(make(), agent) for found in each.violations)
