"""Locks between sagas on four lanes: nobody shares, nobody waits for ever, and a circle is found and named."""

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from pavane import Agent, Context, EffectUndone, Event, Saga
from pavane.runner import Surroundings, run
from pavane_credit import clerk
from pavane_credit.applications import read_applications
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.memory import Faults, MemoryBus
from pavane_events.envelope import Envelope, parse
from pavane_saga.facts import Fact, Fired
from pavane_saga.intake import saga_id_of
from pavane_saga.locks import list_locks
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import FACTS, read_fact
from support.mortals import processes
from support.stage import Stage, until

GUESTS = 16


class Wanted(Event, type="rooms.wanted"):
    rooms: tuple[str, str]


class Entered(Event, type="rooms.entered"):
    rooms: tuple[str, str]


class Left(Event, type="rooms.left"):
    pass


class Hotel:
    """Rooms for one saga each. Every saga enters two of them, in an order of its own, and stays until it ends."""

    def __init__(self) -> None:
        self.inside: dict[str, str] = {}
        self.entered: set[str] = set()
        self.undone: set[str] = set()
        self.crowded: list[str] = []
        first, second = Agent("first"), Agent("second")

        def one_room(wanted: Wanted) -> str:
            return wanted.rooms[0]

        def other_room(entered: Entered) -> str:
            return entered.rooms[1]

        @first.step(lock=one_room)
        async def enter(wanted: Wanted, ctx: Context) -> Entered:
            self._enter(wanted.rooms[0], ctx)
            await asyncio.sleep(random.uniform(0, 0.01))
            return Entered(rooms=wanted.rooms)

        @enter.compensate
        async def leave(wanted: Wanted, done: Entered | None, ctx: Context) -> None:
            self.undone.add(ctx.idempotency_key)
            self._leave(wanted.rooms[0], ctx)

        @second.step(lock=other_room)
        async def enter_other(entered: Entered, ctx: Context) -> Left:
            self._enter(entered.rooms[1], ctx)
            await asyncio.sleep(random.uniform(0, 0.01))
            for room in entered.rooms:
                self._leave(room, ctx)
            return Left()

        @enter_other.compensate
        async def leave_other(entered: Entered, done: Left | None, ctx: Context) -> None:
            self.undone.add(ctx.idempotency_key)
            self._leave(entered.rooms[1], ctx)

        self.agents = [first, second]
        self.saga = Saga("staying", starts=Wanted, completes=Left, deadline=timedelta(minutes=2), intake="rooms.intake")

    def _enter(self, room: str, ctx: Context) -> None:
        """Once, whoever asks how often; not at all where that was undone."""
        if ctx.idempotency_key in self.undone:
            raise EffectUndone(ctx.idempotency_key)
        if ctx.idempotency_key in self.entered:
            return
        self.entered.add(ctx.idempotency_key)
        if self.inside.setdefault(room, ctx.saga or "") != ctx.saga:
            self.crowded.append(f"{self.inside[room]} and {ctx.saga} are in {room}")

    def _leave(self, room: str, ctx: Context) -> None:
        if self.inside.get(room) == ctx.saga:
            del self.inside[room]


async def ended(bus: Bus, count: int) -> list[SagaEnded]:
    async with asyncio.timeout(60):
        while True:
            found = [SagaEnded.from_json(record.value or b"") async for record in bus.read(SagaEnded.event_type)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


def test_two_hundred_sagas_share_five_rooms_on_four_lanes() -> None:
    hotel, chance = Hotel(), random.Random(7)

    async def scenario() -> None:
        async with MemoryBus(partitions=4) as bus:
            await bus.create_topics([TopicSpec("rooms.intake"), TopicSpec(SagaEnded.event_type)])
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(run(hotel.agents, [hotel.saga], bus, stop, Surroundings(trace=False)))
                for number in range(200):
                    one, other = chance.sample("abcde", 2)
                    data = Wanted(rooms=(one, other)).to_json()
                    start = Envelope(id=str(number), source="/t", type=Wanted.event_type, data=data)
                    await bus.publish([start.to_message("rooms.intake", key=saga_id_of("/t", str(number)))])
                ends = Counter([each.verdict for each in await ended(bus, 200)])
                facts = [read_fact(parse(record)) async for record in bus.read(FACTS)]
                circles = [fact for fact in facts if isinstance(fact, Fired) and is_circle(fact)]
                assert ends["completed"] + ends["compensated"] == 200
                assert ends["compensated"] == len(circles) > 0, "only who had to give way failed"
                assert all("waits for" in each.detail and "held by" in each.detail for each in circles)
                assert await list_locks(bus) == [], "everything was given back"
                stop.set()

    asyncio.run(scenario())
    assert hotel.crowded == []
    assert hotel.inside == {}


@pytest.mark.parametrize("seed", range(20))
def test_on_a_bad_bus_by_processes_that_die_nobody_shares_a_room_and_every_lock_is_given_back(seed: int) -> None:
    hotel, chance = Hotel(), random.Random(seed)
    faults = Faults(seed, crash_before=0.02, crash_after=0.02, lost=0.01, duplicate=0.05, delay=0.2, reorder=0.5)

    async def scenario() -> None:
        async with MemoryBus(partitions=2, faults=faults) as bus:
            await bus.create_topics([TopicSpec("rooms.intake")])
            stage = Stage(bus, [hotel.saga])
            async with processes(hotel.agents, hotel.saga, bus, chance):
                ids = [await stage.publish({"rooms": chance.sample("abcd", 2)}) for _ in range(GUESTS)]

                async def all_ended() -> bool:
                    faults.active = len(faults.history) < 400
                    return len(await stage.verdicts()) == GUESTS

                async def all_free() -> bool:
                    return await list_locks(bus) == []

                await until(all_ended)
                await until(all_free)
            verdicts = await stage.verdicts()
            circles = {saga for saga in ids for fact in await stage.facts(saga) if is_circle(fact)}
            assert {saga for saga, verdict in verdicts.items() if verdict == "compensated"} == circles, faults.history
            assert set(verdicts.values()) <= {"completed", "compensated"}
            ends = Counter([each.saga for each in await stage.events(SagaEnded.event_type)])
            assert set(ends.values()) == {1}

    asyncio.run(scenario())
    assert hotel.crowded == [], faults.history
    assert hotel.inside == {}, faults.history


def is_circle(fact: Fact) -> bool:
    return isinstance(fact, Fired) and fact.rule == "deadlock"


def test_one_person_has_one_application_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_LEDGERS", ":memory:locks-")
    first, second, stranger = (each.event for each in read_applications()[:3])
    of_ann = [each.model_copy(update={"applicant_id": "ann"}) for each in (first, second)]

    async def scenario() -> None:
        async with MemoryBus(partitions=2) as bus:
            clerk.desk.give(bus)
            await bus.create_topics([TopicSpec("credit.applications"), TopicSpec(SagaEnded.event_type)])
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(run((*AGENTS, clerk.agent), SAGAS, bus, stop))
                for each in (*of_ann, stranger):
                    start = Envelope(
                        id=each.application_id, source="/t", type=each.event_type, data=each.to_json(), subject="s"
                    )
                    await bus.publish([start.to_message("credit.applications")])
                await ended(bus, 3)
                stop.set()
            topics = ("credit.fraud-cleared", "credit.fraud-suspected", SagaEnded.event_type)
            order = [
                (record.timestamp_ms, topic, (record.key or b"").decode())
                for topic in topics
                async for record in bus.read(topic)
            ]
            mine = [saga_id_of("/t", each.application_id) for each in of_ann]
            checked = {saga: at for at, topic, saga in order if topic != SagaEnded.event_type}
            over = {saga: at for at, topic, saga in order if topic == SagaEnded.event_type}
            earlier, later = sorted(mine, key=lambda saga: checked[saga])
            assert over[earlier] <= checked[later], "the other was looked at when the first was over"

    try:
        asyncio.run(scenario())
    finally:
        clerk.desk.give(None)
