"""Reading Jaeger's answers: OTLP's JSON as rows, and what is not Jaeger's is said to be so."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pavane_tracing.jaeger import Jaeger
from pavane_tracing.otlp_json import TracesUnavailable, each_once, read_file, read_saga, rows_of
from pavane_tracing.span import SpanEvent, SpanLink, SpanRow
from support.serving import serving

Json = dict[str, object]

TRACE, SPAN, PARENT = "a" * 32, "b" * 16, "c" * 16


class Server(HTTPServer):
    """Answers everything with one status and body."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def jaeger(request: pytest.FixtureRequest) -> Iterator[Jaeger]:
    status, body = request.param
    with serving(Server(status, body)) as server:
        yield Jaeger(f"http://127.0.0.1:{server.server_port}/")


def answer(*spans: Json) -> Json:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "credit-score"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


FULL: Json = {
    "traceId": TRACE,
    "spanId": SPAN,
    "parentSpanId": PARENT,
    "name": "process credit.submitted",
    "kind": 5,
    "startTimeUnixNano": "1795402569848876392",
    "endTimeUnixNano": "1795402569848933568",
    "attributes": [
        {"key": "saga.id", "value": {"stringValue": "s1"}},
        {"key": "pavane.offset", "value": {"intValue": "41"}},
        {"key": "ratio", "value": {"doubleValue": 0.5}},
        {"key": "saga.undo", "value": {"boolValue": True}},
        {"key": "many", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}}},
        {"key": "inner", "value": {"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": False}}]}}},
        {"key": "nothing", "value": {}},
    ],
    "events": [{"name": "retry", "timeUnixNano": "7", "attributes": [{"key": "n", "value": {"intValue": "2"}}]}],
    "links": [{"traceId": TRACE, "spanId": PARENT}],
    "status": {"code": 2, "message": "no answer"},
}


def test_everything_that_a_span_says_is_in_its_row() -> None:
    assert list(rows_of(answer(FULL))) == [
        SpanRow(
            trace_id=TRACE,
            span_id=SPAN,
            parent_span_id=PARENT,
            name="process credit.submitted",
            kind="CONSUMER",
            start_ns=1795402569848876392,
            end_ns=1795402569848933568,
            service="credit-score",
            attributes={
                "saga.id": "s1",
                "pavane.offset": 41,
                "ratio": 0.5,
                "saga.undo": True,
                "many": [1, "x"],
                "inner": {"a": False},
                "nothing": None,
            },
            links=(SpanLink(TRACE, PARENT),),
            events=(SpanEvent("retry", 7, {"n": 2}),),
            status="ERROR",
            status_message="no answer",
        )
    ]


def test_what_is_left_out_is_empty() -> None:
    bare: Json = {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "x",
        "startTimeUnixNano": "1",
        "endTimeUnixNano": "2",
        "status": {},
    }
    (row,) = rows_of(answer(bare))
    assert (row.parent_span_id, row.kind, row.links, row.events, row.status) == (None, "INTERNAL", (), (), "UNSET")
    assert row.status_message is None


def test_what_is_empty_or_zero_may_be_left_out_and_ids_may_be_in_capitals() -> None:
    bare: Json = {
        "traceId": TRACE.upper(),
        "spanId": SPAN.upper(),
        "parentSpanId": PARENT.upper(),
        "attributes": [{"value": {"stringValue": "of an empty key"}}],
        "events": [{}],
        "links": [{"attributes": [{"key": "why", "value": {}}]}, {"traceId": TRACE.upper(), "spanId": PARENT.upper()}],
    }
    (row,) = rows_of(answer(bare))
    assert (row.trace_id, row.span_id, row.parent_span_id) == (TRACE, SPAN, PARENT)
    assert (row.name, row.start_ns, row.end_ns) == ("", 0, 0)
    assert row.attributes == {"": "of an empty key"}
    assert row.events == (SpanEvent("", 0, {}),)
    assert row.links == (SpanLink(TRACE, PARENT),)


def test_a_span_that_was_sent_twice_is_one_unless_it_says_something_else() -> None:
    assert len(each_once(rows_of(answer(FULL, FULL)))) == 1
    assert len(each_once(rows_of(answer(FULL, {**FULL, "name": "process something.else"})))) == 2


def test_a_file_is_read_line_by_line_or_as_one_document(tmp_path: Path) -> None:
    lines, whole = tmp_path / "lines.jsonl", tmp_path / "whole.json"
    other: Json = {**FULL, "traceId": "d" * 32, "attributes": []}
    metrics: Json = {"resourceMetrics": []}
    lines.write_text("\n".join(map(json.dumps, (answer(FULL), metrics, answer(other, FULL)))) + "\n\n")
    whole.write_text(json.dumps(answer(FULL, other), indent=2))
    assert [row.trace_id for row in read_file(lines)] == [TRACE, "d" * 32, TRACE]
    assert [row.trace_id for row in read_file(whole)] == [TRACE, "d" * 32]
    assert [row.trace_id for row in read_saga(lines, "s1")] == [TRACE]
    assert read_saga(lines, "s2") == []


@pytest.mark.parametrize("text", ["{", "[]", '{"resourceSpans": 7}', '{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}'])
def test_a_line_that_is_no_otlp_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text(f"{json.dumps(answer(FULL))}\n{text}\n")
    with pytest.raises(TracesUnavailable, match=r"spans\.jsonl, line 2: no ExportTraceServiceRequest"):
        list(read_file(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TracesUnavailable, match=r"none\.jsonl cannot be read"):
        list(read_file(tmp_path / "none.jsonl"))


def test_links_are_for_browsers() -> None:
    jaeger = Jaeger("http://127.0.0.1:16686/")
    assert jaeger.link(TRACE) == f"http://127.0.0.1:16686/trace/{TRACE}"
    searched = "http://127.0.0.1:16686/search?service=coordinator&tags=%7B%22saga.id%22%3A+%22s1%22%7D"
    assert jaeger.search_link("s1", "coordinator") == searched


@pytest.mark.parametrize("jaeger", [(404, b'{"error": {"httpCode": 404}}')], indirect=True)
def test_a_trace_that_is_not_there_is_empty(jaeger: Jaeger) -> None:
    assert jaeger.trace(TRACE) == []


@pytest.mark.parametrize(
    "jaeger",
    [(200, b"<!DOCTYPE html>"), (200, b"[]"), (200, b'{"result": {"resourceSpans": [{}, 7]}}'), (500, b"{}"), (200, b"\xff")],
    indirect=True,
)
def test_what_is_not_jaegers_answer_is_said_to_be_so(jaeger: Jaeger) -> None:
    with pytest.raises(TracesUnavailable, match=r"http://127\.0\.0\.1:\d+"):
        jaeger.trace(TRACE)


@pytest.mark.parametrize("jaeger", [(200, b'{"data": 7}'), (200, b'{"data": [7]}')], indirect=True)
def test_nor_can_such_a_thing_be_searched(jaeger: Jaeger) -> None:
    with pytest.raises(TracesUnavailable, match=r"http://127\.0\.0\.1:\d+"):
        jaeger.find("s1", ["coordinator"], 0)


def test_an_address_at_which_nobody_answers_is_named() -> None:
    with pytest.raises(TracesUnavailable, match=r"no Jaeger answers at http://127\.0\.0\.1:9"):
        Jaeger("http://127.0.0.1:9").trace(TRACE)
