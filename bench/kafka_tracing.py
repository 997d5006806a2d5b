"""What tracing costs: consume, validate, publish, exactly once, with spans switched off, passed by, lean, and the stock SDK's.

Each message carries the context of a sampled span (of an unsampled one for ``unsampled``; none for ``off``), and makes two
spans: ``process`` and ``send``. *Off, handing on* is tracing switched off where messages carry contexts: what the headers
alone cost, which somebody else put there. Processor time counts until the last span was handed to the collector. The stock
SDK's queue is made large enough to drop nothing: with its usual 2,048 it would drop most, and seem cheaper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.kafka_place import PACE, Broker
from bench.kafka_spans import a_counting_collector
from bench.kafka_throughput import drained, medians
from bench.kafka_worker import Figures


@dataclass(frozen=True)
class Variant:
    """How the agent traces. ``flags``: of the context that each message carries, in hex; None: it carries none.
    ``spans``: of each message; ``every``: how many rounds it takes part in one of."""

    traced: bool
    flags: str | None
    spans: int = 0
    every: int = 1
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


_OFF, _HANDING_ON, _UNSAMPLED = "off", "off, handing on", "unsampled"

_VARIANTS: Mapping[str, Variant] = {
    _OFF: Variant(traced=False, flags=None),
    _HANDING_ON: Variant(traced=False, flags="00"),
    _UNSAMPLED: Variant(traced=True, flags="00"),
    "lean": Variant(traced=True, flags="01", spans=2),
    "stock SDK": Variant(
        traced=True,
        flags="01",
        spans=2,
        every=3,
        environment={"PAVANE_TRACER": "sdk", "OTEL_BSP_MAX_QUEUE_SIZE": "1000000"},
    ),
}


async def tracing(broker: Broker, *, records: int, rounds: int, pace: float = PACE) -> Mapping[str, Figures]:
    """The variants take turns, in every round another first. ``tax_us``: processor time a message more than with tracing
    off in the same round; ``tax_us_least``: the same of each one's best round, which nobody disturbed; ``beside_us``, of
    unsampled messages: the time more than where tracing is off and contexts are handed on.
    """
    runs: dict[str, list[Figures]] = {name: [] for name in _VARIANTS}
    for number in range(rounds):
        first = number % len(_VARIANTS)
        turns = [*_VARIANTS][first:] + [*_VARIANTS][:first]
        names = [name for name in turns if number % _VARIANTS[name].every == 0]
        taking = {name: await _drained(broker, name, records=records, pace=pace) for name in names}
        plain = taking[_OFF]
        for name, figures in taking.items():
            figures["tax_us"] = figures["cpu_us_in_all"] - plain["cpu_us_in_all"]
            figures["of_untraced"] = figures["msg_per_s"] / plain["msg_per_s"]
            runs[name].append(figures)
        taking[_UNSAMPLED]["beside_us"] = taking[_UNSAMPLED]["tax_us"] - taking[_HANDING_ON]["tax_us"]
    found = {name: medians(figures) for name, figures in runs.items()}
    for name, each in runs.items():
        found[name]["tax_us_least"] = _least(each) - _least(runs[_OFF])
    return found


def _least(runs: Sequence[Figures]) -> float:
    return min(each["cpu_us_in_all"] for each in runs)


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
