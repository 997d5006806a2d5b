"""The circuit breaker, by a clock that is passed in."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane.breaker import Breaker, BreakerOpen, Breakers, Transition


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.heard: list[Transition] = []
        self.breaker = Breaker("bureau", clock=lambda: self.now, heard=self.heard.append)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.enter()
            self.breaker.failed()

    def changes(self) -> list[tuple[str, str]]:
        return [(each.before, each.after) for each in self.heard]


def test_five_failures_in_a_row_open_it_and_a_success_in_between_does_not() -> None:
    world = World()
    world.fail(4)
    world.breaker.succeeded()
    world.fail(4)
    assert world.breaker.state == "closed"
    world.fail()
    assert world.changes() == [("closed", "open")]
    with pytest.raises(BreakerOpen) as raised:
        world.breaker.enter()
    assert raised.value.retry_at_s == 1060.0


def test_after_sixty_seconds_one_trial_call_decides() -> None:
    world = World()
    world.fail(5)
    world.now += 59.9
    with pytest.raises(BreakerOpen):
        world.breaker.enter()
    world.now += 0.1
    world.breaker.enter()
    with pytest.raises(BreakerOpen):
        world.breaker.enter()
    world.breaker.failed()
    assert world.changes() == [("closed", "open"), ("open", "half-open"), ("half-open", "open")]
    world.now += 60
    world.breaker.enter()
    world.breaker.succeeded()
    assert world.breaker.state == "closed"
    world.fail(4)
    assert world.breaker.state == "closed"


def test_a_trial_call_that_never_comes_back_does_not_hold_it_open_for_ever() -> None:
    world = World()
    world.fail(5)
    world.now += 60
    world.breaker.enter()
    world.now += 60
    world.breaker.enter()


def test_as_a_context_an_exception_is_a_failure_and_a_cancellation_is_neither() -> None:
    async def scenario() -> None:
        world = World()
        for _ in range(5):
            with pytest.raises(ConnectionError):
                async with world.breaker:
                    raise ConnectionError
        assert world.changes()[-1] == ("closed", "open")
        world.now += 60
        with pytest.raises(asyncio.CancelledError):
            async with world.breaker:
                raise asyncio.CancelledError
        assert world.breaker.state == "half-open"

    asyncio.run(scenario())


def test_the_breakers_of_an_agent_have_its_settings_and_tell_each_transition_once() -> None:
    breakers = Breakers(lambda: 0.0, {"bank": (1, 5.0)})
    breaker = breakers.get("bank")
    assert breakers.get("bank") is breaker
    breaker.failed()
    assert [each.after for each in breakers.take_transitions()] == ["open"]
    assert breakers.take_transitions() == []


def test_calls_under_way_when_it_opened_say_nothing_any_more() -> None:
    async def scenario() -> None:
        world = World()
        leave = asyncio.Event()

        async def slow_success() -> None:
            async with world.breaker:
                await leave.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(slow_success())
            await asyncio.sleep(0)
            world.fail(5)
            leave.set()
        assert world.breaker.state == "open"
        assert world.changes() == [("closed", "open")]

    asyncio.run(scenario())


def test_only_the_trial_call_decides_whichever_calls_come_back_meanwhile() -> None:
    async def scenario() -> None:
        world = World()
        gates = {name: asyncio.Event() for name in ("late success", "late failure", "trial")}

        async def call(name: str) -> None:
            async with world.breaker:
                await gates[name].wait()
                if name == "late failure":
                    raise ConnectionError

        late = [asyncio.create_task(call(name)) for name in ("late success", "late failure")]
        await asyncio.sleep(0)
        world.fail(5)
        world.now += 60
        trial = asyncio.create_task(call("trial"))
        await asyncio.sleep(0)
        gates["late success"].set()
        gates["late failure"].set()
        await asyncio.gather(*late, return_exceptions=True)
        assert world.breaker.state == "half-open"
        gates["trial"].set()
        await trial
        assert world.changes() == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]

    asyncio.run(scenario())


def test_while_a_trial_call_is_under_way_others_look_again_soon() -> None:
    world = World()
    world.fail(5)
    world.now += 60
    world.breaker.enter()
    with pytest.raises(BreakerOpen) as raised:
        world.breaker.enter()
    assert raised.value.retry_at_s == world.now + 1


@given(st.lists(st.tuples(st.sampled_from(["works", "fails"]), st.floats(0, 50)), max_size=60))
def test_it_is_what_the_rule_says_call_by_call(calls: list[tuple[str, float]]) -> None:
    world = World()
    failures, opened_at = 0, None
    for how, pause_s in calls:
        world.now += pause_s
        let_in = opened_at is None or world.now >= opened_at + 60
        try:
            world.breaker.enter()
        except BreakerOpen:
            assert not let_in
            continue
        assert let_in
        if how == "works":
            world.breaker.succeeded()
            failures, opened_at = 0, None
        else:
            world.breaker.failed()
            failures += 1
            if failures >= 5:
                opened_at = world.now
        assert world.breaker.state == ("closed" if opened_at is None else "open")
    assert all(one.after == next_one.before for one, next_one in itertools.pairwise(world.heard))


def test_who_listens_to_breakers_is_told_at_once() -> None:
    breakers = Breakers(lambda: 0.0, {"bank": (1, 5.0)})
    told: list[str] = []

    def listen() -> None:
        told.append("changed")

    breakers.listeners.add(listen)
    breakers.get("bank").failed()
    assert told == ["changed"]
