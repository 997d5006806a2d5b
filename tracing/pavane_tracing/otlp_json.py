"""Reads spans that are written as OTLP's JSON: a Jaeger's answers, and the files of OpenTelemetry's Collector.

A file holds one ExportTraceServiceRequest per line, as the Collector's ``file`` exporter writes it, or is one such
document. https://github.com/open-telemetry/opentelemetry-proto/blob/main/docs/specification.md#json-protobuf-encoding
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from pavane_events.errors import PavaneError
from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.span import Kind, SpanEvent, SpanLink, SpanRow, StatusName, Value

_KINDS: tuple[Kind, ...] = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: tuple[StatusName, ...] = ("UNSET", "OK", "ERROR")


class TracesUnavailable(PavaneError):
    """Spans cannot be read: Jaeger did not answer, or not as Jaeger does; or a file is no OTLP.

    Look at the address in ``PAVANE_JAEGER_URL``, or at the line that is named, and try again.
    """

    code = "traces.unavailable"


def read_file(path: Path) -> Iterator[SpanRow]:
    """Every span in a file, in its order and as often as it is there; a line at a time is in memory.

    Raises :class:`TracesUnavailable` with the line that is no OTLP.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                document = _parsed(line)
                if document is None and number == 1:  # indented: one document on many lines
                    line, document = "", _parsed(line + file.read())
                yield from _rows(path, number, document)
    except (OSError, UnicodeDecodeError) as error:
        raise TracesUnavailable(f"{path} cannot be read: {error}") from None


def read_saga(path: Path, saga: str) -> list[SpanRow]:
    """Every span of every trace in a file that a span of this saga is in, each once, by start time. Reads it twice."""
    traces = {row.trace_id for row in read_file(path) if row.text(SAGA_ID) == saga}
    found = [row for row in read_file(path) if row.trace_id in traces]
    return sorted(each_once(found), key=lambda row: row.start_ns)


def rows_of(document: Mapping[str, object]) -> Iterator[SpanRow]:
    """The spans of one document in OTLP's JSON; of metrics and logs none. Raises LookupError, TypeError or ValueError.

    What is empty or zero may be left out of it, as protobuf's writers do, but for the ids of a span.
    """
    if "resourceMetrics" in document or "resourceLogs" in document:
        return
    for resource_spans in as_objects(document["resourceSpans"]):
        resource = _values(as_object(resource_spans.get("resource", {})).get("attributes"))
        service = str(resource.get("service.name", ""))
        for scope_spans in as_objects(resource_spans.get("scopeSpans")):
            for span in as_objects(scope_spans.get("spans")):
                yield _row(span, service)


def each_once(rows: Iterable[SpanRow]) -> list[SpanRow]:
    """Without the repetitions of an exporter that was not answered and sent again; same id and other words is no such."""
    found: dict[tuple[str, str], list[SpanRow]] = {}
    for row in rows:
        same = found.setdefault((row.trace_id, row.span_id), [])
        if row not in same:
            same.append(row)
    return [row for same in found.values() for row in same]


def _rows(path: Path, number: int, document: object) -> Iterator[SpanRow]:
    try:
        yield from rows_of(as_object(document))
    except (LookupError, TypeError, ValueError) as error:
        wrong = f"{path}, line {number}: no ExportTraceServiceRequest as OTLP's JSON ({error!r})"
        raise TracesUnavailable(f"{wrong}: the Collector's file exporter writes it with format: json") from None


def _parsed(text: str) -> object:
    """A JSON value, or None."""
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def _row(span: Mapping[str, object], service: str) -> SpanRow:
    status = as_object(span.get("status", {}))
    message = str(status.get("message", ""))
    return SpanRow(
        trace_id=_id(span["traceId"]),
        span_id=_id(span["spanId"]),
        parent_span_id=_id(span.get("parentSpanId") or "") or None,
        name=str(span.get("name", "")),
        kind=_KINDS[_number(span.get("kind", 0))],
        start_ns=_number(span.get("startTimeUnixNano", 0)),
        end_ns=_number(span.get("endTimeUnixNano", 0)),
        service=service,
        attributes=_values(span.get("attributes")),
        links=tuple(
            SpanLink(_id(link["traceId"]), _id(link["spanId"]))
            for link in as_objects(span.get("links"))
            if link.get("traceId") and link.get("spanId")  # else it leads nowhere
        ),
        events=tuple(
            SpanEvent(str(event.get("name", "")), _number(event.get("timeUnixNano", 0)), _values(event.get("attributes")))
            for event in as_objects(span.get("events"))
        ),
        status=_STATUSES[_number(status.get("code", 0))],
        status_message=message or None,
    )


def _values(pairs: object) -> dict[str, Value]:
    return {str(pair.get("key", "")): _value(as_object(pair.get("value", {}))) for pair in as_objects(pairs)}


def _value(value: Mapping[str, object]) -> Value:
    """A value by the name of its type: 64-bit numbers are text in JSON, and nothing at all is null."""
    for kind, content in value.items():
        if kind == "intValue":
            return _number(content)
        if kind == "arrayValue":
            return [_value(each) for each in as_objects(as_object(content).get("values"))]
        if kind == "kvlistValue":
            return _values(as_object(content).get("values"))
        return cast("Value", content)
    return None


def _id(value: object) -> str:
    """In small letters: whoever writes OTLP's JSON may choose."""
    return str(value).lower()


def _number(value: object) -> int:
    if isinstance(value, int | str):
        return int(value)
    raise TypeError("a whole number expected")


def as_objects(value: object) -> Iterator[Mapping[str, object]]:
    """The objects of an array; where there is none, none. Raises TypeError."""
    return map(as_object, _list(value))


def as_object(value: object) -> Mapping[str, object]:
    """An object of JSON. Raises TypeError."""
    if isinstance(value, dict):
        return cast("Mapping[str, object]", value)
    raise TypeError("an object expected")


def _list(value: object) -> Sequence[object]:
    """An array; where there is none, an empty one: Go writes either."""
    if value is None:
        return ()
    if isinstance(value, list):
        return cast("Sequence[object]", value)
    raise TypeError("an array expected")
