"""Delay tiers: which tier a pause begins in, what a record in a tier says, and the index of what waits."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane import Agent, BreakerOpen, Event, Retry
from pavane.attempts import Failure, Policy, attempt
from pavane.breaker import Breakers
from pavane.kit import Kit, Limits
from pavane.overlay import Overlay
from pavane.plan import plan_of
from pavane.tiers import HEADER, ROOM, SPARE, TIERS, Delay, Delayed, fits, from_tier, is_long, tier_for, tier_topics, to_tier
from pavane.units import Abandoned, Unit
from pavane.waiting import Index, Waiting, place_of
from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.buses.memory_log import KeyedState
from pavane_events.envelope import NO_TRACE, Envelope, Trace, parse
from pavane_events.errors import UndecodableRecord
from pavane_events.record import Message, Record
from pavane_tracing.work import Tracing

TRACE = Trace("00-" + "1" * 32 + "-" + "2" * 16 + "-01", "a=b", "tenant=x")
EVENT = Envelope(id="e", source="/t", type="t.asked", data=b'{"a":1}', saga="s")


def appended(message: Message, offset: int = 7, timestamp_ms: int = 2_000_000) -> Record:
    """A message on its topic."""
    partition = message.partition or 0
    return Record(message.topic, partition, offset, message.key, message.value, message.headers, timestamp_ms)


def but(record: Record, **changes: object) -> Record:
    """The same record, with other values here and there."""
    names = ("topic", "partition", "offset", "key", "value", "headers", "timestamp_ms", "parsed")
    values: dict[str, Any] = {name: getattr(record, name) for name in names} | changes
    return Record(**values)


INPUT = but(appended(EVENT.to_message(partition=3), offset=41, timestamp_ms=1_000_000), partition=3)


# --- tiers -----------------------------------------------------------------------------------------------------------


def test_tiers_are_in_order_of_delay_and_named_after_it() -> None:
    assert [tier.delay_s for tier in TIERS] == sorted(tier.delay_s for tier in TIERS)
    assert list(tier_topics("bank")) == ["bank.retry-1s", "bank.retry-5s", "bank.retry-30s", "bank.retry-5m"]


@pytest.mark.parametrize(
    ("pause_s", "roughly", "exactly"),
    [
        (1.1, "1s", "1s"),
        (4.0, "5s", "1s"),
        (3.9, "1s", "1s"),
        (5.0, "5s", "5s"),
        (24.0, "30s", "5s"),
        (23.0, "5s", "5s"),
        (60.0, "30s", "30s"),
        (240.0, "5m", "30s"),
        (3600.0, "5m", "5m"),
        (0.0, "1s", "1s"),
    ],
)
def test_a_pause_begins_in_the_tier_that_is_nearest_without_being_much_too_long(
    pause_s: float, roughly: str, exactly: str
) -> None:
    assert tier_for(pause_s, exact=False).name == roughly
    assert tier_for(pause_s, exact=True).name == exactly


@given(st.floats(1.001, 7200), st.booleans())
def test_the_tiers_of_a_pause_add_up_to_it_or_to_a_quarter_more(pause_s: float, exact: bool) -> None:
    waited_s, left_s, hops = 0.0, pause_s, 0
    while is_long(left_s, 1.0):
        tier = tier_for(left_s, exact=exact)
        waited_s += tier.delay_s
        left_s -= tier.delay_s
        hops += 1
    waited_s += max(0.0, left_s)
    assert pause_s - 1e-6 <= waited_s <= pause_s * (1.0 if exact else SPARE) + 1e-6
    assert hops <= pause_s / 300 + 18


def test_a_pause_is_long_when_it_is_longer_than_the_lane_holds_and_than_the_shortest_tier() -> None:
    assert [is_long(pause_s, 1.0) for pause_s in (0.5, 1.0, 1.01)] == [False, False, True]
    assert [is_long(pause_s, 0.0) for pause_s in (0.5, 1.0, 1.01)] == [False, False, True]
    assert [is_long(pause_s, 10.0) for pause_s in (5.0, 10.0, 10.01)] == [False, False, True]


# --- records in a tier -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [TRACE, NO_TRACE, Trace("x")])
@pytest.mark.parametrize("exact", [True, False])
def test_a_record_comes_out_of_a_tier_as_it_went_in(trace: Trace, exact: bool) -> None:
    delay = Delay(2, 7.5, "builtins.ConnectionError", exact)
    message = to_tier(INPUT, "bank", "bank/pay", delay, trace)
    assert (message.topic, message.key, message.value, message.partition) == ("bank.retry-5s", b"s", INPUT.value, 3)
    assert message.headers[:-1] == INPUT.headers
    record = appended(message)
    said = from_tier(record)
    assert said == Delayed(record, INPUT, "bank/pay", 2, 2.5, delay.reason, exact, trace)
    assert said.again(2.5) == replace(delay, pause_s=2.5)
    assert parse(said.original) == EVENT


def test_the_next_tier_takes_the_record_as_it_first_came() -> None:
    said = from_tier(appended(to_tier(INPUT, "bank", "bank/pay", Delay(1, 8, "x"), TRACE)))
    further = from_tier(appended(to_tier(said.original, "bank", said.step, said.again(said.left_s), said.trace)))
    assert further.original == INPUT
    assert (further.attempts, further.trace) == (1, TRACE)
    assert [name for name, _ in further.record.headers].count(HEADER) == 1


def test_what_was_parsed_is_handed_on_with_the_record() -> None:
    original = but(INPUT)
    envelope = parse(original)
    message = to_tier(original, "bank", "bank/pay", Delay(1, 5, "x"), TRACE)
    assert message.parsed is envelope
    assert from_tier(but(appended(message), parsed=message.parsed)).original.parsed is envelope


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"topic":"t"}',
        b'{"topic":1,"offset":0,"appended_ms":0,"step":"a/b","attempts":1,"left_ms":0,"reason":""}',
        b'{"topic":"t","offset":-1,"appended_ms":0,"step":"a/b","attempts":1,"left_ms":0,"reason":""}',
        b'{"topic":"t","offset":0,"appended_ms":"0","step":"a/b","attempts":1,"left_ms":0,"reason":""}',
        b'{"topic":"t","offset":0,"appended_ms":0,"step":"\\ud800","attempts":1,"left_ms":0,"reason":""}',
        b'{"topic":"t","offset":0,"appended_ms":0,"step":"a/b","attempts":1.5,"left_ms":0,"reason":""}',
    ],
)
def test_anything_else_is_refused(header: bytes) -> None:
    for headers in ((), (("other", b"x"),), ((HEADER, header),), ((HEADER, header), ("later", b"x"))):
        with pytest.raises(UndecodableRecord):
            from_tier(but(INPUT, headers=headers))


def test_a_record_with_no_room_for_the_header_does_not_fit() -> None:
    large = but(INPUT, key=b"", headers=(), value=b"x" * ROOM)
    assert fits(large)
    assert not fits(but(large, key=b"k"))
    longest = Trace("x" * 8192, "x" * 8192, "x" * 8192)
    assert to_tier(large, "bank", "s" * 2048, Delay(1, 5, "x" * 9999), longest).size() <= MAX_RECORD_BYTES


# --- attempts --------------------------------------------------------------------------------------------------------


class Asked(Event, type="t.asked"):
    pass


agent = Agent("bank")


@agent.step(effects=False)
async def answer(asked: Asked) -> None: ...


def tried(policy: Policy, error: Exception, *, unit: Unit | None = None, in_lane_s: float = 1.0) -> object:
    """What comes of a call that fails with that error, at second 1000."""

    def clock() -> float:
        return 1000.0

    kit = Kit(
        plan_of(agent), "d", 4, Tracing.off(), Breakers(clock, {}), Limits(in_lane_s=in_lane_s), clock, chance=lambda: 0.5
    )
    chosen = unit or Unit(INPUT, EVENT, answer, may_have_begun=False)

    async def call(number: int) -> object:
        raise error

    async def once() -> object:
        work = kit.tracing.process(EVENT, topic="t.asked", partition=0, offset=0, group="bank")
        async with asyncio.timeout(5):
            return await attempt(call, policy, chosen, kit, work, lambda _: None)

    return asyncio.run(once())


def again(attempts: int) -> Unit:
    """The unit as it comes out of a tier after so many attempts."""
    record = appended(to_tier(INPUT, "bank", "bank/answer", Delay(attempts, 5, "x"), NO_TRACE))
    return Unit(INPUT, EVENT, answer, may_have_begun=True, delayed=from_tier(record))


def test_a_long_pause_is_a_delay_and_attempts_go_on_from_there() -> None:
    policy = Policy(Retry(attempts=3, first_s=10))
    assert tried(policy, ConnectionError()) == Delay(1, 10.0, "ConnectionError")
    assert tried(policy, ConnectionError(), unit=again(1)) == Delay(2, 20.0, "ConnectionError")
    last = tried(policy, ConnectionError(), unit=again(2))
    assert isinstance(last, Failure)
    assert (last.code, last.attempt) == ("attempts.exhausted", 3)


def test_an_open_breaker_delays_and_costs_no_attempt() -> None:
    assert tried(Policy(Retry(attempts=1)), BreakerOpen("b", 1060.0)) == Delay(0, 60.0, "breaker.open")
    assert tried(Policy(Retry(attempts=2)), BreakerOpen("b", 1060.0), unit=again(1)) == Delay(1, 60.0, "breaker.open")


def test_a_delay_ends_at_the_deadline_and_is_exact() -> None:
    assert tried(Policy(Retry(first_s=30), 1020.0), ConnectionError()) == Delay(1, 20.0, "ConnectionError", exact=True)


def test_a_saga_that_has_ended_delays_nothing() -> None:
    unit = Unit(INPUT, EVENT, answer, may_have_begun=False)
    unit.interrupt("ended")
    failure = tried(Policy(Retry(first_s=30)), ConnectionError(), unit=unit)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.attempt) == ("saga.ended", 1)


def test_a_lane_that_stops_sends_a_long_pause_to_its_tier_but_what_does_not_fit_is_left_to_the_next_holder() -> None:
    small = Unit(INPUT, EVENT, answer, may_have_begun=False)
    large = Unit(but(INPUT, value=b"x" * ROOM), EVENT, answer, may_have_begun=False)
    for unit in (small, large):
        unit.interrupt("stopping")
    assert isinstance(tried(Policy(Retry(first_s=30)), ConnectionError(), unit=small), Delay)
    with pytest.raises(Abandoned):
        tried(Policy(Retry(first_s=30)), ConnectionError(), unit=large)


# --- the index -------------------------------------------------------------------------------------------------------


class Committed:
    """A lane's state that commits at once."""

    def __init__(self) -> None:
        self.rows = KeyedState()
        self.overlay = Overlay(self.rows)

    def commit(self) -> None:
        self.rows.apply(self.overlay.begin_commit())
        self.overlay.end_commit()


def waits(step: str = "bank/pay", causes: tuple[str, ...] = ("e",)) -> Waiting:
    return Waiting(step, causes, 1, 5_000, {})


def at(offset: int, saga: str | None = "s", topic: str = "t.asked", step: str = "bank/pay", key: bytes | None = b"s") -> bytes:
    place = place_of(but(INPUT, offset=offset, topic=topic, key=key), replace(EVENT, saga=saga), step)
    assert place is not None
    return place


def test_a_row_comes_back_as_it_was_with_the_arms_of_a_join() -> None:
    index = Index(Overlay(KeyedState()))
    other = replace(EVENT, id="o", type="t.other", trace=Trace("00-" + "1" * 32 + "-" + "2" * 16 + "-01"))
    row = replace(waits(causes=("e", "o")), arms={"other": other})
    index.change({at(1): row.encode()})
    assert index.get(at(1)) == row
    assert index.get(at(2)) is None


def test_only_an_earlier_input_of_the_same_saga_step_and_topic_goes_first() -> None:
    index = Index(Overlay(KeyedState()))
    index.change({at(9): waits(causes=("nine",)).encode(), at(10): waits(causes=("ten",)).encode()})
    for later in (at(10), at(11), at(10**12)):
        found = index.before(later)
        assert found is not None
        assert found.causes == ("nine",)
    for first in (at(9), at(8), at(11, saga="r"), at(11, topic="t.other"), at(11, step="bank/other"), at(11, saga=None)):
        assert index.before(first) is None


def test_without_a_saga_the_key_decides_and_without_both_nothing_does() -> None:
    index = Index(Overlay(KeyedState()))
    index.change({at(9, None, key=b"k"): waits().encode()})
    assert index.before(at(10, None, key=b"k")) == waits()
    assert index.before(at(10, None, key=b"K")) is None
    assert place_of(but(INPUT, key=None), replace(EVENT, saga=None), "bank/pay") is None


def test_a_saga_finds_its_own_rows_and_an_undo_drops_those_of_its_call() -> None:
    index = Index(Overlay(KeyedState()))
    index.change({at(1): waits().encode(), at(2): waits(causes=("f",)).encode(), at(1, "s2"): waits().encode()})
    assert [place for place, _ in index.of_saga("s")] == [at(1), at(2)]
    index.drop("s", "bank/other", ("e",))
    index.drop("s", "bank/pay", ("e",))
    assert [place for place, _ in index.of_saga("s")] == [at(2)]
    assert [place for place, _ in index.of_saga("s2")] == [at(1, "s2")]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=40))
def test_the_count_is_the_number_of_rows_whatever_is_committed_when(steps: list[tuple[int, bool, bool]]) -> None:
    state = Committed()
    index = Index(state.overlay)
    rows: set[bytes] = set()
    for offset, put, commit in steps:
        place = at(offset)
        index.change({place: waits().encode() if put else None, b"other": b"x"})
        (rows.add if put else rows.discard)(place)
        if commit:
            state.commit()
        assert index.count == len(rows)
        assert (index.before(at(99)) is not None) == bool(rows)
    state.commit()
    assert Index(Overlay(state.rows)).count == len(rows)
