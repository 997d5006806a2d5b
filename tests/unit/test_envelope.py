"""The envelope on the wire: binary and structured mode, and a foreign CloudEvents library that reads and writes the same."""

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    from_kafka_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from pavane_events.envelope import STRUCTURED, Envelope, Trace, is_event, parse, parse_structured, unread
from pavane_events.errors import UndecodableRecord
from pavane_events.record import Headers, Message, Record

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)
IDS = st.uuids().map(str)
ENVELOPES = st.builds(
    Envelope,
    id=IDS | NAMES,
    source=NAMES,
    type=st.from_regex(r"[a-z]{1,9}\.[a-z]{1,9}", fullmatch=True),
    data=st.dictionaries(NAMES, st.integers() | NAMES | st.none(), max_size=4).map(
        lambda data: json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    ),
    time=st.none() | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    subject=st.none() | NAMES,
    dataschema=st.none() | st.just("urn:pavane:a.b:3"),
    saga=st.none() | IDS,
    causation=st.none() | IDS,
    causes=st.lists(IDS | NAMES, max_size=16).map(tuple),
    step=st.just("agent/step"),
    depth=st.integers(0, 1000),
    part=st.just(1),
    parts=st.integers(1, 5),
    declaration=st.none() | NAMES,
    trace=st.just(Trace()) | st.just(Trace(traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01", tracestate="a=b")),
)


def lying(message: Message) -> Record:
    """The message as another process reads it."""
    return Record(message.topic, 0, 0, message.key, message.value, message.headers, 0)


@given(ENVELOPES)
def test_binary_mode_says_everything_that_the_envelope_knows(envelope: Envelope) -> None:
    message = envelope.to_message()
    assert message.parsed is envelope
    assert parse(lying(message)) == envelope


@given(ENVELOPES)
def test_structured_mode_says_the_same(envelope: Envelope) -> None:
    assert parse_structured(envelope.to_structured()) == envelope


@given(
    st.lists(st.tuples(st.sampled_from(["ce_id", "CE_ID", "ce_causes", "ce_part", "content-type", "x"]), st.binary())),
    st.none() | st.binary(),
)
def test_junk_is_undecodable_and_nothing_else(headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    record = Record("t", 0, 0, None, value, tuple(headers), 0)
    with pytest.raises(UndecodableRecord) as raised:
        parse(record)
    assert raised.value.problems
    with pytest.raises(UndecodableRecord) as again:
        parse(record)
    assert again.value is raised.value


def test_a_foreign_library_reads_what_we_write() -> None:
    envelope = Envelope(
        id="1",
        source="/agents/a",
        type="a.b",
        data=b'{"n":1}',
        time="2026-11-22T10:00:00+00:00",
        subject="s",
        saga="g",
        causes=("x", "y"),
        step="a/b",
        depth=2,
    )
    message = envelope.to_message()
    key = message.key.decode() if message.key else None
    event = from_binary_event(KafkaMessage(headers=dict(message.headers), key=key, value=message.value or b""))
    assert (event.get_id(), event.get_type(), event.get_source(), event.get_subject()) == ("1", "a.b", "/agents/a", "s")
    assert event.get_data() == {"n": 1}
    assert event.get_extension("sagaid") == "g"
    assert json.loads(event.get_extension("causes")) == ["x", "y"]
    assert event.get_time() == datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize("structured", [False, True])
def test_we_read_what_a_foreign_library_writes(structured: bool) -> None:
    attributes = {
        "id": "1",
        "source": "/foreign",
        "type": "a.b",
        "specversion": "1.0",
        "time": datetime(2026, 11, 22, 10, tzinfo=UTC),
        "subject": "s",
        "datacontenttype": "application/json",
        "sagaid": "g",
    }
    event = CloudEvent(attributes, {"n": 1})
    written = to_structured_event(event) if structured else to_binary_event(event)
    headers: Headers = tuple(written.headers.items())
    record = Record("a.b", 0, 0, b"k", written.value, headers, 0)
    assert is_event(record)
    envelope = parse(record)
    assert (envelope.id, envelope.source, envelope.type, envelope.subject) == ("1", "/foreign", "a.b", "s")
    assert envelope.saga == "g"
    assert json.loads(envelope.data) == {"n": 1}


def test_the_content_type_of_structured_mode_may_have_parameters() -> None:
    envelope = Envelope(id="1", source="/x", type="a.b", data=b"{}")
    headers = (("Content-Type", f"{STRUCTURED}; charset=utf-8".encode()),)
    assert parse(Record("t", 0, 0, None, envelope.to_structured(), headers, 0)) == envelope


def test_the_version_is_read_from_the_schema_of_its_own_type_only() -> None:
    assert Envelope(id="1", source="/x", type="a.b", data=b"{}", dataschema="urn:pavane:a.b:12").version() == 12
    assert Envelope(id="1", source="/x", type="a.b", data=b"{}", dataschema="urn:pavane:c.d:12").version() is None
    assert Envelope(id="1", source="/x", type="a.b", data=b"{}", dataschema="https://example.org/1").version() is None


JUNK_NAMES = st.sampled_from(
    [
        "ce_id",
        "CE_ID",
        "ce_source",
        "ce_type",
        "ce_specversion",
        "ce_causes",
        "ce_part",
        "ce_depth",
        "ce_time",
        "ce_sagaid",
        "content-type",
        "traceparent",
        "tracestate",
        "baggage",
        "x",
    ]
)
JUNK_VALUES = st.sampled_from(
    [
        b"1.0",
        b"a.b",
        b"/x",
        b"1",
        b"1/2",
        b"0/0",
        b'["a"]',
        b"[]",
        b'["\\ud800"]',
        b"a/b",
        b"2026-11-22T10:00:00Z",
        STRUCTURED.encode(),
        b"\x00",
        b"\xff",
        b"",
        b"9" * 5000,
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["1.0", "a.b", "/x", "\ud800", "", "a\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(
    ["id", "source", "type", "specversion", "time", "sagaid", "causes", "part", "depth", "data", "data_base64", "traceparent"]
)


@given(st.lists(st.tuples(JUNK_NAMES, JUNK_VALUES), max_size=12), st.none() | st.binary(max_size=10))
def test_likely_junk_is_an_event_that_can_be_written_again_or_undecodable(headers: Headers, value: bytes | None) -> None:
    try:
        envelope = parse(Record("t", 0, 0, None, value, tuple(headers), 0))
    except UndecodableRecord as error:
        assert error.problems
    else:
        assert parse(lying(envelope.to_message())) == envelope
        assert parse_structured(envelope.to_structured()).data == envelope.data


@given(st.dictionaries(MEMBERS, JSON_VALUES))
def test_likely_junk_in_structured_mode_is_an_event_that_can_be_written_again_or_undecodable(
    members: dict[str, object],
) -> None:
    likely = {"id": "1", "source": "/x", "type": "a.b", "specversion": "1.0", **members}
    try:
        envelope = parse_structured(json.dumps(likely).encode())
    except UndecodableRecord as error:
        assert error.problems
    else:
        assert parse(lying(envelope.to_message())).saga == envelope.saga
        assert parse_structured(envelope.to_structured()).data == envelope.data


@given(st.binary() | st.text().map(str.encode))
def test_structured_mode_is_json_whatever_the_data_is(data: bytes) -> None:
    envelope = Envelope(id="1", source="/x", type="a.b", data=data)
    document = envelope.to_structured()
    assert isinstance(json.loads(document), dict)
    assert parse_structured(document).data == data or json.loads(data) == json.loads(parse_structured(document).data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"no JSON", b"[" * 100_000, b'{"n":' + b"9" * 5000 + b"}", b"[" * 500 + b"]" * 500]
)
def test_data_that_is_no_json_goes_through_structured_mode_untouched(data: bytes) -> None:
    assert parse_structured(Envelope(id="1", source="/x", type="a.b", data=data).to_structured()).data == data


def test_binary_data_of_a_foreign_structured_event_is_read() -> None:
    event = CloudEvent({"id": "1", "source": "/x", "type": "a.b", "specversion": "1.0"}, b"\x00\x01")
    written = to_structured_event(event)
    assert parse(Record("a.b", 0, 0, None, written.value, tuple(written.headers.items()), 0)).data == b"\x00\x01"


def test_a_foreign_library_reads_our_structured_mode_too() -> None:
    envelope = Envelope(id="1", source="/agents/a", type="a.b", data=b'{"n":1}', saga="g", causes=("x",), step="a/b", depth=1)
    headers = {"content-type": STRUCTURED.encode()}
    event = from_kafka_event(KafkaMessage(headers=headers, key=None, value=envelope.to_structured()))
    assert event.get_data() == {"n": 1}
    assert (event.get_id(), event.get_extension("sagaid"), event.get_extension("part")) == ("1", "g", "1/1")


def headers_of(**changes: bytes | None) -> Headers:
    headers = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/x", "ce_type": b"a.b", **changes}
    return tuple((name, value) for name, value in headers.items() if value is not None)


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        (headers_of(ce_id=None), ["ce_id"]),
        (headers_of(ce_id=b"", ce_type=None), ["ce_id", "ce_type"]),
        (headers_of(ce_specversion=b"0.3"), ["ce_specversion"]),
        (headers_of(ce_time=b"yesterday"), ["ce_time"]),
        (headers_of(ce_time=b"2026-11-22T10:00:00"), ["ce_time"]),
        (headers_of(ce_causes=b"[]"), ["ce_causes"]),
        (headers_of(ce_causes=b'{"a": 1}'), ["ce_causes"]),
        (headers_of(ce_causes=b"[" * 100_000), ["ce_causes"]),
        (headers_of(ce_causes=json.dumps(["c"] * 17).encode()), ["ce_causes"]),
        (headers_of(ce_causes=b'["\\ud800"]'), ["ce_causes"]),
        (headers_of(ce_depth=b"-1"), ["ce_depth"]),
        (headers_of(ce_depth=b"9" * 5000), ["ce_depth"]),
        (headers_of(ce_part=b"3/2"), ["ce_part"]),
        (headers_of(ce_part=b"1"), ["ce_part"]),
        (headers_of(ce_part=b"1/65"), ["ce_part"]),
        (headers_of(ce_sagaid=b"a/b"), ["ce_sagaid"]),
        (headers_of(ce_sagaid=b"a\x1fb"), ["ce_sagaid"]),
        (headers_of(ce_id=b"i" * 2049, ce_source=b"\x00"), ["ce_id", "ce_source"]),
        (headers_of(ce_id=b"\xff"), ["ce_id"]),
        ((*headers_of(), ("CE_ID", b"2")), ["ce_id"]),
        (tuple((f"x{number}", b"") for number in range(65)), ["headers"]),
    ],
)
def test_what_is_wrong_with_a_record_is_said_where_it_is(headers: Headers, where: list[str]) -> None:
    with pytest.raises(UndecodableRecord) as raised:
        parse(Record("t", 0, 0, None, b"{}", headers, 0))
    assert [problem.where for problem in raised.value.problems] == where


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"[]", b"1", b"[" * 100_000, b'{"data": "\\ud800"}', b'{"id": "\\ud800"}', b'{"data_base64": "?"}'],
)
def test_what_is_no_structured_event_is_undecodable(value: bytes) -> None:
    headers = (("content-type", STRUCTURED.encode()),)
    with pytest.raises(UndecodableRecord):
        parse(Record("t", 0, 0, None, value, headers, 0))


@pytest.mark.parametrize(
    "headers",
    [
        (("Ce_Id", b"1"),),
        (("Content-Type", b"Application/CloudEvents+json"),),
        (("content-type", b" application/cloudevents"),),
    ],
)
def test_a_record_that_claims_to_be_an_event_is_taken_at_its_word_in_any_case_of_letters(headers: Headers) -> None:
    assert is_event(Record("t", 0, 0, None, b"{}", headers, 0))


def test_plain_json_claims_nothing() -> None:
    assert not is_event(Record("t", 0, 0, None, b"{}", (("content-type", b"application/json"), ("x-id", b"1")), 0))


def test_a_trace_context_that_no_tracer_wrote_is_left_behind() -> None:
    junk = (("traceparent", "\u00fc".encode()), ("tracestate", b"a=b"), ("baggage", b"k" * 9000))
    envelope = parse(Record("t", 0, 0, None, b"{}", (*headers_of(), *junk), 0))
    assert envelope.trace == Trace(tracestate="a=b")


def test_lists_of_a_trace_context_that_come_in_parts_are_joined_in_their_order() -> None:
    parent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    parts = (("tracestate", b"a=1,b=2"), ("baggage", b"k=v"), ("Tracestate", b"c=3"), ("baggage", b"l=w"))
    record = Record("t", 0, 0, None, b"{}", (*headers_of(), ("traceparent", parent.encode()), *parts), 0)
    whole = Trace(parent, "a=1,b=2,c=3", "k=v,l=w")
    assert parse(record).trace == whole
    junk = Record("t", 0, 0, None, None, (*headers_of(), ("traceparent", parent.encode()), *parts), 0)
    assert unread(junk).trace == whole.without_baggage()


def test_empty_optional_attributes_are_none() -> None:
    envelope = parse(Record("t", 0, 0, None, b"{}", headers_of(ce_sagaid=b"", ce_subject=b"", ce_step=b""), 0))
    assert (envelope.saga, envelope.subject, envelope.step) == (None, None, None)


@pytest.mark.parametrize(
    ("number", "known"), [("9" * 5000, True), ("\u0663", False), ("-1", False), ("", False), ("1.0", False)]
)
def test_a_strange_version_is_a_very_high_one_or_none(number: str, known: bool) -> None:
    version = Envelope(id="1", source="/x", type="a.b", data=b"{}", dataschema=f"urn:pavane:a.b:{number}").version()
    assert (version is not None and version > 10**9) if known else version is None
