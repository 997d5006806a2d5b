"""Samplers of the stock SDK's spans: by saga, as the lean tracer samples, or one that a package brings along."""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.sampling import BUILT_IN, SagaSampler

_GROUP = "opentelemetry_traces_sampler"


class BySaga(Sampler):
    """The SDK's spans sampled by the rule of :class:`SagaSampler`: all spans of a saga alike, the linked traces' too.

    What a span belongs to within this process (a parent, else the first link) is followed in any case.
    """

    def __init__(self, rule: SagaSampler) -> None:
        self._rule = rule

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Called by the SDK."""
        parent = get_current_span(parent_context).get_span_context()
        before = parent if parent.is_valid else links[0].context if links else None
        if before is not None and (self._rule.follow or not before.is_remote):
            sampled = before.trace_flags.sampled
        else:
            saga = (attributes or {}).get(SAGA_ID)
            sampled = self._rule.samples_id(saga if isinstance(saga, str) else None, f"{trace_id:032x}")
        decision = Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP
        return SamplingResult(decision, attributes, parent.trace_state if parent.is_valid else None)

    def get_description(self) -> str:
        """Called by the SDK."""
        return f"BySaga{{{self._rule.share}}}"


def loaded_sampler(variables: Mapping[str, str]) -> Sampler:
    """The sampler that ``OTEL_TRACES_SAMPLER`` names, of an installed package. Raises :class:`ConfigurationError`."""
    name = variables.get("OTEL_TRACES_SAMPLER", "").strip()
    for found in entry_points(group=_GROUP, name=name):
        try:
            made: object = found.load()(variables.get("OTEL_TRACES_SAMPLER_ARG"))
        except Exception as error:  # whatever somebody's factory does
            raise _refused(f"{name!r} cannot be made: {error!r}") from error
        if isinstance(made, Sampler):
            return made
        raise _refused(f"{name!r} is no sampler, but {type(made).__name__}")
    raise _refused(f"{name!r} is not known: use {', '.join(BUILT_IN)}, or install the package that registers it as {_GROUP}")


def _refused(message: str) -> ConfigurationError:
    problem = Problem("OTEL_TRACES_SAMPLER", "tracing.sampler", message)
    return ConfigurationError("tracing cannot be set up", [problem])
