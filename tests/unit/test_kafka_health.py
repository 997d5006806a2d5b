"""A member's health: which of its lanes are polled, and whether it is a member at all."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from conformance.deployments import scenario
from pavane.simulation.virtual_time import VirtualLoop
from pavane_events.bus import Start
from pavane_events.buses.kafka import committer, lanes
from pavane_events.buses.kafka.assignor import LaneAssignor, read_claim
from pavane_events.buses.kafka.changelog import LaneRow, Restored
from pavane_events.buses.kafka.committer import TRANSACTION_S, Commit, Committer
from pavane_events.buses.kafka.connecting import Door
from pavane_events.buses.kafka.fetcher import Silence
from pavane_events.buses.kafka.lanes import SILENCE_S, KafkaLanes
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.places import Places
from pavane_events.buses.kafka.signature import Signature
from pavane_events.buses.kafka.transactions import Member, Producer
from pavane_events.buses.spilling_state import Room, SpillingState

CHANGELOG = TopicPartition("group.state", 0)


async def for_ever(*arguments: object) -> None:
    await asyncio.Event().wait()


class Stand:
    """What a membership is made of, without brokers: the group says what it is told to, all else does nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, options: KafkaOptions) -> None:
        self.name = "group"
        self.silent_s = self.busy_s = 0.0
        self.is_open = False
        self.held: Callable[[], tuple[int, Collection[int]]]
        self.assigned: Callable[[Member, set[TopicPartition]], None]
        self.tell_expelled: Callable[[], None]
        self.client = cast("AIOKafkaClient", self)
        for part, made in {
            "Group": self._group,
            "Opening": self.itself,
            "Committer": self._committer,
            "Fetcher": self.itself,
        }.items():
            monkeypatch.setattr(lanes, part, made)
        places = Places(self.client, options, 1, 1_000, Room())
        self.member = KafkaLanes(places, cast("Door", self), "group", ["in"], "earliest")

    def itself(self, *arguments: object) -> "Stand":
        return self

    def _group(
        self,
        *arguments: object,
        held: Callable[[], tuple[int, Collection[int]]],
        revoked: Callable[[bool], Awaitable[None]],
        assigned: Callable[[Member, set[TopicPartition]], None],
    ) -> "Stand":
        self.held, self.assigned = held, assigned
        return self

    def _committer(self, *arguments: object, expelled: Callable[[], None], **others: object) -> "Stand":
        self.tell_expelled = expelled
        return self

    async def connect(self, client_id: str, *, join_ms: int = 0) -> "Stand":
        return self

    async def close(self) -> None: ...
    async def initialise(self) -> None: ...

    def nothing(self, *arguments: object) -> None: ...

    run, watch = for_ever, for_ever
    producer = itself
    set_topics = join = rejoin = expelled = go = forget = seek = drop = nothing

    def changelog(self, partition: int) -> TopicPartition:
        return CHANGELOG

    def silence(self, places: Collection[TopicPartition]) -> Silence:
        return Silence(self.silent_s, "")

    async def signatures(self, partitions: Collection[int]) -> Mapping[int, Signature]:
        return {}

    async def read(self, partition: int, topics: Collection[str]) -> tuple[Restored, Mapping[str, int]]:
        return Restored(LaneRow(), SpillingState(Room(), "lane"), 0), {"in": 0}

    async def starts(self, partition: int, topics: Collection[str], start: Start) -> Mapping[str, int]:
        return {}


async def a_member(monkeypatch: pytest.MonkeyPatch, options: KafkaOptions) -> Stand:
    """One that holds the one lane."""
    stand = Stand(monkeypatch, options)
    await stand.member.open()
    stand.assigned(Member(3, "me", None), {TopicPartition("in", 0)})
    await anext(stand.member)
    assert stand.member.settled
    return stand


def polling(stand: Stand) -> bool:
    (lane,) = stand.member.health()
    return lane.polling


@pytest.mark.parametrize("wait_s", [0.05, 10.0])
def test_a_lane_is_polled_while_answers_come_as_late_as_they_may(monkeypatch: pytest.MonkeyPatch, wait_s: float) -> None:
    @scenario
    async def test() -> None:
        stand = await a_member(monkeypatch, KafkaOptions(fetch_wait_ms=int(wait_s * 1000)))
        stand.silent_s = wait_s + SILENCE_S - 0.01
        assert polling(stand)
        stand.silent_s = wait_s + SILENCE_S
        assert not polling(stand)
        await stand.member.close()

    test()


@scenario
async def test_a_lane_that_asks_for_nothing_is_not_polled_while_its_commits_do_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand = await a_member(monkeypatch, KafkaOptions())
    stand.busy_s = TRANSACTION_S
    assert polling(stand)
    stand.busy_s = TRANSACTION_S + 1.0
    assert not polling(stand)
    await stand.member.close()


@scenario
async def test_a_member_that_was_put_out_of_its_group_is_not_ready_and_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = await a_member(monkeypatch, KafkaOptions())
    claim = LaneAssignor(1, stand.held)
    assert read_claim(claim.metadata(["in"]).user_data) == (3, [0])
    stand.tell_expelled()
    assert not stand.member.settled
    assert read_claim(claim.metadata(["in"]).user_data) == (-1, [])
    stand.assigned(Member(4, "me anew", None), {TopicPartition("in", 0)})
    await anext(stand.member)
    assert stand.member.settled
    await stand.member.close()


class Away:
    """A producer whose brokers went away in the middle of a transaction."""

    transactional_id = "group-1"

    def __init__(self) -> None:
        self.back = asyncio.Event()

    async def transact(self, *arguments: object) -> Mapping[TopicPartition, int]:
        if not self.back.is_set():
            raise KafkaConnectionError
        return {CHANGELOG: 7}

    async def initialise(self) -> None:
        await self.back.wait()


def test_a_transaction_is_under_way_until_its_outcome_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(committer, "time", SimpleNamespace(monotonic=loop.time))
        producer = Away()

        async def signatures(partitions: Collection[int]) -> Mapping[int, Signature]:
            return {}

        making = Committer(
            "group",
            cast("Producer", producer),
            signatures,
            expelled=lambda: None,
            stale=lambda: None,
            most=500,
            pace=0.0,
            fenced_s=0.0,
        )
        lane = SimpleNamespace(partition=0, lost=False, changelog=CHANGELOG, changelog_end=5)
        commit = Commit(cast("committer.Committing", lane), "0.0", LaneRow(1), {}, [], {})
        working = asyncio.create_task(making.run())
        making.go(Member(1, "me", None))
        assert making.busy_s == 0.0
        making.submit(commit)
        await asyncio.sleep(60.0)
        assert making.busy_s == pytest.approx(60.0)
        producer.back.set()
        assert await commit.future == 8
        await asyncio.sleep(0)
        assert making.busy_s == 0.0
        working.cancel()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(test())
