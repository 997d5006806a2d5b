"""A Kafka lane whose inbox fills up: what a pause sets aside keeps no other topic's records back, and is bounded itself."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.changelog import LaneRow, Restored
from pavane_events.buses.kafka.committer import Commit
from pavane_events.buses.kafka.lane import QUEUE_BYTES, QUEUE_RECORDS, KafkaLane
from pavane_events.buses.kafka.transactions import Payload
from pavane_events.buses.spilling_state import Room, SpillingState
from pavane_events.record import Message, Record

PORTION = 64


class Holder:
    """Fetches the topics that flow, a portion of each in turn, from logs that have no end."""

    group = "group"

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.flowing = set(sizes)
        self.at = dict.fromkeys(sizes, 0)
        restored = Restored(LaneRow(), SpillingState(Room(), "lane"), 0)
        self.lane = KafkaLane(self, 0, TopicPartition("group.state", 0), restored)
        self.lane.begin(self.at)

    def fetch(self, topic: str, count: int = PORTION) -> None:
        """What was asked for comes, also where the topic was paused meanwhile."""
        first, self.at[topic] = self.at[topic], self.at[topic] + count
        value = b"x" * self.sizes[topic]
        self.lane.deliver(topic, [Record(topic, 0, first + n, b"k", value, (), 0) for n in range(count)], self.at[topic])

    def fetch_all(self) -> int:
        """Until nothing flows any more, or a thousand times; how often."""
        for times in range(1_000):
            if not self.flowing:
                return times
            for topic in sorted(self.flowing):
                self.fetch(topic)
        return 1_000

    def flow(self, lane: KafkaLane, topics: Collection[str], *, on: bool) -> None:
        assert lane is self.lane
        self.flowing = self.flowing.union(topics) if on else self.flowing.difference(topics)

    def seek(self, lane: KafkaLane, topic: str, offset: int) -> None:
        self.at[topic] = offset

    async def high_watermarks(self, lane: KafkaLane) -> Mapping[str, int]:
        return self.at

    def place_of(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(topic, partition)

    def check_state(self, state: Mapping[bytes, bytes | None]) -> None:
        pass

    async def place(self, messages: Sequence[Message]) -> list[tuple[TopicPartition, Payload]]:
        return []

    async def commit(self, commit: Commit) -> int:
        commit.future.set_result(0)
        return 0


async def emptied(lane: KafkaLane) -> list[Record]:
    found: list[Record] = []
    while records := await lane.receive(PORTION, 0):
        found += records
    return found


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_full_inbox_whose_topic_is_paused_is_not_full_any_more(size: int) -> None:
    async def scenario() -> None:
        holder = Holder({"intake": size, "facts": 100})
        holder.flowing.discard("facts")
        holder.fetch_all()
        holder.lane.pause(["intake"])
        assert await holder.lane.receive(1, 0) == ()
        assert "facts" in holder.flowing
        assert "intake" not in holder.flowing
        holder.fetch("facts", 1)
        assert [record.topic for record in await emptied(holder.lane)] == ["facts"]
        holder.lane.resume(["intake"])
        assert not holder.flowing, "it is full again"
        assert len(await emptied(holder.lane)) == holder.at["intake"]
        assert holder.flowing == {"intake", "facts"}

    asyncio.run(scenario())


def test_what_is_aside_fills_nothing() -> None:
    async def scenario() -> None:
        holder = Holder({"later": 900_000, "events": 3_000, "commands": 100})
        holder.lane.pause(["later"])
        holder.fetch("later", 1)  # was under way
        holder.fetch("events")
        assert len(await emptied(holder.lane)) == PORTION
        assert holder.flowing == {"events", "commands"}

    asyncio.run(scenario())


def test_what_is_done_before_it_was_fetched_makes_room() -> None:
    async def scenario() -> None:
        holder = Holder({"events": 3_000, "commands": 100})
        holder.fetch_all()
        await holder.lane.commit({topic: at + 1 for topic, at in holder.at.items()})
        assert holder.flowing == {"events", "commands"}

    asyncio.run(scenario())


def test_whoever_pauses_and_resumes_without_taking_anything_is_not_given_more() -> None:
    async def scenario() -> None:
        holder = Holder({"intake": 1_000, "facts": 1_000})
        for _ in range(50):
            holder.fetch_all()
            holder.lane.pause(["intake"])
            holder.lane.resume(["intake"])
        waiting = await emptied(holder.lane)
        assert QUEUE_RECORDS <= len(waiting) <= 3 * QUEUE_RECORDS + 4 * PORTION
        assert sum(len(record.value or b"") for record in waiting) <= 3 * QUEUE_BYTES
        for topic in holder.sizes:
            offsets = [record.offset for record in waiting if record.topic == topic]
            assert offsets == list(range(holder.at[topic]))

    asyncio.run(scenario())
