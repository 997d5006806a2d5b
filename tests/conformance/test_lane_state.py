"""What an agent keeps in its lane's state survives on every bus: declaration, begun mark, arms, tombstones; and parking."""

import json
from collections.abc import Callable

from conformance.deployments import PARTITIONS, Deployment, lanes_of, scenario
from pavane import Agent, Context, Event, Retry, Saga
from pavane.arms import decode_tombstone, filled_arms
from pavane.kit import Limits
from pavane.marks import KEY as LANE_ROW
from pavane.runner import Surroundings
from pavane_events.bus import Bus
from pavane_events.envelope import Envelope
from pavane_saga.facts import Declared, UndoFailed
from pavane_saga.wire import FACTS, read_fact
from support.stage import Stage, stage, until

FAST = Retry(attempts=2, first_s=0.001)
SETTINGS = Surroundings(trace=False, limits=Limits(mark_window=50))


class Start(Event, type="state.start"):
    n: int = 0


class One(Event, type="state.one"):
    n: int = 0


class Two(Event, type="state.two"):
    n: int = 0


class End(Event, type="state.end"):
    n: int = 0


class No(Event, type="state.no"):
    n: int = 0


def choreography(look: Callable[[], None] = lambda: None) -> tuple[list[Agent], Saga]:
    """start -> one, two; one + two -> end. With n = 1, two is never given and one refuses; with n = 2 an undo fails."""
    first, joiner = Agent("first"), Agent("joiner")

    @first.step(retry=FAST)
    async def give_one(start: Start, ctx: Context) -> One | No:
        look()
        return One(n=start.n) if start.n != 2 else No()

    @give_one.compensate(retry=FAST)
    async def take_one(start: Start, done: One | No | None, ctx: Context) -> None:
        if start.n == 2:
            raise ConnectionError("down")

    @first.step(effects=False)
    async def give_two(one: One) -> Two | No:
        return Two() if one.n != 1 else No()

    @joiner.step(retry=FAST)
    async def join(one: One, two: Two) -> End:
        return End()

    @join.compensate(retry=FAST)
    async def part(one: One, two: Two, done: End | None) -> None: ...

    return [first, joiner], Saga("state", starts=Start, completes=End, fails=No, intake="state.intake")


async def held(bus: Bus, group: str, prefix: bytes) -> dict[int, dict[bytes, bytes]]:
    """What each of a group's lanes holds, as the next member to join finds it."""
    members = await bus.lanes(group, ["state.start"])
    try:
        lanes = await lanes_of(members, PARTITIONS)
        return {partition: dict(lane.state.scan(prefix)) for partition, lane in lanes.items()}
    finally:
        await members.close()


async def rows(bus: Bus, group: str, prefix: bytes) -> dict[bytes, bytes]:
    """The same of all lanes together, for rows that only one of them has."""
    lanes = (await held(bus, group, prefix)).values()
    found = {key: row for lane in lanes for key, row in lane.items()}
    assert len(found) == sum(map(len, lanes))
    return found


async def lane_rows(bus: Bus) -> dict[int, dict[str, object]]:
    """The row that every lane of the agent "first" has of its own."""
    return {partition: json.loads(lane[LANE_ROW]) for partition, lane in (await held(bus, "first", LANE_ROW)).items()}


@scenario
async def test_a_lane_declares_a_version_once_however_often_it_is_held(deployment: Deployment) -> None:
    agents, saga = choreography()
    for run in range(2):
        async with await deployment.open() as bus, stage(agents, [saga], bus=bus, surroundings=SETTINGS) as running:
            assert await running.ended(await running.publish({}, name=str(run))) == "completed"
    async with await deployment.open() as bus:
        facts = [read_fact(each) for each in await Stage(bus, []).events(FACTS)]
        declared = [fact.agent for fact in facts if isinstance(fact, Declared)]
        assert sorted(declared) == ["first"] * PARTITIONS + ["joiner"] * PARTITIONS
        lanes = await lane_rows(bus)
        assert len(lanes) == PARTITIONS
        assert len({str(lane["version"]) for lane in lanes.values()}) == 1


@scenario
async def test_the_begun_mark_is_durable_before_a_step_begins(deployment: Deployment) -> None:
    begun: list[bool] = []
    async with await deployment.open() as bus:
        agents, saga = choreography(lambda: begun.append(True))
        async with stage(agents, [saga], bus=bus, surroundings=SETTINGS) as running:
            for number in range(20):
                await running.ended(await running.publish({"n": 0}, name=f"m{number}"))
        starts = await Stage(bus, []).records("state.start")
        lanes = await lane_rows(bus)
    assert len(begun) == 20
    assert {record.partition for record in starts} == set(range(PARTITIONS))
    for record in starts:
        mark = lanes[record.partition]["mark"]
        assert isinstance(mark, dict)
        assert mark["state.start"] > record.offset


@scenario
async def test_a_called_join_and_a_tombstone_with_its_arms_are_found_by_the_next_holder(deployment: Deployment) -> None:
    agents, saga = choreography()
    async with await deployment.open() as bus:
        async with stage(agents, [saga], bus=bus, surroundings=SETTINGS) as running:
            good = await running.publish({"n": 0})
            assert await running.ended(good) == "completed"
            bad = await running.publish({"n": 1})
            assert await running.ended(bad) == "compensated"
            (one,) = await running.events("state.one", bad)
        tombstones = await rows(bus, "joiner", b"t/")
        assert decode_tombstone(tombstones[f"t/{bad}".encode()]) == {"joiner/join": {"one": one.id}}
        joins = await rows(bus, "joiner", b"a/")
        assert set(joins) == {f"a/{good}/joiner/join".encode()}
        assert set(filled_arms(joins[f"a/{good}/joiner/join".encode()])) == {"one", "two"}


@scenario
async def test_a_second_event_for_a_join_that_was_called_fails_and_names_both(deployment: Deployment) -> None:
    agents, saga = choreography()
    slow = Agent("slow")

    @slow.step(effects=False)
    async def never(two: Two) -> End | None:
        return None

    async with await deployment.open() as bus, stage([*agents, slow], [saga], bus=bus, surroundings=SETTINGS) as running:
        saga_id = await running.publish({"n": 0})
        assert await running.ended(saga_id) == "completed"
        (one,) = await running.events("state.one", saga_id)
        second = Envelope(id="second", source="/x", type="state.one", data=b"{}", saga=saga_id)
        await running.send(second.to_message(), second.to_message())

        async def letters() -> list[dict[str, str]] | None:
            found = [each for each in await running.dead("joiner") if each["error_code"] == "join.arm-filled"]
            return found if len(found) >= 2 else None  # give_two heard it, too, and gave another event

        assert one.id in (await until(letters))[0]["error_problems"]


@scenario
async def test_a_failed_undo_parks_its_saga_also_over_a_restart(deployment: Deployment) -> None:
    agents, saga = choreography()
    async with await deployment.open() as bus, stage(agents, [saga], bus=bus, surroundings=SETTINGS) as running:
        parked = await running.publish({"n": 2}, name="parked")

        async def failed() -> list[UndoFailed]:
            return [fact for fact in await running.facts(parked) if isinstance(fact, UndoFailed)]

        await until(failed)
    async with await deployment.open() as bus, stage(agents, [saga], bus=bus, surroundings=SETTINGS) as running:
        assert await running.ended(await running.publish({"n": 0}, name="next")) == "completed"
        assert parked not in await running.verdicts()
        assert len(await running.events("first.commands", parked)) == 1
