"""The desk: records become facts, decisions and messages; one lane of the coordinator without its loop."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest

from pavane import Agent, Event, Saga, SagaEnded
from pavane.plan import plan_of
from pavane_events.bus import MAX_RECORD_BYTES, Lane, Lanes, TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.dead_letter import reason_headers
from pavane_events.envelope import Envelope, Trace, parse
from pavane_events.ids import uuid7
from pavane_events.partition import partition_of
from pavane_events.record import Message, Record
from pavane_saga import backlog
from pavane_saga.batch import Decision
from pavane_saga.desk import ADMITTED_WITHIN_S, UNKNOWN_AFTER_S, Desk
from pavane_saga.facts import Blocked, Decided, Fact, Fired, Locked, LockRefused, Requested, Settled, UndoFailed, Undone
from pavane_saga.intake import saga_id_of
from pavane_saga.locks import read_order
from pavane_saga.wire import ADMISSIONS, COORDINATOR, FACTS, LOCKS, fact_envelope, fact_message, read_fact, read_undo_request
from pavane_tracing.setup import make_tracing
from pavane_tracing.store import SPANS_TOPIC, decode
from pavane_tracing.work import Tracing
from support.compiled import sources_only


class Asked(Event, type="k.asked"):
    n: int = 0


class Answered(Event, type="k.answered"):
    n: int = 0


class Refused(Event, type="k.refused"):
    n: int = 0


class Half(Event, type="k.half"):
    n: int = 0


agent = Agent("clerk")


@agent.step
def answer(asked: Asked) -> Answered | Refused:
    return Answered()


@answer.compensate
def take_back(asked: Asked, done: Answered | Refused | None) -> None: ...


SAGA = Saga("k", starts=Asked, completes=Answered, fails=Refused, intake="k.intake", deadline=timedelta(minutes=5))
TOPICS = ["k.asked", "k.answered", "k.refused", "k.intake", FACTS, ADMISSIONS]
OUT = [
    "clerk.commands",
    "late.commands",
    "pavane.ends",
    SagaEnded.event_type,
    "pavane.coordinator.dead-letters",
    "pavane.spans",
    LOCKS,
]
MANIFEST = plan_of(agent).manifest


class Office:
    """A desk at the first lane of a bus, and its outputs so far."""

    def __init__(self, bus: MemoryBus, lanes: Lanes, lane: Lane) -> None:
        self.bus = bus
        self.lanes = lanes
        self.lane = lane
        self.now = 1_700_000_000.0
        self.saga = SAGA
        self.out: list[Message] = []
        self.tracing = Tracing.off()
        self._offsets: dict[str, int] = {}
        self.desk = self.another()

    def another(self, sagas: Mapping[str, Saga] | None = None) -> Desk:
        """A desk that begins with what is in the lane's state."""
        return Desk(self.lane, sagas or {"k": self.saga}, self.tracing, lambda: self.now, self.bus.partitions)

    async def anew(self, sagas: Mapping[str, Saga] | None = None) -> None:
        """The lane is lost, and another holder has it, who begins with what was committed."""
        place = self.lane.partition
        self.bus.take_away(COORDINATOR, place)
        while self.lane.lost or self.lane.partition != place:
            self.lane = await anext(self.lanes)
        self.desk = self.another(sagas)

    def record(self, message: Message, partition: int | None = None) -> Record:
        """The message as it lies in the log."""
        offset = self._offsets[message.topic] = self._offsets.get(message.topic, -1) + 1
        place = self.lane.partition if partition is None else partition
        return Record(message.topic, place, offset, message.key, message.value, message.headers, int(self.now * 1000))

    async def take(self, *messages: Message, is_open: bool = True) -> list[Message]:
        """What the desk puts out for these records; it is committed."""
        self.desk.take([self.record(message) for message in messages], is_open=is_open)
        return await self.settle()

    async def settle(self) -> list[Message]:
        decision: Decision | None = self.desk.decide()
        if decision is None:
            return []
        await self.lane.commit({}, decision.outputs, decision.state)
        self.desk.committed()
        self.out += decision.outputs
        return list(decision.outputs)

    def saga_here(self, *, elsewhere: bool = False) -> str:
        """A saga id that this lane owns, or another."""
        while True:
            saga = uuid7()
            if (partition_of(saga.encode(), self.bus.partitions) == self.lane.partition) != elsewhere:
                return saga


def at_the_desk(scenario: Callable[[Office], Awaitable[None]], partitions: int = 2) -> None:
    async def main() -> None:
        bus = MemoryBus(partitions)
        await bus.create_topics([TopicSpec(name) for name in (*TOPICS, *OUT)])
        lanes = await bus.lanes(COORDINATOR, TOPICS)
        office = Office(bus, lanes, await anext(lanes))
        await office.take(fact_of(MANIFEST.declared(()), None))
        office.out.clear()
        await scenario(office)
        await bus.close()

    asyncio.run(main())


def fact_of(fact: Fact, saga: str | None) -> Message:
    envelope = fact_envelope(fact, saga=saga, source="/agents/clerk", time_s=0)
    return fact_message(envelope, envelope.trace, partition=0)


def asked(saga: str) -> Envelope:
    return Envelope(id=f"a-{saga}", source="/sagas/k", type="k.asked", data=b'{"n":1}', saga=saga)


def answered(saga: str, kind: str = "k.answered") -> Envelope:
    cause = f"a-{saga}"
    return Envelope(
        id=f"b-{saga}",
        source="/agents/clerk",
        type=kind,
        data=b"{}",
        saga=saga,
        causes=(cause,),
        causation=cause,
        step="clerk/answer",
        depth=1,
        declaration=MANIFEST.version,
    )


def topics(messages: Collection[Message]) -> list[str]:
    return [message.topic for message in messages]


def codes(messages: Collection[Message]) -> list[str]:
    return [reason_headers(message.headers)["error_code"] for message in messages if message.topic.endswith("dead-letters")]


# --- admissions ------------------------------------------------------------------------------------------------------


def test_plain_json_starts_a_saga_in_the_lane_where_it_lies() -> None:
    async def scenario(office: Office) -> None:
        (start,) = await office.take(Message("k.intake", b'{"n":1}', b"any"))
        assert start.topic == "k.asked"
        assert start.key is not None
        assert partition_of(start.key, 2) == office.lane.partition

    at_the_desk(scenario)


def test_a_named_record_takes_one_more_hop_to_the_lane_that_owns_its_saga() -> None:
    async def scenario(office: Office) -> None:
        names = [f"n{number}" for number in range(20)]
        sent = [
            Envelope(id=name, source="/x", type="k.asked", data=b'{"n":1}').to_message("k.intake", key="k") for name in names
        ]
        outputs = await office.take(*sent)
        for name, message in zip(names, outputs, strict=True):
            saga = saga_id_of("/x", name).encode()
            is_mine = partition_of(saga, 2) == office.lane.partition
            assert (message.topic, message.key) == ("k.asked" if is_mine else ADMISSIONS, saga)

    at_the_desk(scenario)


def test_a_named_record_is_admitted_once_however_it_arrives_and_however_often() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        start = asked(saga)
        assert topics(await office.take(start.to_message(ADMISSIONS), start.to_message(ADMISSIONS))) == ["k.asked"]
        assert await office.take(start.to_message(ADMISSIONS)) == []
        office.desk = office.another()
        assert await office.take(start.to_message(ADMISSIONS)) == []
        await office.take(start.to_message(), answered(saga).to_message())
        assert SagaEnded.event_type in topics(office.out)
        assert await office.take(start.to_message(ADMISSIONS)) == [], "nor once it has ended"

    at_the_desk(scenario)


def test_an_admission_in_the_wrong_lane_is_sent_on() -> None:
    async def scenario(office: Office) -> None:
        elsewhere = office.saga_here(elsewhere=True)
        (sent_on,) = await office.take(asked(elsewhere).to_message(ADMISSIONS))
        assert (sent_on.topic, sent_on.key) == (ADMISSIONS, elsewhere.encode())
        nobodys = replace(asked(elsewhere), saga=None).to_message(ADMISSIONS, key=elsewhere)
        assert codes(await office.take(nobodys)) == ["admission.unknown"]

    at_the_desk(scenario)


def test_while_the_lane_is_not_open_admissions_wait_and_all_else_goes_on() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        intake = Message("k.intake", b'{"n":1}', b"any")
        assert await office.take(intake, is_open=False) == []
        office.desk.take([], is_open=False)
        assert office.desk.patience_s(1.0) < 1
        outputs = await office.take(asked(saga).to_message(), answered(saga).to_message(), is_open=False)
        assert SagaEnded.event_type in topics(outputs)
        assert topics(await office.take(intake, is_open=True)) == ["k.asked", "k.asked"]

    at_the_desk(scenario)


async def received(office: Office, *, is_open: bool = False) -> list[Message]:
    """What the desk puts out for what it receives until nothing comes any more, with its lane closed or not."""
    found: list[Message] = []
    while records := await office.lane.receive(500, 0):
        office.desk.take(records, is_open=is_open)
        decision = office.desk.decide()
        if decision is not None:
            await office.lane.commit(decision.done, decision.outputs, decision.state)
            office.desk.committed()
            office.out += decision.outputs
            found += decision.outputs
    return found


def test_what_waits_for_the_lane_to_open_is_bounded_and_delays_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record of the intake was kept in memory."""
    monkeypatch.setattr(backlog, "MOST_HELD", 1000)

    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        place = office.lane.partition
        started = [Message("k.intake", b'{"n":1}', b"any", partition=place) for _ in range(4000)]
        await office.bus.publish([*started, asked(saga).to_message()])
        assert await received(office) == []
        assert office.lane.positions["k.intake"] <= 1500
        await office.bus.publish([answered(saga).to_message()])
        assert topics(await received(office)) == [SagaEnded.event_type]
        office.desk.take([], is_open=True)
        assert len(await office.settle()) == office.lane.positions["k.intake"]
        records = await office.lane.receive(500, 0)
        assert {each.topic for each in records} == {"k.intake"}, "it goes on"

    at_the_desk(scenario)


class Opinion(Event, type="k.opinion"):
    n: int = 0


ASKING = Saga("k", starts=Asked, completes=Answered, fails=Refused, intake="k.intake", answers=Opinion)


def opinion(saga: str) -> Envelope:
    return Envelope(id=f"o-{saga}", source="/people/x", type="k.opinion", data=b"{}", saga=saga)


@pytest.mark.parametrize("by", ["k.intake", ADMISSIONS])
def test_while_the_lane_is_not_open_answers_from_outside_are_let_in_once(by: str) -> None:
    async def scenario(office: Office) -> None:
        office.saga, place = ASKING, office.lane.partition
        office.desk = office.another()
        await office.bus.create_topics([TopicSpec("k.opinion")])
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        started = Message(by, b'{"n":1}', b"any", partition=place)
        if by == ADMISSIONS:
            started = asked(office.saga_here()).to_message(ADMISSIONS)
        answer = opinion(saga).to_message(by, partition=place)
        await office.bus.publish([started, replace(opinion("x"), saga=None).to_message("k.intake", partition=place), answer])
        assert sorted(topics(await received(office))) == ["k.opinion", "pavane.coordinator.dead-letters"]
        heard = replace(
            opinion(saga), id=next(parse(office.record(each)).id for each in office.out if each.topic == "k.opinion")
        )
        await office.take(heard.to_message(), answered(saga).to_message(), is_open=False)
        assert SagaEnded.event_type in topics(office.out)
        await office.anew()
        assert await received(office) == [], "it counted, and is no dead letter now"
        office.desk.take([], is_open=True)
        assert topics(await office.settle()) == ["k.asked"]

    at_the_desk(scenario)


def test_an_answer_waits_behind_the_start_of_its_saga() -> None:
    async def scenario(office: Office) -> None:
        office.saga = ASKING
        office.desk = office.another()
        await office.bus.create_topics([TopicSpec("k.opinion")])
        for elsewhere in (False, True):
            name = next(
                name
                for name in (uuid7() for _ in range(1000))
                if (partition_of(saga_id_of("/x", name).encode(), 2) != office.lane.partition) == elsewhere
            )
            started = Envelope(id=name, source="/x", type="k.asked", data=b'{"n":1}').to_message("k.intake", key="any")
            said = opinion(saga_id_of("/x", name)).to_message("k.intake")
            assert await office.take(started, said, is_open=False) == []
            office.desk.take([], is_open=True)
            found = topics(await office.settle())
            assert found == ([ADMISSIONS, ADMISSIONS] if elsewhere else ["k.asked", "k.opinion"])
        unknown = opinion(office.saga_here()).to_message("k.intake")
        assert await office.take(unknown, is_open=False) == [], "its start may come by another topic"
        office.desk.take([], is_open=True)
        assert codes(await office.settle()) == ["answer.not-waited-for"]

    at_the_desk(scenario)


def test_records_delivered_twice_count_once() -> None:
    async def scenario(office: Office) -> None:
        record = office.record(Message("k.intake", b'{"n":1}', b"any"))
        office.desk.take([record], is_open=False)
        office.desk.take([record], is_open=False)
        office.desk.take([record], is_open=True)
        assert topics(await office.settle()) == ["k.asked"]
        office.desk.take([record], is_open=True)
        assert await office.settle() == []

    at_the_desk(scenario)


# --- decisions -------------------------------------------------------------------------------------------------------


def test_a_saga_completes_by_its_events_alone_and_says_so_once() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        assert await office.take(asked(saga).to_message()) == []
        (end,) = await office.take(answered(saga).to_message())
        assert (end.topic, json.loads(end.value or b"")["verdict"]) == (SagaEnded.event_type, "completed")
        assert await office.take(answered(saga).to_message(), fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga)) == []
        assert [key for key, _ in office.lane.state.scan(b"") if key[:1] in b"os"] == []

    at_the_desk(scenario)


def test_order_does_not_matter_not_even_of_the_start_event() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        assert await office.take(answered(saga, "k.refused").to_message()) == []
        assert topics(await office.take(asked(saga).to_message())) == ["pavane.ends", "clerk.commands"]

    at_the_desk(scenario)


def test_a_failed_saga_is_told_to_all_and_undone_with_its_inputs_and_outputs() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        end, command = await office.take(asked(saga).to_message(), answered(saga, "k.refused").to_message())
        assert (end.topic, json.loads(end.value or b"")["failed"]) == ("pavane.ends", True)
        request = read_undo_request(parse(office.record(command)))
        assert (request.step, request.outcome, request.causes) == ("clerk/answer", "done", (f"a-{saga}",))
        assert [each.id for each in request.inputs] == [f"a-{saga}"]
        assert [each.id for each in request.outputs] == [f"b-{saga}"]
        (ended,) = await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))
        assert json.loads(ended.value or b"")["verdict"] == "compensated"

    at_the_desk(scenario)


def test_a_new_desk_goes_on_in_the_middle_of_a_saga() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        office.desk = office.another()
        assert office.desk.declared == {"clerk"}
        assert topics(await office.take(answered(saga, "k.refused").to_message())) == ["pavane.ends", "clerk.commands"]
        office.desk = office.another()
        (ended,) = await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))
        assert ended.topic == SagaEnded.event_type

    at_the_desk(scenario)


def test_an_end_that_was_heard_before_anybody_knew_it_for_one_is_acted_upon_at_the_deadline() -> None:
    """It counted as acted upon: the saga never ended."""

    async def scenario(office: Office) -> None:
        office.saga = Saga("k", starts=Asked, completes=Answered, intake="k.intake", deadline=timedelta(minutes=5))
        office.desk = office.another()
        saga = office.saga_here()
        assert await office.take(asked(saga).to_message(), answered(saga, "k.refused").to_message()) == []
        office.saga = SAGA
        office.desk = office.another()
        other = office.saga_here()
        assert await office.take(asked(other).to_message()) == []
        office.desk = office.another()  # it dies, and what it knew is of use still
        office.now += 301
        office.desk.fire([saga])
        assert topics(await office.settle()) == ["pavane.ends", "clerk.commands", FACTS]
        office.desk = office.another()
        assert topics(await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))) == [SagaEnded.event_type]

    at_the_desk(scenario)


@pytest.mark.parametrize("overdue", ["fail", "report"])
@pytest.mark.parametrize("reported", [False, True])
def test_a_saga_that_had_come_to_what_is_its_end_now_completes_whatever_the_clock_says(
    overdue: Literal["fail", "report"], *, reported: bool
) -> None:
    async def scenario(office: Office) -> None:
        other = Saga("k", starts=Asked, completes=Refused, intake="k.intake", deadline=timedelta(minutes=5), overdue="report")
        office.saga = other
        office.desk = office.another()
        saga = office.saga_here()
        assert await office.take(asked(saga).to_message(), answered(saga).to_message()) == []
        office.now += 301
        if reported:
            office.desk.fire([saga])
            assert topics(await office.settle()) == [FACTS]
        office.saga = Saga("k", starts=Asked, completes=Answered, intake="k.intake", overdue=overdue)
        office.desk = office.another()
        office.now += 3600
        office.desk.fire([saga])
        *_, ended = await office.settle()
        assert (ended.topic, json.loads(ended.value or b"")["verdict"]) == (SagaEnded.event_type, "completed")
        office.desk.fire([saga])
        assert await office.settle() == []

    at_the_desk(scenario)


def test_whose_ends_change_while_it_is_undone_is_not_undone_again() -> None:
    async def scenario(office: Office) -> None:
        before, after = SAGA, Saga("k", starts=Asked, completes=Answered, intake="k.intake", deadline=timedelta(minutes=5))
        saga = office.saga_here()
        said = await office.take(asked(saga).to_message(), answered(saga, "k.refused").to_message())
        assert topics(said) == ["pavane.ends", "clerk.commands"]
        office.saga = after
        office.desk = office.another()
        await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))
        office.saga = before
        office.desk = office.another()
        office.now += 301
        office.desk.fire([saga])
        assert SagaEnded.event_type in topics(await office.settle())
        assert topics(office.out).count("clerk.commands") == 1

    at_the_desk(scenario)


@pytest.mark.parametrize("times", [1, 2])
def test_whose_ends_change_there_and_back_issues_nothing_twice(times: int) -> None:
    async def scenario(office: Office) -> None:
        before, after = SAGA, Saga("k", starts=Asked, completes=Answered, intake="k.intake", deadline=timedelta(minutes=5))
        saga = office.saga_here()
        said = await office.take(asked(saga).to_message(), answered(saga, "k.refused").to_message())
        assert topics(said) == ["pavane.ends", "clerk.commands"]
        for _ in range(times):
            for office.saga in (after, before):
                office.desk = office.another()
                await office.take(asked(office.saga_here()).to_message())
        assert topics(await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))) == [SagaEnded.event_type]
        assert topics(office.out).count("clerk.commands") == 1

    at_the_desk(scenario)


def test_what_waits_while_a_next_version_takes_over_is_still_owed_also_to_a_new_desk() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        later = Agent("clerk")

        @later.step(name="other", effects=False)
        def listen(asked: Asked) -> None: ...

        await office.take(fact_of(plan_of(later).manifest.declared([("k.asked", 50)]), None))
        office.desk = office.another()
        refused = replace(answered(saga, "k.refused"), step=None, causes=())
        assert topics(await office.take(refused.to_message())) == ["pavane.ends"]
        office.desk = office.another()
        skipped = Settled("clerk/answer", (f"a-{saga}",), "skipped", began=False)
        assert topics(await office.take(fact_of(skipped, saga))) == [SagaEnded.event_type]

    at_the_desk(scenario)


def test_a_failed_undo_parks_the_saga_and_tells_nobody_that_it_ended() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        await office.take(asked(saga).to_message(), answered(saga, "k.refused").to_message())
        assert await office.take(fact_of(UndoFailed("clerk/answer", (f"a-{saga}",), "x", "y"), saga)) == []
        assert [key for key, _ in office.lane.state.scan(b"o/")] == [b"o/" + saga.encode()]

    at_the_desk(scenario)


def test_an_undo_that_no_command_can_carry_is_an_undo_that_failed() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        large = b'{"n":1,"x":"' + b"x" * 700_000 + b'"}'
        start, refused = replace(asked(saga), data=large), replace(answered(saga, "k.refused"), data=large)
        outputs = await office.take(start.to_message(), refused.to_message())
        assert topics(outputs) == ["pavane.ends", FACTS]
        assert max(message.size() for message in outputs) <= MAX_RECORD_BYTES
        fact = read_fact(parse(office.record(outputs[1])))
        assert isinstance(fact, UndoFailed)
        assert (fact.step, fact.code) == ("clerk/answer", "undo.too-large")

    at_the_desk(scenario)


def test_of_an_undo_that_was_not_sent_no_span_says_that_it_was() -> None:
    async def scenario(office: Office) -> None:
        office.tracing = make_tracing("coordinator", keep=True)
        office.desk = office.another()
        saga = office.saga_here()
        large = b'{"n":1,"x":"' + b"x" * 700_000 + b'"}'
        await office.take(
            replace(asked(saga), data=large).to_message(), replace(answered(saga, "k.refused"), data=large).to_message()
        )
        rows = [row for message in office.out if message.topic == SPANS_TOPIC for row in decode(office.record(message))]
        sent = {row.name for row in rows if row.kind == "PRODUCER"}
        assert f"send {FACTS}" in sent
        assert "send clerk.commands" not in sent
        assert office.tracing.shutdown(5)

    at_the_desk(scenario)


def test_an_answer_by_fact_is_an_answer() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        failed = Settled("clerk/answer", (f"a-{saga}",), "failed", code="rejected", reason="no", declaration=MANIFEST.version)
        outputs = await office.take(asked(saga).to_message(), fact_of(failed, saga))
        assert topics(outputs) == ["pavane.ends", "clerk.commands"]
        assert read_undo_request(parse(office.record(outputs[1]))).outcome == "unknown"

    at_the_desk(scenario)


# --- time ------------------------------------------------------------------------------------------------------------


def listener() -> Agent:
    """An agent that comes late: it takes asked, too."""
    late = Agent("late")

    @late.step
    def listen(asked: Asked) -> Answered:
        return Answered()

    @listen.compensate
    def unheard(asked: Asked, done: Answered | None) -> None: ...

    return late


async def fire(office: Office) -> list[Message]:
    """What a turn fires by the clock alone."""
    if office.desk.deadlines.must_ask():
        office.desk.deadlines.asked({})
    office.desk.fire(office.desk.deadlines.take({}))
    return await office.settle()


def test_past_its_deadline_a_saga_that_says_so_is_reported_once_and_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(office: Office) -> None:
        office.saga = Saga("k", starts=Asked, completes=Answered, intake="k.intake", overdue="report")
        office.desk = office.another()
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        office.now += 3_601
        (reported,) = await fire(office)
        fact = read_fact(parse(office.record(reported)))
        assert isinstance(fact, Fired)
        assert (fact.rule, fact.detail.partition("; ")[2]) == ("overdue", "missing: k.answered or k.refused of clerk/answer")
        assert fact.detail in caplog.text
        office.desk = office.another()
        assert await fire(office) == []
        (ended,) = await office.take(answered(saga).to_message())
        assert json.loads(ended.value or b"")["verdict"] == "completed"

    at_the_desk(scenario)


def test_past_its_deadline_a_saga_turns_back_and_the_answers_that_came_are_undone() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        other = Agent("other")

        @other.step(effects=False)
        def listen(asked: Asked) -> None: ...

        await office.take(fact_of(plan_of(other).manifest.declared(()), None))
        await office.take(asked(saga).to_message(), answered(saga).to_message())
        office.now += 299
        assert await fire(office) == []
        office.now += 2
        assert topics(await fire(office)) == [FACTS, "pavane.ends", "clerk.commands"]
        assert await fire(office) == []
        assert await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga)) == [], "an answer is owed"
        skipped = Settled("other/listen", (f"a-{saga}",), "skipped", began=False, declaration=plan_of(other).manifest.version)
        assert topics(await office.take(fact_of(skipped, saga))) == [SagaEnded.event_type]

    at_the_desk(scenario)


def test_a_deadline_holds_over_a_restart() -> None:
    async def scenario(office: Office) -> None:
        await office.take(asked(office.saga_here()).to_message())
        office.desk = office.another()
        office.now += 301
        assert topics(await fire(office)) == [FACTS, "pavane.ends"]

    at_the_desk(scenario)


def test_what_was_just_heard_goes_before_the_clock() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        office.now += 301
        office.desk.take([office.record(answered(saga).to_message())], is_open=True)
        assert topics(await fire(office)) == [SagaEnded.event_type]
        assert await fire(office) == []

    at_the_desk(scenario)


def test_a_saga_whose_start_event_never_comes_has_failed_after_a_while() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        await office.take(replace(answered(saga, "k.refused"), step=None, causes=()).to_message())
        office.now += UNKNOWN_AFTER_S - 1
        assert await fire(office) == []
        office.now += 2
        outputs = await fire(office)
        assert topics(outputs)[:2] == [FACTS, "pavane.ends"]
        assert SagaEnded.event_type in topics(outputs)

    at_the_desk(scenario)


# --- sagas of another coordinator ------------------------------------------------------------------------------------


OTHER = Saga("other", starts=Half, completes=Refused, intake="other.intake")
"""It shares a topic with the saga that its coordinator does not know."""

OTHERS = {"other": OTHER}
BOTH = {"other": OTHER, "k": SAGA}


def verdicts(messages: Collection[Message]) -> list[str]:
    return [json.loads(each.value or b"")["verdict"] for each in messages if each.topic == SagaEnded.event_type]


async def later(office: Office, seconds: float = 86_400) -> list[Message]:
    office.now += seconds
    return await fire(office)


def test_a_coordinator_that_does_not_know_a_saga_keeps_what_it_hears_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """It died of it, and whoever held the lane next."""

    async def scenario(office: Office) -> None:
        sagas = [office.saga_here(), office.saga_here()]
        await office.take(*(asked(saga).to_message() for saga in sagas))
        office.desk = office.another(OTHERS)
        for saga in sagas:
            assert await office.take(answered(saga).to_message(), fact_of(Locked("l"), saga)) == []
            assert await office.take(fact_of(Blocked(((saga, "l"),)), saga), fact_of(Blocked((("x", "l"),)), saga)) == []
        assert await later(office) == []
        office.desk = office.another(OTHERS)
        assert await later(office) == []
        assert [line for line in caplog.messages if "is called k," in line] == caplog.messages
        assert len(caplog.messages) <= 1
        office.desk = office.another(BOTH)
        assert verdicts(await fire(office)) == ["completed", "completed"], "that was said before its deadline passed"
        assert [key for key, _ in office.lane.state.scan(b"") if key[:1] in b"os"] == []

    at_the_desk(scenario)


@pytest.mark.parametrize("hears", [False, True])
def test_what_a_failure_makes_due_that_was_kept_is_issued_by_who_knows_the_saga(hears: bool) -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        office.desk = office.another(OTHERS)
        assert await office.take(answered(saga, "k.refused").to_message()) == []
        office.desk = office.another(BOTH)
        again = [answered(saga, "k.refused").to_message()] if hears else []
        out = await office.take(*again) or await fire(office)
        assert topics(out) == ["pavane.ends", "clerk.commands"]
        office.desk = office.another(BOTH)
        assert await fire(office) == []
        assert verdicts(await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))) == ["compensated"]

    at_the_desk(scenario)


def test_what_was_issued_before_the_saga_was_unknown_is_not_issued_again() -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        refused = answered(saga, "k.refused").to_message()
        assert topics(await office.take(asked(saga).to_message(), refused)) == ["pavane.ends", "clerk.commands"]
        office.desk = office.another(OTHERS)
        again = replace(refused)  # a duplicate that lies at another offset
        assert await office.take(again, fact_of(Settled("x/y", ("z",), "skipped", began=False), saga)) == []
        office.desk = office.another(BOTH)
        assert await fire(office) == []
        office.desk = office.another(OTHERS)
        assert await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga)) == []
        office.desk = office.another({"k": SAGA})
        await fire(office)
        assert topics(office.out).count("clerk.commands") == 1

    at_the_desk(scenario)


def test_what_a_declaration_makes_due_of_a_saga_that_is_unknown_is_issued_by_who_knows_it() -> None:
    async def scenario(office: Office) -> None:
        saga, manifest = office.saga_here(), plan_of(listener()).manifest
        said = replace(answered(saga), id="late", source="/agents/late", step="late/listen", declaration=manifest.version)
        await office.take(asked(saga).to_message(), said.to_message(), answered(saga, "k.refused").to_message())
        await office.take(fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))
        office.desk = office.another(OTHERS)
        assert await office.take(fact_of(manifest.declared(()), None)) == []
        office.desk = office.another(BOTH)
        assert "late.commands" in topics(await fire(office))
        assert topics(office.out).count("clerk.commands") == 1, "nor is what was undone undone again"
        assert verdicts(await office.take(fact_of(Undone("late/listen", (f"a-{saga}",)), saga))) == ["compensated"]

    at_the_desk(scenario)


@pytest.mark.parametrize("knows_in_time", [False, True])
def test_a_start_event_that_nobody_knew_is_kept_for_who_knows_it(knows_in_time: bool) -> None:
    """After half a minute it was said that it had never come, of a saga of another name."""

    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        office.desk = office.another(OTHERS)
        assert await office.take(asked(saga).to_message()) == []
        assert await later(office, 29 if knows_in_time else 86_400) == []
        office.desk = office.another(BOTH)
        assert ("pavane.ends" in topics(await fire(office))) != knows_in_time, "its deadline is that of its saga"
        out = await office.take(answered(saga).to_message(), fact_of(Undone("clerk/answer", (f"a-{saga}",)), saga))
        assert topics(out) == ([SagaEnded.event_type] if knows_in_time else ["clerk.commands", SagaEnded.event_type])

    at_the_desk(scenario)


def test_of_several_sagas_one_whose_start_event_never_came_is_called_by_what_is_known_of_it() -> None:
    async def scenario(office: Office) -> None:
        office.tracing = make_tracing("coordinator", keep=True)
        office.desk = office.another(
            {"other": Saga("other", starts=Half, completes=Opinion, intake="other.intake"), "k": SAGA}
        )
        await office.take(answered(office.saga_here(), "k.refused").to_message())
        await later(office, UNKNOWN_AFTER_S + 1)
        rows = [row for message in office.out if message.topic == SPANS_TOPIC for row in decode(office.record(message))]
        assert {str(row.attributes["saga.name"]) for row in rows if "saga.name" in row.attributes} == {"k"}
        assert office.tracing.shutdown(5)

    at_the_desk(scenario)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_another_lane_took_in_waits_for_a_coordinator_that_knows_it(elsewhere: bool) -> None:
    """During an upgrade that adds a saga it was a dead letter, and could not be redriven."""

    async def scenario(office: Office) -> None:
        place = office.lane.partition
        office.desk = office.another(OTHERS)
        started = asked(office.saga_here(elsewhere=elsewhere))
        admission = started.to_message(ADMISSIONS, partition=place)
        known = replace(asked(office.saga_here()), type="k.half").to_message(ADMISSIONS)
        await office.bus.create_topics([TopicSpec("k.half")])
        await office.bus.publish([admission, known])
        assert topics(await received(office, is_open=True)) == ["k.half"]
        assert office.desk.patience_s(60) == 1
        await office.anew(BOTH)
        assert topics(await received(office, is_open=True)) == [ADMISSIONS if elsewhere else "k.asked"]

    at_the_desk(scenario)


@sources_only
def test_what_nobody_knows_is_a_dead_letter_after_a_while_and_what_there_is_no_room_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "MOST_HELD", 2)

    async def scenario(office: Office) -> None:
        office.desk = office.another(OTHERS)
        unknown = [asked(office.saga_here()).to_message(ADMISSIONS) for _ in range(3)]
        assert codes(await office.take(*unknown)) == ["admission.unknown"]
        office.now += ADMITTED_WITHIN_S - 1
        assert await office.take() == []
        office.now += 1
        assert codes(await office.take()) == ["admission.unknown"] * 2
        assert list(office.lane.state.scan(b"b/")) == []
        office.desk = office.another(OTHERS)
        assert await office.take() == []

    at_the_desk(scenario)


def test_an_answer_that_only_a_newer_coordinator_knows_holds_up_the_deadline_of_its_saga() -> None:
    async def scenario(office: Office) -> None:
        saga, other = office.saga_here(), office.saga_here()
        await office.take(asked(saga).to_message(), asked(other).to_message())
        office.now += 299
        await office.take(opinion(saga).to_message(ADMISSIONS))
        assert topics(await later(office, 2)) == [FACTS, "pavane.ends"]
        office.saga = ASKING
        office.desk = office.another()
        await office.bus.create_topics([TopicSpec("k.opinion")])
        assert topics(await office.take(opinion(saga).to_message(ADMISSIONS))) == ["k.opinion"]

    at_the_desk(scenario)


def test_an_answer_to_a_saga_that_is_unknown_waits_with_it() -> None:
    async def scenario(office: Office) -> None:
        office.saga = ASKING
        office.desk = office.another()
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        asks_too = Saga("other", starts=Half, completes=Refused, intake="other.intake", answers=Opinion)
        office.desk = office.another({"other": asks_too})
        assert await office.take(opinion(saga).to_message(ADMISSIONS)) == []
        assert codes(await office.take(opinion(office.saga_here()).to_message(ADMISSIONS))) == ["answer.not-waited-for"]
        office.now += ADMITTED_WITHIN_S
        assert codes(await office.take()) == ["admission.unknown"]

    at_the_desk(scenario)


# --- what is no use --------------------------------------------------------------------------------------------------


def halves() -> Agent:
    """asked -> half, with an undo."""
    first = Agent("clerk")

    @first.step(name="answer")
    def halve(asked: Asked) -> Half:
        return Half()

    @halve.compensate
    def put_together(asked: Asked, done: Half | None) -> None: ...

    return first


def payer(*, pivot: bool) -> Agent:
    """half -> answered or refused: the point of no return, or not."""
    last = Agent("late")

    @last.step(name="pay", pivot=pivot)
    def pay(half: Half) -> Answered | Refused:
        return Answered()

    @pay.compensate
    def pay_back(half: Half, done: Answered | Refused | None) -> None: ...

    return last


def half(saga: str) -> Envelope:
    step, version = "clerk/answer", plan_of(halves()).manifest.version
    return Envelope(
        id=f"h-{saga}",
        source="/agents/clerk",
        type="k.half",
        data=b"{}",
        saga=saga,
        causes=(f"a-{saga}",),
        step=step,
        declaration=version,
    )


@pytest.mark.parametrize("was_declared", [True, False])
def test_a_pivot_that_is_declared_after_its_input_was_heard_is_granted(was_declared: bool) -> None:
    """By an agent that comes late, or by a next version, of which the step before was none."""

    async def scenario(office: Office) -> None:
        plain, pivot = (plan_of(payer(pivot=each)).manifest for each in (False, True))
        await office.take(fact_of(plan_of(halves()).manifest.declared([("k.asked", 0)]), None))
        if was_declared:
            await office.take(fact_of(plain.declared([("k.half", 0)]), None))
        saga = office.saga_here()
        assert await office.take(asked(saga).to_message(), half(saga).to_message()) == []
        assert "late.commands" in topics(await office.take(fact_of(pivot.declared([("k.half", 0)]), None)))

    at_the_desk(scenario)


def test_a_pivot_that_is_declared_is_granted_also_to_a_saga_that_is_not_in_memory() -> None:
    async def scenario(office: Office) -> None:
        await office.take(fact_of(plan_of(halves()).manifest.declared([("k.asked", 0)]), None))
        saga, other = office.saga_here(), office.saga_here()
        await office.take(asked(saga).to_message(), half(saga).to_message(), asked(other).to_message())
        office.desk = office.another()
        out = await office.take(fact_of(plan_of(payer(pivot=True)).manifest.declared([("k.half", 0)]), None))
        assert [message.key for message in out if message.topic == "late.commands"] == [saga.encode()]

    at_the_desk(scenario)


def test_a_step_that_is_declared_to_wait_for_somebody_outside_is_waited_for_until_then() -> None:
    class Judged(Event, type="k.judged"): ...

    judge = Agent("judge")

    @judge.step(effects=False, external=True, within=timedelta(seconds=20))
    def weigh(half: Half, judged: Judged) -> Answered:
        return Answered()

    async def scenario(office: Office) -> None:
        office.saga = Saga("k", starts=Asked, completes=Answered, fails=Refused, intake="k.intake", answers=[Judged])
        office.desk = office.another()
        await office.take(fact_of(plan_of(halves()).manifest.declared([("k.asked", 0)]), None))
        saga = office.saga_here()
        await office.take(asked(saga).to_message(), half(saga).to_message())
        await office.take(fact_of(plan_of(judge).manifest.declared([("k.half", 0), ("k.judged", 0)]), None))
        assert office.desk.patience_s(100) == pytest.approx(20, abs=0.01)

    at_the_desk(scenario)


def test_a_pivot_that_is_one_no_more_was_the_point_of_no_return() -> None:
    async def scenario(office: Office) -> None:
        await past_its_pivot(office)
        await office.take(fact_of(plan_of(payer(pivot=False)).manifest.declared([("k.half", 2)]), None))
        office.now += 301
        out = await fire(office)
        assert [read_fact(parse(office.record(message))).identity for message in out] == ["f:overdue"]

    at_the_desk(scenario)


async def past_its_pivot(office: Office, *, refuse: bool = False) -> str:
    """A saga whose pivot is done, and which waits for a lock behind that."""
    behind = Agent("behind")

    def always_one(answered: Answered) -> str:
        return "l"

    @behind.step(retriable=True, lock=always_one, lock_taken="refuse" if refuse else "wait")
    def follow(answered: Answered) -> None: ...

    await office.bus.create_topics([TopicSpec(LOCKS), TopicSpec("behind.commands")])
    paying = plan_of(payer(pivot=True)).manifest
    for manifest, topic in (
        (plan_of(halves()).manifest, "k.asked"),
        (paying, "k.half"),
        (plan_of(behind).manifest, "k.answered"),
    ):
        await office.take(fact_of(manifest.declared([(topic, 0)]), None))
    saga = office.saga_here()
    await office.take(asked(saga).to_message(), half(saga).to_message())
    paid = replace(answered(saga), step="late/pay", causes=(f"h-{saga}",), declaration=paying.version)
    await office.take(paid.to_message())
    asking = Requested("behind/follow", (f"b-{saga}",), "l", refuse)
    assert topics(await office.take(fact_of(asking, saga))) == [LOCKS]
    return saga


def test_in_a_circle_of_locks_who_is_past_its_pivot_has_the_next_one_give_way(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(office: Office) -> None:
        saga = await past_its_pivot(office)
        circle = Blocked((("0-other", "k"), (saga, "l"), ("00-another", "m")))
        (told,) = await office.take(fact_of(circle, saga))
        envelope = parse(office.record(told))
        assert (told.topic, envelope.saga, read_fact(envelope)) == (FACTS, "00-another", circle)
        assert caplog.messages == []
        assert await office.take(fact_of(Blocked(((saga, "l"), ("z", "k"))), saga)) == []
        (line,) = caplog.messages
        assert line.startswith("nobody in a circle of locks can give way, for all are past their pivots: ")
        assert f"{saga} waits for 'l', held by z" in line

    at_the_desk(scenario)


def test_who_was_refused_a_lock_and_is_tried_again_waits_for_it() -> None:
    async def scenario(office: Office) -> None:
        saga = await past_its_pivot(office, refuse=True)
        (failed,) = await office.take(fact_of(LockRefused("l", "another"), saga))
        await office.take(failed)
        again = Decided("retry", "behind/follow", (f"b-{saga}",), 1, "me", "it is free soon", 0)
        (asking,) = await office.take(fact_of(again, saga))
        order = read_order(parse(office.record(asking)))
        assert (order.verb, order.key, order.refuse) == ("acquire", "l", False)
        assert topics(await office.take(fact_of(Blocked((("0-other", "k"), (saga, "l"))), saga))) == [FACTS]
        assert topics(await office.take(fact_of(Locked("l"), saga))) == [FACTS, "behind.commands"]

    at_the_desk(scenario)


def test_of_two_steps_of_a_saga_that_need_one_lock_one_may_wait_and_another_be_refused() -> None:
    async def scenario(office: Office) -> None:
        await office.bus.create_topics([TopicSpec(LOCKS), TopicSpec("behind.commands")])
        saga = office.saga_here()
        await office.take(asked(saga).to_message())
        for refuse in (False, True):
            (asking,) = await office.take(fact_of(Requested(f"clerk/{refuse}", (f"a-{saga}",), "l", refuse), saga))
            order = read_order(parse(office.record(asking)))
            assert (order.verb, order.key, order.refuse) == ("acquire", "l", refuse)
        (failed,) = await office.take(fact_of(LockRefused("l", "another"), saga))
        settled = read_fact(parse(office.record(failed)))
        assert isinstance(settled, Settled)
        assert (settled.step, settled.how) == ("clerk/True", "failed")

    at_the_desk(scenario)


def without_value(message: Message) -> Message:
    return Message(message.topic, None, message.key, message.headers)


def with_doubled_headers(message: Message) -> Message:
    return Message(message.topic, message.value, message.key, message.headers * 2)


def under_another_key(message: Message) -> Message:
    return Message(message.topic, message.value, b"other", message.headers)


def on_another_topic(message: Message) -> Message:
    return Message("k.asked", message.value, message.key, message.headers)


def among_the_facts(message: Message) -> Message:
    return Message(FACTS, message.value, message.key, message.headers)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without_value, "value.null"),
        (with_doubled_headers, "undecodable"),
        (under_another_key, "key.mismatch"),
        (on_another_topic, "topic.mismatch"),
        (among_the_facts, "fact"),
    ],
)
def test_what_is_no_event_of_a_saga_is_a_dead_letter_and_no_fact(change: Callable[[Message], Message], code: str) -> None:
    async def scenario(office: Office) -> None:
        outputs = await office.take(change(answered(office.saga_here()).to_message()))
        assert codes(outputs) == [code]
        assert len(outputs) == 1
        assert list(office.lane.state.scan(b"o/")) == []

    at_the_desk(scenario)


def test_an_event_in_a_partition_that_is_not_its_sagas_is_a_dead_letter() -> None:
    async def scenario(office: Office) -> None:
        misplaced = asked(office.saga_here(elsewhere=True)).to_message()
        assert codes(await office.take(misplaced)) == ["partition.misplaced"]

    at_the_desk(scenario)


def test_events_outside_sagas_are_nobodys_business() -> None:
    async def scenario(office: Office) -> None:
        assert await office.take(Envelope(id="1", source="/x", type="k.asked", data=b"{}").to_message()) == []
        assert list(office.lane.state.scan(b"o/")) == []

    at_the_desk(scenario)


def test_what_a_late_declaration_makes_due_is_traced_back_to_where_the_saga_began() -> None:
    began = Trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

    async def scenario(office: Office) -> None:
        saga, manifest = office.saga_here(), plan_of(listener()).manifest
        said = replace(answered(saga), id="late", source="/agents/late", step="late/listen", declaration=manifest.version)
        await office.take(asked(saga).with_trace(began).to_message(), said.to_message())
        await office.take(answered(saga, "k.refused").to_message())
        (undo,) = await office.take(fact_of(manifest.declared(()), None))
        assert undo.topic == "late.commands"
        assert parse(office.record(undo)).trace == began

    at_the_desk(scenario)


@pytest.mark.parametrize("begun_under", [None, "clerk@1"])
def test_a_step_that_is_refused_its_lock_began_where_it_may_have_begun_without(begun_under: str | None) -> None:
    async def scenario(office: Office) -> None:
        saga = office.saga_here()
        wanted = Requested("clerk/answer", (f"a-{saga}",), "key", True, begun_under)
        await office.take(asked(saga).to_message("k.asked", key=saga), fact_of(wanted, saga))
        out = await office.take(fact_of(LockRefused("key", "another"), saga))
        (refused,) = [fact for each in out if each.topic == FACTS and isinstance(fact := said(office, each), Settled)]
        assert (refused.code, refused.began, refused.declaration) == ("lock.taken", begun_under is not None, begun_under)

    at_the_desk(scenario)


def said(office: Office, message: Message) -> Fact:
    return read_fact(parse(office.record(message)))
