"""Reads traces back from a Jaeger: its search by tag, and whole traces as the rows that every other part understands.

Search is Jaeger's JSON API of version 1, the only one that finds by tag; traces are read through version 3, which is
OTLP's JSON. Tried with Jaeger 2.13.
"""

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import cast
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from pavane_events.errors import PavaneError
from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.span import Kind, SpanEvent, SpanLink, SpanRow, StatusName, Value

_TIMEOUT_S = 10.0
_MOST_TRACES = 1_000
_BEFORE_S = 86_400.0
"""How long before its start event a saga's first span may lie, and how far clocks may differ."""

_KINDS: tuple[Kind, ...] = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: tuple[StatusName, ...] = ("UNSET", "OK", "ERROR")


class TracesUnavailable(PavaneError):
    """Jaeger did not answer, or not as Jaeger does. Look at the address in ``PAVANE_JAEGER_URL``, and try again."""

    code = "traces.unavailable"


class Jaeger:
    """The query side of a Jaeger, such as ``http://127.0.0.1:16686``. Its calls block, each for 10 seconds at most."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def link(self, trace_id: str) -> str:
        """Where a browser shows a trace."""
        return f"{self._url}/trace/{trace_id}"

    def search_link(self, saga: str, service: str) -> str:
        """Where a browser searches for a saga's traces, by a service that takes part in it."""
        return f"{self._url}/search?{urlencode({'service': service, 'tags': json.dumps({SAGA_ID: saga})})}"

    def find(self, saga: str, services: Iterable[str], since_s: float) -> list[str]:
        """The ids of the traces in which one of these services worked for a saga, sorted; ``since_s``: about its start.

        Jaeger searches one service at a time, so a trace that none of them took part in is not found.
        """
        found: set[str] = set()
        for service in services:
            query = {
                "service": service,
                "tags": json.dumps({SAGA_ID: saga}),
                "limit": _MOST_TRACES,
                "start": max(0, int((since_s - _BEFORE_S) * 1e6)),
                "end": int((time.time() + _BEFORE_S) * 1e6),
            }
            document = self._get(f"/api/traces?{urlencode(query)}")
            with self._understood():
                found |= {str(each["traceID"]).zfill(32) for each in _objects(document["data"])}
        return sorted(found)

    def trace(self, trace_id: str) -> list[SpanRow]:
        """Every span of a trace, by start time; none where Jaeger does not (or no longer) have it."""
        try:
            document = self._get(f"/api/v3/traces/{quote(trace_id)}")
        except _NotFound:
            return []
        with self._understood():
            return sorted(rows_of(document), key=lambda row: row.start_ns)

    def spans_of(self, saga: str, services: Iterable[str], since_s: float) -> list[SpanRow]:
        """Every span of every trace that :meth:`find` finds."""
        return [row for trace_id in self.find(saga, services, since_s) for row in self.trace(trace_id)]

    def _get(self, path: str) -> Mapping[str, object]:
        request = Request(self._url + path, headers={"Accept": "application/json"})
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as response:
                document: object = json.loads(response.read())
        except HTTPError as error:
            error.close()
            if error.code == 404:
                raise _NotFound(f"{self._url} has no {path}") from None
            raise TracesUnavailable(f"{self._url} answered with {error.code}") from None
        except (OSError, HTTPException) as error:
            raise TracesUnavailable(f"no Jaeger answers at {self._url}: {error}") from None
        except ValueError:  # its page answers every path that it does not know
            raise TracesUnavailable(f"what answers at {self._url} is not Jaeger's API: it did not send JSON") from None
        with self._understood():
            return _object(document)

    @contextmanager
    def _understood(self) -> Generator[None]:
        try:
            yield
        except (LookupError, TypeError, ValueError) as error:
            raise TracesUnavailable(f"{self._url} did not answer as Jaeger's API does: {error!r}") from None


class _NotFound(TracesUnavailable):
    """Jaeger says that it does not have it."""


def rows_of(document: Mapping[str, object]) -> Iterator[SpanRow]:
    """The spans of an answer in OTLP's JSON, each once. Raises LookupError, TypeError or ValueError for others."""
    seen: set[tuple[str, str]] = set()
    for resource_spans in _objects(_object(document["result"]).get("resourceSpans")):
        resource = _values(_object(resource_spans.get("resource", {})).get("attributes"))
        service = str(resource.get("service.name", ""))
        for scope_spans in _objects(resource_spans.get("scopeSpans")):
            for span in _objects(scope_spans.get("spans")):
                row = _row(span, service)
                if (row.trace_id, row.span_id) not in seen:  # an exporter that was not answered sends again
                    seen.add((row.trace_id, row.span_id))
                    yield row


def _row(span: Mapping[str, object], service: str) -> SpanRow:
    status = _object(span.get("status", {}))
    message = str(status.get("message", ""))
    return SpanRow(
        trace_id=str(span["traceId"]),
        span_id=str(span["spanId"]),
        parent_span_id=str(span.get("parentSpanId") or "") or None,
        name=str(span["name"]),
        kind=_KINDS[_number(span.get("kind", 0))],
        start_ns=_number(span["startTimeUnixNano"]),
        end_ns=_number(span["endTimeUnixNano"]),
        service=service,
        attributes=_values(span.get("attributes")),
        links=tuple(SpanLink(str(link["traceId"]), str(link["spanId"])) for link in _objects(span.get("links"))),
        events=tuple(
            SpanEvent(str(event["name"]), _number(event["timeUnixNano"]), _values(event.get("attributes")))
            for event in _objects(span.get("events"))
        ),
        status=_STATUSES[_number(status.get("code", 0))],
        status_message=message or None,
    )


def _values(pairs: object) -> dict[str, Value]:
    return {str(pair["key"]): _value(_object(pair.get("value", {}))) for pair in _objects(pairs)}


def _value(value: Mapping[str, object]) -> Value:
    """A value by the name of its type: 64-bit numbers are text in JSON, and nothing at all is null."""
    for kind, content in value.items():
        if kind == "intValue":
            return _number(content)
        if kind == "arrayValue":
            return [_value(each) for each in _objects(_object(content).get("values"))]
        if kind == "kvlistValue":
            return _values(_object(content).get("values"))
        return cast("Value", content)
    return None


def _number(value: object) -> int:
    if isinstance(value, int | str):
        return int(value)
    raise TypeError("a whole number expected")


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    return map(_object, _list(value))


def _object(value: object) -> Mapping[str, object]:
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
