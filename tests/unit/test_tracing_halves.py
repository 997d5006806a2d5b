"""Halves of a request: every span once, of whose it was, in order."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pavane_tracing import otlp
from pavane_tracing.halves import halves
from pavane_tracing.work import SCOPE
from support.exporting import span


def request(*services: range) -> bytes:
    return b"".join(
        piece
        for number, spans in enumerate(services)
        for piece in otlp.resource_spans(
            otlp.resource({"service.name": f"{number}"}), otlp.scope(SCOPE), [span(each) for each in spans]
        )
    )


def found(body: bytes) -> list[tuple[str, int]]:
    """Service and number of each span."""
    return [
        (resource.resource.attributes[0].value.string_value, int.from_bytes(each.span_id, "big") - 1)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for each in scope.spans
        if scope.scope.name == SCOPE
    ]


@pytest.mark.parametrize(
    "services", [(range(2),), (range(7),), (range(1), range(1, 9)), (range(6), range(6, 8), range(8, 10))]
)
def test_each_span_is_in_one_of_them(services: tuple[range, ...]) -> None:
    whole = request(*services)
    first, second = halves(whole)
    assert found(first.body) + found(second.body) == found(whole)
    assert (first.spans, second.spans) == (len(found(first.body)), len(found(second.body)))
    assert 0 <= second.spans - first.spans <= 1


@pytest.mark.parametrize("body", [b"", b"no request", request(range(1))])
def test_what_has_none_stays_whole(body: bytes) -> None:
    assert halves(body) == []
