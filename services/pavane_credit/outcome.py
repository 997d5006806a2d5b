"""Outcome: what became of the applications, read off the topics and the ledgers when it is over."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pavane.continuity import continuity, keeps_spans
from pavane_credit.applications import Application
from pavane_credit.events import CreditApproved, CreditDeclined, FraudSuspected
from pavane_credit.invariant import Report, check_ledgers
from pavane_credit.where import Where
from pavane_events.bus import Bus
from pavane_events.envelope import parse
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ENDS, FACT_PREFIX, FACTS
from pavane_tracing.finding import ContinuityReport

UNDO_FAILED = f"{FACT_PREFIX}undofailed"

_BUSINESS_NO = frozenset({CreditDeclined.event_type, FraudSuspected.event_type, "rejected"})


@dataclass(slots=True)
class Watch:
    """Follows the verdicts as they come, reading each record once."""

    bus: Bus
    sagas: frozenset[str]
    verdicts: dict[str, str] = field(default_factory=dict[str, str])
    _next: dict[int, int] = field(default_factory=dict[int, int])

    async def look(self) -> int:
        """How many of the sagas have ended by now."""
        for partition in range(self.bus.partitions):
            start = self._next.get(partition, 0)
            async for record in self.bus.read(SagaEnded.event_type, partition=partition, start=start):
                self._next[partition] = record.offset + 1
                event = SagaEnded.from_json(record.value or b"")
                if event.saga in self.sagas:
                    self.verdicts[event.saga] = event.verdict
        return len(self.verdicts)

    async def parked(self) -> set[str]:
        """The sagas that wait for somebody, because an undo failed for good."""
        found: set[str] = set()
        async for record in self.bus.read(FACTS):
            envelope = parse(record)
            if envelope.type == UNDO_FAILED and envelope.saga in self.sagas and envelope.saga not in self.verdicts:
                found.add(envelope.saga)
        return found


@dataclass(frozen=True, slots=True)
class Grade:
    """How good the decisions were, against the known outcomes. Shares are None where nothing is known."""

    all_repaid: float | None
    approved_repaid: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything there is to say at the end."""

    applications: int
    approved: int
    declined: int
    failed: int
    parked: int
    ledgers: Report
    grade: Grade
    trace: ContinuityReport
    shown: str | None
    """A compensated saga whose trace is worth a look."""

    @property
    def compensated(self) -> int:
        """Declined or failed, and undone."""
        return self.declined + self.failed

    @property
    def open(self) -> int:
        """Neither ended nor parked."""
        return self.applications - self.approved - self.compensated - self.parked


async def read_outcome(
    bus: Bus, watch: Watch, sagas: Mapping[str, Application], where: Where, interesting: frozenset[str]
) -> Outcome:
    """Read topics, spans and ledgers. ``interesting``: applications whose trace one would rather see."""
    approved: dict[str, int] = {}
    async for record in bus.read(CreditApproved.event_type):
        envelope = parse(record)
        saga = envelope.saga or ""
        if saga in sagas and watch.verdicts.get(saga) == "completed":
            event = CreditApproved.from_json(envelope.data)
            approved[event.application_id] = event.amount_dm
    reasons: dict[str, str] = {}
    async for record in bus.read(ENDS):
        envelope = parse(record)
        saga = envelope.saga or ""
        if saga in sagas:
            reasons[saga] = str(json.loads(envelope.data)["code"])
    compensated = [saga for saga, verdict in watch.verdicts.items() if verdict == "compensated"]
    declined = [saga for saga in compensated if reasons.get(saga) in _BUSINESS_NO]
    parked = await watch.parked() if len(watch.verdicts) < len(sagas) else set[str]()
    first = [saga for saga in compensated if sagas[saga].id in interesting] or declined or compensated
    return Outcome(
        applications=len(sagas),
        approved=sum(verdict == "completed" for verdict in watch.verdicts.values()),
        declined=len(declined),
        failed=len(compensated) - len(declined),
        parked=len(parked),
        ledgers=check_ledgers(where, approved),
        grade=_grade(sagas.values(), approved),
        trace=await _continuity(bus),
        shown=min(first) if first else None,
    )


def _grade(applications: Iterable[Application], approved: Mapping[str, int]) -> Grade:
    known = [(each.repaid, each.id in approved) for each in applications if each.repaid is not None]
    taken = [repaid for repaid, is_approved in known if is_approved]
    return Grade(
        all_repaid=sum(repaid for repaid, _ in known) / len(known) if known else None,
        approved_repaid=sum(taken) / len(taken) if taken else None,
    )


async def _continuity(bus: Bus) -> ContinuityReport:
    """What the bus keeps of traces, held against its topics; nothing where spans were exported, or tracing was off."""
    return await continuity(bus) if await keeps_spans(bus) else ContinuityReport()
