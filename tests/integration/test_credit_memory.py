"""The credit choreography on the memory bus, without a file: sagas end as the steps say, and the ledgers agree."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from pavane import Context, Rejected
from pavane.runner import Surroundings
from pavane_credit import fraud, income, points, risk
from pavane_credit.applications import Application, read_applications
from pavane_credit.choreography import EFFECTS, decision
from pavane_credit.events import ApplicationSubmitted, ConfidentScore, FraudSuspected
from pavane_credit.faults import Fault, FaultPlan
from pavane_credit.ledger import Books, Effect, Ledger
from pavane_credit.outcome import Outcome, Watch, read_outcome
from pavane_credit.supervisor import run_together
from pavane_credit.where import Where
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import Envelope
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ENDS, FACTS
from support.stage import until

REAL = read_applications()
SEED = "1994"
PLAN = FaultPlan(SEED)
SOURCE = "/test"


class Stores:
    """Five ledgers in memory. They are there for as long as these connections are, whoever crashes meanwhile."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self._ledgers = {name: Ledger.open(name, where) for name in EFFECTS}

    def effects(self, kind: str) -> list[Effect]:
        return [each for ledger in self._ledgers.values() for each in ledger.effects() if each.kind == kind]

    def booked_dm(self) -> int:
        return self._ledgers["risk-assessment"].booked_dm()

    def close(self) -> None:
        for ledger in self._ledgers.values():
            ledger.close()


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """The agents' ledgers, in memory and this test's own. What else the agents are told is for the test to set."""
    monkeypatch.setenv("CREDIT_LEDGERS", f":memory:{uuid.uuid4()}-")
    opened = Stores(Where())
    yield opened
    opened.close()


def decide_all(applications: Sequence[Application], stores: Stores, *, crashes: bool = False) -> Outcome:
    """Run the choreography until every application's saga has ended, and read what became of them."""

    async def scenario() -> Outcome:
        async with asyncio.timeout(120), MemoryBus(partitions=2) as bus:
            topics = (decision.intake, SagaEnded.event_type, "credit.approved", FACTS, ENDS)
            await bus.create_topics([TopicSpec(topic) for topic in topics])
            stop = asyncio.Event()
            working = run_together(bus, stop, Surroundings())
            async with asyncio.TaskGroup() as group:
                group.create_task(working)
                sagas = {saga_id_of(SOURCE, each.id): each for each in applications}
                await publish(bus, applications)
                watch = Watch(bus, frozenset(sagas))

                async def all_ended() -> bool:
                    return await watch.look() == len(sagas)

                await until(all_ended)
                stop.set()
            starts = [record.key async for record in bus.read(ApplicationSubmitted.event_type)]
            assert len(starts) == len(set(starts)) == len(sagas), "each application is admitted once"
            return await read_outcome(bus, watch, sagas, stores.where, frozenset())

    return asyncio.run(scenario())


async def publish(bus: Bus, applications: Sequence[Application]) -> None:
    """To the intake; those that the plan says so, twice."""
    for each in applications:
        envelope = Envelope(
            id=each.id, source=SOURCE, type=ApplicationSubmitted.event_type, data=each.event.to_json(), subject=each.id
        )
        message = envelope.to_message(decision.intake, key=saga_id_of(SOURCE, each.id))
        await bus.publish([message, message] if PLAN.arrives_twice(each.id) else [message])


async def _is_approved(application: ApplicationSubmitted) -> bool:
    """What the rules say, without agents, bus or saga."""
    scored = points.score(application)
    try:
        await income.verify_income(application, Context.fake())
    except Rejected:
        return False
    cleared = not isinstance(await fraud.check_identity(application, Context.fake()), FraudSuspected)
    confident = scored.confidence >= ConfidentScore.model_json_schema()["properties"]["confidence"]["minimum"]
    return cleared and confident and risk.rate(scored.score) != "D"


def by_the_rules(applications: Sequence[Application], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many the rules approve; their effects go to ledgers of their own."""
    with monkeypatch.context() as patched:
        patched.setenv("CREDIT_LEDGERS", f":memory:{uuid.uuid4()}-")
        try:
            return sum(asyncio.run(_is_approved(each.event)) for each in applications)
        finally:
            income.books.close()
            fraud.books.close()


def of_fault(fault: Fault, most: int) -> list[Application]:
    return [each for each in REAL if PLAN.fault_of(each.id) == fault][:most]


def starts_of(books: Books, monkeypatch: pytest.MonkeyPatch) -> list[Ledger]:
    """Grows by one whenever the agent of these books starts."""
    starts: list[Ledger] = []
    usual = books.open

    def counted() -> Ledger:
        starts.append(usual())
        return starts[-1]

    monkeypatch.setattr(books, "open", counted)
    return starts


def test_twenty_applications_are_decided_without_a_file_in_under_a_second(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = REAL[:20]
    expected = by_the_rules(chosen, monkeypatch)
    began_s = time.process_time()  # this process's own time: a busy machine does not count
    outcome = decide_all(chosen, stores)
    took_s = time.process_time() - began_s
    assert (outcome.approved, outcome.compensated, outcome.open, outcome.parked) == (expected, 20 - expected, 0, 0)
    assert 0 < expected < 20
    assert outcome.ledgers.holds, outcome.ledgers.problems
    assert outcome.ledgers.booked_dm == stores.booked_dm() > 0
    assert took_s < 1.0


def test_every_saga_is_one_trace_without_orphans(stores: Stores) -> None:
    outcome = decide_all(REAL[:20], stores)
    assert outcome.trace.spans > 20 * 10
    assert outcome.trace.findings == ()


def test_effects_of_the_declined_were_there_and_are_undone(stores: Stores) -> None:
    outcome = decide_all(REAL[:20], stores)
    for kind in ("inquiry", "consent", "identity"):
        effects = stores.effects(kind)
        assert Counter(each.application_id for each in effects) == Counter(each.id for each in REAL[:20])
        assert sum(each.standing for each in effects) == outcome.approved
    assert all(each.standing for each in stores.effects("offer")), "a declined application never had an offer"


def test_bad_days_of_every_kind_leave_nothing_behind(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: tuple[Fault, ...] = (
        "bureau-slow",
        "bureau-down",
        "confidence-low",
        "crash",
        "twice",
        "comes-back",
        "undo-fails",
    )
    chosen = [each for kind in kinds for each in of_fault(kind, 3)]
    assert {PLAN.fault_of(each.id) for each in chosen} == set(kinds)
    monkeypatch.setenv("CREDIT_FAULTS", SEED)
    starts = starts_of(income.books, monkeypatch)
    outcome = decide_all(chosen, stores, crashes=True)
    begun = len(starts)
    healthy = [each for kind in ("bureau-slow", "twice") for each in of_fault(kind, 3)]
    assert outcome.ledgers.holds, outcome.ledgers.problems
    assert (outcome.open, outcome.parked, outcome.trace.findings) == (0, 0, ())
    assert outcome.approved == by_the_rules(healthy, monkeypatch)
    doomed = {each.id for each in of_fault("crash", 3)}
    crashed = {each.application_id: each.standing for each in stores.effects("consent") if each.application_id in doomed}
    assert 0 < outcome.ledgers.crashes == len(crashed), "whose saga failed before the agent was back is not begun any more"
    assert 1 < begun <= 1 + len(crashed), "who crashed was begun again; two lanes may die of one crash"
    assert not any(crashed.values()), "what stood at the crash was undone"
    assert outcome.ledgers.refusals == len(of_fault("comes-back", 3))


@pytest.mark.parametrize("line_dm", [0, 6_000])
def test_past_the_credit_line_nothing_is_reserved_and_the_saga_is_undone(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, line_dm: int
) -> None:
    chosen = REAL[:20]
    monkeypatch.setenv("CREDIT_LINE_DM", str(line_dm))
    outcome = decide_all(chosen, stores)
    reserved = stores.effects("exposure")
    assert (outcome.approved + outcome.compensated, outcome.open, outcome.parked) == (20, 0, 0)
    assert outcome.approved < by_the_rules(chosen, monkeypatch)
    assert len(reserved) < 20
    assert all(each.amount_dm <= line_dm for each in reserved)
    assert outcome.ledgers.booked_dm <= line_dm
    assert outcome.ledgers.holds, outcome.ledgers.problems


def test_decisions_are_graded_against_what_became_of_the_applications(stores: Stores) -> None:
    chosen = REAL[:20]
    outcome = decide_all(chosen, stores)
    booked = {each.application_id for each in stores.effects("offer") if each.standing}
    repaid = [each.repaid for each in chosen if each.id in booked]
    assert outcome.grade.approved_repaid == repaid.count(True) / len(repaid)
    assert outcome.grade.all_repaid == [each.repaid for each in chosen].count(True) / 20
