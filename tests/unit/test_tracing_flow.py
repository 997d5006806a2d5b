"""A whole saga over five services: with a join, a failure, an undo and a delayed retry, its traces have no gap."""

import os
from collections.abc import Iterable, Iterator

import pytest

from pavane_events.envelope import Envelope, Trace
from pavane_events.record import Record
from pavane_tracing.continuity import check_continuity
from pavane_tracing.drawing import to_text
from pavane_tracing.finding import assert_continuous
from pavane_tracing.sent import Sent, span_of
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanRow
from pavane_tracing.store import decode, encode
from pavane_tracing.tree import build_tree
from pavane_tracing.work import Tracing, Work

SAGA = "saga-1"
SERVICES = ("pavane", "coordinator", "score", "income", "risk")


class Stage:
    """Five services, the events between them, and the spans each commit kept."""

    def __init__(self) -> None:
        self.services = {name: make_tracing(name, keep=True) for name in SERVICES}
        self.events: list[Envelope] = []
        self.rows: list[SpanRow] = []

    def begin(
        self,
        service: str,
        event: Envelope,
        step: str | None = None,
        *,
        links: Iterable[Trace] = (),
        root: bool = False,
        undo: bool = False,
    ) -> Work:
        return self.services[service].process(
            event,
            topic=event.type,
            partition=0,
            offset=len(self.rows),
            group=service,
            step=f"{service}/{step}" if step else None,
            saga_name="decision",
            links=links,
            root=root,
            undo=undo,
        )

    def send(self, work: Work, kind: str) -> Envelope:
        event_id = f"event-{len(self.events)}"
        trace = work.send(kind, event_id, kind, saga=SAGA)
        event = Envelope(id=event_id, source="/x", type=kind, data=b"{}", saga=SAGA, trace=trace)
        self.events.append(event)
        return event

    @property
    def log(self) -> list[Sent]:
        """What was committed, by the order in which it was said."""
        return [Sent(each.type, each.id, each.type, SAGA, *span_of(each)) for each in self.events]

    def commit(self, work: Work) -> None:
        work.end()
        message = encode(work.spans, SAGA)
        self.rows += decode(Record(message.topic, 0, 0, message.key, message.value, message.headers, 0))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    made = Stage()
    yield made
    for tracing in made.services.values():
        tracing.shutdown(1)


def submit(tracing: Tracing, stage: Stage) -> Envelope:
    sent = tracing.send_root("applications", "outside", "application")
    stage.rows += sent.spans
    return Envelope(id="outside", source="/cli", type="applications", data=b"{}", trace=sent.trace)


def test_a_saga_with_a_join_an_undo_and_a_late_retry_has_no_gap(stage: Stage) -> None:
    intake = stage.begin("coordinator", submit(stage.services["pavane"], stage))
    intake.belongs_to(SAGA, "decision")
    intake.point("saga decision start")
    submitted = stage.send(intake, "submitted")
    stage.commit(intake)

    scoring = stage.begin("score", submitted, "compute")
    scored = stage.send(scoring, "scored")
    stage.commit(scoring)
    verifying = stage.begin("income", submitted, "verify", root=True)
    verified = stage.send(verifying, "verified")
    stage.commit(verifying)

    assessing = stage.begin("risk", verified, "assess", links=(scored.trace,))
    assessing.fail("step.failed", "no")
    failed = stage.send(assessing, "facts")
    stage.commit(assessing)

    deciding = stage.begin("coordinator", failed)
    deciding.split(2)
    commands = [stage.send(deciding, f"{name}.commands") for name in ("score", "income")]
    stage.commit(deciding)
    for name, step, command, done in zip(
        ("score", "income"), ("compute", "verify"), commands, (scored, verified), strict=True
    ):
        undoing = stage.begin(name, command, step, links=(done.trace,), undo=True)
        stage.commit(undoing)

    report = check_continuity(stage.rows, stage.log)
    assert_continuous(report)
    assert (report.traces, report.hops, report.spans) == (2, 7, 15)

    tree = build_tree(stage.rows, SAGA)
    undone = {node.undoes: node.undone for node in tree.nodes() if node.undoes}
    assert {step: row.name for step, row in undone.items() if row} == {
        "score/compute": "process submitted",
        "income/verify": "process submitted",
    }
    assert [bool(root.linked_from) for root in tree.roots] == [False, True]
    drawn = to_text(tree)
    assert "income ↩ undoes verify" in drawn
    assert "linked from coordinator (send submitted)" in drawn


def test_a_lost_commit_is_seen_as_a_gap(stage: Stage) -> None:
    intake = stage.begin("coordinator", submit(stage.services["pavane"], stage))
    submitted = stage.send(intake, "submitted")
    scoring = stage.begin("score", submitted, "compute")
    stage.commit(scoring)
    report = check_continuity(stage.rows, stage.log)
    assert report.orphans == 1
    assert {finding.code for finding in report.findings} == {"span.orphan"}
    assert report.missing == 1
