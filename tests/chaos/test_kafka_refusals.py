"""Topics deleted and limits lowered under agents at work: the one whom it concerns is told, by name, and nobody else."""

import asyncio
import uuid

import pytest

from chaos.kafka_admin import delete_topic, limit_messages
from conformance.deployments import content, lanes_of, numbered, receive, scenario, values
from pavane import Agent, Event, Saga
from pavane.health import Board
from pavane.kit import Limits
from pavane.plan import plan_of
from pavane.runner import Surroundings, run
from pavane_events.bus import TopicSpec
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.errors import RecordTooLarge, UnknownTopic
from pavane_events.record import Message
from pavane_saga.coordinator import topic_specs
from support.kafka import Kafka
from support.stage import Stage, stage, until

LIMIT = 2_000

pytestmark = pytest.mark.slow


def options() -> KafkaOptions:
    return KafkaOptions(prefix=f"r-{uuid.uuid4().hex[:8]}.", session_ms=6_000, heartbeat_ms=300)


@scenario
async def test_a_deleted_output_topic_is_named_and_the_lane_goes_on_without_it(kafka: Kafka) -> None:
    chosen = options()
    async with await KafkaBus.open(kafka.servers, 4, chosen) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out"), TopicSpec("doomed")])
        await bus.publish(numbered("in", 3))
        lane = (await lanes_of(await bus.lanes("group", ["in"])))[0]
        first, second, third = await receive(lane, 3)
        await lane.commit({"in": first.offset + 1}, [*numbered("out", 1), *numbered("doomed", 1)])
        await asyncio.to_thread(delete_topic, kafka.servers, chosen.physical("doomed"))
        with pytest.raises(UnknownTopic, match="doomed"):
            await lane.commit({"in": second.offset + 1}, [*numbered("out", 1, first=1), *numbered("doomed", 1)])
        assert lane.committed["in"] == first.offset + 1
        await lane.commit({"in": third.offset + 1}, numbered("out", 1, first=2), {b"last": b"2"})
        assert values(await content(bus, "out")) == [b"0", b"2"]
        assert lane.state.get(b"last") == b"2"


@scenario
async def test_a_topic_that_refuses_a_record_leaves_the_lane_usable_and_nothing_done(kafka: Kafka) -> None:
    chosen = options()
    async with await KafkaBus.open(kafka.servers, 4, chosen) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out"), TopicSpec("narrow")])
        await bus.publish(numbered("in", 1))
        lane = (await lanes_of(await bus.lanes("group", ["in"])))[0]
        (record,) = await receive(lane, 1)
        await asyncio.to_thread(limit_messages, kafka.servers, chosen.physical("narrow"), LIMIT)
        large = Message("narrow", b"x" * 2 * LIMIT, partition=0)
        with pytest.raises(RecordTooLarge, match=r"narrow.*max\.message\.bytes"):
            await lane.commit({"in": record.offset + 1}, [*numbered("out", 1), large], {b"done": b"1"})
        assert lane.committed["in"] == record.offset
        assert lane.state.get(b"done") is None
        assert await content(bus, "out") == []
        await lane.commit({"in": record.offset + 1}, numbered("narrow", 1), {b"done": b"2"})
        assert values(await content(bus, "narrow")) == [b"0"]
        assert lane.commit_number == 1


@scenario
async def test_a_lane_is_not_refused_for_what_another_one_sent_in_the_same_transaction(kafka: Kafka) -> None:
    chosen = options()
    async with await KafkaBus.open(kafka.servers, 4, chosen) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("narrow")])
        lanes = await lanes_of(await bus.lanes("group", ["in"]))
        await asyncio.to_thread(limit_messages, kafka.servers, chosen.physical("narrow"), LIMIT)
        outputs = {number: Message("narrow", b"%d" % number, partition=number) for number in lanes}
        outputs[2] = Message("narrow", b"x" * 2 * LIMIT, partition=2)
        ends = await asyncio.gather(
            *(lane.commit({}, [outputs[number]]) for number, lane in lanes.items()), return_exceptions=True
        )
        refused = {number for number, end in zip(lanes, ends, strict=True) if isinstance(end, RecordTooLarge)}
        assert refused == {2}, ends
        assert sorted(record.value or b"" for record in await content(bus, "narrow")) == [b"0", b"1", b"3"]
        await asyncio.gather(
            *(lane.commit({}, [Message("narrow", b"on", partition=number)]) for number, lane in lanes.items())
        )
        assert len(await content(bus, "narrow")) == 7


@scenario
async def test_a_deleted_input_topic_is_named_and_the_others_go_on(kafka: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    chosen = options()
    board = Board()

    def said() -> list[str]:
        ours = [record.getMessage() for record in caplog.records if record.name == "pavane.kafka"]
        return [line for line in ours if "UnknownTopicOrPartitionError (3)" in line and chosen.physical("doomed") in line]

    async with await KafkaBus.open(kafka.servers, 4, chosen) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out"), TopicSpec("doomed")])
        lane = (await lanes_of(await bus.lanes("group", ["in", "doomed"])))[0]
        await bus.publish([*numbered("in", 1), *numbered("doomed", 1)])
        for record in await receive(lane, 2):
            await lane.commit({record.topic: record.offset + 1}, numbered("out", 1))
        await asyncio.to_thread(delete_topic, kafka.servers, chosen.physical("doomed"))
        board.joined(bus)
        assert board.report().ready
        number = 0
        while not (said() and "4 lanes are not polled" in board.report().why):  # they fall silent one after the other
            number += 1
            await bus.publish(numbered("in", 1, first=number))
            (record,) = await receive(lane, 1)
            await lane.commit({"in": record.offset + 1}, numbered("out", 1, first=number))
        assert len(await content(bus, "out")) == number + 2
        assert not board.report().ready
        assert f"{chosen.physical('doomed')}[0]: UnknownTopicOrPartitionError (3)" in board.report().why
        assert len(said()) == 1, "the other partitions, and the next seconds, need no line of their own"


class Asked(Event, type="refusals.asked"):
    n: int


class Answered(Event, type="refusals.answered"):
    n: int


class Noted(Event, type="refusals.noted"):
    n: int


def a_choreography() -> tuple[list[Agent], Saga]:
    """One agent answers, another makes a note that nobody waits for."""
    answering, noting = Agent("answering"), Agent("noting")

    @answering.step(effects=False)
    async def answer(asked: Asked) -> Answered:
        return Answered(n=asked.n)

    @noting.step(effects=False)
    async def note(asked: Asked) -> Noted:
        return Noted(n=asked.n)

    return [answering, noting], Saga("question", starts=Asked, completes=Answered, intake="refusals.intake")


@scenario
async def test_an_agent_whose_topic_is_deleted_ends_and_names_it_and_goes_on_when_it_is_there_again(kafka: Kafka) -> None:
    quiet = Surroundings(trace=False, limits=Limits(drain_s=2.0))
    chosen = options()
    async with await KafkaBus.open(kafka.servers, 4, chosen) as bus:
        agents, saga = a_choreography()
        await bus.create_topics([*topic_specs([saga]), *(spec for agent in agents for spec in plan_of(agent).topic_specs())])
        running = asyncio.create_task(run(agents, [saga], bus, asyncio.Event(), quiet))
        here = Stage(bus, [saga])
        first = await here.publish({"n": 1})
        assert await here.ended(first) == "completed"
        await asyncio.to_thread(delete_topic, kafka.servers, chosen.physical("refusals.noted"))
        second = await here.publish({"n": 2})
        with pytest.RaisesGroup(pytest.RaisesExc(UnknownTopic, match=r"refusals\.noted"), flatten_subgroups=True):
            async with asyncio.timeout(30):
                await running
    async with await KafkaBus.open(kafka.servers, 4, chosen) as bus:
        agents, saga = a_choreography()
        async with stage(agents, [saga], bus=bus, surroundings=quiet) as here:  # makes the topic again
            assert await here.ended(second) == "completed"

            async def noted() -> bool:
                return [each.saga for each in await here.events("refusals.noted")] == [second]

            await until(noted)
            assert [each.saga for each in await here.events("refusals.answered")] == [first, second]
