"""approval: joins the rating and the fraud check, has large credits reviewed by a person, and books the offer."""

from datetime import timedelta

from pavane import Agent, Context
from pavane_credit.events import (
    CreditApproved,
    CreditDeclined,
    FraudCleared,
    Rating,
    ReviewAnswered,
    ReviewRequested,
    RiskReady,
)
from pavane_credit.ledger import Books

agent = Agent("approval")
books = Books(agent.name)
agent.lifespan(books.lifespan)

REVIEWED_FROM_DM = 10_000
"""From this amount on a person decides: forty of the thousand applications ask for so much."""


@agent.step(within=timedelta(seconds=60))
async def decide(risk: RiskReady, fraud: FraudCleared, ctx: Context) -> CreditApproved | CreditDeclined | ReviewRequested:
    """Book the offer for every rating but D; a declined application leaves no offer, a large one is reviewed first."""
    if risk.rating == "D":
        return CreditDeclined(application_id=risk.application_id, rating=risk.rating, reason="the score is too low")
    if risk.exposure_dm >= REVIEWED_FROM_DM:
        return ReviewRequested(application_id=risk.application_id, amount_dm=risk.exposure_dm, rating=risk.rating)
    return _book(ctx, risk.application_id, risk.exposure_dm, risk.rating)


@decide.compensate(within=timedelta(seconds=30))
async def withdraw_offer(
    risk: RiskReady, fraud: FraudCleared, done: CreditApproved | CreditDeclined | ReviewRequested | None, ctx: Context
) -> None:
    """Withdraw the offer, where there is one."""
    books.ledger.undo(ctx)


@agent.step(external=True, within=timedelta(days=2))
async def conclude(review: ReviewRequested, answer: ReviewAnswered, ctx: Context) -> CreditApproved | CreditDeclined:
    """Do as the person says who has reviewed it; who says nothing for two days has not approved it."""
    if not answer.granted:
        return CreditDeclined(application_id=review.application_id, rating=review.rating, reason=answer.reason)
    return _book(ctx, review.application_id, review.amount_dm, review.rating)


@conclude.compensate(within=timedelta(seconds=30))
async def withdraw_reviewed_offer(
    review: ReviewRequested, answer: ReviewAnswered, done: CreditApproved | CreditDeclined | None, ctx: Context
) -> None:
    """Withdraw the offer, where there is one."""
    books.ledger.undo(ctx)


def _book(ctx: Context, application_id: str, amount_dm: int, rating: Rating) -> CreditApproved:
    books.ledger.do(ctx, application_id, "offer", amount_dm)
    return CreditApproved(application_id=application_id, amount_dm=amount_dm, rating=rating)
