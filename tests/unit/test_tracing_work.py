"""A unit of work: its spans, what is current while it runs, and that no two units ever mix."""

import asyncio
import os
import random
import threading
from collections.abc import Iterator

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import get_current

from pavane_events.envelope import Envelope, Trace
from pavane_tracing.propagation import span_context
from pavane_tracing.setup import make_tracing
from pavane_tracing.span import SpanRow
from pavane_tracing.unit import MOST_SPANS
from pavane_tracing.work import Tracing, Work

PARENT = Trace(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
OTHER = Trace(traceparent="00-11111111111111111111111111111111-2222222222222222-01")
user_tracer = trace.get_tracer("made.at.import")


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    made = make_tracing("credit-score", keep=True, baggage=("tenant",))
    yield made
    made.shutdown(1)


def event(saga: str | None = "saga-1", trace: Trace = PARENT, event_id: str = "event-1") -> Envelope:
    return Envelope(id=event_id, source="/agents/intake", type="credit.submitted", data=b"{}", saga=saga, trace=trace)


def begin(tracing: Tracing, envelope: Envelope | None = None, *, links: tuple[Trace, ...] = (), root: bool = False) -> Work:
    return tracing.process(
        envelope or event(),
        topic="credit.submitted",
        partition=3,
        offset=41,
        group="credit-score",
        step="credit-score/compute_score",
        saga_name="credit-decision",
        links=links,
        root=root,
    )


def by_name(rows: list[SpanRow]) -> dict[str, SpanRow]:
    return {row.name: row for row in rows}


def span_id(trace: Trace) -> str:
    return (trace.traceparent or "").split("-")[2]


def test_a_process_span_is_child_of_and_linked_to_the_sender(tracing: Tracing) -> None:
    work = begin(tracing)
    work.end()
    (row,) = work.spans
    assert (row.name, row.kind, row.service, row.status) == (
        "process credit.submitted",
        "CONSUMER",
        "credit-score",
        "UNSET",
    )
    assert row.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert row.parent_span_id == "00f067aa0ba902b7"
    assert [(link.trace_id, link.span_id) for link in row.links] == [(row.trace_id, "00f067aa0ba902b7")]
    assert row.start_ns <= row.end_ns
    assert row.attributes == {
        "messaging.system": "pavane",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "credit.submitted",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "credit-score",
        "messaging.message.id": "event-1",
        "messaging.message.body.size": 2,
        "pavane.offset": 41,
        "event.id": "event-1",
        "event.type": "credit.submitted",
        "saga.id": "saga-1",
        "saga.name": "credit-decision",
        "saga.step": "credit-score/compute_score",
    }


def test_a_message_carries_the_context_of_its_send_span(tracing: Tracing) -> None:
    work = begin(tracing)
    carried = work.send("credit.scored", "event-2", "credit.scored", size=120)
    work.end()
    process, send = work.spans
    assert (send.name, send.kind, send.parent_span_id) == ("send credit.scored", "PRODUCER", process.span_id)
    assert span_id(carried) == send.span_id
    assert send.attributes == {
        "messaging.system": "pavane",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "credit.scored",
        "messaging.message.id": "event-2",
        "messaging.message.body.size": 120,
        "event.id": "event-2",
        "event.type": "credit.scored",
        "saga.id": "saga-1",
        "saga.name": "credit-decision",
        "saga.step": "credit-score/compute_score",
    }
    assert span_id(work.trace) == process.span_id


def test_a_message_to_another_saga_says_so(tracing: Tracing) -> None:
    work = begin(tracing)
    work.send("loans.intake", "event-2", "loan.asked", saga="saga-2")
    work.end()
    assert work.spans[1].text("saga.id") == "saga-2"


def test_a_join_links_to_every_input_once(tracing: Tracing) -> None:
    work = begin(tracing, links=(OTHER, PARENT, OTHER, Trace(traceparent="junk")))
    work.end()
    assert [link.span_id for link in work.spans[0].links] == ["00f067aa0ba902b7", "2222222222222222"]


def test_a_new_root_is_linked_only(tracing: Tracing) -> None:
    work = begin(tracing, root=True)
    work.end()
    (row,) = work.spans
    assert row.parent_span_id is None
    assert row.trace_id != "4bf92f3577b34da6a3ce929d0e0e4736"
    assert [link.span_id for link in row.links] == ["00f067aa0ba902b7"]


def test_without_a_context_that_can_be_read_a_trace_begins(tracing: Tracing) -> None:
    work = begin(tracing, event(trace=Trace(traceparent="00-nonsense")))
    work.end()
    assert work.spans[0].parent_span_id is None
    assert not work.spans[0].links


def test_what_was_not_sampled_is_not_kept_but_its_context_goes_on(tracing: Tracing) -> None:
    unsampled = Trace(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    work = begin(tracing, event(trace=unsampled))
    carried = work.send("credit.scored", "event-2", "credit.scored")
    work.end()
    context = span_context(carried)
    assert context is not None
    assert not context.trace_flags.sampled
    assert context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert not work.spans


def test_retries_are_events_and_a_failure_is_a_status(tracing: Tracing) -> None:
    work = begin(tracing)
    work.event("retry", {"attempt": 2})
    work.fail("step.failed", "no answer")
    work.end()
    (row,) = work.spans
    assert [(found.name, dict(found.attributes)) for found in row.events] == [("retry", {"attempt": 2})]
    assert (row.status, row.status_message, row.text("error.type")) == ("ERROR", "no answer", "step.failed")


def test_ending_twice_is_ending_once(tracing: Tracing, caplog: pytest.LogCaptureFixture) -> None:
    work = begin(tracing)
    work.end()
    work.end()
    assert len(work.spans) == 1
    assert not caplog.records


def test_an_undo_says_what_it_is(tracing: Tracing) -> None:
    work = tracing.process(
        event(), topic="a.commands", partition=0, offset=0, group="a", step="a/do", links=(OTHER,), undo=True
    )
    work.end()
    assert work.spans[0].attributes["saga.undo"] is True


def test_an_intake_learns_its_saga_later(tracing: Tracing) -> None:
    work = begin(tracing, event(saga=None))
    work.belongs_to("saga-9", "credit-decision")
    work.point("saga credit-decision start", attributes={"saga.deadline": 300})
    work.send("credit.submitted", "event-2", "credit.submitted")
    work.end()
    assert [row.text("saga.id") for row in work.spans] == ["saga-9"] * 3
    process, point, _ = work.spans
    assert point.attributes["saga.deadline"] == 300
    assert (point.kind, point.parent_span_id) == ("INTERNAL", process.span_id)


def test_only_allowed_baggage_is_seen_and_handed_on(tracing: Tracing) -> None:
    incoming = Trace(traceparent=PARENT.traceparent, baggage="tenant=acme,email=a%40b.example")
    work = begin(tracing, event(trace=incoming))
    with work:
        assert dict(baggage.get_all()) == {"tenant": "acme"}
    assert work.send("t", "event-2", "t").baggage == "tenant=acme"
    assert work.trace.baggage == "tenant=acme"
    work.end()


def test_the_users_spans_nest_and_belong_to_the_work(tracing: Tracing) -> None:
    work = begin(tracing)
    with work, user_tracer.start_as_current_span("ask the bureau"), user_tracer.start_as_current_span("parse"):
        pass
    work.end()
    rows = by_name(work.spans)
    assert rows["ask the bureau"].parent_span_id == rows["process credit.submitted"].span_id
    assert rows["parse"].parent_span_id == rows["ask the bureau"].span_id
    assert rows["parse"].text("saga.id") == "saga-1"
    assert rows["parse"].text("saga.step") == "credit-score/compute_score"
    assert rows["parse"].text("event.id") == "event-1"


def test_a_decorated_coroutine_is_traced_anew_at_every_call(tracing: Tracing) -> None:
    @user_tracer.start_as_current_span("decorated")
    async def ask() -> None:
        await asyncio.sleep(0)

    async def twice() -> list[list[SpanRow]]:
        found: list[list[SpanRow]] = []
        for number in range(2):
            work = begin(tracing, event(saga=f"saga-{number}"))
            with work:
                await ask()
            work.end()
            found.append(work.spans)
        return found

    for number, rows in enumerate(asyncio.run(twice())):
        assert [(row.name, row.text("saga.id")) for row in rows] == [
            ("process credit.submitted", f"saga-{number}"),
            ("decorated", f"saga-{number}"),
        ]


def test_threads_and_child_tasks_belong_to_the_work(tracing: Tracing) -> None:
    def blocking() -> None:
        with user_tracer.start_as_current_span("in a thread"):
            pass

    async def child() -> None:
        with user_tracer.start_as_current_span("in a task"):
            await asyncio.sleep(0)

    async def main() -> list[SpanRow]:
        work = begin(tracing)
        with work:
            await asyncio.gather(asyncio.to_thread(blocking), asyncio.create_task(child()))
        work.end()
        return work.spans

    rows = by_name(asyncio.run(main()))
    root = rows["process credit.submitted"].span_id
    assert rows["in a thread"].parent_span_id == rows["in a task"].parent_span_id == root


def test_a_users_span_belongs_to_the_service_at_work_not_to_the_first_one(tracing: Tracing) -> None:
    second = make_tracing("income", keep=True)
    work = begin(second)
    with work, user_tracer.start_as_current_span("ask"):
        pass
    work.end()
    assert [(row.name, row.service) for row in work.spans] == [
        ("process credit.submitted", "income"),
        ("ask", "income"),
    ]
    assert not tracing.late()
    second.shutdown(1)


def test_spans_outside_any_work_and_spans_too_late_are_not_lost(tracing: Tracing) -> None:
    with user_tracer.start_as_current_span("outside"):
        pass
    work = begin(tracing)
    with work:
        late = user_tracer.start_span("too late")
    work.end()
    late.end()
    with work:
        user_tracer.start_span("begun too late").end()
    assert [row.name for row in work.spans] == ["process credit.submitted"]
    assert [row.name for row in tracing.late()] == ["outside", "too late", "begun too late"]
    assert not tracing.late()


def test_more_spans_than_are_kept_are_counted(tracing: Tracing) -> None:
    work = begin(tracing)
    with work:
        for _ in range(MOST_SPANS + 5):
            user_tracer.start_span("many").end()
    work.end()
    process = by_name(work.spans)["process credit.submitted"]
    assert process.attributes["pavane.spans.dropped"] == 5


def test_what_was_current_is_restored_also_after_an_exception(tracing: Tracing) -> None:
    before = get_current()
    work = begin(tracing)
    with work:
        assert span_id(work.trace) == f"{trace.get_current_span().get_span_context().span_id:016x}"
    with pytest.raises(ValueError, match="boom"), work:
        raise ValueError("boom")
    assert get_current() is before
    work.detach()
    work.attach()
    work.attach()
    work.detach()
    assert get_current() is before
    work.end()


def test_what_is_current_for_the_caller_never_leaks_into_a_work(tracing: Tracing) -> None:
    with user_tracer.start_as_current_span("the caller's"):
        work = begin(tracing, event(trace=Trace()))
        work.end()
        assert work.spans[0].parent_span_id is None
        outer = begin(tracing)
        with outer:
            inner = begin(tracing, event(saga="saga-2", trace=Trace()))
            with inner, user_tracer.start_as_current_span("inner's"):
                pass
            inner.end()
        outer.end()
    assert [row.text("saga.id") for row in inner.spans] == ["saga-2", "saga-2"]
    assert len(outer.spans) == 1


def test_a_thousand_interleaved_works_never_mix(tracing: Tracing) -> None:
    dice = random.Random(7)

    async def one(number: int) -> list[SpanRow]:
        work = begin(tracing, event(saga=f"saga-{number}", event_id=f"event-{number}"))
        try:
            with work:
                await asyncio.sleep(dice.random() / 100)
                with user_tracer.start_as_current_span("ask") as span:
                    await asyncio.sleep(dice.random() / 100)
                    span.set_attribute("number", number)
                    if number % 3 == 0:
                        raise RuntimeError("boom")
                await asyncio.sleep(0)
        except RuntimeError:
            work.fail("boom", "boom")
        work.send("credit.scored", f"out-{number}", "credit.scored")
        work.end()
        return work.spans

    async def main() -> list[list[SpanRow]]:
        before = get_current()
        found = await asyncio.gather(*(one(number) for number in range(1_000)))
        assert get_current() is before
        return found

    for number, rows in enumerate(asyncio.run(main())):
        assert [row.name for row in rows] == ["process credit.submitted", "ask", "send credit.scored"]
        assert {row.text("saga.id") for row in rows} == {f"saga-{number}"}
        assert rows[1].attributes["number"] == number
        assert {row.parent_span_id for row in rows[1:]} == {rows[0].span_id}


def test_points_and_sends_outside_any_work(tracing: Tracing) -> None:
    sent = tracing.send_root("credit.applications", "event-0", "credit.submitted", size=9)
    (root,) = sent.spans
    assert (root.name, root.kind, root.parent_span_id) == ("send credit.applications", "PRODUCER", None)
    point = tracing.point(
        "saga credit-decision end",
        sent.trace,
        links=(OTHER,),
        attributes={"saga.state": "completed"},
        saga="saga-1",
        saga_name="credit-decision",
    )
    (row,) = point.spans
    assert (row.kind, row.parent_span_id, row.trace_id) == ("INTERNAL", root.span_id, root.trace_id)
    assert row.attributes == {"saga.id": "saga-1", "saga.name": "credit-decision", "saga.state": "completed"}
    assert tracing.point("alone", None).spans[0].parent_span_id is None


def test_spans_may_end_in_many_threads_at_once(tracing: Tracing) -> None:
    work = begin(tracing)

    def many() -> None:
        for _ in range(50):
            user_tracer.start_span("one", context=context).end()

    with work:
        context = get_current()
        threads = [threading.Thread(target=many) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    work.end()
    assert len(work.spans) == 401
    assert {row.parent_span_id for row in work.spans[1:]} == {work.spans[0].span_id}
