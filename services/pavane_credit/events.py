"""What the credit agents say to each other. Every event carries what later steps need: nobody reads anybody's store."""

from typing import Literal

from pydantic import ConfigDict, Field

from pavane import Event

IncomeClass = Literal["low", "middle", "high"]
Rating = Literal["A", "B", "C", "D"]


class ApplicationSubmitted(Event, type="credit.application-submitted", version=1):
    """Somebody applies for a credit. Amounts are in whole Deutsche Mark, codes as in ``data/README.md``.

    It comes from outside, so its types are taken at their word: ``"1169"`` is no number, as the published schema says.
    """

    model_config = ConfigDict(strict=True)

    application_id: str = Field(min_length=1, max_length=64)
    checking_account: Literal["overdrawn", "under_200", "over_200_or_salary", "none"]
    duration_months: int = Field(ge=1, le=120)
    credit_history: Literal["none_or_all_paid", "all_paid_here", "existing_paid_duly", "past_delay", "critical_or_other_bank"]
    purpose: Literal[
        "business",
        "car_new",
        "car_used",
        "domestic_appliances",
        "education",
        "furniture",
        "other",
        "radio_television",
        "repairs",
        "retraining",
    ]
    amount_dm: int = Field(ge=1, le=1_000_000)
    savings: Literal["under_100", "100_to_500", "500_to_1000", "over_1000", "unknown_or_none"]
    employed_years: Literal["unemployed", "under_1", "1_to_4", "4_to_7", "over_7"]
    instalment_rate_percent: int = Field(ge=1, le=4)
    other_debtors: Literal["none", "co_applicant", "guarantor"]
    residence_years: int = Field(ge=1, le=4)
    property: Literal["real_estate", "savings_or_life_insurance", "car_or_other", "unknown_or_none"]
    age_years: int = Field(ge=18, le=120)
    other_instalment_plans: Literal["bank", "stores", "none"]
    housing: Literal["own", "rent", "free"]
    existing_credits: int = Field(ge=1, le=10)
    job: Literal["unemployed_or_unskilled", "unskilled", "skilled", "management_or_self_employed"]
    dependants: int = Field(ge=0, le=20)
    telephone: bool
    applicant_id: str | None = Field(default=None, min_length=1, max_length=64)
    """Whose it is, where that is known: nobody has two applications open at once."""


class ScoreComputed(Event, type="credit.score-computed", version=1):
    """The points table's answer."""

    application_id: str
    score: int = Field(ge=300, le=850)
    confidence: float = Field(ge=0, le=1)
    reasons: tuple[str, ...] = ()


class ConfidentScore(ScoreComputed):
    """A score that risk may build on: its own, narrower contract with whoever scores."""

    confidence: float = Field(ge=0.7, le=1)


class IncomeVerified(Event, type="credit.income-verified", version=1):
    """The instalment fits the income class."""

    application_id: str
    amount_dm: int = Field(ge=1)
    duration_months: int = Field(ge=1)
    instalment_dm: int = Field(ge=1)
    income_class: IncomeClass


class FraudCleared(Event, type="credit.fraud-cleared", version=1):
    """The application is consistent with itself."""

    application_id: str
    identity: str


class FraudSuspected(Event, type="credit.fraud-suspected", version=1):
    """The application contradicts itself: the saga fails."""

    application_id: str
    rules: tuple[str, ...] = Field(min_length=1)


class RiskReady(Event, type="credit.risk-ready", version=1):
    """Rated, and the exposure is reserved."""

    application_id: str
    score: int = Field(ge=300, le=850)
    rating: Rating
    exposure_dm: int = Field(ge=1)


class ReviewRequested(Event, type="credit.review-requested", version=1):
    """The amount is so large that a person is to decide."""

    application_id: str
    amount_dm: int = Field(ge=1)
    rating: Rating


class ReviewAnswered(Event, type="credit.review-answered", version=1):
    """A person has decided. It comes from outside."""

    model_config = ConfigDict(strict=True)

    application_id: str = Field(min_length=1, max_length=64)
    granted: bool
    by: str = Field(min_length=1, max_length=100)
    reason: str = Field(default="", max_length=500)


class CreditApproved(Event, type="credit.approved", version=1):
    """The offer is booked."""

    application_id: str
    amount_dm: int = Field(ge=1)
    rating: Rating


class CreditDeclined(Event, type="credit.declined", version=1):
    """No offer: whatever was reserved for it is to be given back."""

    application_id: str
    rating: Rating
    reason: str
