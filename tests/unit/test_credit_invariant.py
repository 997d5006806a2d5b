"""The invariant: read from the ledgers, it finds every kind of violation and counts each one once."""

from pathlib import Path

import pytest

from pavane import Context
from pavane_credit.choreography import EFFECTS
from pavane_credit.invariant import Report, check_ledgers
from pavane_credit.ledger import Ledger
from pavane_credit.where import Where

AMOUNT_DM = 500
LINE_DM = 10_000


class Town:
    """All ledgers, and who did what in them."""

    def __init__(self, directory: Path) -> None:
        self.where = Where(ledgers=str(directory))
        self.approved: dict[str, int] = {}

    def do(self, agent: str, application: str, *, kind: str | None = None, amount: int = AMOUNT_DM, key: str = "") -> None:
        """One effect, as its agent writes it."""
        kind = kind or EFFECTS[agent]
        ledger = Ledger.open(agent, self.where)
        has_amount = kind in ("exposure", "offer")
        context = Context.fake(key=f"{agent} {application} {key}")
        ledger.do(context, application, kind, amount if has_amount else 0, LINE_DM if kind == "exposure" else None)
        ledger.close()

    def undo(self, agent: str, application: str) -> None:
        ledger = Ledger.open(agent, self.where)
        ledger.undo(Context.fake(key=f"{agent} {application} "))
        ledger.close()

    def approve(self, application: str) -> None:
        """All five effects, and the approval."""
        for agent in EFFECTS:
            self.do(agent, application)
        self.approved[application] = AMOUNT_DM

    def check(self) -> Report:
        return check_ledgers(self.where, self.approved)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """Two approved applications, and one that was declined and undone."""
    town = Town(tmp_path)
    town.approve("a")
    town.approve("b")
    for agent in EFFECTS:
        town.do(agent, "undone")
        town.undo(agent, "undone")
    return town


def test_it_holds_where_the_approved_have_their_five_and_others_none(town: Town) -> None:
    report = town.check()
    assert report.holds
    assert (report.standing_effects, report.missing_effects) == (0, 0)
    assert report.booked_dm == report.approved_dm == 2 * AMOUNT_DM


def test_it_holds_where_nothing_was_ever_done(tmp_path: Path) -> None:
    town = Town(tmp_path)
    for agent in EFFECTS:
        Ledger.open(agent, town.where).close()
    assert town.check().holds


def test_ledgers_that_are_not_there_are_no_proof_and_are_not_made(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    report = Town(nowhere).check()
    assert len(report.problems) == len(EFFECTS)
    assert all(f"there is no ledger of {agent} in {nowhere}" in report.problems for agent in EFFECTS)
    assert not report.holds
    assert not nowhere.exists()


@pytest.mark.parametrize("agent", EFFECTS)
def test_an_effect_that_should_not_stand_is_found(town: Town, agent: str) -> None:
    town.do(agent, "forgotten")
    report = town.check()
    assert (report.standing_effects, report.missing_effects) == (1, 0)
    assert f"{EFFECTS[agent]} of forgotten stands and should not" in report.problems
    assert not report.holds


@pytest.mark.parametrize("agent", EFFECTS)
def test_an_effect_that_is_missing_is_found(town: Town, agent: str) -> None:
    town.undo(agent, "a")
    report = town.check()
    assert (report.standing_effects, report.missing_effects) == (0, 1)
    assert f"{EFFECTS[agent]} of a is missing" in report.problems


@pytest.mark.parametrize("agent", EFFECTS)
def test_an_effect_that_stands_twice_is_found_once(town: Town, agent: str) -> None:
    town.do(agent, "a", key="again")
    report = town.check()
    assert (report.standing_effects, report.missing_effects) == (1, 0)


def test_two_effects_that_should_not_stand_are_two(town: Town) -> None:
    town.do("approval", "forgotten")
    town.do("approval", "forgotten", key="again")
    assert town.check().standing_effects == 2


def test_an_effect_of_another_kind_is_none_of_the_five(town: Town) -> None:
    town.undo("approval", "a")
    town.do("approval", "a", kind="promise", key="again")
    report = town.check()
    assert (report.standing_effects, report.missing_effects) == (1, 1)
    assert report.problems == ("promise of a stands and should not", "offer of a is missing")


def test_another_amount_than_the_approved_one_is_found(town: Town) -> None:
    town.undo("approval", "a")
    town.do("approval", "a", amount=AMOUNT_DM + 1, key="again")
    report = town.check()
    assert (report.standing_effects, report.missing_effects) == (1, 1)


def test_exposure_that_does_not_add_up_is_found(town: Town) -> None:
    town.approved["a"] += 1
    report = town.check()
    assert report.problems[-1] == f"{2 * AMOUNT_DM} DM of exposure are booked, {2 * AMOUNT_DM + 1} DM are approved"


def test_it_counts_the_crashes_and_refusals_that_took_place(town: Town) -> None:
    ledger = Ledger.open("income-verification", town.where)
    ledger.note("crashed", "a")
    ledger.note("refused", "a")
    ledger.note("refused", "b")
    ledger.close()
    report = town.check()
    assert (report.crashes, report.refusals) == (1, 2)
    assert report.holds
