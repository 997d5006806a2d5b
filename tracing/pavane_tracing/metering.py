"""Sets the SDK's metrics up, where ``OTEL_METRICS_EXPORTER=otlp`` or an endpoint of their own says so.

Many that take traces take no metrics.
"""

from collections.abc import Callable, Mapping
from os import environ
from typing import TYPE_CHECKING

from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.resources import Resource

from pavane_tracing.ending import ENDING
from pavane_tracing.stock import within
from pavane_tracing.variables import METRICS_PROTOCOL, check_metrics, protocol_of, wants_metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter


def start_metrics(service: str) -> Callable[[float], bool]:
    """Export this process's metrics, where the environment asks for it. What it returns stops that, after the last service:
    within so many seconds, less what that one has waited for its spans.

    Once per process. Raises :class:`ConfigurationError` for a variable that cannot be followed.
    """
    if not wants_metrics(environ):
        return lambda timeout_s: True
    check_metrics(environ)
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(_metric_exporter(environ))
    provider = MeterProvider([reader], Resource.create({"service.name": service}), shutdown_on_exit=False)
    set_meter_provider(provider)
    ENDING.expect_metrics()
    return lambda timeout_s: within(provider.shutdown, ENDING.of_metrics_s(timeout_s))


def _metric_exporter(variables: Mapping[str, str]) -> "MetricExporter":
    if protocol_of(variables, METRICS_PROTOCOL) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

    return OverHttp()
