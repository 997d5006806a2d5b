"""The process's global tracer provider: hands the user's spans to the service in whose unit of work they are started.

Several agents live in one process, each a service of its own, but OpenTelemetry has one global provider.
"""

import time
from typing import Protocol, runtime_checkable

from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, ProxyTracer, ProxyTracerProvider, Tracer, TracerProvider
from opentelemetry.util.types import Attributes

from pavane_tracing.unit import unit_in
from pavane_tracing.work import FLUSH_S


@runtime_checkable
class Flushing(Protocol):
    """A provider that has something to send, as the SDK's has."""

    def force_flush(self, timeout_millis: int = ...) -> bool: ...


class RoutingTracerProvider(TracerProvider):
    """Routes by the unit of work that is current; outside any, to the first service that is still there.

    A span begun with a context of the user's choice is routed by the current one, too, but is collected by, and is a
    child within, the unit of its own context.
    """

    def __init__(self) -> None:
        self._services: list[TracerProvider] = []
        self._nowhere = NoOpTracerProvider()

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """A tracer that decides anew for every span: it may be made at import, before any service is."""
        return _RoutingTracer(self, instrumenting_module_name, instrumenting_library_version, schema_url, attributes)

    def add(self, service: TracerProvider) -> None:
        """A service has come."""
        self._services.append(service)

    def remove(self, service: TracerProvider) -> None:
        """A service has gone. Unknown ones are ignored."""
        if service in self._services:
            self._services.remove(service)

    def services(self) -> tuple[TracerProvider, ...]:
        """Those that are there, the first one first."""
        return tuple(self._services)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As the SDK's provider has it: send what was recorded so far; False where it was not taken in time. It blocks."""
        give_up = time.monotonic() + timeout_millis / 1000
        flushed = True
        for service in self.services():
            if isinstance(service, Flushing):
                flushed &= service.force_flush(max(0, round((give_up - time.monotonic()) * 1000)))
        return flushed

    def shutdown(self) -> None:
        """As the SDK's provider has it: send what was recorded so far, for two seconds at most.

        Nothing is shut down: services end with their agents.
        """
        self.force_flush(round(FLUSH_S * 1000))

    def current(self) -> TracerProvider:
        """The provider that a span started now belongs to."""
        unit = unit_in(None)
        if unit is not None:
            return unit.service.provider
        return self._services[0] if self._services else self._nowhere


class _RoutingTracer(ProxyTracer):
    """The API's own proxy, which asks ``_tracer`` at every span, decorators included; only the answer is ours."""

    def __init__(
        self,
        routes: RoutingTracerProvider,
        name: str,
        version: str | None,
        schema_url: str | None,
        attributes: Attributes,
    ) -> None:
        super().__init__(name, version, schema_url, attributes)
        self._routes = routes
        self._scope = (name, version, schema_url, attributes)
        self._tracers: dict[TracerProvider, Tracer] = {}

    @property
    def _tracer(self) -> Tracer:
        provider = self._routes.current()
        tracer = self._tracers.get(provider)
        if tracer is None:
            tracer = self._tracers[provider] = provider.get_tracer(*self._scope)
        return tracer


_ROUTES = RoutingTracerProvider()


def process_routes() -> RoutingTracerProvider:
    """The routes of this process, whichever provider is OpenTelemetry's global one."""
    return _ROUTES


def global_routes() -> RoutingTracerProvider:
    """The routes of this process; made OpenTelemetry's global provider by the first call, unless the user set one.

    With a global provider of the user's own, spans still nest, and go where that provider sends them.
    """
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        trace.set_tracer_provider(_ROUTES)
    return _ROUTES
