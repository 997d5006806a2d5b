"""The circuit breaker, by a clock that is passed in."""

import asyncio

import pytest

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
