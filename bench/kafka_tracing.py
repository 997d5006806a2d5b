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


OFF, HANDING_ON, UNSAMPLED, LEAN, STOCK = "off", "off, handing on", "unsampled", "lean", "stock SDK"

VARIANTS: Mapping[str, Variant] = {
    OFF: Variant(traced=False, flags=None),
    HANDING_ON: Variant(traced=False, flags="00"),
    UNSAMPLED: Variant(traced=True, flags="00"),
    LEAN: Variant(traced=True, flags="01", spans=2),
    STOCK: Variant(
        traced=True, flags="01", spans=2, environment={"PAVANE_TRACER": "sdk", "OTEL_BSP_MAX_QUEUE_SIZE": "1000000"}
    ),
}


def in_turn(number: int) -> list[str]:
    """The variants, in every round another first."""
    first = number % len(VARIANTS)
    return [*VARIANTS][first:] + [*VARIANTS][:first]


async def tracing(broker: Broker, *, records: int, rounds: int, pace: float = PACE) -> Mapping[str, Figures]:
    """The variants take turns, in every round another first; ``of_untraced``: messages a second, of those with tracing off."""
    runs: dict[str, list[Figures]] = {name: [] for name in VARIANTS}
    for number in range(rounds):
        taking = {name: await _drained(broker, name, records=records, pace=pace) for name in in_turn(number)}
        for name, figures in taking.items():
            figures["of_untraced"] = figures["msg_per_s"] / taking[OFF]["msg_per_s"]
            runs[name].append(figures)
    return {name: medians(figures) for name, figures in runs.items()}


async def _drained(broker: Broker, name: str, *, records: int, pace: float) -> Figures:
    variant = VARIANTS[name]
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
        spans = collector.check(records * variant.spans, name)
    return figures | {"spans": float(spans)}
