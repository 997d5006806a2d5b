"""The choreography: the saga, and everybody who takes part."""

from datetime import timedelta

from pavane import Saga
from pavane_credit import approval, fraud, income, risk, score
from pavane_credit.events import ApplicationSubmitted, CreditApproved, CreditDeclined, FraudSuspected, ReviewAnswered

decision = Saga(
    "credit-decision",
    starts=ApplicationSubmitted,
    completes=CreditApproved,
    fails=(CreditDeclined, FraudSuspected),
    deadline=timedelta(days=3),
    answers=ReviewAnswered,
    intake="credit.applications",
)

AGENTS = (score.agent, income.agent, fraud.agent, risk.agent, approval.agent)
SAGAS = (decision,)
EFFECTS = {
    score.agent.name: "inquiry",
    income.agent.name: "consent",
    fraud.agent.name: "identity",
    risk.agent.name: "exposure",
    approval.agent.name: "offer",
}
"""By agent, the kind of effect that every approved application has once."""
