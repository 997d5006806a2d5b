"""An agent is tried without a bus."""

import asyncio

import pytest
from pydantic import Field

from pavane import Agent, Context, Event
from pavane_events.errors import ContractViolation


class A(Event, type="trial.a"):
    n: int


class B(Event, type="trial.b"):
    n: int


class LargeB(B):
    n: int = Field(ge=10)


class C(Event, type="trial.c"):
    n: int


agent = Agent("tried")
calls: list[tuple[str, str, bool]] = []


@agent.step
async def add(a: A, b: LargeB, ctx: Context) -> C:
    calls.append(("do", ctx.idempotency_key, True))
    return C(n=a.n + b.n)


@add.compensate
async def subtract(a: A, b: LargeB, done: C | None, ctx: Context) -> None:
    calls.append((ctx.outcome, ctx.idempotency_key, done is not None))


def test_a_join_is_called_when_all_is_there_and_undone_under_the_same_key() -> None:
    async def scenario() -> None:
        calls.clear()
        trial = agent.test()
        assert await trial.give(A(n=1)) == ()
        assert await trial.give(B(n=10)) == (C(n=11),)
        await trial.undo(add)
        await trial.undo(add, outcome_known=False)
        key = calls[0][1]
        assert calls == [("do", key, True), ("done", key, True), ("unknown", key, False)]

    asyncio.run(scenario())


def test_contracts_hold_and_an_event_nobody_listens_to_is_named() -> None:
    async def scenario() -> None:
        trial = agent.test()
        with pytest.raises(ContractViolation):
            await trial.give(A(n=1), B(n=9))
        with pytest.raises(LookupError, match=r"trial\.c"):
            await trial.give(C(n=1))

    asyncio.run(scenario())
