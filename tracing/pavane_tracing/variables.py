"""OpenTelemetry's standard variables, as far as they decide what is set up at all."""

from collections.abc import Mapping
from typing import Literal

from pavane_events.errors import ConfigurationError, Problem

TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
METRICS_PROTOCOL = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
_LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
)
_EXEMPLARS = ("trace_based", "always_on", "always_off")
_METRIC_TIMES = ("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT")
_LONGEST_MS = 86_400_000
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_disabled(variables: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry is switched off altogether, or no exporter of traces is wanted."""
    return (
        variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or variables.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )


def is_exporting(variables: Mapping[str, str]) -> bool:
    """Whether spans are sent to an OTLP endpoint. Raises :class:`ConfigurationError`."""
    wanted = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if wanted not in ("", "otlp"):
        raise ConfigurationError(
            "tracing cannot be set up",
            [Problem("OTEL_TRACES_EXPORTER", "tracing.exporter", "use otlp, or none to switch tracing off")],
        )
    return wanted == "otlp" or any(variables.get(name, "").strip() for name in _ENDPOINTS)


def wants_metrics(variables: Mapping[str, str]) -> bool:
    """Whether metrics are sent to an OTLP endpoint. Raises :class:`ConfigurationError`."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    wanted = variables.get("OTEL_METRICS_EXPORTER", "").strip().lower()
    if wanted not in ("", "otlp", "none"):
        raise ConfigurationError(
            "metrics cannot be set up",
            [Problem("OTEL_METRICS_EXPORTER", "metrics.exporter", "use otlp, or none to switch metrics off")],
        )
    return wanted == "otlp" or (wanted == "" and bool(variables.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "").strip()))


def check_limits(variables: Mapping[str, str]) -> None:
    """Whether the SDK can follow the limits. Raises :class:`ConfigurationError` with every one that it cannot."""
    wrong = [name for name in _LIMITS if not _is_limit(variables.get(name, "").strip())]
    if wrong:
        message = "use a whole number, at least 0; empty: no limit"
        raise ConfigurationError("tracing cannot be set up", [Problem(name, "tracing.limits", message) for name in wrong])


def check_metrics(variables: Mapping[str, str]) -> None:
    """Whether the SDK can follow what is said of metrics. Raises :class:`ConfigurationError` with every one that it cannot."""
    problems: list[Problem] = []
    if variables.get("OTEL_METRICS_EXEMPLAR_FILTER", _EXEMPLARS[0]) not in _EXEMPLARS:
        problems.append(Problem("OTEL_METRICS_EXEMPLAR_FILTER", "metrics.exemplars", f"use one of {', '.join(_EXEMPLARS)}"))
    for name in _METRIC_TIMES:
        if not _is_time(variables.get(name, "").strip()):
            message = f"use a number of milliseconds above 0, and {_LONGEST_MS} at most"
            problems.append(Problem(name, "metrics.time", message))
    if problems:
        raise ConfigurationError("metrics cannot be set up", problems)


def _is_time(text: str) -> bool:
    try:
        return not text or 0 < float(text) <= _LONGEST_MS
    except ValueError:
        return False


def _is_limit(text: str) -> bool:
    try:
        return not text or int(text) >= 0
    except ValueError:
        return False


def protocol_of(variables: Mapping[str, str], own: str) -> Literal["grpc", "http/protobuf"]:
    """By which protocol: what the signal's own variable says, else the common one. Raises :class:`ConfigurationError`."""
    names = (own, "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((variables[name].strip() for name in names if variables.get(name, "").strip()), "http/protobuf")
    if protocol not in ("grpc", "http/protobuf"):
        raise ConfigurationError(
            "telemetry cannot be set up",
            [Problem("OTEL_EXPORTER_OTLP_PROTOCOL", "tracing.protocol", "use http/protobuf or grpc")],
        )
    return "grpc" if protocol == "grpc" else "http/protobuf"
