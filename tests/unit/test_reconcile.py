"""Did it happen? What a step's reconciliation answers is what its undo is told; what it cannot answer stays unknown."""

import asyncio
from collections.abc import Callable

import pytest

from pavane import Agent, Context, Event, Rejected, Retry, Saga
from pavane_events.errors import DeclarationError
from support.stage import stage

SOON = Retry(attempts=2, first_s=0.001)


class Asked(Event, type="rec.asked"):
    n: int = 0


class Paid(Event, type="rec.paid"):
    receipt: str


class Noted(Event, type="rec.noted"):
    n: int = 0


def told(answer: Callable[[int], Paid | bool | None]) -> list[tuple[str, Paid | None]]:
    """What an undo is told of a payment whose answer was lost, where its reconciliation answers so at each attempt."""
    heard: list[tuple[str, Paid | None]] = []
    agent = Agent("payer")

    @agent.step(retry=SOON)
    async def pay(asked: Asked) -> Paid:
        raise ConnectionError("the answer is lost")

    @pay.reconcile(retry=Retry(attempts=3, first_s=0.001))
    async def was_paid(asked: Asked, ctx: Context) -> Paid | bool | None:
        return answer(ctx.attempt)

    @pay.compensate(retry=SOON)
    async def pay_back(asked: Asked, done: Paid | None, ctx: Context) -> None:
        heard.append((ctx.outcome, done))

    async def scenario() -> None:
        async with stage([agent], [Saga("rec", starts=Asked, completes=Paid, intake="rec.intake")]) as running:
            assert await running.ended(await running.publish({})) == "compensated"

    asyncio.run(scenario())
    return heard


def test_what_happened_after_all_is_undone_with_its_real_answer() -> None:
    assert told(lambda _: Paid(receipt="r-1")) == [("done", Paid(receipt="r-1"))]


def test_what_did_not_happen_is_undone_all_the_same_so_that_it_never_will() -> None:
    assert told(lambda _: False) == [("not-done", None)]


def test_who_cannot_say_is_not_asked_again() -> None:
    asked: list[int] = []
    assert told(lambda attempt: asked.append(attempt)) == [("unknown", None)]
    assert asked == [1]


def test_a_question_that_fails_is_asked_again_and_then_nobody_knows() -> None:
    asked: list[int] = []

    def fails(attempt: int) -> Paid:
        asked.append(attempt)
        raise ConnectionError("down")

    assert told(fails) == [("unknown", None)]
    assert asked == [1, 2, 3]

    def answers_at_last(attempt: int) -> Paid:
        return Paid(receipt="r-2") if attempt == 3 else fails(attempt)

    assert told(answers_at_last) == [("done", Paid(receipt="r-2"))]


def test_an_answer_that_the_step_does_not_give_is_no_answer() -> None:
    assert told(lambda _: Noted()) == [("unknown", None)]  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    assert told(lambda _: True) == [("unknown", None)]


def test_a_step_that_answered_is_not_asked_about() -> None:
    heard: list[str] = []
    agent = Agent("noter")

    @agent.step
    async def note(asked: Asked) -> None: ...

    @note.reconcile
    async def was_noted(asked: Asked) -> bool:
        heard.append("asked")
        return True

    @note.compensate
    async def unnote(asked: Asked, done: None, ctx: Context) -> None:
        heard.append(ctx.outcome)

    @agent.step(effects=False)
    async def refuse(asked: Asked) -> Paid:
        raise Rejected("no")

    async def scenario() -> None:
        async with stage([agent], [Saga("rec", starts=Asked, completes=Paid, intake="rec.intake")]) as running:
            assert await running.ended(await running.publish({})) == "compensated"

    asyncio.run(scenario())
    assert heard == ["done"]


def test_a_step_that_returns_nothing_is_answered_for_with_true() -> None:
    heard: list[tuple[str, object]] = []
    agent = Agent("noter")

    @agent.step
    async def note(asked: Asked) -> None: ...

    @note.reconcile
    def was_noted(asked: Asked) -> bool:
        return True

    @note.compensate
    async def unnote(asked: Asked, done: None, ctx: Context) -> None:
        heard.append((ctx.outcome, done))

    async def scenario() -> None:
        trial = agent.test()
        await trial.give(Asked())
        await trial.undo(note, outcome_known=False)

    asyncio.run(scenario())
    assert heard == [("done", None)]


def test_a_reconciliation_that_cannot_work_is_refused_at_import_with_every_reason() -> None:
    agent = Agent("payer")

    @agent.step
    async def pay(asked: Asked) -> Paid:
        return Paid(receipt="")

    with pytest.raises(DeclarationError) as caught:

        @pay.reconcile
        async def wrong(order: Asked, done: Paid | None) -> bool:
            return True

    assert [problem.code for problem in caught.value.problems] == ["reconcile.parameters"]
    assert "(asked, ctx)" in str(caught.value)

    @pay.reconcile
    async def right(asked: Asked) -> bool:
        return True

    with pytest.raises(DeclarationError, match="a step has one reconciliation"):
        pay.reconcile(right)

    @agent.step(effects=False)
    async def look(asked: Asked) -> Noted:
        return Noted()

    with pytest.raises(DeclarationError, match="nothing is to be found out"):
        look.reconcile(right)
