"""approval: joins the rating and the fraud check, and books the offer."""

from datetime import timedelta

from pavane import Agent, Context
from pavane_credit.events import CreditApproved, CreditDeclined, FraudCleared, RiskReady
from pavane_credit.ledger import Books

agent = Agent("approval")
books = Books(agent.name)
agent.lifespan(books.lifespan)


@agent.step(within=timedelta(seconds=60))
async def decide(risk: RiskReady, fraud: FraudCleared, ctx: Context) -> CreditApproved | CreditDeclined:
    """Book the offer for every rating but D; a declined application leaves no offer."""
    if risk.rating == "D":
        return CreditDeclined(application_id=risk.application_id, rating=risk.rating, reason="the score is too low")
    books.ledger.do(ctx, risk.application_id, "offer", risk.exposure_dm)
    return CreditApproved(application_id=risk.application_id, amount_dm=risk.exposure_dm, rating=risk.rating)


@decide.compensate
async def withdraw_offer(
    risk: RiskReady, fraud: FraudCleared, done: CreditApproved | CreditDeclined | None, ctx: Context
) -> None:
    """Withdraw the offer, where there is one."""
    books.ledger.undo(ctx)
