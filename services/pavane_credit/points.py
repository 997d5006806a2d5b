"""The points table: how a score comes about. Found by :mod:`pavane_credit.fit_points`, which also judges it.

Forty points double the odds of repayment, and 540 are even odds. The outcome is no input. Nor is age, which many
jurisdictions protect, nor is the telephone, residence or dependants.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pavane_credit.bins import CODES, EDGES, Factors, bin_of

LOWEST, HIGHEST = 300, 850
APPROVAL_SCORE = 580
"""From this score on an application may be approved: even odds plus forty, so about two who repay to one who does not
at the cut-off itself. Of the fitting rows 62 % reach it and 87 % of those repaid (``python -m pavane_credit.fit_points``)."""

_COST_OF_RARE = 0.12

BASE = 584
POINTS: Mapping[str, Mapping[str, int]] = {
    "checking_account": {"none": 59, "over_200_or_salary": 22, "overdrawn": -45, "under_200": -17},
    "credit_history": {
        "all_paid_here": -46,
        "critical_or_other_bank": 35,
        "existing_paid_duly": -2,
        "none_or_all_paid": -66,
        "past_delay": -4,
    },
    "purpose": {
        "business": -21,
        "car_new": -12,
        "car_used": 35,
        "domestic_appliances": -14,
        "education": -39,
        "furniture": -4,
        "other": -16,
        "radio_television": 22,
        "repairs": -4,
        "retraining": 23,
    },
    "savings": {"100_to_500": -5, "500_to_1000": 33, "over_1000": 39, "under_100": -13, "unknown_or_none": 31},
    "employed_years": {"1_to_4": -3, "4_to_7": 22, "over_7": 13, "under_1": -23, "unemployed": -21},
    "other_debtors": {"co_applicant": -23, "guarantor": 38, "none": -1},
    "property": {"car_or_other": -1, "real_estate": 7, "savings_or_life_insurance": 0, "unknown_or_none": -9},
    "other_instalment_plans": {"bank": -23, "none": 6, "stores": -19},
    "housing": {"free": -23, "own": 10, "rent": -19},
    "job": {"management_or_self_employed": 6, "skilled": -1, "unemployed_or_unskilled": 7, "unskilled": -3},
    "duration_months": {"10..15": 17, "16..24": -5, "25..36": -18, "37+": -33, "<10": 29},
    "amount_dm": {"1000..1999": 4, "2000..3999": 23, "4000..6999": -28, "7000+": -41, "<1000": 8},
    "instalment_rate_percent": {"2..2": 13, "3..3": 7, "4+": -16, "<2": 27},
    "existing_credits": {"2+": -1, "<2": 1},
}
RARE: Mapping[str, list[str]] = {
    "credit_history": ["all_paid_here", "none_or_all_paid"],
    "purpose": ["domestic_appliances", "education", "other", "repairs", "retraining"],
    "savings": ["over_1000"],
    "other_debtors": ["co_applicant", "guarantor"],
    "other_instalment_plans": ["stores"],
    "job": ["unemployed_or_unskilled"],
}


class Scored(NamedTuple):
    """A score (300 to 850), how well it is supported (0 to 1), and up to three factors that cost most points."""

    score: int
    confidence: float
    reasons: tuple[str, ...]


def score(application: Factors) -> Scored:
    """Add up the points of an application.

    Confidence falls by 0.12 for every value that fewer than 5.5 % of the fitting rows had, or none: what is seldom
    seen is poorly known. A value that the table does not know gets no points.
    """
    total = BASE
    rare = 0
    costs: list[tuple[int, str]] = []
    for factor in CODES:
        total, rare = _add(factor, getattr(application, factor), total, rare, costs)
    for factor in EDGES:
        total, rare = _add(factor, bin_of(factor, getattr(application, factor)), total, rare, costs)
    costs.sort()
    return Scored(
        score=min(HIGHEST, max(LOWEST, total)),
        confidence=round(max(0.0, 1.0 - _COST_OF_RARE * rare), 2),
        reasons=tuple(factor for _, factor in costs[:3]),
    )


def _add(factor: str, name: str, total: int, rare: int, costs: list[tuple[int, str]]) -> tuple[int, int]:
    points = POINTS[factor].get(name)
    if points is None:
        return total, rare + 1
    if points < 0:
        costs.append((points, factor))
    return total + points, rare + (name in RARE.get(factor, ()))
