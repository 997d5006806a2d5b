"""Random runs by seed: a choreography with a fork, a join and every way to answer, on a bad bus, by processes that die.

After each run every saga has ended, once; its effects all stand or none do; no event is on a topic twice. A seed is one
history of outcomes, faults and deaths; what the machine's clock adds to it is when exactly a process dies.
"""

import asyncio
import random
from collections import Counter

import pytest

from pavane import Agent, Context, EffectUndone, Event, Rejected, Retry, Saga, SagaEnded
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import Faults, MemoryBus
from support.mortals import processes
from support.stage import Stage, until

SEEDS = range(60)
SAGAS = 16
STEPS = ("check", "fork", "join", "note")
FAST = Retry(attempts=3, first_s=0.001)
UNCOUNTED = ("pavane.agents", "pavane.breakers")


class Start(Event, type="r.start"):
    n: int


class Left(Event, type="r.left"):
    n: int


class Right(Event, type="r.right"):
    n: int


class Checked(Event, type="r.checked"):
    n: int


class Joined(Event, type="r.joined"):
    n: int


class Declined(Event, type="r.declined"):
    n: int


class World:
    """What each step does with each saga, by seed, and a fenced store of what was done."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.effects: dict[str, tuple[bool, str, int]] = {}
        self.mourned: set[int] = set()

    def outcome(self, step: str, n: int) -> str:
        """Mostly it works."""
        troubles = ["late", "at the second attempt", "fails", "rejects before", "rejects after", "declines"]
        return random.Random(f"{self.seed}/{step}/{n}").choice(["works"] * 16 + troubles)

    def works(self, n: int) -> bool:
        """Whether every step of that saga answers in the end."""
        outcomes = {self.outcome(step, n) for step in STEPS}
        can_decline = {self.outcome(step, n) for step in ("check", "join")}
        return outcomes.isdisjoint({"fails", "rejects before", "rejects after"}) and "declines" not in can_decline

    async def do(self, step: str, n: int, ctx: Context) -> bool:
        """Leave the effect; whether the answer is yes."""
        state = self.effects.get(ctx.idempotency_key)
        if state is not None and not state[0]:
            raise EffectUndone(ctx.idempotency_key)
        outcome = self.outcome(step, n)
        if outcome == "rejects before":
            raise Rejected("before it did anything")
        self.effects[ctx.idempotency_key] = (True, step, n)
        if outcome == "late":
            await asyncio.sleep(0.002)
        if outcome == "fails" or (outcome == "at the second attempt" and ctx.attempt == 1):
            raise ConnectionError("down")
        if outcome == "rejects after":
            raise Rejected("after it did it")
        return outcome != "declines"

    def undo(self, step: str, n: int, ctx: Context) -> None:
        """Take the effect back, sometimes at the second attempt only."""
        if ctx.attempt == 1 and n % 3 == 0:
            raise ConnectionError("down")
        self.effects[ctx.idempotency_key] = (False, step, n)

    def standing(self, n: int) -> tuple[str, ...]:
        """The steps whose effect stands for that saga."""
        return tuple(sorted(step for stands, step, each in self.effects.values() if stands and each == n))


def choreography(world: World) -> tuple[list[Agent], Saga]:
    """Start forks to left and right; right is checked; left and what was checked join; of left a note is taken, too."""
    forker, checker, joiner, watcher = Agent("forker"), Agent("checker"), Agent("joiner"), Agent("watcher")

    @forker.step(retry=FAST)
    async def fork(start: Start, ctx: Context) -> tuple[Left, Right]:
        await world.do("fork", start.n, ctx)
        return Left(n=start.n), Right(n=start.n)

    @fork.compensate(retry=FAST)
    async def unfork(start: Start, done: tuple[Left, Right] | None, ctx: Context) -> None:
        world.undo("fork", start.n, ctx)

    @checker.step(retry=FAST)
    async def check(right: Right, ctx: Context) -> Checked | Declined:
        return Checked(n=right.n) if await world.do("check", right.n, ctx) else Declined(n=right.n)

    @check.compensate(retry=FAST)
    async def uncheck(right: Right, done: Checked | Declined | None, ctx: Context) -> None:
        world.undo("check", right.n, ctx)

    @checker.step(retry=FAST)
    async def note(left: Left, ctx: Context) -> None:
        await world.do("note", left.n, ctx)

    @note.compensate(retry=FAST)
    async def unnote(left: Left, done: None, ctx: Context) -> None:
        world.undo("note", left.n, ctx)

    @joiner.step(retry=FAST)
    async def join(left: Left, checked: Checked, ctx: Context) -> Joined | Declined:
        return Joined(n=left.n) if await world.do("join", left.n, ctx) else Declined(n=left.n)

    @join.compensate(retry=FAST)
    async def unjoin(left: Left, checked: Checked, done: Joined | Declined | None, ctx: Context) -> None:
        world.undo("join", left.n, ctx)

    @watcher.observe(retry=FAST)
    async def mourn(declined: Declined, ended: SagaEnded) -> None:
        world.mourned.add(declined.n)

    return [forker, checker, joiner, watcher], Saga("r", starts=Start, completes=Joined, fails=Declined, intake="r.intake")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_saga_ends_once_with_all_of_its_effects_or_none_and_no_event_is_there_twice(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        faults = Faults(seed, crash_before=0.02, crash_after=0.02, lost=0.01, duplicate=0.05, delay=0.2, reorder=0.5)
        bus = MemoryBus(partitions=2, faults=faults)
        world = World(seed)
        agents, saga = choreography(world)
        await bus.create_topics([TopicSpec(saga.intake)])
        stage = Stage(bus, [saga])
        async with processes(agents, saga, bus, chance):
            ids = {await stage.publish({"n": n}): n for n in range(SAGAS)}

            async def all_ended() -> bool:
                faults.active = len(faults.history) < 400
                return "pavane.saga-ended" in await bus.topics() and len(await stage.verdicts()) == len(ids)

            await until(all_ended)
            verdicts = {n: (await stage.verdicts())[saga_id] for saga_id, n in ids.items()}
            declined = {Declined.from_json(each.data).n for each in await stage.events("r.declined")}

            async def all_mourned() -> bool:
                return world.mourned >= declined

            await until(all_mourned)
        expected = {n: ("completed", STEPS) if world.works(n) else ("compensated", ()) for n in range(SAGAS)}
        assert {n: (verdicts[n], world.standing(n)) for n in range(SAGAS)} == expected, faults.history
        for topic in await bus.topics():
            if not topic.endswith(".dead-letters") and topic not in UNCOUNTED:
                counted = Counter(each.id for each in await stage.events(topic) if each.saga is not None)
                assert [each for each, times in counted.items() if times > 1] == [], (topic, faults.history)
        assert set(Counter(each.saga for each in await stage.events("pavane.saga-ended")).values()) == {1}
        await bus.close()

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(bounded())
