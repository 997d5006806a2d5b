"""What tracing costs: consume, validate, publish, exactly once, with spans switched off, passed by, lean, and the stock SDK's.

Each message carries the context of a sampled span (of an unsampled one for ``unsampled``; none for ``off``), and makes two
spans: ``process`` and ``send``. *Off, handing on* is tracing switched off where messages carry contexts: what the headers
alone cost, which somebody else put there. Processor time counts until the last span was handed to the collector. The stock
SDK's queue is made large enough to drop nothing: with its usual 2,048 it would drop most, and seem cheaper.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.kafka_place import PACE, Broker
from bench.kafka_spans import a_counting_collector
from bench.kafka_throughput import drained, medians
from bench.kafka_worker import Figures


@dataclass(frozen=True)
class Variant:
    """How the agent traces. ``flags``: of the context that each message carries, in hex; None: it carries none.
    ``spans``: of each message."""

    traced: bool
    flags: str | None
    spans: int = 0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


_VARIANTS: Mapping[str, Variant] = {
    "off": Variant(traced=False, flags=None),
    "off, handing on": Variant(traced=False, flags="00"),
    "unsampled": Variant(traced=True, flags="00"),
    "lean": Variant(traced=True, flags="01", spans=2),
    "stock SDK": Variant(
        traced=True, flags="01", spans=2, environment={"PAVANE_TRACER": "sdk", "OTEL_BSP_MAX_QUEUE_SIZE": "1000000"}
    ),
}


async def tracing(broker: Broker, *, records: int, rounds: int, pace: float = PACE) -> Mapping[str, Figures]:
    """The variants take turns. ``tax_us``: processor time a message more than with tracing off in the same round."""
    runs: dict[str, list[Figures]] = {name: [] for name in _VARIANTS}
    for _ in range(rounds):
        for name in _VARIANTS:
            runs[name].append(await _drained(broker, name, records=records, pace=pace))
        plain = runs["off"][-1]
        for name in _VARIANTS:
            runs[name][-1]["tax_us"] = runs[name][-1]["cpu_us_in_all"] - plain["cpu_us_in_all"]
            runs[name][-1]["of_untraced"] = runs[name][-1]["msg_per_s"] / plain["msg_per_s"]
    found = {name: medians(figures) for name, figures in runs.items()}
    for name, figures in runs.items():
        found[name]["tax_us_least"] = min(each["tax_us"] for each in figures)
    return found


async def _drained(broker: Broker, name: str, *, records: int, pace: float) -> Figures:
    variant = _VARIANTS[name]
    with a_counting_collector() as collector:
        variables = {**variant.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        figures = await drained(
            broker,
            bare=False,
            records=records,
            pace=pace,
            trace=variant.traced,
            environment=variables,
            sampled_as=variant.flags,
        )
        spans = collector.spans()
    expected = records * variant.spans
    if abs(spans - expected) > expected * 0.01:  # besides, a start has spans of its own
        raise SystemExit(f"{name}: {spans} spans arrived where {expected} were made: the figures are worth nothing")
    return figures | {"spans": float(spans)}
