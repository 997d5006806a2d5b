"""Testing: what tests of your own choreography are written with."""

from pavane.simulation.report import Report, VerificationFailed
from pavane.simulation.verification import Answer, HistoryPlayed, SagaPlayed, Verification
from pavane.simulation.verify import verify

__all__ = ["Answer", "HistoryPlayed", "Report", "SagaPlayed", "Verification", "VerificationFailed", "verify"]
