"""The envelope on the wire: binary and structured mode, and a foreign CloudEvents library that reads and writes the same."""

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from pavane_events.envelope import STRUCTURED, Envelope, Trace, is_event, parse, parse_structured
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
