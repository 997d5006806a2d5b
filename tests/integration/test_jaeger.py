"""A thousand credit sagas with every fault (on Kafka fewer), exported to a real Jaeger: one trace each, whole, as declared."""

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from pavane.plan import plan_of, step_plan
from pavane.runner import Surroundings
from pavane.testing import ContinuityReport, assert_continuous, check_bus
from pavane_credit import clerk
from pavane_credit.applications import Application, read_applications
from pavane_credit.choreography import AGENTS, SAGAS, decision
from pavane_credit.events import ApplicationSubmitted
from pavane_credit.faults import SHARES, FaultPlan
from pavane_credit.outcome import Watch
from pavane_credit.supervisor import run_together
from pavane_events.bus import Bus
from pavane_events.buses.address import open_bus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message
from pavane_saga.coordinator import topic_specs
from pavane_saga.intake import saga_id_of
from pavane_tracing.conventions import COORDINATOR_SERVICE, SAGA_ID, SAGA_STEP, SAGA_UNDO
from pavane_tracing.propagation import span_context
from pavane_tracing.work import FLUSH_S, Tracing
from support.jaeger import CONSUMER, PRODUCER, JaegerServer, TracedSpan, a_jaeger, orphans_of, roots_of
from support.kafka import Kafka
from support.stage import until
from unit.cli_shell import Shell

APPLICATIONS = 200
MANY = 1000
"""On a bus file, where they take a minute; a Jaeger in memory looks through all it has for each saga that is asked for."""
_PORTION = 20
APPLICANT = "applicant"
EVERYBODY = (*AGENTS, clerk.agent)
SERVICES = frozenset({APPLICANT, COORDINATOR_SERVICE, *(agent.name for agent in EVERYBODY)})
STEPS = tuple(step_plan(step) for agent in EVERYBODY for step in agent.steps.values())
HEARD = frozenset(kind for step in STEPS for kinds in step.consumes for kind in kinds)
TOPICS = (*topic_specs(SAGAS), *(spec for agent in EVERYBODY for spec in plan_of(agent).topic_specs()))
SAID = HEARD | {kind for step in STEPS for kind in step.produces}


@dataclass
class Run:
    """Applications on their way through the five agents and the coordinator, and what became of them."""

    address: str
    kafka: KafkaOptions | None
    source: str
    applications: Sequence[Application]
    faults: FaultPlan
    verdicts: dict[str, str] = field(default_factory=dict[str, str])
    events: list[Envelope] = field(default_factory=list[Envelope])
    stopped_in_s: float = 0.0

    def saga_of(self, application: Application) -> str:
        return saga_id_of(self.source, application.id)

    async def perform(self, jaeger: JaegerServer | None = None, *, killed_after: int = 0) -> None:
        """Publish all, some twice, and stop when every saga has ended; the Jaeger is killed after so many ends."""
        watch_for = frozenset(map(self.saga_of, self.applications))
        stop = asyncio.Event()
        async with await open_bus(self.address, partitions=2, kafka=self.kafka) as bus:
            await bus.create_topics(TOPICS)
            watch = Watch(bus, watch_for)

            async def ended(count: int) -> bool:
                return await watch.look() >= count

            async with asyncio.TaskGroup() as group:
                group.create_task(run_together(bus, stop, Surroundings()))
                await self._publish(bus)
                if jaeger is not None and jaeger.kill is not None:
                    await until(functools.partial(ended, killed_after))
                    await asyncio.to_thread(jaeger.kill)
                for count in range(len(watch_for) % _PORTION, len(watch_for) + 1, _PORTION):  # patience is with each portion
                    await until(functools.partial(ended, count))
                stop.set()
                stopping = time.monotonic()
            self.stopped_in_s = time.monotonic() - stopping
            self.verdicts = watch.verdicts
            self.events = [parse(record) for topic in sorted(SAID) async for record in bus.read(topic)]

    async def _publish(self, bus: Bus) -> None:
        tracing = Surroundings().tracing(APPLICANT, bus)
        try:
            await bus.publish(self.messages(tracing))
        finally:
            assert await asyncio.to_thread(tracing.shutdown, FLUSH_S)

    def messages(self, tracing: Tracing) -> list[Message]:
        """The applications for the intake, some of them twice, each with the trace that begins with it."""
        kind = ApplicationSubmitted.event_type
        messages: list[Message] = []
        for each in [one for one in self.applications for _ in range(1 + self.faults.arrives_twice(one.id))]:
            saga = self.saga_of(each)
            trace = tracing.send_root(decision.intake, each.id, kind, saga=saga).trace
            event = Envelope(
                id=each.id, source=self.source, type=kind, subject=each.id, data=each.event.to_json(), trace=trace
            )
            messages.append(event.to_message(decision.intake, key=saga))
        return messages


@dataclass(frozen=True, slots=True)
class Traced:
    """A run that is over, and what Jaeger has of it: by saga, the traces that its id finds."""

    run: Run
    jaeger: JaegerServer
    traces: Mapping[str, Sequence[list[TracedSpan]]]

    def spans(self) -> Iterator[TracedSpan]:
        for traces in self.traces.values():
            for spans in traces:
                yield from spans


@pytest.fixture(scope="module", params=["sqlite", "kafka"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """Applications decided on a bus of that kind, their spans exported.

    They are found by their ids, where the applicant or the coordinator has spans of them: that no agent has others, the
    continuity check sees, which looks for those of each.
    """
    folder = tmp_path_factory.mktemp(str(request.param))
    with a_jaeger() as jaeger:
        with pytest.MonkeyPatch.context() as variables:
            run = a_run(folder, variables, APPLICATIONS if request.param == "kafka" else MANY)
            if request.param == "kafka":
                kafka = cast("Kafka", request.getfixturevalue("kafka"))
                run = replace(run, address=kafka.url, kafka=KafkaOptions(prefix=kafka.prefix()))
            export_to(jaeger.otlp_http, variables)
            asyncio.run(run.perform())
        jaeger.settle()
        services = [APPLICANT, COORDINATOR_SERVICE]
        found = {saga: jaeger.traces_with(SAGA_ID, saga, services) for saga in run.verdicts}
        yield Traced(run, jaeger, {saga: [jaeger.trace(each) for each in sorted(ids)] for saga, ids in found.items()})


def a_run(folder: Path, variables: pytest.MonkeyPatch, count: int = APPLICATIONS) -> Run:
    """The first applications on a bus file, under the first seed by which all of them meet every fault there is."""
    applications = read_applications()[:count]
    plans = (FaultPlan(str(seed)) for seed in range(1000))
    enough = len(SHARES) if count >= APPLICATIONS else 0
    faults = next(plan for plan in plans if len(plan.summary(each.id for each in applications)) >= enough)
    variables.setenv("CREDIT_LEDGERS", str(folder / "ledgers"))
    variables.setenv("CREDIT_FAULTS", faults.seed)
    return Run(f"sqlite:///{folder / 'bus.db'}", None, f"/test/{folder.name}", applications, faults)


def export_to(endpoint: str, variables: pytest.MonkeyPatch, protocol: str = "http/protobuf") -> None:
    """Spans go there, whatever else the environment says."""
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    variables.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    variables.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "200000")  # a thousand sagas come at once, none of their spans may be dropped
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        variables.delenv(name, raising=False)


def declared_edges() -> set[tuple[str, str]]:
    """Who causes work of whom, by the manifests: events, answers to the coordinator, its undo commands."""
    edges = {(APPLICANT, COORDINATOR_SERVICE)}
    for step in STEPS:
        agent = step.name.partition("/")[0]
        heard = {kind for kinds in step.consumes for kind in kinds}
        if not step.observer:
            edges.add((agent, COORDINATOR_SERVICE))
        if step.effects or ApplicationSubmitted.event_type in heard:
            edges.add((COORDINATOR_SERVICE, agent))
        edges |= {(maker.name.partition("/")[0], agent) for maker in STEPS if heard & set(maker.produces)}
    return {(parent, child) for parent, child in edges if parent != child}


def test_a_saga_found_by_its_id_is_one_trace_with_one_root_and_no_orphan(traced: Traced) -> None:
    assert len(traced.traces) == len(traced.run.applications)
    for application in traced.run.applications:
        traces = traced.traces[traced.run.saga_of(application)]
        assert len(traces) == 1 + traced.run.faults.arrives_twice(application.id), "one for each time it was published"
        for spans in traces:
            assert [(root.service, root.name) for root in roots_of(spans)] == [(APPLICANT, f"send {decision.intake}")]
            assert orphans_of(spans) == []


def test_the_sagas_ended_both_ways(traced: Traced) -> None:
    ends = list(traced.run.verdicts.values())
    assert set(ends) == {"completed", "compensated"}
    assert min(ends.count("completed"), ends.count("compensated")) > len(ends) // 4


def test_the_services_are_those_that_are_declared(traced: Traced) -> None:
    assert {span.service for span in traced.spans()} == SERVICES
    assert traced.jaeger.services() >= SERVICES


def test_the_dependency_edges_are_those_that_the_choreography_declares(traced: Traced) -> None:
    seen = {(parent, child) for parent, child in traced.jaeger.edges() if {parent, child} <= SERVICES and parent != child}
    assert seen == declared_edges()


def test_every_undo_links_to_what_its_step_said(traced: Traced) -> None:
    said: dict[tuple[str | None, str | None], set[str]] = defaultdict(set)
    for event in traced.run.events:
        context = span_context(event.trace)
        assert context is not None
        said[event.saga, event.step].add(f"{context.span_id:016x}")
    spans = {span.id: span for span in traced.spans()}
    linked = 0
    for undo in spans.values():
        if undo.kind == CONSUMER and undo.tags.get(SAGA_UNDO) == str(True):
            step = undo.tags[SAGA_STEP]
            links = {span_id for _, span_id in undo.links if spans[span_id].tags.get(SAGA_STEP) == step}
            assert links == said[undo.tags[SAGA_ID], step], "nothing where the step failed without a word"
            linked += bool(links)
    assert linked > len(traced.run.applications)


def test_every_record_that_a_step_has_answered_is_reached(traced: Traced) -> None:
    async def check() -> ContinuityReport:
        async with await open_bus(traced.run.address, kafka=traced.run.kafka) as bus:
            return await check_bus(bus, jaeger_url=traced.jaeger.query)

    report = assert_continuous(asyncio.run(check()))
    assert (report.sagas, report.spans) == (len(traced.run.applications), len(list(traced.spans())))
    assert report.roots == report.traces


def test_every_message_is_named_after_the_bus_that_it_travels_on(traced: Traced) -> None:
    named = {span.tags["messaging.system"] for span in traced.spans() if span.kind in (PRODUCER, CONSUMER)}
    assert named == {"pavane" if traced.run.kafka is None else "kafka"}


def test_pavane_trace_draws_a_compensated_saga_from_jaeger_whichever_the_bus(
    traced: Traced, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAVANE_BUS", traced.run.address)
    monkeypatch.setenv("PAVANE_JAEGER_URL", traced.jaeger.query)
    if traced.run.kafka is not None:
        monkeypatch.setenv("PAVANE_KAFKA_PREFIX", traced.run.kafka.prefix)
    saga = next(saga for saga, verdict in traced.run.verdicts.items() if verdict == "compensated")
    said = Shell(monkeypatch, capsys)("trace", saga)
    assert (said.code, said.err) == (0, "")
    assert f"saga {saga} {decision.name}" in said.out
    assert "↩ undoes" in said.out
    assert f"in Jaeger: {traced.jaeger.query}/trace/{roots_of(traced.traces[saga][0])[0].trace}" in said.out


def test_spans_go_over_grpc_too(jaeger: JaegerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if jaeger.otlp_grpc is None:
        pytest.skip("PAVANE_JAEGER names no address for OTLP over gRPC")
    export_to(jaeger.otlp_grpc, monkeypatch, "grpc")
    run = a_run(tmp_path, monkeypatch, count=5)
    asyncio.run(run.perform())
    jaeger.settle()
    for saga in run.verdicts:
        (trace,) = jaeger.traces_with(SAGA_ID, saga, SERVICES)
        spans = jaeger.trace(trace)
        assert (len(roots_of(spans)), len(orphans_of(spans))) == (1, 0)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_when_jaeger_is_killed_the_sagas_go_on_and_the_loss_is_told_once(
    protocol: str, own_jaeger: JaegerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = own_jaeger.otlp_grpc if protocol == "grpc" else own_jaeger.otlp_http
    assert address is not None
    export_to(address, monkeypatch, protocol)
    run = a_run(tmp_path, monkeypatch)
    asyncio.run(run.perform(own_jaeger, killed_after=40))
    assert len(run.verdicts) == APPLICATIONS
    assert run.stopped_in_s < FLUSH_S + 2
    told = [record for record in caplog.records if record.name.startswith(("pavane.tracing", "opentelemetry"))]
    (line,) = [record.getMessage() for record in told]
    assert line.startswith("spans are dropped until the OTLP endpoint takes them again, work goes on: ")
