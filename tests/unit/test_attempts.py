"""Attempts: called again by policy, until there is an answer, a deadline, an end, or no attempt left. No bus, no waiting."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from pavane import Agent, BreakerOpen, EffectUndone, Event, Rejected, Retry
from pavane.attempts import Failure, Policy, attempt
from pavane.breaker import Breakers
from pavane.kit import Kit
from pavane.plan import plan_of
from pavane.step import WrongOutput
from pavane.units import Abandoned, Unit
from pavane_events.envelope import Envelope
from pavane_events.record import Record
from pavane_tracing.work import Tracing


class Asked(Event, type="t.asked"):
    pass


agent = Agent("tried")


@agent.step(effects=False)
async def answer(asked: Asked) -> None: ...


@dataclass
class World:
    """One unit, and a clock that goes on by itself while somebody pauses."""

    now: float = 1000.0
    aside: list[bool] = field(default_factory=list[bool])
    unit: Unit = field(
        default_factory=lambda: Unit(
            Record("t.asked", 0, 0, b"s", b"{}", (), 0),
            Envelope(id="1", source="/x", type="t.asked", data=b"{}", saga="s"),
            answer,
            may_have_begun=False,
        )
    )

    async def try_it(
        self,
        call: Callable[[int], Awaitable[object]],
        policy: Policy,
        fallback: Callable[[], Awaitable[object]] | None = None,
    ) -> object:
        """The outcome of the attempts, within a second of real time."""
        kit = Kit(plan_of(agent), "d", 1, Tracing.off(), Breakers(self.clock, {}), clock=self.clock, chance=lambda: 0.5)
        work = kit.tracing.process(self.unit.envelope, topic="t.asked", partition=0, offset=0, group="tried")
        async with asyncio.timeout(5):
            return await attempt(call, policy, self.unit, kit, work, self.aside.append, fallback)

    def clock(self) -> float:
        return self.now


def outcome(
    call: Callable[[int], Awaitable[object]],
    policy: Policy,
    world: World | None = None,
    fallback: Callable[[], Awaitable[object]] | None = None,
) -> object:
    return asyncio.run((world or World()).try_it(call, policy, fallback))


FAST = Policy(Retry(attempts=3, first_s=0))


def failing(*errors: BaseException) -> tuple[Callable[[int], Awaitable[object]], list[int]]:
    """A call that fails in these ways, one after the other, and then answers; and which attempts were made."""
    calls: list[int] = []

    async def call(number: int) -> object:
        calls.append(number)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "answer"

    return call, calls


def test_what_works_is_called_once() -> None:
    call, calls = failing()
    world = World()
    assert outcome(call, FAST, world) == "answer"
    assert (calls, world.aside) == ([1], [])


def test_any_exception_is_tried_again_and_the_pause_is_spent_aside() -> None:
    call, calls = failing(ConnectionError(), ValueError())
    world = World()
    assert outcome(call, FAST, world) == "answer"
    assert calls == [1, 2, 3]
    assert world.aside == [True, False, True, False]


def test_when_attempts_run_out_the_failure_names_the_exception_and_not_what_it_said() -> None:
    call, calls = failing(*[ConnectionError("secret")] * 9)
    assert outcome(call, FAST) == Failure("attempts.exhausted", "ConnectionError", 3, dead=True)
    assert calls == [1, 2, 3]


def test_a_rejection_is_not_tried_again_and_no_dead_letter() -> None:
    call, calls = failing(ValueError(), Rejected("no money"))
    assert outcome(call, FAST) == Failure("rejected", "no money", 2, dead=False)
    assert calls == [1, 2]


def test_an_effect_that_was_undone_is_not_tried_again() -> None:
    call, calls = failing(EffectUndone("k"))
    failure = outcome(call, FAST)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.dead, calls) == ("effect.undone", False, [1])


def test_a_wrong_output_is_a_bug_and_not_tried_again() -> None:
    call, calls = failing(WrongOutput("it returned None"))
    assert outcome(call, FAST) == Failure("output.wrong-type", "it returned None", 1, dead=True)
    assert calls == [1]


def test_a_call_that_ends_as_cancelled_though_nobody_cancelled_it_is_a_failed_attempt() -> None:
    call, calls = failing(asyncio.CancelledError(), asyncio.CancelledError())
    assert outcome(call, FAST) == "answer"
    assert calls == [1, 2, 3]


def test_a_call_that_is_cancelled_from_outside_is_cancelled() -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def hang(number: int) -> object:
            begun.set()
            return await asyncio.Event().wait()

        trying = asyncio.create_task(World().try_it(hang, FAST))
        await begun.wait()
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying

    asyncio.run(scenario())


def test_what_is_no_exception_of_a_program_is_nobodys_to_handle() -> None:
    call, _ = failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        outcome(call, FAST)


@pytest.mark.parametrize("reason", ["x" * 100_000, "\ud800", 7, None])
def test_a_reason_is_made_fit_for_facts_and_headers(reason: object) -> None:
    call, _ = failing(Rejected(reason))  # type: ignore[arg-type]
    failure = outcome(call, FAST)
    assert isinstance(failure, Failure)
    assert isinstance(failure.reason, str)
    assert len(failure.reason.encode()) <= 500


def test_a_rejection_without_a_reason_is_a_rejection() -> None:
    class NoMoney(Rejected):
        def __init__(self) -> None:
            pass

    call, _ = failing(NoMoney())
    assert outcome(call, FAST) == Failure("rejected", "", 1, dead=False)


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_past_its_deadline_nothing_is_called() -> None:
    call, calls = failing()
    failure = outcome(call, Policy(Retry(), deadline_s=999))
    assert failure == Failure("deadline", "no answer within its deadline", 1, dead=True)
    assert calls == []


def test_a_call_that_runs_when_its_deadline_comes_is_ended() -> None:
    async def hang(number: int) -> object:
        return await asyncio.Event().wait()

    failure = outcome(hang, Policy(Retry(), deadline_s=1000.01))
    assert isinstance(failure, Failure)
    assert failure.code == "deadline"


def test_a_timeout_of_the_calls_own_is_an_attempt_like_any_other() -> None:
    call, calls = failing(TimeoutError())
    assert outcome(call, Policy(Retry(first_s=0), deadline_s=2000)) == "answer"
    assert calls == [1, 2]


def test_no_pause_is_longer_than_the_deadline() -> None:
    world = World()

    async def fail(number: int) -> object:
        world.now += 29.99
        raise ConnectionError

    failure = outcome(fail, Policy(Retry(first_s=1000, most_s=1000), deadline_s=1030), world)
    assert isinstance(failure, Failure)
    assert failure.code in ("deadline", "attempts.exhausted")


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_an_end_of_the_saga_ends_a_pause_and_the_step_has_failed() -> None:
    world = World()

    async def fail(number: int) -> object:
        asyncio.get_running_loop().call_later(0.01, world.unit.interrupt, "ended")
        raise ConnectionError

    failure = outcome(fail, Policy(Retry(first_s=1.0)), world)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.attempt, failure.dead) == ("saga.ended", 1, False)


def test_an_end_that_comes_while_a_call_runs_lets_it_finish_but_not_begin_again() -> None:
    world = World()

    async def work(number: int) -> object:
        world.unit.interrupt("ended")
        return "answer"

    async def fail(number: int) -> object:
        world.unit.interrupt("ended")
        raise ConnectionError

    assert outcome(work, FAST, world) == "answer"
    failure = outcome(fail, FAST, World(unit=world.unit))
    assert isinstance(failure, Failure)
    assert failure.code == "saga.ended"


def test_a_stop_during_a_pause_leaves_the_unit_to_the_lanes_next_holder() -> None:
    world = World()

    async def fail(number: int) -> object:
        world.unit.interrupt("stopping")
        raise ConnectionError

    with pytest.raises(Abandoned):
        outcome(fail, FAST, world)


# --- breakers --------------------------------------------------------------------------------------------------------


def test_an_open_breaker_costs_no_attempt_however_often() -> None:
    call, calls = failing(ConnectionError(), *[BreakerOpen("bank", 0.0)] * 20, ConnectionError())
    assert outcome(call, FAST) == "answer"
    assert calls == [1, *[2] * 20, 2, 3]


def test_an_open_breaker_is_waited_for_until_the_deadline_at_most() -> None:
    world = World()

    async def closed_to_all(number: int) -> object:
        world.now += 10
        raise BreakerOpen("bank", world.now + 0.001)

    failure = outcome(closed_to_all, Policy(Retry(), deadline_s=1030), world)
    assert isinstance(failure, Failure)
    assert failure.code == "deadline"


def test_a_fallback_answers_instead_of_waiting() -> None:
    async def stand_in() -> object:
        return "stand-in"

    call, calls = failing(BreakerOpen("bank", 1e9))
    assert outcome(call, Policy(Retry()), fallback=stand_in) == "stand-in"
    assert calls == [1]


@pytest.mark.parametrize(
    ("error", "code", "dead"),
    [
        (ValueError("secret"), "fallback.failed", True),
        (Rejected("no"), "rejected", False),
        (asyncio.CancelledError(), "fallback.failed", True),
    ],
)
def test_a_fallback_that_fails_fails_the_step(error: BaseException, code: str, dead: bool) -> None:
    async def stand_in() -> object:
        raise error

    call, _ = failing(BreakerOpen("bank", 1e9))
    failure = outcome(call, Policy(Retry()), fallback=stand_in)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.dead) == (code, dead)
    assert "secret" not in failure.reason


def test_a_fallback_has_no_longer_than_its_step() -> None:
    async def hang() -> object:
        return await asyncio.Event().wait()

    call, _ = failing(BreakerOpen("bank", 1e9))
    failure = outcome(call, Policy(Retry(), deadline_s=1000.01), fallback=hang)
    assert isinstance(failure, Failure)
    assert failure.code == "fallback.failed"
