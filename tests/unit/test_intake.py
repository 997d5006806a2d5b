"""Intake: plain JSON or CloudEvents in, a start event out, once; and every problem of what cannot become one."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from pavane import Event, Saga
from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.envelope import NO_TRACE, STRUCTURED, Envelope, Trace, parse
from pavane_events.errors import ContractViolation, ProblemsError, UndecodableRecord
from pavane_events.partition import partition_of
from pavane_events.record import Headers, Record
from pavane_saga.intake import admit, saga_id_of

PARTITIONS = 8


class Applied(Event, type="i.applied", version=2):
    amount: int = Field(gt=0)
    application_id: str = ""
    lines: list[str] = Field(default_factory=list[str])


class Done(Event, type="i.done"):
    pass


SAGA = Saga("i", starts=Applied, completes=Done, intake="i.applications")


def plain(value: bytes | None, headers: Headers = (), partition: int = 3, offset: int = 17) -> Record:
    return Record("i.applications", partition, offset, b"any", value, headers, 0)


def event(value: bytes = b'{"amount":5}', *, structured: bool = False, **changes: str) -> Record:
    attributes = {"id": "1", "source": "/web", "type": "i.applied", **changes}
    envelope = Envelope(data=value, **attributes)  # type: ignore[arg-type]
    if structured:
        return plain(envelope.to_structured(), (("content-type", STRUCTURED.encode()),))
    return plain(value, envelope.to_message().headers)


def codes(record: Record) -> list[str]:
    with pytest.raises((UndecodableRecord, ContractViolation)) as raised:
        admit(record, SAGA, PARTITIONS, 0)
    error: ProblemsError = raised.value
    return [problem.code for problem in error.problems]


def test_plain_json_becomes_a_start_event_of_a_new_saga_that_its_own_lane_owns() -> None:
    admission = admit(plain(b'{"amount": 5, "application_id": "A-7"}'), SAGA, PARTITIONS, 1_700_000_000)
    start = admission.event
    assert not admission.named
    assert (start.type, start.dataschema, start.source) == ("i.applied", "urn:pavane:i.applied:2", "/sagas/i")
    assert (start.subject, start.time, start.causes, start.step) == ("A-7", "2023-11-14T22:13:20+00:00", (), None)
    assert json.loads(start.data) == {"amount": 5, "application_id": "A-7", "lines": []}
    assert start.saga is not None
    assert partition_of(start.saga.encode(), PARTITIONS) == 3


@given(st.integers(0, PARTITIONS - 1))
def test_no_two_nameless_records_start_the_same_saga_and_none_needs_a_second_hop(partition: int) -> None:
    starts = [admit(plain(b'{"amount":1}', partition=partition), SAGA, PARTITIONS, 0).event for _ in range(3)]
    assert len({start.saga for start in starts}) == len({start.id for start in starts}) == 3
    assert {partition_of((start.saga or "").encode(), PARTITIONS) for start in starts} == {partition}


@pytest.mark.parametrize("structured", [False, True])
def test_a_cloudevent_names_its_saga_wherever_it_lies(structured: bool) -> None:
    one = admit(event(structured=structured), SAGA, PARTITIONS, 0)
    again = admit(event(structured=not structured), SAGA, PARTITIONS, 99)
    assert one.named
    assert one.event.saga == saga_id_of("/web", "1") == again.event.saga
    assert one.event.id == again.event.id
    assert admit(event(id="2"), SAGA, PARTITIONS, 0).event.saga != one.event.saga
    assert admit(event(source="/branch"), SAGA, PARTITIONS, 0).event.saga != one.event.saga


def test_an_idempotency_key_names_plain_json_in_any_case_of_letters() -> None:
    one, again, other = (
        admit(plain(b'{"amount":5}', ((name, key),), partition, offset), SAGA, PARTITIONS, 0)
        for name, key, partition, offset in (
            ("idempotency-key", b"k", 1, 2),
            ("Idempotency-Key", b"k", 3, 4),
            ("idempotency-key", b"l", 1, 2),
        )
    )
    assert one.named
    assert one.event.saga == again.event.saga
    assert one.event.saga != other.event.saga


def test_an_event_may_have_the_intakes_own_name_as_its_type() -> None:
    assert admit(event(type="i.applications"), SAGA, PARTITIONS, 0).event.type == "i.applied"


def test_what_an_event_says_of_saga_step_and_causes_is_not_believed() -> None:
    start = admit(event(saga="mine", step="a/b", declaration="v"), SAGA, PARTITIONS, 0).event
    assert start.saga == saga_id_of("/web", "1")
    assert (start.step, start.declaration) == (None, None)


def test_the_trace_of_whoever_sent_it_goes_on() -> None:
    traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    headers = (("traceparent", traceparent.encode()), ("baggage", b"secret=1"))
    assert admit(plain(b'{"amount":5}', headers), SAGA, PARTITIONS, 0).origin.trace == Trace(traceparent)
    junk = (("traceparent", b"\xff" * 10_000),)
    assert admit(plain(b'{"amount":5}', junk), SAGA, PARTITIONS, 0).origin.trace == NO_TRACE


@pytest.mark.parametrize(
    ("document", "subject"),
    [
        ({"id": 7}, "7"),
        ({"customer_id": "c", "id": "a"}, "c"),
        ({"id": ["no"], "order_id": "o"}, "o"),
        ({"name": "x"}, None),
        ([1, 2], None),
    ],
)
def test_the_subject_of_plain_json_is_its_first_id(document: Mapping[str, object] | list[int], subject: str | None) -> None:
    class Anything(Event, type="i.anything"):
        id: object = None
        customer_id: object = None
        order_id: object = None
        name: object = None

    saga = Saga("i", starts=Anything, completes=Done, intake="i.applications")
    record = plain(json.dumps(document).encode())
    if isinstance(document, list):
        with pytest.raises(ContractViolation):
            admit(record, saga, PARTITIONS, 0)
    else:
        assert admit(record, saga, PARTITIONS, 0).event.subject == subject


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (plain(None), ["value.null"]),
        (plain(b""), ["json_invalid"]),
        (plain(b"\xff\xfe"), ["json_invalid"]),
        (plain(b"[" * 100_000), ["json_invalid"]),
        (plain(b'{"id": "\\ud800", "amount": 1}'), ["json_invalid"]),
        (plain(b"{}"), ["missing"]),
        (plain(b'{"amount": -1, "application_id": 5, "amuont": 1}'), ["greater_than", "string_type", "extra_forbidden"]),
        (plain(b'{"amount": 1}' + b" " * MAX_RECORD_BYTES), ["value.too-large"]),
        (plain(b'{"amount": 1, "lines": ["' + b"x" * 950_000 + b'"]}'), ["value.too-large"]),
        (event(b'{"amount": 0}'), ["greater_than"]),
        (event(type="i.other"), ["intake.type"]),
        (event(dataschema="urn:pavane:i.applied:3"), ["contract.future-version"]),
        (event(dataschema="urn:pavane:i.applied:" + "9" * 1000), ["contract.future-version"]),
        (event(b"{", structured=True), ["json_invalid"]),
    ],
)
def test_what_cannot_become_a_start_event_says_every_reason(record: Record, expected: list[str]) -> None:
    assert codes(record) == expected


def test_an_older_version_is_read_by_the_contract_of_today() -> None:
    assert admit(event(dataschema="urn:pavane:i.applied:1"), SAGA, PARTITIONS, 0).event.dataschema == Applied.dataschema()


JUNK = st.sampled_from([b"", b"\xff", b"{}", b'{"amount":1}', b'{"amount":1,"id":"\\ud800"}', b"null", b"[[]]"]) | st.binary()
HEADERS = st.lists(
    st.tuples(st.sampled_from(["idempotency-key", "ce_id", "ce_type", "content-type", "traceparent", "x"]), JUNK), max_size=5
)


@given(st.none() | JUNK, HEADERS)
def test_whatever_comes_in_it_starts_a_saga_that_can_be_written_or_is_refused_with_problems(
    value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    try:
        start = admit(plain(value, tuple(headers)), SAGA, PARTITIONS, 0).event
    except (UndecodableRecord, ContractViolation) as error:
        assert error.problems
    else:
        message = start.to_message()
        assert parse(Record(message.topic, 0, 0, message.key, message.value, message.headers, 0)) == start
