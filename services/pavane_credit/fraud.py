"""fraud-detection: holds the identity and tests whether the application is consistent with itself."""

from collections.abc import Callable
from datetime import timedelta

from pavane import Agent, Context
from pavane_credit.events import ApplicationSubmitted, FraudCleared, FraudSuspected
from pavane_credit.ledger import Books
from pavane_credit.seam import Seam

agent = Agent("fraud-detection")
books = Books(agent.name)
seam = Seam(books)
agent.lifespan(books.lifespan)

RULES: dict[str, Callable[[ApplicationSubmitted], bool]] = {
    "well-paid job, nobody employs them": lambda each: (
        each.job == "management_or_self_employed" and each.employed_years == "unemployed"
    ),
    "several credits, no credit history": lambda each: (
        each.existing_credits >= 2 and each.credit_history == "none_or_all_paid"
    ),
    "seven years employed before the age of twenty-three": lambda each: (
        each.employed_years == "over_7" and each.age_years < 23
    ),
    "owns a home, has no property": lambda each: each.housing == "own" and each.property == "unknown_or_none",
    "savings unknown, large amount": lambda each: each.savings == "unknown_or_none" and each.amount_dm > 12_000,
}
"""What does not go together. One such thing may be an oversight, two are suspicious."""

_SUSPICIOUS = 2


def whose(application: ApplicationSubmitted) -> str | None:
    """One person has one application open at a time: what another saga of theirs has to wait for."""
    return f"applicant/{application.applicant_id}" if application.applicant_id is not None else None


@agent.step(within=timedelta(seconds=60), lock=whose)
async def check_identity(application: ApplicationSubmitted, ctx: Context) -> FraudCleared | FraudSuspected:
    """Hold the identity, then look for contradictions."""
    books.ledger.do(ctx, application.application_id, "identity")
    broken = tuple(name for name, rule in RULES.items() if rule(application))
    if len(broken) >= _SUSPICIOUS:
        return FraudSuspected(application_id=application.application_id, rules=broken)
    return FraudCleared(application_id=application.application_id, identity=ctx.idempotency_key)


@check_identity.compensate(within=timedelta(seconds=30))
async def release_identity(
    application: ApplicationSubmitted, done: FraudCleared | FraudSuspected | None, ctx: Context
) -> None:
    """Release the identity."""
    seam.before_undo(application.application_id, ctx)
    books.ledger.undo(ctx)
