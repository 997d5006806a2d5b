"""Undos that are not what they look like: one that never ran is not confirmed."""

import asyncio
import functools
from collections.abc import Callable, Generator
from typing import ParamSpec, TypeVar

from pavane import Agent, Context, Event, Retry, Saga
from pavane_saga.facts import UndoFailed
from support.stage import stage, until

P = ParamSpec("P")
T = TypeVar("T")
FAST = Retry(attempts=2, first_s=0.001)


class Asked(Event, type="wrapped.asked", version=1):
    n: int = 0


class Paid(Event, type="wrapped.paid", version=1):
    n: int = 0


class Sent(Event, type="wrapped.sent", version=1):
    n: int = 0


SAGA = Saga("wrapped", starts=Asked, completes=Sent, intake="wrapped.intake")


def timed(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator of the everyday kind, which knows nothing of async."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    return wrapper


def till(standing: set[str], *, generator: bool) -> Agent:
    """A step is decorated, and so is its undo, or that is a generator; the next step fails for good."""
    agent = Agent("till")

    @agent.step(retry=FAST)
    @timed
    async def pay(asked: Asked, ctx: Context) -> Paid:
        standing.add(ctx.idempotency_key)
        return Paid()

    async def refund(asked: Asked, done: Paid | None, ctx: Context) -> None:
        standing.discard(ctx.idempotency_key)

    def refund_some_day(asked: Asked, done: Paid | None, ctx: Context) -> Generator[None]:
        standing.discard(ctx.idempotency_key)
        yield

    undo: Callable[..., object] = refund_some_day if generator else timed(refund)
    pay.compensate(undo, retry=FAST)

    @agent.step(effects=False, retry=FAST)
    async def send(paid: Paid) -> Sent:
        raise RuntimeError("never")

    return agent


def test_what_a_plain_wrapper_gives_is_awaited() -> None:
    async def scenario() -> None:
        standing: set[str] = set()
        async with stage([till(standing, generator=False)], [SAGA]) as here:
            saga = await here.publish({"n": 1})
            assert await here.ended(saga) == "compensated"
            assert [type(fact).__name__ for fact in await here.facts(saga)].count("Undone") == 1
        assert not standing

    asyncio.run(scenario())


def test_a_generator_has_not_run_and_its_saga_is_parked() -> None:
    async def scenario() -> None:
        standing: set[str] = set()
        async with stage([till(standing, generator=True)], [SAGA]) as here:
            saga = await here.publish({"n": 1})

            async def failed() -> list[UndoFailed]:
                return [fact for fact in await here.facts(saga) if isinstance(fact, UndoFailed)]

            (fact,) = await until(failed)
            assert (fact.step, fact.code) == ("till/pay", "output.wrong-type")
            assert "write it without yield" in fact.reason
            assert not await here.verdicts()
        assert len(standing) == 1

    asyncio.run(scenario())
