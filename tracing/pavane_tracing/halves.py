"""Halves of an export request that an endpoint refuses as it is: for its size, or for one span in it."""

from pavane_tracing.outbox import Request


def halves(body: bytes) -> list[Request]:
    """Two requests with half the spans each, in order; nothing where there is but one span, or the body cannot be read."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        whole = ExportTraceServiceRequest.FromString(body)
    except Exception:  # protobuf's DecodeError, which has no types
        return []
    count = sum(len(scope.spans) for resource in whole.resource_spans for scope in resource.scope_spans)
    if count < 2:
        return []
    first, second = ExportTraceServiceRequest(), ExportTraceServiceRequest()
    left = count // 2
    for resource in whole.resource_spans:
        for scope in resource.scope_spans:
            for half, spans in ((first, scope.spans[:left]), (second, scope.spans[left:])):
                if spans:
                    within = half.resource_spans.add(resource=resource.resource, schema_url=resource.schema_url)
                    within.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url, spans=spans)
            left -= min(left, len(scope.spans))
    return [Request(first.SerializeToString(), count // 2), Request(second.SerializeToString(), count - count // 2)]
