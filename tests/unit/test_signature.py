"""Signatures that cannot work fail at import, with a message that shows the fix, all problems at once."""

import functools
import inspect
from collections.abc import Callable
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


def refused() -> Callable[[Callable[..., object]], list[str]]:
    """The codes of the problems that a function has as a step."""

    def declare(function: Callable[..., object]) -> list[str]:
        agent = Agent("a")
        with pytest.raises(DeclarationError, match="a/") as raised:
            agent.step(function)
        assert all(problem.message for problem in raised.value.problems)
        assert agent.steps == {}
        return codes(raised)

    return declare


def test_events_are_given_by_name() -> None:
    @refused()
    def found(one: One, /, two: Two) -> None: ...

    assert found == ["step.positional"]


def test_there_is_one_context() -> None:
    @refused()
    def found(one: One, ctx: Context, context: Context) -> None: ...

    assert found == ["step.context-doubled"]


def test_a_join_waits_for_no_more_events_than_an_event_can_name_as_causes() -> None:
    kinds = {f"event_{number}": type(f"E{number}", (Event,), {}, type=f"s.e{number}") for number in range(17)}

    def join(**events: Event) -> None: ...

    join.__annotations__ = {**kinds, "return": None}
    join.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in kinds.items()]
    )
    assert refused()(join) == ["step.too-many-events"]


def test_a_step_gives_no_more_events_at_once_than_an_event_can_count() -> None:
    def split(one: One) -> None: ...

    split.__annotations__["return"] = tuple[tuple([Two] * 65)]  # type: ignore[misc]
    assert refused()(split) == ["step.too-many-outputs"]


def test_a_tuple_is_always_the_same_events() -> None:
    @refused()
    def either(one: One) -> tuple[One | Two, Two]: ...  # type: ignore[empty-body]

    @refused()
    def any_number(one: One) -> tuple[Two, ...]: ...  # type: ignore[empty-body]

    assert either == ["step.return-union-in-tuple"]
    assert any_number == ["step.return-length"]


@pytest.mark.parametrize("name", ["a/b", "", "pay it", "-pay", "päy"])
def test_a_step_has_a_name_that_can_stand_on_the_wire(name: str) -> None:
    def step(one: One) -> None: ...

    step.__name__ = name
    assert refused()(step) == ["step.name"]
    if name:
        with pytest.raises(DeclarationError) as raised:
            Agent("a").step(name=name)(step_of_one)
        assert codes(raised) == ["step.name"]


def test_a_callable_without_a_name_is_asked_for_one() -> None:
    def step(one: One) -> None: ...

    assert "step.name" in refused()(functools.partial(step))


def test_within_is_a_positive_time() -> None:
    with pytest.raises(DeclarationError) as raised:

        @Agent("a").step(within=timedelta(0))
        def step(one: One) -> None: ...

    assert codes(raised) == ["step.within"]


def test_a_fallback_takes_what_its_step_takes() -> None:
    def of_something_else(two: Two) -> Two:
        return two

    def of_the_same(one: One, ctx: Context) -> Two:
        return Two()

    def of_anything(**events: object) -> Two:
        return Two()

    agent = Agent("a")
    with pytest.raises(DeclarationError) as raised:

        @agent.step(fallback=of_something_else)
        def step(one: One, ctx: Context) -> Two:
            return Two()

    assert codes(raised) == ["step.fallback"]
    agent.step(name="same", fallback=of_the_same)(step_of_one)
    agent.step(name="any", fallback=of_anything)(step_of_one)
    assert set(agent.steps) == {"same", "any"}


def step_of_one(one: One, ctx: Context) -> Two:
    return Two()


def test_annotations_that_cannot_be_read_are_a_problem_of_the_step() -> None:
    def step(one: One) -> None: ...

    step.__annotations__["one"] = "NoSuchName"
    with pytest.raises(DeclarationError, match="NoSuchName") as raised:
        Agent("a").step(step)
    assert codes(raised) == ["step.annotations"]


def test_an_event_that_is_no_event_class_is_refused_wherever_it_stands() -> None:
    @refused()
    def found(one: Event, two: list[Two]) -> dict[str, One]: ...  # type: ignore[empty-body]

    assert found == ["step.parameter-type", "step.parameter-type", "step.return-type"]


def undo_refused(undo: Callable[..., object]) -> list[str]:
    @Agent("a").step
    def step(one: NarrowOne, two: Two) -> One | Two:
        return one

    with pytest.raises(DeclarationError, match=r"the undo of a/step cannot work so") as raised:
        step.compensate(undo)
    assert step.undo is None
    return codes(raised)


def test_an_undo_takes_what_its_step_took() -> None:
    def other_type(one: Two, two: Two, done: One | Two | None) -> None: ...

    def too_few(one: One, done: One | Two | None) -> None: ...

    def too_many(one: One, two: Two, done: One | Two | None, more: One) -> None: ...

    def any_number(one: One, two: Two, done: One | Two | None, *more: One) -> None: ...

    def by_position(one: One, /, two: Two, done: One | Two | None) -> None: ...

    def two_contexts(one: One, two: Two, done: One | Two | None, a: Context, b: Context) -> None: ...

    assert undo_refused(other_type) == ["undo.parameter-type"]
    for undo in (too_few, too_many, any_number, by_position, two_contexts):
        assert undo_refused(undo) == ["undo.parameters"], undo.__name__


def test_an_undo_may_take_the_wider_event_that_its_step_narrows_and_its_context_anywhere() -> None:
    @Agent("a").step
    def step(one: NarrowOne) -> Two:
        return Two()

    @step.compensate
    def undo(ctx: Context, one: One, done: Two | None) -> None: ...

    assert step.undo is not None
    assert step.undo.context == "ctx"


def test_what_owes_nothing_has_no_undo() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    def step(one: One) -> None: ...

    def undo(one: One, done: None) -> None: ...

    with pytest.raises(DeclarationError) as raised:
        step.compensate(undo)
    assert codes(raised) == ["undo.no-effects"]


def test_another_event_that_derives_from_what_was_promised_is_not_what_was_promised() -> None:
    class Derived(Two, type="s.derived"):
        pass

    agent = Agent("a")

    @agent.step(effects=False)
    def one(event: One) -> Two | None:
        return None

    @agent.step(effects=False)
    def both(event: One) -> tuple[One, Two]:
        return One(), Two()

    assert one.check_outputs(None) == ()
    with pytest.raises(WrongOutput):
        one.check_outputs(Derived())
    with pytest.raises(WrongOutput):
        both.check_outputs((One(), Derived()))
    assert both.check_outputs((NarrowOne(), Two())) == (NarrowOne(), Two())
