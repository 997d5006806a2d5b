"""Sets tracing up, as OpenTelemetry's standard variables say.

Where an OTLP endpoint is named (or ``OTEL_TRACES_EXPORTER=otlp``), spans are exported; else they are kept if the caller
keeps spans; else there are none.
"""

from collections.abc import Collection
from os import environ
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource

try:
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
except ValueError:  # the SDK reads a limit as it is imported
    from pavane_tracing.variables import check_limits

    check_limits(environ)
    raise

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.conventions import OPT_IN, Naming, naming_for
from pavane_tracing.edges import Edge
from pavane_tracing.genai import CAPTURE, captures_content
from pavane_tracing.handing import LEAN_EXPORT, Handing, RecordOnly, UnitProcessor
from pavane_tracing.lean_work import LeanTracing
from pavane_tracing.options import TracingOptions
from pavane_tracing.routing import global_routes
from pavane_tracing.sampling import SagaSampler, sampler_of
from pavane_tracing.stock import STOCK_EXPORT
from pavane_tracing.stock_sampling import BySaga, loaded_sampler
from pavane_tracing.unit import Service
from pavane_tracing.variables import TRACES_PROTOCOL, check_limits, is_disabled, is_exporting, protocol_of
from pavane_tracing.work import Tracing


def make_tracing(
    service: str,
    *,
    keep: bool,
    system: str = "pavane",
    baggage: Collection[str] = (),
    options: TracingOptions | None = None,
) -> Tracing:
    """The tracing of one service, as the environment asks for it. Call :meth:`Tracing.shutdown` when the service ends.

    ``keep``: the caller can publish spans to the local store; they are kept where they are not exported. Raises
    :class:`ConfigurationError` for a variable that cannot be followed.
    """
    if is_disabled(environ):
        return Tracing.off()
    exporting = is_exporting(environ)
    if not (exporting or keep):
        return Tracing.off()
    chosen = options or TracingOptions()
    if not exporting:
        _refuse_where_kept(chosen)
    naming, content = naming_for(environ.get(OPT_IN, "")), captures_content(environ.get(CAPTURE, ""))
    words = _Words(system, baggage, naming, content, chosen.new_linked)
    sampler = sampler_of(environ)
    why = _why_stock(chosen, sampler, exporting=exporting)
    if why is None and sampler is not None:
        return _lean(service, words, chosen, sampler, exporting=exporting)
    if exporting:
        _refuse_with_sdk(chosen, why or "")
    made = BySaga(sampler) if sampler is not None else loaded_sampler(environ)
    return _with_sdk(service, words, made, why or "", exporting=exporting)


def _why_stock(options: TracingOptions, sampler: SagaSampler | None, *, exporting: bool) -> str | None:
    """What asks for the stock SDK's spans, if anything does."""
    if options.tracer == "sdk":
        return "PAVANE_TRACER=sdk"
    if exporting and protocol_of(environ, TRACES_PROTOCOL) == "grpc":
        return "they go by grpc"
    return f"OTEL_TRACES_SAMPLER={environ['OTEL_TRACES_SAMPLER'].strip()} is not built in" if sampler is None else None


def _refuse_where_kept(options: TracingOptions) -> None:
    """What is kept goes out in the commit of its work, before anybody knows how the saga ends."""
    if options.unsampled != "dropped":
        message = "spans are kept on the bus here, and what is left out is not kept: set OTEL_EXPORTER_OTLP_ENDPOINT"
        raise ConfigurationError("tracing cannot be set up", [Problem("PAVANE_TRACE_KEEP", "tracing.keep", message)])


def _refuse_with_sdk(options: TracingOptions, why: str) -> None:
    """What only the lean tracer does must not be left out in silence."""
    problems: list[Problem] = []
    if options.unsampled != "dropped":
        message = f"the stock SDK's spans cannot be held, and they are its: {why}"
        problems.append(Problem("PAVANE_TRACE_KEEP", "tracing.keep", message))
    if options.spool is not None:
        message = f"the stock SDK's spans have no spool, and they are its: {why}"
        problems.append(Problem("PAVANE_TRACE_SPOOL", "tracing.spool", message))
    if problems:
        raise ConfigurationError("tracing cannot be set up", problems)


class _Words(NamedTuple):
    """What spans say, under which names, and where their traces end."""

    system: str
    baggage: Collection[str]
    naming: Naming
    content: bool
    new_linked: Collection[Edge]


def _lean(service: str, words: _Words, options: TracingOptions, sampler: SagaSampler, *, exporting: bool) -> Tracing:
    """The platform's own spans are lean; the user's are the SDK's, and are sampled as the work is that they belong to."""
    resource = Resource.create({"service.name": service})
    limits = _limits()
    export = LEAN_EXPORT.join(options) if exporting else None
    held = LEAN_EXPORT.held_for(options) if exporting else None
    root = TraceIdRatioBased(sampler.share)
    left_out = RecordOnly() if held is not None else ALWAYS_OFF
    if sampler.follow:
        following = ParentBased(root, remote_parent_not_sampled=left_out, local_parent_not_sampled=left_out)
    else:  # what other processes have decided is nothing to these
        following = ParentBased(root, root, root, local_parent_not_sampled=left_out)
    provider = TracerProvider(sampler=following, resource=resource, shutdown_on_exit=False, span_limits=limits)
    owner = Service(service, provider)
    routes = global_routes()
    provider.add_span_processor(UnitProcessor(owner.strays, limits, keep=export is None))
    if export is not None:
        provider.add_span_processor(Handing(export, held))

    def shutdown(timeout_s: float) -> bool:
        routes.remove(provider)
        return export is None or LEAN_EXPORT.leave(timeout_s)

    routes.add(provider)
    return LeanTracing(
        owner,
        limits=limits,
        sampler=sampler,
        shutdown=shutdown,
        take=export.taker(service, resource.attributes) if export is not None else None,
        held=held,
        **words._asdict(),
    )


def _with_sdk(service: str, words: _Words, sampler: Sampler, why: str, *, exporting: bool) -> Tracing:
    """All spans are the SDK's."""
    resource = Resource.create({"service.name": service})
    limits = _limits()
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False, span_limits=limits)
    owner = Service(service, provider)
    routes = global_routes()
    processor = STOCK_EXPORT.join(why) if exporting else None

    def shutdown(timeout_s: float) -> bool:
        routes.remove(provider)
        return processor is None or STOCK_EXPORT.leave(processor, timeout_s)

    provider.add_span_processor(UnitProcessor(owner.strays, limits, keep=not exporting))
    if processor is not None:
        provider.add_span_processor(processor)
    routes.add(provider)
    return Tracing(owner, keep=not exporting, shutdown=shutdown, **words._asdict())


def _limits() -> SpanLimits:
    check_limits(environ)
    return SpanLimits()
