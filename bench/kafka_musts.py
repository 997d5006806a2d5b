"""Musts: what each figure has to be, said beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import ge, le

from bench.kafka_worker import Figures

NOT_MEANT = (", traced", ", bare", ", interpreted")
"""What stands beside a figure to compare it with, and has no bound of its own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to say of a figure, and whether it is as it must be."""

    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Must:
    """A bound on one figure of the variants whose names begin so."""

    bench: str
    variant: str
    figure: str
    bound: float
    at_least: bool = False

    def verdict(self, variant: str, figures: Figures) -> Verdict | None:
        """That on one variant; None where it is not meant."""
        if not variant.startswith(self.variant) or self.figure not in figures or variant.endswith(NOT_MEANT):
            return None
        value = figures[self.figure]
        holds = (ge if self.at_least else le)(value, self.bound)
        word = "at least" if self.at_least else "at most"
        said = "holds" if holds else "FAILS"
        return Verdict(holds, f"{said}: {variant}: {self.figure} is {value:.4g}, {word} {self.bound:g}")


MUSTS = (
    Must("throughput", "agent", "of_bare", 0.6, at_least=True),
    Must("throughput", "agent", "cpu_us_per_msg", 50.0),
    Must("tax", "lean", "tax_us", 15.0),
    Must("tax", "lean", "of_stock", 0.125),
    Must("tax", "unsampled", "beside_us", 2.0),
    Must("latency", "1 hop, 20/s", "p50_ms", 15.0),
    Must("latency", "1 hop, 20/s", "p99_ms", 60.0),
    Must("latency", "5 agents, 20/s", "p50_ms", 60.0),
    Must("latency", "5 agents, 20/s", "p99_ms", 300.0),
    Must("credit", "", "sagas_per_s", 300.0, at_least=True),
    Must("credit", "", "p99_ms", 1000.0),
    Must("failing", "100 %", "of_none", 0.5, at_least=True),
    Must("memory", "backlog", "peak_mb", 120.0),
    Must("growth", "", "peak_mb", 120.0),
    Must("kill", "", "beyond_session_s", 2.0),
    Must("restore", "", "restored_s", 10.0),
)
"""The table of musts; 50 us of processor time a message are 20,000 a second and core."""


def judged(bench: str, found: Mapping[str, Figures]) -> Iterator[Verdict]:
    """Those on a table."""
    for must in MUSTS:
        for variant, figures in found.items():
            verdict = must.verdict(variant, figures) if must.bench == bench else None
            if verdict is not None:
                yield verdict
