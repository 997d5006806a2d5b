"""income-verification: takes the applicant's consent and verifies that the instalment fits the income class."""

from datetime import timedelta

from pavane import Agent, Context, Rejected
from pavane_credit.events import ApplicationSubmitted, IncomeClass, IncomeVerified
from pavane_credit.ledger import Books
from pavane_credit.seam import Seam

agent = Agent("income-verification")
books = Books(agent.name)
seam = Seam(books)
agent.lifespan(books.lifespan)

_MOST_PER_MONTH_DM = {"low": 450, "middle": 700, "high": 1500}


@agent.step(within=timedelta(seconds=60))
async def verify_income(application: ApplicationSubmitted, ctx: Context) -> IncomeVerified:
    """Record the consent, then hold the monthly instalment against what the income class carries."""
    books.ledger.do(ctx, application.application_id, "consent")
    seam.after_effect(application.application_id)
    income = income_class(application)
    instalment = -(-application.amount_dm // application.duration_months)
    if instalment > _MOST_PER_MONTH_DM[income]:
        raise Rejected(f"the instalment is more than a {income} income carries")
    return IncomeVerified(
        application_id=application.application_id,
        amount_dm=application.amount_dm,
        duration_months=application.duration_months,
        instalment_dm=instalment,
        income_class=income,
    )


@verify_income.compensate(within=timedelta(seconds=30))
async def return_consent(application: ApplicationSubmitted, done: IncomeVerified | None, ctx: Context) -> None:
    """Return the consent."""
    books.ledger.undo(ctx)
    seam.after_undo(application.application_id, ctx, "consent")


def income_class(application: ApplicationSubmitted) -> IncomeClass:
    """From the job, one class down for those who have none at present."""
    order: tuple[IncomeClass, ...] = ("low", "middle", "high")
    rank = {"unemployed_or_unskilled": 0, "unskilled": 0, "skilled": 1, "management_or_self_employed": 2}[application.job]
    if application.employed_years == "unemployed":
        rank = max(0, rank - 1)
    return order[rank]
