"""The table of agents: whatever a foreign client writes there, who can be read is read."""

import asyncio
import logging

import pytest

from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.record import Message
from pavane_saga.facts import StepPlan
from pavane_saga.manifest import Directory, Manifest, SagaPlan, read_directory
from pavane_saga.wire import AGENTS

STEP = StepPlan("a/do", (("x.asked",),), ("x.done",), effects=True)
GOOD = Manifest("a", "a@1", (STEP,))
PLAN = SagaPlan("x", "x.asked", "x.done", (), "x.intake", 60.0)


@pytest.mark.parametrize("key", [b"agent:b", b"saga:b", b"b", b"\xff"])
@pytest.mark.parametrize(
    "value", [b"\xff", b"[]", b"{}", b'{"fact":"declared","agent":"b"}', b"[" * 100_000, b'"saga"', b"null"]
)
def test_a_manifest_that_cannot_be_read_is_passed_over(key: bytes, value: bytes) -> None:
    async def scenario() -> Directory:
        async with MemoryBus(partitions=1) as bus:
            await bus.create_topics([TopicSpec(AGENTS, compacted=True)])
            await bus.publish([GOOD.to_message(), PLAN.to_message(), Message(AGENTS, value, key)])
            return await read_directory(bus)

    found = asyncio.run(scenario())
    assert (dict(found.agents), dict(found.sagas)) == ({"a": GOOD}, {"x": PLAN})


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with MemoryBus(partitions=1) as bus:
            await bus.create_topics([TopicSpec(AGENTS, compacted=True)])
            await bus.publish([Message(AGENTS, b"{}", b"agent:said-once")])
            for _ in range(3):
                await read_directory(bus)

    with caplog.at_level(logging.WARNING, logger="pavane.coordinator"):
        asyncio.run(scenario())
    assert [record.message for record in caplog.records] == [
        "b'agent:said-once' on pavane.agents[0] at 0 is no manifest (ValueError): it counts for nothing"
    ]
