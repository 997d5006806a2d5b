"""What the topics have let go of, lanes forget, too; and nothing sooner."""

import asyncio

from pavane import Agent, Event, Saga
from pavane.kit import Limits
from pavane.runner import Surroundings
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.memory_log import KeyedState
from pavane_events.forgetting import Forgetting
from support.stage import Stage, stage

DAY_S = 86_400.0
NOW_S = 1_790_000_000.0


class Asked(Event, type="forgetting.asked"):
    good: bool


class Left(Event, type="forgetting.left"): ...


class Right(Event, type="forgetting.right"): ...


class Refused(Event, type="forgetting.refused"): ...


class Done(Event, type="forgetting.done"): ...


def choreography() -> tuple[list[Agent], Saga]:
    """asked -> left, right (or refused); left + right -> done."""
    agent = Agent("keeper")

    @agent.step(effects=False)
    async def to_left(asked: Asked) -> Left:
        return Left()

    @agent.step(effects=False)
    async def to_right(asked: Asked) -> Right | Refused:
        return Right() if asked.good else Refused()

    @agent.step(effects=False)
    async def join(left: Left, right: Right) -> Done:
        return Done()

    return [agent], Saga("forgetting", starts=Asked, completes=Done, fails=Refused, intake="forgetting.intake")


def turn_of(saga: str, after_s: float) -> float:
    """The first moment after that one at which it is the turn of that saga."""
    return after_s + (int(saga[:4], 16) - int(after_s)) % 0x10000


async def rows(bus: MemoryBus) -> set[str]:
    """What lanes hold of sagas."""
    found: set[str] = set()
    for group, prefixes in {"keeper": (b"t/", b"a/"), "pavane.coordinator": (b"x/",)}.items():
        members = await bus.peer().lanes(group, [])
        lane = await anext(members)
        found |= {f"{group} {key.decode()}" for prefix in prefixes for key, _ in lane.state.scan(prefix)}
        await members.close()
    return found


def test_agents_and_coordinator_forget_sagas_that_are_long_over() -> None:
    """Tombstones, called joins and verdicts; what is as young as yesterday stays, and the deployment works on."""
    asyncio.run(_forgotten())


async def _forgotten() -> None:
    now = [NOW_S]
    bus = MemoryBus(1, clock=lambda: now[0], keeps_s=DAY_S)
    agents, saga = choreography()
    surroundings = Surroundings(trace=False, limits=Limits(drain_s=2.0), clock=lambda: now[0], look_s=0.01)

    async def decide(running: Stage, name: str, *, good: bool = True) -> str:
        found = await running.publish({"good": good}, name=name)
        assert await running.ended(found) == ("completed" if good else "compensated")
        return found

    async with stage(agents, [saga], bus=bus, surroundings=surroundings) as running:
        good, bad = await decide(running, "good"), await decide(running, "bad", good=False)
    kept = {f"keeper a/{good}/keeper/join", f"keeper t/{bad}", f"pavane.coordinator x/{good}", f"pavane.coordinator x/{bad}"}
    assert await rows(bus) == kept
    number = 0
    for after_s, left in ((NOW_S + 1.1 * DAY_S, kept), (NOW_S + 2 * DAY_S + 60, set[str]())):
        for each in (good, bad):
            now[0] = turn_of(each, after_s)
            async with stage(agents, [saga], bus=bus, surroundings=surroundings) as running:
                number += 1
                await decide(running, f"another-{number}")
        assert await rows(bus) & kept == left
    assert len(await rows(bus)) == 2 * number


def test_rows_stay_where_topics_keep_everything() -> None:
    """On an embedded bus."""
    state = KeyedState()
    state.apply({b"x/0000-1": b"1"})
    forgetting = Forgetting(state, {b"x/": lambda row: 1}, None, lambda: NOW_S)
    assert forgetting.due() == {}


def test_sagas_whose_ids_begin_with_the_time_go_a_thousand_with_each_commit_the_oldest_first() -> None:
    """For their four digits are the same for forty-nine days."""
    state, now = KeyedState(), [NOW_S]
    ids = [f"0190-{number:06d}" for number in range(3_500)]
    state.apply({f"x/{each}".encode(): b"1" if number < 2_500 else b"9" * 20 for number, each in enumerate(ids)})
    forgetting = Forgetting(state, {b"x/": int}, DAY_S, lambda: now[0])
    gone: list[list[bytes]] = []
    for second in range(0x10000):
        now[0] = NOW_S + second
        gone.append([*forgetting.due()])
        state.apply(dict.fromkeys(gone[-1]))
    assert [len(each) for each in gone if each] == [1_000, 1_000, 500]
    assert [key for each in gone for key in each] == [f"x/{each}".encode() for each in ids[:2_500]]


def test_in_a_lane_that_commits_now_and_then_every_saga_has_its_turn() -> None:
    state, now = KeyedState(), [NOW_S]
    state.apply({b"x/%04x-1" % digits: b"1" for digits in range(0x10000)})
    forgetting = Forgetting(state, {b"x/": int}, DAY_S, lambda: now[0])
    for _ in range(0x10000 // 16 + 1):
        now[0] += 60
        going = forgetting.due()
        assert len(going) <= 16
        state.apply(going)
    assert [*state.scan(b"x/")] == []


def test_each_saga_has_its_turn_once_it_is_old_enough() -> None:
    """By the four digits that its id begins with, a slice a second, not before twice the time that records are kept."""
    state, now = KeyedState(), [NOW_S]
    ids = [f"{digits:04x}-{number}" for digits in (0, 0x1234, 0xFFFF) for number in range(2)]
    state.apply({f"x/{each}".encode(): b"%d" % int(NOW_S * 1000) for each in ids})
    state.apply({b"x/1234-stays": b"", b"y/1234-another": b"1"})
    forgetting = Forgetting(state, {b"x/": lambda row: int(row) if row else None}, DAY_S, lambda: now[0])
    gone: dict[bytes, float] = {}
    for second in range(4 * 86_400):
        now[0] = NOW_S + second
        for key in forgetting.due():
            gone[key] = now[0]
            state.apply({key: None})
        assert forgetting.due() == {}
    assert sorted(gone) == sorted(f"x/{each}".encode() for each in ids)
    assert all(NOW_S + 2 * DAY_S < at_s < NOW_S + 2 * DAY_S + 0x10000 + 2 for at_s in gone.values())
