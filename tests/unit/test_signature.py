"""Signatures that cannot work fail at import, with a message that shows the fix, all problems at once."""

from datetime import timedelta

import pytest

from pavane import Agent, Context, Event, Saga, SagaEnded
from pavane.plan import plan_of
from pavane.step import WrongOutput
from pavane_events.errors import DeclarationError


class One(Event, type="s.one"):
    n: int = 0


class Two(Event, type="s.two"):
    n: int = 0


class NarrowOne(One):
    n: int = 1


def codes(raised: pytest.ExceptionInfo[DeclarationError]) -> list[str]:
    return [problem.code for problem in raised.value.problems]


def test_the_annotations_are_the_subscription_the_contract_and_the_outputs() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    async def step(first: NarrowOne, ctx: Context, second: Two) -> One | None:
        return None

    assert [parameter.types for parameter in step.signature.parameters] == [("s.one",), ("s.two",)]
    assert step.signature.parameters[0].views == (NarrowOne,)
    assert (step.signature.context, step.signature.produces, step.signature.nothing) == ("ctx", (One,), True)
    assert step.is_join


def test_either_of_two_types_may_fill_a_parameter() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    async def step(event: One | Two) -> tuple[One, Two]:
        return One(), Two()

    assert step.signature.parameters[0].types == ("s.one", "s.two")
    assert step.signature.several


def test_all_problems_of_a_signature_are_reported_at_once() -> None:
    agent = Agent("a")
    with pytest.raises(DeclarationError) as raised:

        @agent.step
        async def step(first: One, same: NarrowOne, perhaps: Two | None, number: int, bare, *more: One):  # type: ignore[no-untyped-def]
            ...

    assert codes(raised) == [
        "step.optional",
        "step.parameter-type",
        "step.unannotated",
        "step.variadic",
        "step.same-type",
        "step.return-missing",
    ]
    assert "a/step(perhaps)" in str(raised.value)
    assert agent.steps == {}


def test_a_step_takes_an_event_and_returns_events() -> None:
    agent = Agent("a")
    with pytest.raises(DeclarationError) as raised:

        @agent.step
        async def step() -> int:
            return 1

    assert codes(raised) == ["step.no-event", "step.return-type"]


def test_an_undo_takes_the_inputs_under_the_same_names_then_done_which_may_be_none() -> None:
    agent = Agent("a")

    @agent.step
    async def step(one: One) -> Two:
        return Two()

    with pytest.raises(DeclarationError, match="one, done, ctx") as raised:

        @step.compensate
        async def other_name(first: One, done: Two | None) -> None: ...

    assert codes(raised) == ["undo.parameters"]
    with pytest.raises(DeclarationError, match=r"done: Two \| None") as raised:

        @step.compensate
        async def sure(one: One, done: Two) -> None: ...

    assert codes(raised) == ["undo.done-optional"]

    @step.compensate
    async def undo(one: One, done: Two | None, ctx: Context) -> None: ...

    with pytest.raises(DeclarationError) as raised:
        step.compensate(undo)
    assert codes(raised) == ["undo.doubled"]


def test_a_step_that_may_change_something_needs_an_undo_or_a_reason_why_not() -> None:
    agent = Agent("a")

    @agent.step
    async def step(one: One) -> Two:
        return Two()

    with pytest.raises(DeclarationError) as raised:
        plan_of(agent)
    (problem,) = raised.value.problems
    assert problem.where == "a/step"
    assert "@step.compensate" in problem.message
    assert "effects=False" in problem.message
    assert "retriable=True" in problem.message


def test_an_observer_returns_nothing_and_owes_nothing() -> None:
    agent = Agent("a")
    with pytest.raises(DeclarationError) as raised:

        @agent.observe
        async def wrong(one: One) -> Two:
            return Two()

    assert codes(raised) == ["observer.returns"]

    @agent.observe
    async def right(end: SagaEnded) -> None: ...

    with pytest.raises(DeclarationError):
        right.compensate(right)
    assert plan_of(agent).topic_specs()


def test_names_are_checked_and_used_once() -> None:
    with pytest.raises(DeclarationError):
        Agent("Credit Score")
    with pytest.raises(DeclarationError):
        Agent("pavane-agent")
    agent = Agent("a")

    @agent.step(name="same", effects=False)
    async def one(event: One) -> None: ...

    with pytest.raises(DeclarationError) as raised:

        @agent.step(name="same", effects=False)
        async def two(event: One) -> None: ...

    assert codes(raised) == ["step.doubled"]


def test_what_a_step_returns_is_held_against_its_signature() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    async def one(event: One) -> Two:
        return Two()

    @agent.step(effects=False)
    async def both(event: Two) -> tuple[One, Two]:
        return One(), Two()

    assert one.check_outputs(Two()) == (Two(),)
    assert both.check_outputs((One(), Two())) == (One(), Two())
    for wrong in (None, One(), (Two(),)):
        with pytest.raises(WrongOutput, match="a/one returned"):
            one.check_outputs(wrong)
    for ill in (None, One(), (Two(), One()), (One(),)):
        with pytest.raises(WrongOutput, match="a/both returned"):
            both.check_outputs(ill)


def test_an_event_names_its_type_and_version_and_a_view_inherits_them() -> None:
    assert (NarrowOne.event_type, NarrowOne.event_version) == ("s.one", 1)
    for name in ("Upper.case", "", "a b", "pavane.mine"):
        with pytest.raises(DeclarationError):
            type("Wrong", (Event,), {}, type=name)
    with pytest.raises(DeclarationError):
        type("Nameless", (Event,), {})
    with pytest.raises(DeclarationError):
        type("Old", (Event,), {}, type="s.old", version=0)


def test_a_saga_that_cannot_work_says_why() -> None:
    with pytest.raises(DeclarationError) as raised:
        Saga("A Saga", starts=One, completes=One, fails=One, deadline=timedelta(0), intake="s.one")
    assert codes(raised) == ["saga.name", "saga.start-is-end", "saga.end-doubled", "saga.deadline", "saga.intake"]
