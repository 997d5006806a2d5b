"""Finding: one break in continuity, by name; and the report of all that a check found."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pavane_tracing.naming import counted

Code = Literal[
    "span.doubled",
    "span.orphan",
    "trace.roots",
    "trace.large",
    "saga.changed",
    "hop.untraced",
    "hop.unsent",
    "hop.lost",
    "hop.flattened",
    "hop.unlinked",
    "hop.doubled",
    "hop.service",
    "hop.saga",
]

LOSSES: frozenset[Code] = frozenset({"span.orphan", "hop.unsent", "hop.lost"})
"""What a process leaves behind that was killed before it had exported its last spans."""

MOST_FINDINGS = 1_000
"""How many findings of a report are kept; all are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One break: a stable code, the hop by name, what is wrong with it, and the trace and saga that it is in."""

    code: Code
    hop: str
    message: str
    trace: str | None = None
    saga: str | None = None

    def __str__(self) -> str:
        return f"{self.hop}: {self.message}"

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ContinuityReport:
    """What was looked at, and every break.

    ``hops``: records on their way to somebody who worked on them. ``orphans``: spans whose parent is not in their trace.
    ``missing``: spans that are not there and must have been, each once, however many breaks it makes. ``redelivered``:
    further spans of work whose commit is not in the log: its lane was lost, or its process died, and another did it again.
    ``unsampled``: sagas of which no span was to be made; they owe none.
    ``counts`` has every finding by its code, ``findings`` the first thousand.
    """

    sagas: int = 0
    traces: int = 0
    roots: int = 0
    orphans: int = 0
    spans: int = 0
    links: int = 0
    hops: int = 0
    missing: int = 0
    redelivered: int = 0
    unsampled: int = 0
    counts: Mapping[Code, int] = field(default_factory=dict[Code, int])
    findings: tuple[Finding, ...] = ()

    def broken(self, lost_allowed: int = 0) -> tuple[Finding, ...]:
        """The findings that count; where no more spans are missing than killed processes may take along, only the others."""
        if self.missing > lost_allowed:
            return self.findings
        return tuple(finding for finding in self.findings if finding.code not in LOSSES)

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        figures = {name: getattr(self, name) for name in self.__slots__ if name not in ("counts", "findings")}
        return {**figures, "counts": dict(self.counts), "findings": [each.to_json() for each in self.findings]}

    def __str__(self) -> str:
        found = ", ".join(f"{count} {code}" for code, count in sorted(self.counts.items())) or "no finding"
        redelivered = f", {self.redelivered} redelivered" if self.redelivered else ""
        sagas = counted(self.sagas, "saga") + (f" ({self.unsampled} unsampled)" if self.unsampled else "")
        nouns = {"trace": self.traces, "root": self.roots, "orphan": self.orphans, "span": self.spans, "hop": self.hops}
        seen = ", ".join([sagas, *(counted(number, noun) for noun, number in nouns.items())])
        return f"{seen}{redelivered}; {counted(self.missing, 'span')} missing: {found}"


@dataclass(slots=True)
class Tally:
    """A report in the making. Its memory is bounded, whatever is added."""

    sagas: int = 0
    traces: int = 0
    roots: int = 0
    orphans: int = 0
    spans: int = 0
    links: int = 0
    hops: int = 0
    missing: int = 0
    redelivered: int = 0
    unsampled: int = 0
    counts: Counter[Code] = field(default_factory=Counter[Code])
    findings: list[Finding] = field(default_factory=list[Finding])

    def find(self, findings: Iterable[Finding]) -> None:
        """Count findings, and keep them while there is room."""
        for finding in findings:
            self.counts[finding.code] += 1
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(finding)

    def report(self) -> ContinuityReport:
        """What was found so far."""
        return ContinuityReport(
            sagas=self.sagas,
            traces=self.traces,
            roots=self.roots,
            orphans=self.orphans,
            spans=self.spans,
            links=self.links,
            hops=self.hops,
            missing=self.missing,
            redelivered=self.redelivered,
            unsampled=self.unsampled,
            counts=dict(self.counts),
            findings=tuple(self.findings),
        )


def assert_continuous(report: ContinuityReport, *, lost_allowed: int = 0) -> None:
    """Raise AssertionError with every finding that counts, by :meth:`ContinuityReport.broken`."""
    broken = report.broken(lost_allowed)
    if broken:
        listed = "\n".join(f"  - {finding} ({finding.code})" for finding in broken[:50])
        raise AssertionError(f"the trace is broken: {report}\n{listed}")
