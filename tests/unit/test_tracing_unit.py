"""Strays: what belongs to no unit of work is bounded; and the routes that lead the user's spans to their service."""

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NoOpTracerProvider

from pavane_tracing.routing import RoutingTracerProvider
from pavane_tracing.unit import MOST_STRAYS, Service, Strays, Unit, unit_in


def test_spans_that_never_end_are_not_waited_for_without_bound() -> None:
    strays = Strays()
    span = ReadableSpan("x")
    for span_id in range(MOST_STRAYS + 10):
        strays.expect(span_id)
    for span_id in range(MOST_STRAYS + 10):
        strays.ended(span_id, span)
    assert len(strays.take()) == MOST_STRAYS
    assert strays.take() == []


def test_a_context_names_its_unit() -> None:
    unit = Unit(Service("x", NoOpTracerProvider()), {})
    assert unit_in(unit.context()) is unit
    assert unit_in(None) is None


def test_routes_lead_to_the_first_service_that_is_left() -> None:
    routes = RoutingTracerProvider()
    first, second = NoOpTracerProvider(), NoOpTracerProvider()
    nowhere = routes.current()
    routes.remove(first)
    for provider in (first, second):
        routes.add(provider)
    assert routes.current() is first
    routes.remove(first)
    assert routes.current() is second
    routes.remove(second)
    assert routes.current() is nowhere
