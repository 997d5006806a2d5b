"""A saga is parked on Kafka, somebody decides by the command line, and it ends."""

import asyncio

import pytest

from pavane.plan import plan_of
from pavane_events.buses.address import open_bus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.envelope import Envelope
from pavane_saga.coordinator import topic_specs
from pavane_saga.story import Story
from support.kafka import Kafka
from unit import cli_toy
from unit.cli_shell import Shell

ORDER = "order-0"

pytestmark = pytest.mark.slow


def test_a_saga_that_is_parked_on_kafka_is_decided_and_ends(
    kafka: Kafka, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = KafkaOptions(prefix=kafka_prefix)

    async def place() -> None:
        async with await open_bus(kafka.url, kafka=options) as bus:
            specs = [
                *topic_specs([cli_toy.orders]),
                *(spec for agent in cli_toy.AGENTS for spec in plan_of(agent).topic_specs()),
            ]
            await bus.create_topics(specs)
            order = cli_toy.OrderPlaced(order_id=ORDER, amount=cli_toy.STUCK)
            event = Envelope(id=ORDER, source=cli_toy.SOURCE, type=order.event_type, subject=ORDER, data=order.to_json())
            await bus.publish([event.to_message(cli_toy.orders.intake)])

    def parked(story: Story) -> bool:
        return story.summary.state == "parked"

    def ended(story: Story) -> bool:
        return story.summary.ended_ms is not None

    asyncio.run(place())
    asyncio.run(cli_toy.go_on(kafka.url, ORDER, parked, options))
    monkeypatch.setenv("PAVANE_BUS", kafka.url)
    monkeypatch.setenv("PAVANE_KAFKA_PREFIX", kafka_prefix)
    pavane = Shell(monkeypatch, capsys)
    assert "packing/pack" in pavane("sagas", "retry", ORDER, "--why", "perhaps").out
    story = asyncio.run(cli_toy.go_on(kafka.url, ORDER, parked, options))
    assert [failed.retry for failed in story.stuck] == [1]
    assert pavane("sagas", "done", ORDER, "--by-hand", "--why", "cut it open", "--who", "ann").code == 0
    story = asyncio.run(cli_toy.go_on(kafka.url, ORDER, ended, options))
    assert (story.summary.state, story.standing) == ("compensated", ())
    assert [chapter.who for chapter in story.chapters if chapter.kind == "decided"][-1] == "ann"


@pytest.mark.parametrize("arguments", [("list",), ("overdue",), ("show", ORDER), ("abandon", ORDER, "--why", "so")])
def test_where_no_deployment_is_to_be_seen_that_is_said(
    arguments: tuple[str, ...],
    kafka: Kafka,
    kafka_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PAVANE_BUS", kafka.url)
    monkeypatch.setenv("PAVANE_KAFKA_PREFIX", kafka_prefix)
    said = Shell(monkeypatch, capsys)("sagas", *arguments)
    assert (said.code, said.out) == (2, "")
    assert "PAVANE_KAFKA_PREFIX" in said.err
