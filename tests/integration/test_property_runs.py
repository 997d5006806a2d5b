"""Random runs by seed: a choreography with a fork, a join and every way to answer, on a bad bus, by processes that come and go.

After each run: every saga has ended, once; its effects all stand or none do; no event is on a topic twice. Each seed is one
history of faults, outcomes and deaths. A seed that fails here fails again: run ``pytest -k "seed"`` with its number.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from pavane import Agent, Context, EffectUndone, Event, Rejected, Retry, Saga, SagaEnded
from pavane.kit import Limits
from pavane.runner import Surroundings, run
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import Faults, MemoryBus
from support.stage import Stage, until

SEEDS = range(60)
SAGAS = 10
FAST = Retry(attempts=3, first_s=0.001)
UNCOUNTED = ("pavane.agents", "pavane.breakers", "pavane.spans")


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
    """What each step does with each saga, by seed, and a fenced store of what it did."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.effects: dict[str, tuple[bool, str, int]] = {}
        self.mourned: set[str] = set()

    def outcome(self, step: str, n: int) -> str:
        """Mostly it works."""
        chance = random.Random(f"{self.seed}/{step}/{n}")
        ways = ["works"] * 12 + ["works late"] * 3 + ["works at the second attempt"] * 2 + ["fails", "rejects", "declines"]
        return chance.choice(ways)

    async def do(self, step: str, n: int, ctx: Context) -> bool:
        """The effect, and the step's outcome; False where it declines."""
        state = self.effects.get(ctx.idempotency_key)
        if state is not None and not state[0]:
            raise EffectUndone(ctx.idempotency_key)
        outcome = self.outcome(step, n)
        if outcome == "rejects" and n % 2:
            raise Rejected("before it did anything")
        self.effects[ctx.idempotency_key] = (True, step, n)
        if outcome == "works late":
            await asyncio.sleep(0.002)
        if outcome == "fails" or (outcome == "works at the second attempt" and ctx.attempt == 1):
            raise ConnectionError("down")
        if outcome == "rejects":
            raise Rejected("after it did it")
        return outcome != "declines"

    def undo(self, step: str, n: int, ctx: Context) -> None:
        if ctx.attempt == 1 and n % 3 == 0:
            raise ConnectionError("down")
        self.effects[ctx.idempotency_key] = (False, step, n)

    def standing(self, n: int) -> list[str]:
        """The steps whose effect stands for that saga."""
        return sorted(step for stands, step, each in self.effects.values() if stands and each == n)

    def works(self, n: int) -> bool:
        """Whether all its steps do, in the end."""
        outcomes = {self.outcome(step, n) for step in STEPS}
        return outcomes.isdisjoint({"fails", "rejects", "declines"})


STEPS = ("check", "fork", "join", "note", "turn")


def choreography(world: World) -> tuple[list[Agent], Saga]:
    """Start forks to left and right; right is checked; left and checked join. A note is taken of left. Someone mourns."""
    forker, checker, joiner, watcher = Agent("forker"), Agent("checker"), Agent("joiner"), Agent("watcher")

    @forker.step(retry=FAST)
    async def fork(start: Start, ctx: Context) -> tuple[Left, Right] | None:  # type: ignore[return]
        ...

    return [forker, checker, joiner, watcher], Saga("r", starts=Start, completes=Joined, fails=Declined, intake="r.intake")
