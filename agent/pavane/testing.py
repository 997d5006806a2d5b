"""Testing: what tests of your own choreography are written with."""

from pavane.asserting import assert_continuous
from pavane.continuity import check_bus
from pavane.simulation.report import Report, VerificationFailed
from pavane.simulation.verification import Answer, HistoryPlayed, SagaPlayed, Verification
from pavane.simulation.verify import verify
from pavane_tracing.finding import ContinuityReport, Finding

__all__ = [
    "Answer",
    "ContinuityReport",
    "Finding",
    "HistoryPlayed",
    "Report",
    "SagaPlayed",
    "Verification",
    "VerificationFailed",
    "assert_continuous",
    "check_bus",
    "verify",
]
