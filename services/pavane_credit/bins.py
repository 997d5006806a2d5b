"""Bins: how the numbers of an application become the values that the points table names."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Protocol


class Factors(Protocol):
    """What a score may look at. The outcome is not there, nor age or telephone: they are no ground for a decision."""

    @property
    def checking_account(self) -> str: ...
    @property
    def duration_months(self) -> int: ...
    @property
    def credit_history(self) -> str: ...
    @property
    def purpose(self) -> str: ...
    @property
    def amount_dm(self) -> int: ...
    @property
    def savings(self) -> str: ...
    @property
    def employed_years(self) -> str: ...
    @property
    def instalment_rate_percent(self) -> int: ...
    @property
    def other_debtors(self) -> str: ...
    @property
    def other_instalment_plans(self) -> str: ...
    @property
    def housing(self) -> str: ...
    @property
    def existing_credits(self) -> int: ...
    @property
    def job(self) -> str: ...
    @property
    def property(self) -> str: ...  # last: from here on the name means the factor


CODES = (
    "checking_account",
    "credit_history",
    "purpose",
    "savings",
    "employed_years",
    "other_debtors",
    "property",
    "other_instalment_plans",
    "housing",
    "job",
)
"""Factors that are codes: each value is a bin of its own."""

EDGES: Mapping[str, tuple[int, ...]] = {
    "duration_months": (10, 16, 25, 37),
    "amount_dm": (1000, 2000, 4000, 7000),
    "instalment_rate_percent": (2, 3, 4),
    "existing_credits": (2,),
}
"""Factors that are numbers: the lowest value of every bin but the first."""

FACTORS = (*CODES, *EDGES)


def bin_of(factor: str, value: str | int) -> str:
    """The name of a value's bin: the code itself, or ``<10``, ``10..15``, ``37+``."""
    if isinstance(value, str):
        return value
    edges = EDGES[factor]
    place = bisect_right(edges, value)
    if place == 0:
        return f"<{edges[0]}"
    if place == len(edges):
        return f"{edges[-1]}+"
    return f"{edges[place - 1]}..{edges[place] - 1}"
