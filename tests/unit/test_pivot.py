"""The point of no return, at work: granted once, refused or taken; and past it everything is done in the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from pavane import Agent, Context, Event, Rejected, Retry, Saga
from pavane.runner import Surroundings, run
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import Envelope, parse
from pavane_events.errors import DeclarationError
from pavane_saga.facts import Decided, Ended, Fired, Granted, Settled, Verb
from pavane_saga.history import History
from pavane_saga.intake import saga_id_of
from pavane_saga.operator import decisions, prospect
from pavane_saga.overdue import list_overdue
from pavane_saga.story import Story, read_story
from pavane_saga.wire import GRANT, GrantCommand, fact_envelope, read_fact
from support.stage import Stage, stage, until

SOON = Retry(attempts=2, first_s=0.001)


class Asked(Event, type="pivot.asked"):
    pay: str = "yes"


class Held(Event, type="pivot.held"):
    pay: str


class Paid(Event, type="pivot.paid"):
    by: str


class Refused(Event, type="pivot.refused"):
    pass


class Sent(Event, type="pivot.sent"):
    to: str


def payer(*, pivot: bool, extended: bool = False) -> Agent:
    """held -> paid: the point of no return, or not."""
    agent = Agent("payer")

    @agent.step(effects=False, pivot=pivot)
    async def pay(held: Held) -> Paid:
        return Paid(by="card")

    if extended:

        @agent.step(effects=False)
        async def note(sent: Sent) -> None: ...

    return agent


@pytest.mark.parametrize(("was", "is_now"), [(True, True), (False, True), (True, False)])
def test_a_step_may_become_a_pivot_or_be_one_no_more_while_its_input_waits(was: bool, is_now: bool) -> None:
    """The input of what was none is a backlog; what was one waits with it for its grant, for another step runs still."""
    asyncio.run(_pivot_or_not(was=was, is_now=is_now))


async def _pivot_or_not(*, was: bool, is_now: bool) -> None:
    first, slow, go_on = Agent("first"), Agent("slow"), asyncio.Event()

    @first.step(effects=False)
    async def hold(asked: Asked) -> Held:
        return Held(pay="yes")

    @slow.step(effects=False)
    async def take_time(asked: Asked) -> None:
        await go_on.wait()

    saga = Saga("pivot-or-not", starts=Asked, completes=Paid, intake="pivot.intake", deadline=timedelta(seconds=10))
    quiet, bus = Surroundings(trace=False), MemoryBus(partitions=1)
    async with asyncio.timeout(30), stage([first, slow], [saga], bus=bus, surroundings=quiet) as running:

        async def has_declared() -> bool:
            return any(b"payer@" in (each.data or b"") for each in await running.events("pavane.facts"))

        async def is_held() -> bool:
            return bool(await running.events("pivot.held", published))

        stop = asyncio.Event()
        old = asyncio.create_task(run([payer(pivot=was)], [], bus.peer(), stop, quiet))
        await until(has_declared)
        if not was:
            stop.set()
            await old
        published = await running.publish({"pay": "yes"})
        await until(is_held)
        if was:
            await asyncio.sleep(0.1)  # it has taken its input, and waits
            stop.set()
            await old
        stop = asyncio.Event()
        new = asyncio.create_task(run([payer(pivot=is_now, extended=True)], [], bus.peer(), stop, quiet))
        await asyncio.sleep(0.1)
        go_on.set()
        assert await running.ended(published) == "completed"
        stop.set()
        await new


class Shop:
    """Hold, pay, send. ``calls`` says who was called, in order; ``jammed``: sending fails; ``was_sent``: it had happened."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.jammed = False
        self.was_sent: Sent | bool = False
        stock, till, door = Agent("stock"), Agent("till"), Agent("door")

        @stock.step
        async def hold(asked: Asked) -> Held:
            self.calls.append("hold")
            return Held(pay=asked.pay)

        @hold.compensate
        async def let_go(asked: Asked, done: Held | None) -> None:
            self.calls.append("let go")

        @till.step(pivot=True, retry=SOON)
        async def pay(asked: Asked, held: Held, ctx: Context) -> Paid | Refused:
            self.calls.append("pay")
            if held.pay == "no":
                raise Rejected("no money")
            return Refused() if held.pay == "refused" else Paid(by=ctx.idempotency_key)

        @pay.compensate
        async def pay_back(asked: Asked, held: Held, done: Paid | Refused | None) -> None:
            self.calls.append("pay back")

        @door.step(retriable=True, retry=SOON)
        async def send(paid: Paid) -> Sent:
            self.calls.append("send")
            if self.jammed:
                raise OSError("the door is jammed")
            return Sent(to="ann")

        @send.reconcile(retry=SOON)
        async def sent(paid: Paid) -> Sent | bool:
            return self.was_sent

        self.agents = [stock, till, door]
        self.saga = Saga("buying", starts=Asked, completes=Sent, fails=Refused, intake="pivot.intake")

    def run(self, scenario: Callable[[Stage], Awaitable[None]]) -> None:
        async def on_stage() -> None:
            async with stage(self.agents, [self.saga]) as running:
                await scenario(running)

        asyncio.run(on_stage())


async def failure(running: Stage, saga: str, number: int = 1) -> Settled:
    """The fact that a step failed for the ``number``-th time."""

    async def failed() -> Settled | None:
        found = [each for each in await running.facts(saga) if isinstance(each, Settled) and each.how == "failed"]
        return found[-1] if len(found) == number else None

    return await until(failed)


async def decided(running: Stage, saga: str, verb: Verb, number: int = 1) -> None:
    """What ``pavane sagas`` states about the one step that failed."""
    fact = await failure(running, saga, number)
    decision = Decided(verb, fact.step, fact.causes, number, "ann", "because", int(time.time() * 1000))
    stated = fact_envelope(decision, saga=saga, source="/operators/ann", time_s=time.time())
    await running.send(stated.to_message("pavane.facts"))


def test_it_is_granted_once_and_the_saga_completes() -> None:
    shop = Shop()

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})
        assert await running.ended(saga) == "completed"
        assert [fact for fact in await running.facts(saga) if isinstance(fact, Granted)] != []
        commands = await running.events("till.commands", saga)
        assert [each.type for each in commands] == [GRANT]

    shop.run(scenario)
    assert shop.calls == ["hold", "pay", "send"]


@pytest.mark.parametrize("answer", ["no", "refused"])
def test_refused_everything_is_undone_itself_included(answer: str) -> None:
    shop = Shop()

    async def scenario(running: Stage) -> None:
        assert await running.ended(await running.publish({"pay": answer})) == "compensated"

    shop.run(scenario)
    assert shop.calls == ["hold", "pay", "pay back", "let go"]


def test_what_fails_after_it_is_parked_and_done_when_somebody_says_so() -> None:
    shop = Shop()
    shop.jammed = True

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})
        await decided(running, saga, "retry")
        await failure(running, saga, 2)
        shop.jammed = False
        await decided(running, saga, "retry", 2)
        assert await running.ended(saga) == "completed"

    shop.run(scenario)
    assert shop.calls == ["hold", "pay", "send", "send", "send", "send", "send"]


def test_a_step_that_had_happened_after_all_is_not_done_again() -> None:
    shop = Shop()
    shop.jammed, shop.was_sent = True, Sent(to="bob")

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})
        await decided(running, saga, "retry")
        assert await running.ended(saga) == "completed"
        (event,) = await running.events(Sent.event_type, saga)
        assert Sent.from_json(event.data) == Sent(to="bob")

    shop.run(scenario)
    assert shop.calls == ["hold", "pay", "send", "send"]


def test_left_undone_on_the_way_to_the_end_the_saga_is_abandoned() -> None:
    shop = Shop()
    shop.jammed = True

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})
        await decided(running, saga, "skip")
        assert await running.ended(saga) == "abandoned"

    shop.run(scenario)
    assert "let go" not in shop.calls


def test_a_parked_saga_is_told_so_by_its_story() -> None:
    shop = Shop()
    shop.jammed = True

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})

        async def parked() -> bool:
            story = await read_story(running.bus, saga)
            return story is not None and story.summary.state == "parked"

        await until(parked)
        story = await read_story(running.bus, saga)
        assert story is not None
        assert [(each.step, each.code) for each in story.stuck] == [("door/send", "attempts.exhausted")]
        assert story.failure is None
        again, left, by_hand = (prospect(story, said_of(story, verb)) for verb in _VERBS)
        assert (again.end, again.waits_for) == (None, ())
        assert (left.end, {step for step, _ in left.standing}) == ("abandoned", {"door/send", "stock/hold", "till/pay"})
        assert (by_hand.end, by_hand.standing) == ("abandoned", left.standing)

    shop.run(scenario)


def test_what_was_left_undone_past_it_can_be_said_again_while_the_saga_runs_on_and_after() -> None:
    shop = Shop()
    shop.jammed = True

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})
        await decided(running, saga, "skip")
        await running.ended(saga)
        story = await read_story(running.bus, saga)
        assert story is not None
        assert said_of(story, "skip") == ()
        runs_on = replace(story, history=History().with_facts(f for f in story.history.facts if not isinstance(f, Ended)))
        assert said_of(runs_on, "skip") == ()

    shop.run(scenario)


_VERBS: tuple[Verb, ...] = ("retry", "skip", "done")


def said_of(story: Story, verb: Verb) -> tuple[Decided, ...]:
    return decisions(story, verb, None, who="ann", why="because", at_ms=1)


def an_event(name: str) -> bytes:
    return b'{"specversion":"1.0","id":"%s","source":"/t","type":"x","data":{}}' % name.encode()


@pytest.mark.parametrize(
    "command",
    [
        GrantCommand("s", "till/gone", ("c",), (an_event("c"),)),
        GrantCommand("s", "till/pay", ("c",), ()),
        GrantCommand("s", "till/pay", ("c",), (an_event("d"),)),
        GrantCommand("s", "till/pay", ("c",), (an_event("c"),)),
    ],
    ids=["no such step", "no inputs", "other inputs", "an input that the step does not take"],
)
def test_a_grant_that_cannot_be_followed_is_a_failure_and_a_dead_letter(command: GrantCommand) -> None:
    shop = Shop()

    async def scenario(running: Stage) -> None:
        await running.ended(await running.publish({}))  # everybody is there
        shop.calls.clear()
        saga = saga_id_of("/t", "nobody")
        order = replace(command, saga=saga)
        await running.send(order.envelope(time.time()).to_message("till.commands", key=saga))

        async def failed() -> list[Settled]:
            return [each for each in await running.facts(saga) if isinstance(each, Settled)]

        (fact,) = await until(failed)
        assert (fact.step, fact.how, fact.began) == (order.step, "failed", False)
        assert len(await running.dead("till")) == 1

    shop.run(scenario)
    assert shop.calls == []


def test_a_second_event_for_it_is_refused() -> None:
    shop = Shop()

    async def scenario(running: Stage) -> None:
        saga = await running.publish({})
        assert await running.ended(saga) == "completed"
        (held,) = await running.events(Held.event_type, saga)
        await running.send(replace(held, id="another").to_message())

        async def refused() -> list[str]:
            return [each["error_code"] for each in await running.dead("till")]

        assert await until(refused) == ["join.arm-filled"]

    shop.run(scenario)


def test_what_cannot_work_is_refused_at_import() -> None:
    agent = Agent("wrong")
    with pytest.raises(DeclarationError, match="the pivot may be refused"):

        @agent.step(pivot=True, retriable=True)
        async def both(asked: Asked) -> None: ...

    with pytest.raises(DeclarationError, match="it takes an event of the saga and one from outside"):

        @agent.step(external=True)
        async def alone(asked: Asked) -> None: ...

    def nothing() -> str:
        return "x"

    with pytest.raises(DeclarationError, match="a lock is called with the step's events"):

        @agent.step(lock=nothing)
        async def locked(asked: Asked) -> None: ...


# --- answers from outside -------------------------------------------------------------------------------------------


class Allowed(Event, type="pivot.allowed"):
    ok: bool


def test_an_answer_is_admitted_once_while_its_saga_runs() -> None:
    desk, calls = Agent("desk"), list[bool]()

    @desk.step(effects=False, external=True, within=timedelta(minutes=1))
    async def allow(asked: Asked, allowed: Allowed) -> Sent:
        calls.append(allowed.ok)
        return Sent(to="ann")

    saga = Saga("asking", starts=Asked, completes=Sent, answers=Allowed, intake="pivot.intake")

    def answer(saga_id: str, name: str, data: bytes = b'{"ok":true}') -> Envelope:
        return Envelope(id=name, source="/ann", type=Allowed.event_type, data=data, saga=saga_id)

    async def on_stage() -> None:
        async with stage([desk], [saga]) as running:
            first = await running.publish({})

            async def asked() -> list[Envelope]:
                return await running.events(Asked.event_type, first)

            await until(asked)
            for each in (
                answer(first, "torn", b'{"ok":"perhaps"}'),
                answer("11111111-1111-5111-8111-111111111111", "nobody"),
                answer(first, "yes"),
                answer(first, "yes"),
                answer(first, "no", b'{"ok":false}'),
            ):
                await running.send(each.to_message("pivot.intake", key="anything"))
            assert await running.ended(first) == "completed"
            await running.send(answer(first, "late").to_message("pivot.intake"))
            missing = answer(first, "whose")
            await running.send(replace(missing, saga=None).to_message("pivot.intake", key="x"))

            async def all_dead() -> list[str] | None:
                found = sorted(each["error_code"] for each in await running.dead("pavane.coordinator"))
                return found if len(found) == 5 else None

            found = await until(all_dead)
            assert {"answer.no-saga", "answer.not-waited-for", "bool_parsing"} <= set(found)
            assert found.count("answer.not-waited-for") + found.count("answer.given") == 3

    asyncio.run(on_stage())
    assert calls == [True]


def test_who_is_not_answered_in_time_fails_and_says_for_what_he_waited() -> None:
    desk = Agent("desk")

    @desk.step(effects=False, external=True, within=timedelta(seconds=0.3))
    async def allow(asked: Asked, allowed: Allowed) -> Sent:
        return Sent(to="ann")

    saga = Saga("asking", starts=Asked, completes=Sent, answers=Allowed, intake="pivot.intake")

    async def on_stage() -> None:
        async with stage([desk], [saga]) as running:
            first = await running.publish({})
            assert await running.ended(first) == "compensated"
            story = await read_story(running.bus, first)
            assert story is not None
            assert story.failure is not None
            assert story.failure.reason == "nobody outside answered desk/allow in time"
            assert parse((await running.records("pavane.ends"))[0]).saga == first

    asyncio.run(on_stage())


@pytest.mark.parametrize("within", [None, timedelta(seconds=0.3)])
def test_an_answer_that_is_overdue_and_only_reported_is_named_and_said_to_come_from_outside(within: timedelta | None) -> None:
    desk = Agent("desk")

    @desk.step(effects=False, external=True, within=within)
    async def allow(asked: Asked, allowed: Allowed) -> Sent:
        return Sent(to="ann")

    deadline = timedelta(seconds=0.3) if within is None else timedelta(hours=1)
    saga = Saga(
        "asking",
        starts=Asked,
        completes=Sent,
        answers=Allowed,
        deadline=deadline,
        overdue="report",
        intake="pivot.intake",
    )

    async def on_stage() -> None:
        async with stage([desk], [saga]) as running:
            first = await running.publish({})

            async def reported() -> str | None:
                facts = [read_fact(parse(each)) for each in await running.records("pavane.facts")]
                return next((each.detail for each in facts if isinstance(each, Fired)), None)

            detail = await until(reported)
            assert detail.partition("; ")[2] == "missing: pivot.allowed from outside, for desk/allow"
            (late,) = await list_overdue(running.bus, int(time.time() * 1000))
            assert (late.saga, late.step, late.missing, late.event) == (first, "desk/allow", ("pivot.allowed",), "pivot.asked")
            assert late.outside
            assert 200 < late.due_ms - late.since_ms < 400
            assert await list_overdue(running.bus, late.due_ms) == []
            answer = Envelope(id="yes", source="/ann", type=Allowed.event_type, data=b'{"ok":true}', saga=first)
            await running.send(answer.to_message("pivot.intake"))
            assert await running.ended(first) == "completed"
            assert await list_overdue(running.bus, late.due_ms + 10_000_000) == []

    asyncio.run(on_stage())
