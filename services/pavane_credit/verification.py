"""Verification: the credit decision under every fault; ``pavane verify pavane_credit.verification:credit``."""

from collections.abc import Generator
from contextlib import contextmanager

from pavane.testing import Answer, HistoryPlayed, Verification
from pavane_credit import approval, clerk, fraud, income, risk, score
from pavane_credit.applications import read_applications
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.events import CreditApproved, ReviewRequested
from pavane_credit.invariant import compare
from pavane_credit.where import Where

_BOOKS = (score.books, income.books, fraud.books, risk.books, approval.books)
_CASES = {
    "approved": "DE-0001",
    "declined": "DE-0002",
    "suspected": "DE-0353",
    "unaffordable": "DE-0431",
    "unsure": "DE-0056",
    "reviewed": "DE-0135",
    "reviewed and declined": "DE-0334",
}
"""One application for each way that a decision can take; the score of the last is too uncertain for risk's contract."""


def ledgers_agree(history: HistoryPlayed) -> None:
    """Every approved application has its five effects, every other one has none, and the line holds what is approved."""
    approved: dict[str, int] = {}
    for saga in history.sagas:
        for event in saga.said(CreditApproved):
            if saga.verdict == "completed":
                approved[event.application_id] = event.amount_dm
    standing, missing = compare({books.name: books.ledger.effects() for books in _BOOKS}, approved)
    problems = [f"{kind} of {application} stands and should not" for application, kind in standing]
    problems += [f"{kind} of {application} is missing" for application, kind in missing]
    booked, total = risk.books.ledger.booked_dm(), sum(approved.values())
    if booked != total:
        problems.append(f"{booked} DM of exposure are booked, {total} DM are approved")
    assert not problems, "; ".join(problems)


def empty_ledgers() -> None:
    """As if nobody had ever applied."""
    for books in _BOOKS:
        books.ledger.clear()


@contextmanager
def ledgers_in_memory() -> Generator[None]:
    """The agents' ledgers, apart from any that is at work."""
    where = Where(ledgers=":memory:verification-", faults="none")
    for books in _BOOKS:
        books.settle(where)
    try:
        yield
    finally:
        for books in _BOOKS:
            books.settle(None)


_APPLICATIONS = {each.id: each.event for each in read_applications()}

credit = Verification(
    agents=AGENTS,
    sagas=SAGAS,
    starts={
        **{case: _APPLICATIONS[application] for case, application in _CASES.items()},
        "two of one person": [
            _APPLICATIONS[each].model_copy(update={"applicant_id": "ann", "application_id": f"ANN-{each}"})
            for each in ("DE-0001", "DE-0353")
        ],
    },
    answers=[Answer(ReviewRequested, clerk.judge)],
    invariant=ledgers_agree,
    reset=empty_ledgers,
    around=ledgers_in_memory,
)
