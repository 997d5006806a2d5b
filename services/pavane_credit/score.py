"""credit-score: files an inquiry at a bureau and computes a score from the points table."""

from datetime import timedelta

from pavane import Agent, Context, Retry
from pavane_credit import points
from pavane_credit.events import ApplicationSubmitted, ScoreComputed
from pavane_credit.faults import BUREAU_ATTEMPTS
from pavane_credit.ledger import Books
from pavane_credit.seam import Seam

agent = Agent("credit-score")
agent.breaker("bureau", failures=20, reset=timedelta(seconds=1))
books = Books(agent.name)
seam = Seam(books)
agent.lifespan(books.lifespan)


@agent.step(retry=Retry(attempts=BUREAU_ATTEMPTS, first_s=0.05), within=timedelta(seconds=60))
async def compute_score(application: ApplicationSubmitted, ctx: Context) -> ScoreComputed:
    """File the inquiry, ask the bureau, add up the points."""
    books.ledger.do(ctx, application.application_id, "inquiry")
    async with ctx.breaker("bureau"):
        seam.call_bureau(application.application_id, ctx)
    scored = points.score(application)
    return ScoreComputed(
        application_id=application.application_id,
        score=scored.score,
        confidence=seam.confidence(application.application_id, scored.confidence),
        reasons=scored.reasons,
    )


@compute_score.compensate(within=timedelta(seconds=30))
async def withdraw_inquiry(application: ApplicationSubmitted, done: ScoreComputed | None, ctx: Context) -> None:
    """Withdraw the inquiry, whether or not it is known to have been filed."""
    books.ledger.undo(ctx)
