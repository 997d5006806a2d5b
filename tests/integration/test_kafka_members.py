"""Agents as members of a group on a real Kafka: what runs on through a rebalance, and what keeps one from starting."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from conformance.deployments import KafkaDeployment, scenario
from pavane import Agent, Event, Saga
from pavane.dev.ports import free_block
from pavane.health import Board, serving
from pavane.kit import Limits
from pavane.plan import plan_of
from pavane.runner import Surroundings, run_agent
from pavane_events.bus import Lane, TopicSpec
from pavane_events.buses.kafka.assignor import LaneAssignor
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.connecting import Door
from pavane_events.buses.kafka.group import Group
from pavane_events.buses.kafka.lane import KafkaLane
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.requests import Client
from pavane_events.buses.kafka.transactions import Producer
from pavane_events.envelope import Envelope
from pavane_events.errors import BusUnavailable, ConfigurationError, LaneLost
from support.kafka import Kafka
from support.stage import stage, until

QUIET = Surroundings(trace=False, limits=Limits(drain_s=2.0))


class Asked(Event, type="members.asked"):
    n: int


class Answered(Event, type="members.answered"):
    n: int


def options_of(kafka: Kafka) -> KafkaOptions:
    return KafkaOptions(prefix=kafka.prefix(), session_ms=6_000, heartbeat_ms=300)


@asynccontextmanager
async def running(agent: Agent, bus: KafkaBus) -> AsyncGenerator[None]:
    """An agent at work on a bus until the block is left."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_agent(agent, bus, stop, QUIET))
    try:
        yield
    finally:
        stop.set()
        await task


@scenario
async def test_a_handler_of_a_lane_that_stays_runs_on_through_a_rebalance(kafka: Kafka) -> None:
    calls: list[int] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    def slow() -> Agent:
        agent = Agent("slow")

        @agent.step(effects=False)
        async def answer(asked: Asked) -> Answered:
            calls.append(asked.n)
            begun.set()
            await go_on.wait()
            return Answered(n=asked.n)

        return agent

    options = options_of(kafka)
    async with (
        await KafkaBus.open(kafka.servers, 4, options) as bus,
        await KafkaBus.open(kafka.servers, 4, options) as other,
    ):
        await bus.create_topics(plan_of(slow()).topic_specs())
        async with running(slow(), bus):

            async def lanes_of_ours() -> list[int]:
                return [each.partition for each in bus.health() if each.assigned]

            async def all_four() -> bool:
                return len(await lanes_of_ours()) == 4

            await until(all_four)
            asked = [Envelope(id=f"q{n}", source="/t", type="members.asked", data=b'{"n": %d}' % n) for n in range(4)]
            await bus.publish([each.to_message(key=str(n), partition=n) for n, each in enumerate(asked)])

            async def all_begun() -> bool:
                return len(calls) == 4

            await until(all_begun)
            async with running(slow(), other):

                async def shared() -> bool:
                    return len(bus.health()) == 2 and len([each for each in other.health() if each.assigned]) == 2

                await until(shared)
                go_on.set()

                async def answered() -> bool:
                    return len([record async for record in bus.read("members.answered")]) == 4

                await until(answered)
        stayed, moved = len(calls) - 2 * (len(calls) - 4), len(calls) - 4
        assert (stayed, moved) == (2, 2), "those of lanes that moved were begun again by their new holder, the others were not"


@scenario
async def test_topics_that_are_missing_are_all_named_with_the_command_that_makes_them(kafka: Kafka) -> None:
    agent = Agent("lonely")

    @agent.step(effects=False)
    async def answer(asked: Asked) -> Answered:
        return Answered(n=asked.n)

    async with await KafkaBus.open(kafka.servers, 4, options_of(kafka)) as bus:
        with pytest.raises(ConfigurationError, match="pavane topics apply") as caught:
            await run_agent(agent, bus, asyncio.Event(), QUIET)
        named = {problem.where for problem in caught.value.problems}
        assert {"members.asked", "members.answered", "lonely.commands", "lonely.dead-letters"} <= named
        assert list(await bus.topics()) == []


@scenario
async def test_a_wrong_partition_count_is_an_error_at_start_that_names_the_topics(kafka: Kafka) -> None:
    options = options_of(kafka)
    async with await KafkaBus.open(kafka.servers, 2, options) as bus:
        await bus.create_topics([TopicSpec("two"), TopicSpec("too")])
    async with await KafkaBus.open(kafka.servers, 4, options) as bus:
        await bus.create_topics([TopicSpec("four")])
        with pytest.raises(ConfigurationError) as caught:
            await bus.lanes("group", ["four", "two", "too"])
        assert {problem.where for problem in caught.value.problems} == {"too", "two"}
    async with await KafkaBus.open(kafka.servers, None, options) as bus:
        assert bus.partitions == 2, "as most topics have"


@scenario
async def test_health_tells_of_each_lane_and_is_red_until_all_are_open(kafka: Kafka) -> None:
    port = free_block(1)
    agent = Agent("healthy")

    @agent.step(effects=False)
    async def answer(asked: Asked) -> Answered:
        return Answered(n=asked.n)

    def get(path: str) -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    board = Board()
    with serving(board, port, "127.0.0.1"):
        assert await asyncio.to_thread(get, "/ready") == (503, {"ready": False, "why": "starting", "lanes": []})
        assert (await asyncio.to_thread(get, "/live"))[0] == 200
        assert (await asyncio.to_thread(get, "/other"))[0] == 404
        board.waiting("no broker")
        assert (await asyncio.to_thread(get, "/ready"))[1]["why"] == "no broker"
        async with await KafkaBus.open(kafka.servers, 4, options_of(kafka)) as bus:
            await bus.create_topics(plan_of(agent).topic_specs())
            async with running(agent, bus):
                board.joined(bus)

                async def ready() -> bool:
                    return (await asyncio.to_thread(get, "/ready"))[0] == 200

                await until(ready)
                status, told = await asyncio.to_thread(get, "/ready")
                lanes = cast("list[dict[str, object]]", told["lanes"])
                assert status == 200
                assert len(lanes) == 4
                assert set(lanes[0]) == {
                    "group",
                    "partition",
                    "polling",
                    "assigned",
                    "last_commit_age_s",
                    "in_flight",
                    "trouble",
                }


@scenario
async def test_a_saga_runs_on_kafka_as_on_every_bus(kafka: Kafka) -> None:
    agent = Agent("answers")

    @agent.step(effects=False)
    async def answer(asked: Asked) -> Answered:
        return Answered(n=asked.n)

    saga = Saga("question", starts=Asked, completes=Answered, intake="members.intake")
    async with (
        await KafkaBus.open(kafka.servers, 4, options_of(kafka)) as bus,
        stage([agent], [saga], bus=bus, surroundings=QUIET) as on_stage,
    ):
        assert await on_stage.ended(await on_stage.publish({"n": 1})) == "completed"


@scenario
async def test_a_member_that_was_put_out_of_its_group_has_lost_its_lanes_before_it_joins_anew(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins: list[bool] = []
    claim = LaneAssignor.metadata

    def noted(assignor: LaneAssignor, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        joins.append(isinstance(held, KafkaLane) and held.lost)
        return claim(assignor, topics)

    held: Lane | None = None
    monkeypatch.setattr(LaneAssignor, "metadata", noted)
    deployment = KafkaDeployment(kafka.servers)
    async with await deployment.open() as bus:
        await bus.create_topics([TopicSpec("in")])
        lanes = await bus.lanes("late", ["in"])
        held = await anext(lanes)
        assert joins == [False]
        await deployment.take_away(held)
        while True:
            again = await anext(lanes)
            if again.partition == held.partition:
                break
        assert joins == [False, True]
        with pytest.raises(LaneLost):
            await held.receive(1, 0.0)
        assert await again.receive(1, 0.0) == ()


def is_closed(client: Client) -> bool:
    return not any(connection.connected() for connection in client._conns.values())


@scenario
async def test_a_member_whose_leaving_is_cut_short_lets_go_of_its_connections(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = asyncio.Event()
    leave = Group.close

    async def slowly(group: Group) -> None:
        await leave(group)
        leaving.set()
        await asyncio.Event().wait()

    clients = connecting_to(monkeypatch)
    async with await KafkaBus.open(kafka.servers, 1, options_of(kafka)) as bus:
        await bus.create_topics([TopicSpec("in")])
        monkeypatch.setattr(Group, "close", slowly)
        lanes = await bus.lanes("slow", ["in"])
        await anext(lanes)
        closing = asyncio.create_task(bus.close())
        await leaving.wait()
        assert not any(map(is_closed, clients))
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert all(map(is_closed, clients))
        assert len(clients) == 3


@scenario
async def test_a_bus_that_is_closed_while_a_member_joins_leaves_no_connection(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, go_on = asyncio.Event(), asyncio.Event()
    initialise = Producer.initialise

    async def slowly(producer: Producer) -> None:
        await initialise(producer)
        connected.set()
        await go_on.wait()

    clients = connecting_to(monkeypatch)
    bus = await KafkaBus.open(kafka.servers, 1, options_of(kafka))
    await bus.create_topics([TopicSpec("in")])
    monkeypatch.setattr(Producer, "initialise", slowly)
    joining = asyncio.create_task(bus.lanes("late", ["in"]))
    await connected.wait()
    await bus.close()
    go_on.set()
    with pytest.raises(BusUnavailable, match="closed"):
        await joining
    assert all(map(is_closed, clients))
    assert len(clients) == 3


def connecting_to(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """The clients that are connected from now on."""
    clients: list[Client] = []
    connect = Door.connect

    async def noted(door: Door, client_id: str, *, join_ms: int = 0) -> Client:
        clients.append(await connect(door, client_id, join_ms=join_ms))
        return clients[-1]

    monkeypatch.setattr(Door, "connect", noted)
    return clients
