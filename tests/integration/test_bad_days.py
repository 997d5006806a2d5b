"""Bad days by seed: lanes are lost, commits end in doubt, records come late, twice and across topics; all of it at once."""

import asyncio
from collections import Counter

import pytest

from pavane import Agent, Context, EffectUndone, Event, Rejected, Retry, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings
from pavane_events.buses.memory import Faults, MemoryBus
from support.stage import stage, until

SEEDS = range(40)
SAGAS = 12
FAST = Retry(attempts=3, first_s=0.001)


class Start(Event, type="d.start"):
    n: int


class Left(Event, type="d.left"):
    n: int


class Right(Event, type="d.right"):
    n: int


class Joined(Event, type="d.joined"):
    n: int


class Finished(Event, type="d.finished"):
    n: int


class Declined(Event, type="d.declined"):
    n: int


class Store:
    """A fenced store of effects: an undone key stays undone."""

    def __init__(self) -> None:
        self.state: dict[str, tuple[str, str, int]] = {}

    def do(self, ctx: Context, what: str, n: int) -> None:
        state = self.state.get(ctx.idempotency_key)
        if state is not None and state[0] == "undone":
            raise EffectUndone(ctx.idempotency_key)
        self.state[ctx.idempotency_key] = ("done", what, n)

    def undo(self, ctx: Context, what: str, n: int) -> None:
        self.state[ctx.idempotency_key] = ("undone", what, n)

    def standing(self) -> Counter[int]:
        return Counter(n for state, _, n in self.state.values() if state == "done")


def choreography(store: Store) -> tuple[list[Agent], Saga]:
    """A fork, a join and an end; each step has an effect; one in four refuses or fails somewhere."""
    left, right, join, last = Agent("left"), Agent("right"), Agent("join"), Agent("last")

    @left.step(retry=FAST)
    async def go_left(start: Start, ctx: Context) -> Left:
        store.do(ctx, "left", start.n)
        if start.n % 12 == 3:
            raise ConnectionError("down")
        return Left(n=start.n)

    @go_left.compensate(retry=FAST)
    async def unleft(start: Start, done: Left | None, ctx: Context) -> None:
        if ctx.attempt == 1 and start.n % 5 == 0:
            raise ConnectionError("down")
        store.undo(ctx, "left", start.n)

    @right.step(retry=FAST)
    async def go_right(start: Start, ctx: Context) -> Right:
        store.do(ctx, "right", start.n)
        if start.n % 12 == 5:
            raise Rejected("no")
        await asyncio.sleep(0)
        return Right(n=start.n)

    @go_right.compensate(retry=FAST)
    async def unright(start: Start, done: Right | None, ctx: Context) -> None:
        store.undo(ctx, "right", start.n)

    @join.step(retry=FAST)
    async def meet(a: Left, b: Right, ctx: Context) -> Joined:
        store.do(ctx, "join", a.n)
        return Joined(n=a.n)

    @meet.compensate(retry=FAST)
    async def part(a: Left, b: Right, done: Joined | None, ctx: Context) -> None:
        store.undo(ctx, "join", a.n)

    @last.step(retry=FAST)
    async def end(joined: Joined, ctx: Context) -> Finished | Declined:
        store.do(ctx, "end", joined.n)
        return Declined(n=joined.n) if joined.n % 12 == 7 else Finished(n=joined.n)

    @end.compensate(retry=FAST)
    async def unend(joined: Joined, done: Finished | Declined | None, ctx: Context) -> None:
        store.undo(ctx, "end", joined.n)

    return [left, right, join, last], Saga("d", starts=Start, completes=Finished, fails=Declined, intake="d.intake")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_saga_ends_once_and_its_effects_all_stand_or_none_do(seed: int) -> None:
    async def scenario() -> None:
        faults = Faults(seed, crash_before=0.02, crash_after=0.02, lost=0.01, duplicate=0.05, delay=0.2, reorder=0.5)
        bus = MemoryBus(partitions=2, faults=faults)
        store = Store()
        agents, saga = choreography(store)
        surroundings = Surroundings(trace=False, limits=Limits(drain_s=1.0, mark_window=8))
        async with stage(agents, [saga], bus=bus, surroundings=surroundings) as running:
            ids = {await running.publish({"n": n}): n for n in range(SAGAS)}

            async def all_ended() -> bool:
                if not faults.history[400:]:
                    return len(await running.verdicts()) == len(ids)
                faults.active = False
                return len(await running.verdicts()) == len(ids)

            await until(all_ended)
            verdicts = await running.verdicts()
            for topic in await bus.topics():
                if not topic.endswith(".dead-letters") and topic not in ("pavane.agents", "pavane.breakers"):
                    counted = Counter(each.id for each in await running.events(topic) if each.saga is not None)
                    assert [each for each, times in counted.items() if times > 1] == [], (topic, faults.history)
            ends = Counter(each.saga for each in await running.events("pavane.saga-ended"))
            assert set(ends.values()) == {1}
            assert set(ends) == set(ids)
        standing = store.standing()
        for saga_id, n in ids.items():
            expected = {"completed": 4, "compensated": 0}[verdicts[saga_id]]
            assert standing[n] == expected, (n, verdicts[saga_id], faults.history)
            if n % 12 not in (3, 5, 7):
                assert verdicts[saga_id] == "completed"
        await bus.close()

    asyncio.run(scenario())
