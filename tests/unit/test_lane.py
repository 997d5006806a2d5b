"""The lane at work, on the memory bus: what a step's declarations promise, step by step."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from pydantic import Field

from pavane import Agent, Context, Event, Rejected, Retry, Saga, SagaEnded
from pavane.runner import Surroundings, run
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.memory_lanes import MemoryGroup
from pavane_events.envelope import Envelope
from pavane_saga.facts import Declared, Settled, UndoFailed, Undone
from pavane_saga.wire import FACTS, read_fact
from support.stage import Stage, stage, until

FAST = Retry(attempts=3, first_s=0.001)


class Ordered(Event, type="t.ordered"):
    n: int = 0


class Paid(Event, type="t.paid"):
    n: int = 0


class Packed(Event, type="t.packed"):
    n: int = 0


class Sent(Event, type="t.sent"):
    n: int = 0


class Refused(Event, type="t.refused"):
    n: int = 0


def saga_of(completes: type[Event] = Sent, deadline: timedelta = timedelta(minutes=5)) -> Saga:
    return Saga("t", starts=Ordered, completes=completes, fails=Refused, intake="t.intake", deadline=deadline)


class Effects:
    """What steps did in the world, by key: the order of doing and undoing is kept."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.standing: dict[str, str] = {}

    def do(self, ctx: Context, what: str) -> None:
        self.log.append(("do", what))
        self.standing[ctx.idempotency_key] = what

    def undo(self, ctx: Context, what: str) -> None:
        self.log.append(("undo", what))
        self.standing.pop(ctx.idempotency_key, None)


def payer(
    effects: Effects,
    charge: Callable[[Ordered, Context], Awaitable[Paid]] | None = None,
    within: timedelta | None = None,
) -> Agent:
    """An agent with one step, ordered -> paid, and its undo."""
    agent = Agent("payer")

    @agent.step(retry=FAST, within=within)
    async def pay(order: Ordered, ctx: Context) -> Paid:
        effects.do(ctx, "pay")
        return await charge(order, ctx) if charge is not None else Paid(n=order.n)

    @pay.compensate(retry=FAST)
    async def refund(order: Ordered, done: Paid | None, ctx: Context) -> None:
        effects.undo(ctx, f"pay {ctx.outcome} {done is not None}")

    return agent


def sender() -> Agent:
    """An agent that completes the saga: paid -> sent."""
    agent = Agent("sender")

    @agent.step(effects=False)
    async def send(paid: Paid) -> Sent:
        return Sent(n=paid.n)

    return agent


def perform(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(bounded())


def test_a_saga_runs_from_its_intake_to_its_verdict() -> None:
    async def scenario() -> None:
        effects = Effects()
        async with stage([payer(effects), sender()], [saga_of()]) as running:
            saga = await running.publish({"n": 3})
            assert await running.ended(saga) == "completed"
            (paid,) = await running.events("t.paid", saga)
            (sent,) = await running.events("t.sent", saga)
            assert (paid.step, sent.step, sent.depth) == ("payer/pay", "sender/send", 2)
            assert sent.causes == (paid.id,)
            assert sent.causation == paid.id
        assert list(effects.standing.values()) == ["pay"]

    perform(scenario)


def test_a_business_no_fails_the_saga_at_once_and_is_undone_as_unknown() -> None:
    async def scenario() -> None:
        effects = Effects()

        async def refuse(order: Ordered, ctx: Context) -> Paid:
            raise Rejected("no money")

        async with stage([payer(effects, refuse), sender()], [saga_of()]) as running:
            saga = await running.publish({})
            assert await running.ended(saga) == "compensated"
            settled = [fact for fact in await running.facts(saga) if isinstance(fact, Settled)]
            assert [(fact.how, fact.code, fact.reason) for fact in settled] == [("failed", "rejected", "no money")]
            assert await running.dead("payer") == []
        assert effects.log == [("do", "pay"), ("undo", "pay unknown False")]

    perform(scenario)


def test_other_exceptions_are_tried_again_and_end_in_the_dead_letters_when_attempts_run_out() -> None:
    async def scenario() -> None:
        effects = Effects()

        async def fail(order: Ordered, ctx: Context) -> Paid:
            raise ConnectionError("down")

        async with stage([payer(effects, fail), sender()], [saga_of()]) as running:
            saga = await running.publish({})
            assert await running.ended(saga) == "compensated"
            (letter,) = await running.dead("payer")
            assert (letter["error_code"], letter["error_attempt"]) == ("attempts.exhausted", "3")
            assert "down" not in letter["error_problems"]
        assert effects.log.count(("do", "pay")) == 3

    perform(scenario)


def test_a_step_that_works_at_its_second_attempt_is_done() -> None:
    async def scenario() -> None:
        effects = Effects()
        attempts: list[int] = []

        async def flaky(order: Ordered, ctx: Context) -> Paid:
            attempts.append(ctx.attempt)
            if ctx.attempt == 1:
                raise ConnectionError("down")
            return Paid()

        async with stage([payer(effects, flaky), sender()], [saga_of()]) as running:
            assert await running.ended(await running.publish({})) == "completed"
        assert attempts == [1, 2]

    perform(scenario)


def test_a_cancellation_that_a_step_raises_by_itself_is_a_failure_like_any_other() -> None:
    async def scenario() -> None:
        effects = Effects()

        async def cancelled(order: Ordered, ctx: Context) -> Paid:
            raise asyncio.CancelledError

        async with stage([payer(effects, cancelled), sender()], [saga_of()]) as running:
            assert await running.ended(await running.publish({})) == "compensated"
            (letter,) = await running.dead("payer")
            assert letter["error_code"] == "attempts.exhausted"
        assert effects.standing == {}

    perform(scenario)


def test_a_join_is_called_once_when_both_events_are_there_and_undone_before_what_it_builds_on() -> None:
    async def scenario() -> None:
        effects = Effects()
        packer, joiner = Agent("packer"), Agent("joiner")

        @packer.step
        async def pack(order: Ordered, ctx: Context) -> Packed:
            effects.do(ctx, "pack")
            return Packed(n=order.n)

        @pack.compensate
        async def unpack(order: Ordered, done: Packed | None, ctx: Context) -> None:
            effects.undo(ctx, "pack")

        @joiner.step
        async def send(paid: Paid, parcel: Packed, ctx: Context) -> Sent | Refused:
            effects.do(ctx, "send")
            return Refused() if paid.n == 13 else Sent(n=paid.n + parcel.n)

        @send.compensate
        async def recall(paid: Paid, parcel: Packed, done: Sent | Refused | None, ctx: Context) -> None:
            effects.undo(ctx, "send")

        async with stage([payer(effects), packer, joiner], [saga_of()]) as running:
            assert await running.ended(await running.publish({"n": 2})) == "completed"
            assert [event.data for event in await running.events("t.sent")] == [b'{"n":4}']
            effects.log.clear()
            assert await running.ended(await running.publish({"n": 13})) == "compensated"
        assert effects.log.count(("do", "send")) == 1
        undone = [what for kind, what in effects.log if kind == "undo"]
        assert undone[0] == "send"
        assert sorted(undone[1:]) == ["pack", "pay done True"]

    perform(scenario)


def test_a_narrower_view_refuses_an_event_and_the_step_that_was_never_called_owes_no_undo() -> None:
    class LargePayment(Paid):
        n: int = Field(ge=100)

    async def scenario() -> None:
        effects = Effects()
        agent = Agent("sender")

        @agent.step
        async def send(paid: LargePayment, ctx: Context) -> Sent:
            effects.do(ctx, "send")
            return Sent()

        @send.compensate
        async def recall(paid: LargePayment, done: Sent | None, ctx: Context) -> None:
            effects.undo(ctx, "send")

        async with stage([payer(effects), agent], [saga_of()]) as running:
            saga = await running.publish({"n": 5})
            assert await running.ended(saga) == "compensated"
            (letter,) = await running.dead("sender")
            assert letter["error_code"] == "contract"
            assert "data.n" in letter["error_problems"]
        assert [what for _, what in effects.log] == ["pay", "pay done True"]

    perform(scenario)


def test_steps_may_give_several_events_one_of_several_or_none() -> None:
    async def scenario() -> None:
        agent = Agent("splitter")

        @agent.step(effects=False)
        async def split(order: Ordered) -> tuple[Paid, Packed]:
            return Paid(n=order.n), Packed(n=order.n)

        @agent.step(effects=False)
        async def note(parcel: Packed) -> None:
            return None

        async with stage([agent, sender()], [saga_of()]) as running:
            saga = await running.publish({"n": 1})
            assert await running.ended(saga) == "completed"
            (paid,), (packed,) = await running.events("t.paid", saga), await running.events("t.packed", saga)
            assert ((paid.part, paid.parts), (packed.part, packed.parts)) == ((1, 2), (2, 2))
            (done,) = [fact for fact in await running.facts(saga) if isinstance(fact, Settled)]
            assert (done.step, done.how) == ("splitter/note", "done")

    perform(scenario)


def test_a_plain_function_runs_in_a_thread() -> None:
    async def scenario() -> None:
        threads: list[threading.Thread] = []
        agent = Agent("payer")

        @agent.step(effects=False)
        def pay(order: Ordered) -> Paid:
            threads.append(threading.current_thread())
            return Paid()

        async with stage([agent, sender()], [saga_of()]) as running:
            assert await running.ended(await running.publish({})) == "completed"
        assert threads != [threading.main_thread()]

    perform(scenario)


def test_an_observer_holds_up_nothing_and_its_failures_are_dead_letters_only() -> None:
    async def scenario() -> None:
        heard: list[str] = []
        watcher = Agent("watcher")

        @watcher.observe(retry=FAST)
        async def mourn(paid: Paid) -> None:
            raise RuntimeError("nobody cares")

        @watcher.observe
        async def note(end: SagaEnded) -> None:
            heard.append(end.verdict)

        async with stage([payer(Effects()), sender(), watcher], [saga_of()]) as running:
            saga = await running.publish({})
            assert await running.ended(saga) == "completed"

            async def letters() -> list[dict[str, str]]:
                return await running.dead("watcher")

            assert [each["error_code"] for each in await until(letters)] == ["attempts.exhausted"]

            async def ends() -> list[str]:
                return heard

            assert await until(ends) == ["completed"]
            assert not [fact for fact in await running.facts(saga) if isinstance(fact, Settled)]

    perform(scenario)


def test_a_second_different_event_on_a_filled_arm_fails_the_step_and_names_both() -> None:
    async def scenario() -> None:
        agent = Agent("joiner")

        @agent.step(effects=False)
        async def join(paid: Paid, parcel: Packed) -> Sent:
            return Sent()

        @agent.step(effects=False)
        async def pack(order: Ordered) -> Packed | None:
            return None

        async with stage([payer(Effects()), agent], [saga_of()]) as running:
            await running.bus.create_topics([TopicSpec("t.packed")])
            saga = await running.publish({})

            async def paid() -> list[Envelope]:
                return await running.events("t.paid", saga)

            (first,) = await until(paid)
            foreign = Envelope(id="other", source="/foreign", type="t.paid", data=b"{}", saga=saga)
            await running.send(foreign.to_message())
            assert await running.ended(saga) == "compensated"
            failed = [fact for fact in await running.facts(saga) if isinstance(fact, Settled) and fact.how == "failed"]
            assert [fact.code for fact in failed] == ["join.arm-filled"]
            assert first.id in failed[0].reason
            assert "other" in failed[0].reason

    perform(scenario)


def test_a_step_past_its_deadline_fails_and_is_undone() -> None:
    async def scenario() -> None:
        effects = Effects()

        async def hang(order: Ordered, ctx: Context) -> Paid:
            await asyncio.Event().wait()
            return Paid()

        agents = [payer(effects, hang, within=timedelta(milliseconds=30)), sender()]
        async with stage(agents, [saga_of()]) as running:
            saga = await running.publish({})
            assert await running.ended(saga) == "compensated"
            (letter,) = await running.dead("payer")
            assert letter["error_code"] == "deadline"
        assert effects.standing == {}

    perform(scenario)


def test_an_open_breaker_costs_no_attempt_and_its_transitions_are_events() -> None:
    async def scenario() -> None:
        calls: list[int] = []

        async def through_a_breaker(order: Ordered, ctx: Context) -> Paid:
            async with ctx.breaker("bank"):
                calls.append(ctx.attempt)
                if len(calls) <= 2:
                    raise ConnectionError("down")
            return Paid()

        agent = payer(Effects(), through_a_breaker)
        agent.breaker("bank", failures=2, reset=timedelta(milliseconds=50))
        async with stage([agent, sender()], [saga_of()]) as running:
            assert await running.ended(await running.publish({})) == "completed"
            changes = [each.data for each in await running.events("pavane.breakers")]
        assert calls == [1, 2, 3]
        assert [b'"open"' in each.split(b'"after":')[1].split(b",")[0] for each in changes] == [True, False, False]

    perform(scenario)


def test_a_fallback_answers_while_a_breaker_is_open() -> None:
    async def scenario() -> None:
        agent = Agent("payer")
        agent.breaker("bank", failures=1, reset=timedelta(minutes=1))

        async def stand_in(order: Ordered, ctx: Context) -> Paid:
            return Paid(n=99)

        @agent.step(effects=False, retry=FAST, fallback=stand_in)
        async def pay(order: Ordered, ctx: Context) -> Paid:
            async with ctx.breaker("bank"):
                raise ConnectionError("down")

        async with stage([agent, sender()], [saga_of()]) as running:
            saga = await running.publish({})
            assert await running.ended(saga) == "completed"
            assert [each.data for each in await running.events("t.paid", saga)] == [b'{"n":99}']

    perform(scenario)


def test_an_end_stops_a_pause_at_once_and_lets_go_of_held_arms() -> None:
    async def scenario() -> None:
        effects = Effects()
        pausing = asyncio.Event()

        async def fail(order: Ordered, ctx: Context) -> Paid:
            pausing.set()
            raise ConnectionError("down")

        slow = Agent("slow")

        @slow.step(retry=Retry(attempts=5, first_s=1000))
        async def pay(order: Ordered, ctx: Context) -> Paid:
            effects.do(ctx, "pay")
            return await fail(order, ctx)

        @pay.compensate
        async def refund(order: Ordered, done: Paid | None, ctx: Context) -> None:
            effects.undo(ctx, "pay")

        packer = Agent("packer")

        @packer.step(effects=False)
        async def pack(order: Ordered) -> Packed:
            return Packed()

        @packer.step(name="refuse", effects=False)
        async def refuse(parcel: Packed) -> Refused:
            await pausing.wait()
            return Refused()

        joiner = Agent("joiner")

        @joiner.step(effects=False)
        async def join(paid: Paid, parcel: Packed) -> Sent:
            return Sent()

        async with stage([slow, packer, joiner], [saga_of()]) as running:
            saga = await running.publish({})
            assert await running.ended(saga) == "compensated"
            facts = [fact for fact in await running.facts(saga) if isinstance(fact, Settled)]
            assert {(fact.step, fact.how) for fact in facts} == {("slow/pay", "failed"), ("joiner/join", "skipped")}
        assert effects.log == [("do", "pay"), ("undo", "pay")]

    perform(scenario)


def test_an_undo_that_keeps_failing_parks_its_saga_and_no_other() -> None:
    async def scenario() -> None:
        agent = Agent("payer")

        @agent.step
        async def pay(order: Ordered) -> Paid:
            return Paid(n=order.n)

        @pay.compensate(retry=FAST)
        async def refund(order: Ordered, done: Paid | None) -> None:
            if order.n == 1:
                raise ConnectionError("down")

        refuser = Agent("sender")

        @refuser.step(effects=False)
        async def send(paid: Paid) -> Refused | Sent:
            return Refused()

        async with stage([agent, refuser], [saga_of()]) as running:
            parked = await running.publish({"n": 1})
            assert await running.ended(await running.publish({"n": 2})) == "compensated"

            async def failed() -> list[UndoFailed]:
                return [fact for fact in await running.facts(parked) if isinstance(fact, UndoFailed)]

            (fact,) = await until(failed)
            assert (fact.step, fact.code) == ("payer/pay", "attempts.exhausted")
            assert [each["error_step"] for each in await running.dead("payer")] == ["payer/pay"]
            assert parked not in await running.verdicts()
            assert not [fact for fact in await running.facts(parked) if isinstance(fact, Undone)]

    perform(scenario)


class Died(BaseException):
    """The process is gone."""


def test_a_crash_commits_nothing_and_the_next_run_does_it_again_under_the_same_key() -> None:
    async def scenario() -> None:
        keys: list[str] = []

        async def die_once(order: Ordered, ctx: Context) -> Paid:
            keys.append(ctx.idempotency_key)
            if len(keys) == 1:
                raise Died
            return Paid()

        bus = MemoryBus(partitions=2)
        agents = [payer(Effects(), die_once), sender()]
        saga = ""
        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012
            async with stage(agents, [saga_of()], bus=bus) as running:
                saga = await running.publish({})

                async def died() -> list[str]:
                    return keys

                await until(died)
                await asyncio.sleep(0)
        assert raised.group_contains(Died)
        async with stage(agents, [saga_of()], bus=bus) as running:
            assert await running.ended(saga) == "completed"
            assert len(await running.events("t.paid", saga)) == 1
        assert len(keys) == 2
        assert keys[0] == keys[1]
        await bus.close()

    perform(scenario)


def test_what_an_earlier_process_may_have_begun_is_failed_at_a_tombstone_and_not_skipped() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        effects = Effects()
        begun = asyncio.Event()
        died: list[int] = []

        async def die(order: Ordered, ctx: Context) -> Paid:
            begun.set()
            if not died:
                died.append(1)
                raise Died
            return Paid()

        refuser = Agent("refuser")

        @refuser.step(effects=False)
        async def refuse(order: Ordered) -> Refused:
            await begun.wait()
            return Refused()

        agent = payer(effects, die)
        saga = ""
        with pytest.raises(BaseExceptionGroup):  # noqa: PT012
            async with stage([agent, refuser, sender()], [saga_of()], bus=bus) as running:
                saga = await running.publish({})
                await begun.wait()
        async with stage([refuser, sender()], [saga_of()], bus=bus) as running:

            async def ends() -> list[Envelope]:
                return await running.events("pavane.ends", saga)

            await until(ends)
        async with stage([agent, refuser, sender()], [saga_of()], bus=bus) as running:
            assert await running.ended(saga) == "compensated"
        assert effects.standing == {}
        assert effects.log[-1][0] == "undo"
        await bus.close()

    perform(scenario)


def test_a_lane_declares_its_version_once() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=2)
        agents = [payer(Effects()), sender()]
        for _ in range(2):
            async with stage(agents, [saga_of()], bus=bus) as running:
                await running.ended(await running.publish({}, name=None, source=f"/{_}"))
        declared = [read_fact(each) for each in await Stage(bus, []).events(FACTS)]
        names = sorted(fact.agent for fact in declared if isinstance(fact, Declared))
        assert names == ["payer", "payer", "sender", "sender"]
        await bus.close()

    perform(scenario)


def of_some_version(called: list[tuple[str, int]], hold: asyncio.Event, *, more: bool) -> Agent:
    """An agent with one step; the next version has another beside it, and an observer."""
    agent = Agent("payer")

    @agent.step(effects=False)
    async def pay(order: Ordered) -> Paid:
        if order.n == 13 and not more:
            await hold.wait()
        return Paid(n=order.n)

    if more:

        @agent.step
        async def also(order: Ordered) -> None:
            called.append(("also", order.n))

        @also.compensate
        async def not_also(order: Ordered, done: None) -> None: ...

        @agent.observe
        async def look(order: Ordered) -> None:
            called.append(("look", order.n))

    return agent


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_step_more_is_not_called_with_what_the_last_version_had_finished(has_ended: bool) -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        called: list[tuple[str, int]] = []
        hold, stop, quiet = asyncio.Event(), asyncio.Event(), Surroundings(trace=False)
        may_end = asyncio.Event()
        waiter = Agent("waiter")

        @waiter.step(effects=False)
        async def wait(order: Ordered) -> None:
            if order.n != 13:
                await may_end.wait()

        peer = bus.peer()
        old = asyncio.create_task(run([of_some_version(called, hold, more=False)], [], peer, stop, quiet))
        async with stage([waiter], [saga_of(Paid)], bus=bus, surroundings=quiet) as running:
            slow = await running.publish({"n": 13})
            good = await running.publish({"n": 7})

            async def paid() -> bool:
                return len(await running.events("t.paid", good)) == 1

            await until(paid)
            if has_ended:
                may_end.set()
                assert await running.ended(good) == "completed"
            old.cancel()
            await asyncio.gather(old, return_exceptions=True)
            await peer.close()
            new = asyncio.create_task(run([of_some_version(called, hold, more=True)], [], bus.peer(), stop, quiet))
            assert await running.ended(slow) == "completed"

            async def looked() -> bool:
                return ("look", 7) in called

            await until(looked)
            may_end.set()
            assert await running.ended(good) == "completed"
            stop.set()
            await new
            assert sorted(called) == [("also", 13), ("look", 7), ("look", 13)]
            (passed,) = [each for each in await running.facts(good) if isinstance(each, Settled) and each.code == "step.newer"]
            assert (passed.step, passed.how, passed.began) == ("payer/also", "skipped", False)
        await bus.close()

    perform(scenario)


def test_a_graceful_stop_lets_running_work_finish() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=2)
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slow(order: Ordered, ctx: Context) -> Paid:
            entered.set()
            await leave.wait()
            return Paid()

        async with stage([payer(Effects(), slow), sender()], [saga_of()], bus=bus) as running:
            saga = await running.publish({})
            await entered.wait()
            running.stop.set()
            await asyncio.sleep(0)
            leave.set()
        assert len(await running.events("t.paid", saga)) == 1
        await bus.close()

    perform(scenario)


def test_a_saga_past_its_deadline_is_undone() -> None:
    async def scenario() -> None:
        effects = Effects()
        now = [1_000_000.0]
        bus = MemoryBus(partitions=2, clock=lambda: now[0])
        silent = Agent("sender")

        @silent.step(effects=False)
        async def send(paid: Paid) -> None:
            return None

        surroundings = Surroundings(trace=False, clock=lambda: now[0])
        other = Agent("other")

        @other.step(effects=False)
        async def never(parcel: Packed) -> Sent:
            return Sent()

        @other.step(effects=False)
        async def produce(order: Ordered) -> Packed | None:
            return None

        saga = saga_of(deadline=timedelta(minutes=1))
        async with stage([payer(effects), silent, other], [saga], bus=bus, surroundings=surroundings) as running:
            saga_id = await running.publish({})

            async def settled() -> bool:
                return len(await running.facts(saga_id)) >= 2

            await until(settled)
            assert await running.verdicts() == {}
            now[0] += 61
            assert await running.ended(saga_id) == "compensated"
            (end,) = await running.events("pavane.ends", saga_id)
            assert b'"deadline"' in end.data
        assert effects.standing == {}
        await bus.close()

    perform(scenario)


def test_a_join_that_ran_when_its_saga_ended_and_died_is_failed_with_all_of_its_events() -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        effects = Effects()
        running_join, die = asyncio.Event(), asyncio.Event()
        packer, joiner = Agent("packer"), Agent("joiner")

        @packer.step(effects=False)
        async def pack(order: Ordered) -> Packed:
            return Packed()

        @packer.step(effects=False)
        async def refuse(order: Ordered) -> Refused:
            await running_join.wait()
            return Refused()

        @joiner.step
        async def send(paid: Paid, parcel: Packed, ctx: Context) -> Sent:
            effects.do(ctx, "send")
            running_join.set()
            await die.wait()
            raise Died

        @send.compensate
        async def recall(paid: Paid, parcel: Packed, done: Sent | None, ctx: Context) -> None:
            effects.undo(ctx, f"send {ctx.outcome}")

        agents = [payer(effects), packer, joiner]
        saga = ""
        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012
            async with stage(agents, [saga_of()], bus=bus) as running:
                saga = await running.publish({})
                await running_join.wait()

                groups: dict[str, MemoryGroup] = vars(bus)["_groups"]

                async def told() -> bool:
                    return groups["joiner"].rows[0].offsets.get("pavane.ends", 0) > 0

                await until(told)
                die.set()
        assert raised.group_contains(Died)
        async with stage(agents, [saga_of()], bus=bus) as running:
            assert await running.ended(saga) == "compensated"
            failed = [fact for fact in await running.facts(saga) if isinstance(fact, Settled) and fact.how == "failed"]
            assert [(fact.step, len(fact.causes)) for fact in failed] == [("joiner/send", 2)]
        assert effects.standing == {}
        assert ("undo", "send unknown") in effects.log
        await bus.close()

    perform(scenario)
