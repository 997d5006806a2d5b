"""Agents: a name, steps, a life; what start-up refuses, and what an agent says of itself."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from pavane import Agent, Context, Event
from pavane.plan import plan_of
from pavane_events.errors import DeclarationError


class One(Event, type="g.one"):
    n: int = 0


class Two(Event, type="g.two"):
    n: int = 0


def codes(raised: pytest.ExceptionInfo[DeclarationError]) -> list[str]:
    return [problem.code for problem in raised.value.problems]


@pytest.mark.parametrize("name", ["", "Credit", "credit score", "credit_score", "credit/score", "pavane", "pavane-x", ".a"])
def test_a_name_that_cannot_be_on_the_wire_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        Agent(name)
    assert codes(raised) == ["agent.name"]


@pytest.mark.parametrize("name", ["score", "credit-score", "eu.credit-score.v2"])
def test_lower_case_words_are_a_name(name: str) -> None:
    assert Agent(name).name == name


def test_start_up_names_every_step_that_nothing_undoes_and_the_three_ways_out() -> None:
    agent = Agent("a")

    @agent.step
    def careless(one: One) -> None: ...

    @agent.step
    def thoughtless(two: Two) -> None: ...

    @agent.step(effects=False)
    def harmless(two: Two) -> None: ...

    @agent.step(retriable=True)
    def stubborn(two: Two) -> None: ...

    @agent.step
    def careful(two: Two) -> None: ...

    @careful.compensate
    def take_care(two: Two, done: None) -> None: ...

    with pytest.raises(DeclarationError, match="agent 'a' cannot start") as raised:
        plan_of(agent)
    assert [problem.where for problem in raised.value.problems] == ["a/careless", "a/thoughtless"]
    assert codes(raised) == ["step.no-undo"] * 2


def test_an_agent_without_steps_has_nothing_to_start() -> None:
    with pytest.raises(DeclarationError) as raised:
        plan_of(Agent("a"))
    assert codes(raised) == ["agent.no-step"]


def test_a_step_stays_a_plain_callable_with_its_own_name() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    async def double(one: One) -> Two:
        """Twice as much."""
        return Two(n=2 * one.n)

    assert asyncio.run(double(One(n=4))) == Two(n=8)
    assert (vars(double)["__name__"], double.__doc__, repr(double), repr(agent)) == (
        "double",
        "Twice as much.",
        "<Step a/double>",
        "<Agent a>",
    )


def test_a_plan_says_who_listens_to_what_and_which_topics_it_takes() -> None:
    agent = Agent("a")

    @agent.step(within=timedelta(seconds=5), name="fill")
    def join(either: One | Two) -> Two: ...  # type: ignore[empty-body]

    @join.compensate
    def empty(either: One | Two, done: Two | None) -> None: ...

    @agent.observe
    def watch(two: Two) -> None: ...

    plan = plan_of(agent)
    assert {topic: [step.wire_name for step in steps] for topic, steps in plan.listeners.items()} == {
        "g.one": ["a/fill"],
        "g.two": ["a/fill", "a/watch"],
    }
    waits = {"a.retry-1s", "a.retry-5s", "a.retry-30s", "a.retry-5m"}
    assert set(plan.topics) == {"g.one", "g.two", "a.commands", "pavane.ends", *waits}
    fill, watching = plan.manifest.steps
    assert (fill.name, fill.consumes, fill.produces, fill.effects, fill.within_s) == (
        "a/fill",
        (("g.one", "g.two"),),
        ("g.two",),
        True,
        5.0,
    )
    assert (watching.observer, watching.effects) == (True, False)


def version_of(kind: type[Event], *, effects: bool = False) -> str:
    agent = Agent("a")

    def step(event: Event) -> None: ...

    step.__annotations__["event"] = kind
    declared = agent.step(effects=effects)(step)
    if effects:

        def undo(event: Event, done: None) -> None: ...

        undo.__annotations__["event"] = kind
        declared.compensate(undo)
    return plan_of(agent).manifest.version


def test_another_set_of_steps_or_contracts_is_another_version_and_the_same_is_the_same() -> None:
    class NarrowOne(One):
        n: int = 5

    assert version_of(One) == version_of(One)
    assert len({version_of(One), version_of(Two), version_of(NarrowOne), version_of(One, effects=True)}) == 4


def test_its_life_surrounds_its_work_and_ends_whatever_happens() -> None:
    agent = Agent("a")
    said: list[str] = []

    @agent.lifespan
    async def connections() -> AsyncIterator[None]:
        said.append("open")
        try:
            yield
        finally:
            said.append("close")

    async def live(error: Exception | None = None) -> None:
        async with agent.alive():
            said.append("work")
            if error is not None:
                raise error

    asyncio.run(live())
    with pytest.raises(ConnectionError):
        asyncio.run(live(ConnectionError()))
    assert said == ["open", "work", "close"] * 2


def test_without_a_lifespan_it_is_simply_alive() -> None:
    async def live() -> str:
        async with Agent("a").alive():
            return "alive"

    assert asyncio.run(live()) == "alive"


WHO = contextvars.ContextVar("who", default="nobody")


def test_a_plain_function_runs_in_a_thread_with_its_callers_context_variables() -> None:
    agent = Agent("a")
    seen: list[tuple[bool, str]] = []

    @agent.step(effects=False)
    def step(one: One, ctx: Context) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), WHO.get()))

    async def call() -> None:
        WHO.set("somebody")
        await step.perform({"one": One()}, Context.fake())

    asyncio.run(call())
    assert seen == [(False, "somebody")]


def test_a_plain_function_that_raises_stop_iteration_fails_and_does_not_hang() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    def first_of_none(one: One) -> Two:
        return next(iter(()))

    async def call() -> None:
        async with asyncio.timeout(5):
            await first_of_none.perform({"one": One()}, Context.fake())

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(call())


def test_an_undo_is_given_what_the_step_returned_as_it_was_returned() -> None:
    agent = Agent("a")
    given: list[object] = []

    @agent.step
    def both(one: One) -> tuple[One, Two]:
        return one, Two()

    @both.compensate
    def undo_both(one: One, done: tuple[One, Two] | None) -> None:
        given.append(done)

    @agent.step
    def single(one: One) -> Two | None:
        return None

    @single.compensate
    async def undo_single(one: One, done: Two | None, ctx: Context) -> None:
        given.append((done, ctx.outcome))

    @agent.step
    def never(two: Two) -> None: ...

    async def undo() -> None:
        one = One()
        await both.perform_undo({"one": one}, (one, Two()), Context.fake())
        await both.perform_undo({"one": one}, None, Context.fake(outcome="unknown"))
        await single.perform_undo({"one": one}, (Two(n=1),), Context.fake())
        await single.perform_undo({"one": one}, (), Context.fake())
        await single.perform_undo({"one": one}, None, Context.fake(outcome="unknown"))
        with pytest.raises(LookupError, match="a/never has no undo"):
            await never.perform_undo({"two": Two()}, None, Context.fake())

    asyncio.run(undo())
    assert given == [(One(), Two()), None, (Two(n=1), "done"), (None, "done"), (None, "unknown")]
