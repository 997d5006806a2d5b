"""risk-assessment: joins score and income, rates, and reserves the exposure against a limited credit line."""

from datetime import timedelta

from pavane import Agent, Context
from pavane_credit.events import ConfidentScore, IncomeVerified, Rating, RiskReady
from pavane_credit.ledger import Books
from pavane_credit.points import APPROVAL_SCORE

agent = Agent("risk-assessment")
books = Books(agent.name)
agent.lifespan(books.lifespan)


@agent.step(within=timedelta(seconds=60))
async def assess(score: ConfidentScore, income: IncomeVerified, ctx: Context) -> RiskReady:
    """Rate by what the two events say, and reserve the amount. The line is a limit: past it, no."""
    books.ledger.do(ctx, score.application_id, "exposure", income.amount_dm, line_dm=books.where.line_dm)
    return RiskReady(
        application_id=score.application_id,
        score=score.score,
        rating=rate(score.score),
        exposure_dm=income.amount_dm,
    )


@assess.compensate(within=timedelta(seconds=30))
async def release_exposure(score: ConfidentScore, income: IncomeVerified, done: RiskReady | None, ctx: Context) -> None:
    """Give the exposure back to the line."""
    books.ledger.undo(ctx)


def rate(score: int) -> Rating:
    """A and B from sixty points above the approval score on, C from the approval score on, D below."""
    if score < APPROVAL_SCORE:
        return "D"
    if score < APPROVAL_SCORE + 60:
        return "C"
    return "B" if score < APPROVAL_SCORE + 120 else "A"
