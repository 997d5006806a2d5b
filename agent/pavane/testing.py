"""Testing: what tests of your own choreography are written with."""

from pavane.simulation.report import Report, VerificationFailed
from pavane.simulation.verification import HistoryPlayed, SagaPlayed, Verification
from pavane.simulation.verify import verify

__all__ = ["HistoryPlayed", "Report", "SagaPlayed", "Verification", "VerificationFailed", "verify"]
