"""The points table: it is what the script finds, it sees no outcome, and it is worth something on held-out rows."""

from types import SimpleNamespace
from typing import cast

import pytest

from pavane_credit import fit_points
from pavane_credit.applications import read_applications
from pavane_credit.bins import EDGES, FACTORS, Factors, bin_of
from pavane_credit.fit_points import Row, factors_of, held_out, judge, literal, read_rows
from pavane_credit.points import APPROVAL_SCORE, BASE, HIGHEST, LOWEST, POINTS, RARE, score

ROWS = read_rows()
HELD_OUT = [row for row in ROWS if held_out(row)]
FITTED = [row for row in ROWS if not held_out(row)]


def with_values(row: Row, **changes: str) -> Factors:
    return factors_of({**row, **changes})


def reveal(row: Row, **more: object) -> Factors:
    """A row as the score sees it, and more that it should not look at."""
    return cast("Factors", SimpleNamespace(**vars(factors_of(row)), **more))


def test_the_table_is_what_the_script_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_points.fit(FITTED) == (BASE, POINTS, RARE)
    assert fit_points.main(["--check"]) == 0
    assert "POINTS" not in capsys.readouterr().out


def test_a_table_changed_by_hand_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fit_points, "BASE", BASE + 1)
    assert fit_points.main(["--check"]) == 1
    assert "differs" in capsys.readouterr().err


def test_what_the_script_prints_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_points.main([]) == 0
    text = literal(*fit_points.fit(FITTED))
    assert capsys.readouterr().out.startswith(text)
    pasted: dict[str, object] = {}
    exec("from collections.abc import Mapping\n" + text, pasted)
    assert (pasted["BASE"], pasted["POINTS"], pasted["RARE"]) == (BASE, POINTS, RARE)


def test_the_held_out_rows_do_not_take_part_in_the_fit() -> None:
    assert len(FITTED) + len(HELD_OUT) == 1000
    assert 0.25 < len(HELD_OUT) / 1000 < 0.35
    assert not {row["application_id"] for row in FITTED} & {row["application_id"] for row in HELD_OUT}


@pytest.mark.parametrize("name", ["repaid", "age_years", "telephone"])
def test_what_may_not_count_is_no_factor(name: str) -> None:
    assert name not in FACTORS
    assert name not in dir(Factors)
    assert name not in POINTS


def test_the_protocol_names_the_factors_of_the_table_and_no_others() -> None:
    assert {name for name in dir(Factors) if not name.startswith("_")} == set(FACTORS) == set(POINTS)


def test_another_outcome_age_or_telephone_changes_nothing() -> None:
    for row in ROWS:
        plain = score(factors_of(row))
        assert score(reveal(row, repaid=True, age_years=19, telephone=True)) == plain
        assert score(reveal(row, repaid=False, age_years=75, telephone=False)) == plain


def test_the_event_scores_as_its_row_does() -> None:
    events = {each.id: each.event for each in read_applications()}
    assert all(score(events[row["application_id"]]) == score(factors_of(row)) for row in ROWS)


def test_it_ranks_rows_that_it_was_not_found_on() -> None:
    assert judge(HELD_OUT).auc >= 0.74


def test_more_of_the_approved_repaid_than_of_all() -> None:
    found = judge(HELD_OUT)
    assert found.approved_repaid >= 0.85
    assert found.approved_repaid >= found.base_rate + 0.1
    assert 0.5 <= found.approved <= 0.65


def test_scores_stay_on_the_scale() -> None:
    scores = [score(factors_of(row)).score for row in ROWS]
    assert LOWEST <= min(scores) < APPROVAL_SCORE < max(scores) <= HIGHEST


def test_the_best_and_the_worst_are_clamped_to_the_scale() -> None:
    best, worst = dict(ROWS[0]), dict(ROWS[0])
    for factor in FACTORS:
        ranked = sorted({(points_of(factor, row[factor]), row[factor]) for row in ROWS})
        worst[factor], best[factor] = ranked[0][1], ranked[-1][1]
    assert score(factors_of(best)).score == HIGHEST
    assert score(factors_of(worst)).score == LOWEST


def test_most_applications_are_well_supported_and_a_few_are_not() -> None:
    unsure = [row for row in ROWS if score(factors_of(row)).confidence < 0.7]
    assert 0 < len(unsure) <= 70


def test_confidence_falls_with_every_seldom_value_and_no_further_than_none() -> None:
    row = next(row for row in ROWS if score(factors_of(row)).confidence == 1.0)
    assert score(with_values(row, savings="over_1000")).confidence == 0.88
    assert score(with_values(row, savings="over_1000", other_debtors="guarantor")).confidence == 0.76
    unheard_of = {factor: "unheard of" for factor in FACTORS if factor not in EDGES}
    assert score(with_values(row, **unheard_of)).confidence == 0.0


def test_an_unknown_value_gets_no_points() -> None:
    row = ROWS[0]
    known, unknown = with_values(row, housing="own"), with_values(row, housing="houseboat")
    assert score(known).score - score(unknown).score == POINTS["housing"]["own"]


def test_a_score_is_the_base_and_the_points_of_every_value() -> None:
    for row in ROWS:
        total = BASE + sum(POINTS[factor][name] for factor, name in fit_points.binned(row).items())
        assert score(factors_of(row)).score == min(HIGHEST, max(LOWEST, total))


def test_reasons_are_the_factors_that_cost_most() -> None:
    for row in ROWS:
        points = {factor: POINTS[factor][name] for factor, name in fit_points.binned(row).items()}
        costs = sorted((cost, factor) for factor, cost in points.items() if cost < 0)
        assert score(factors_of(row)).reasons == tuple(factor for _, factor in costs[:3])


@pytest.mark.parametrize(
    ("factor", "worse", "better"),
    [
        ("checking_account", "overdrawn", "under_200"),
        ("checking_account", "under_200", "over_200_or_salary"),
        ("checking_account", "over_200_or_salary", "none"),
        ("savings", "under_100", "over_1000"),
        ("employed_years", "under_1", "over_7"),
        ("duration_months", "48", "24"),
        ("duration_months", "24", "12"),
        ("duration_months", "12", "6"),
        ("instalment_rate_percent", "4", "1"),
    ],
)
def test_what_the_data_calls_better_scores_better(factor: str, worse: str, better: str) -> None:
    assert share_repaid(factor, worse) < share_repaid(factor, better)
    for row in ROWS[:50]:
        assert score(with_values(row, **{factor: worse})).score < score(with_values(row, **{factor: better})).score


@pytest.mark.parametrize(("months", "name"), [(9, "<10"), (10, "10..15"), (15, "10..15"), (16, "16..24"), (37, "37+")])
def test_a_bin_begins_at_its_edge(months: int, name: str) -> None:
    assert bin_of("duration_months", months) == name


def share_repaid(factor: str, value: str) -> float:
    """The share that repaid among the rows in the same bin."""
    name = fit_points.binned({**ROWS[0], factor: value})[factor]
    outcomes = [row["repaid"] == "yes" for row in ROWS if fit_points.binned(row)[factor] == name]
    return sum(outcomes) / len(outcomes)


def points_of(factor: str, value: str) -> int:
    return POINTS[factor][bin_of(factor, int(value) if factor in EDGES else value)]
