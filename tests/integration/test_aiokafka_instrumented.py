"""With OpenTelemetry's own instrumentation of aiokafka, the bus's messages have no second spans, and a step's own nest."""

from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from opentelemetry.instrumentation.aiokafka import AIOKafkaInstrumentor

from conformance.deployments import scenario
from pavane import Agent, Event, Saga
from pavane.runner import Surroundings
from pavane_events.bus import TopicSpec
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_tracing.work import SCOPE
from support.collector import Collector, ReceivedSpan, collecting
from support.kafka import Kafka
from support.stage import stage

THEIRS = "opentelemetry.instrumentation.aiokafka"


class Asked(Event, type="instrumented.asked"):
    n: int


class Answered(Event, type="instrumented.answered"):
    n: int


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        yield server


@pytest.fixture
def instrumented() -> Iterator[None]:
    AIOKafkaInstrumentor().instrument()
    yield
    AIOKafkaInstrumentor().uninstrument()


def an_agent(kafka: Kafka, topic: str) -> Agent:
    """An agent whose step has Kafka clients of its own, and says and hears something by them."""
    agent = Agent("auditor")

    @agent.step(effects=False)
    async def answer(asked: Asked) -> Answered:
        place = TopicPartition(topic, 0)
        async with (
            AIOKafkaProducer(bootstrap_servers=kafka.servers) as producer,
            AIOKafkaConsumer(bootstrap_servers=kafka.servers, auto_offset_reset="earliest") as consumer,
        ):
            await producer.send_and_wait(topic, b"seen", partition=0)
            consumer.assign([place])
            found = await consumer.getmany(timeout_ms=20_000)
            assert [record.value for record in found[place]] == [b"seen"]
        return Answered(n=asked.n)

    return agent


@scenario
async def test_the_bus_makes_its_own_spans_and_no_more_and_a_steps_clients_nest(
    kafka: Kafka, collector: Collector, instrumented: None
) -> None:
    options = KafkaOptions(prefix=kafka.prefix())
    saga = Saga("instrumented", starts=Asked, completes=Answered, intake="instrumented.intake")
    topic = f"{options.prefix}audit"
    async with await KafkaBus.open(kafka.servers, 1, options) as bus:
        await bus.create_topics([TopicSpec("audit")])
        async with stage([an_agent(kafka, topic)], [saga], bus=bus, surroundings=Surroundings()) as running:
            assert await running.ended(await running.publish({"n": 1})) == "completed"
    spans = collector.received()
    (asked,) = [span for span in spans if span.name == "process instrumented.asked" and span.service == "auditor"]
    theirs = [span for span in spans if span.scope == THEIRS]
    topics = {span.texts.get("messaging.destination.name") for span in theirs}
    assert topics == {topic, None}, "none of a topic of the bus; a batch has none"
    (sent,) = [span for span in theirs if span.name == f"{topic} send"]
    assert (sent.parent, sent.trace, sent.service) == (asked.id, asked.trace, "auditor")
    assert sent.texts["saga.step"] == "auditor/answer"
    heard = [span for span in theirs if span.name == f"{topic} receive"]
    assert {(span.trace, span.service) for span in heard} == {(asked.trace, "auditor")}
    assert {span.parent for span in heard} <= {asked.id, sent.id, *(span.id for span in heard)}
    assert_one_of_each([span for span in spans if span.scope == SCOPE])


def assert_one_of_each(spans: list[ReceivedSpan]) -> None:
    """Of each message one ``send``, and one ``process`` for each who listens."""
    said = [(span.name, span.service, span.texts["event.id"]) for span in spans if span.name.startswith(("send ", "process "))]
    assert len(said) == len(set(said))
    assert {name for name, _, _ in said} >= {"process instrumented.intake", "send instrumented.answered"}
