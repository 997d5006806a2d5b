"""Continuity: the trace of a saga, or of all, held against the topics, wherever its spans are."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pavane_events.bus import Bus
from pavane_events.errors import ConfigurationError, Problem, UnknownTopic
from pavane_saga.hops import sent_records
from pavane_saga.manifest import Directory, read_directory
from pavane_tracing.continuity import check_continuity
from pavane_tracing.conventions import COORDINATOR_SERVICE
from pavane_tracing.finding import ContinuityReport
from pavane_tracing.jaeger import Jaeger
from pavane_tracing.otlp_json import read_file, read_saga
from pavane_tracing.sent import Sent
from pavane_tracing.span import SpanRow
from pavane_tracing.store import SPANS_TOPIC, decode, spans_of
from pavane_tracing.sweep import Sweep

_AT_ONCE = 500


class Exported(Protocol):
    """Where exported spans are read. Calls block. Raises :class:`TracesUnavailable`."""

    def of_saga(self, saga: str, services: Sequence[str]) -> list[SpanRow]:
        """Every span of every trace in which one of these services worked for that saga."""
        ...

    def of_all(self, sagas: Iterable[str], services: Sequence[str]) -> Iterator[SpanRow]:
        """The same for many sagas; spans may come more than once, and others' spans with them."""
        ...


@dataclass(frozen=True, slots=True)
class InJaeger:
    """Spans that a Jaeger has, such as ``http://127.0.0.1:16686``. ``since_s``: about when the first saga started."""

    url: str
    since_s: float

    def of_saga(self, saga: str, services: Sequence[str]) -> list[SpanRow]:
        """By the tag ``saga.id``, service by service."""
        return Jaeger(self.url).spans_of(saga, services, self.since_s)

    def of_all(self, sagas: Iterable[str], services: Sequence[str]) -> Iterator[SpanRow]:
        """Saga by saga, four at once."""
        return Jaeger(self.url).spans_of_all(sagas, services, self.since_s)


@dataclass(frozen=True, slots=True)
class InFile:
    """Spans in a file of OTLP's JSON, as OpenTelemetry's Collector writes it."""

    path: Path

    def of_saga(self, saga: str, services: Sequence[str]) -> list[SpanRow]:
        """Whoever's they are."""
        return read_saga(self.path, saga)

    def of_all(self, sagas: Iterable[str], services: Sequence[str]) -> Iterator[SpanRow]:
        """The whole file."""
        return read_file(self.path)


async def check_bus(
    bus: Bus, saga: str | None = None, *, jaeger_url: str | None = None, otlp: Path | None = None
) -> ContinuityReport:
    """Hold the trace of one saga, or of every saga, against the topics: any record that a step has answered must be reached.

    Spans are read from the file, where one is named; else those that an embedded bus keeps; else from that Jaeger. Raises
    :class:`ConfigurationError` where there are none of all these, :class:`TracesUnavailable`, :class:`BusError`.
    """
    exported = await _exported(bus, jaeger_url, otlp)
    return await continuity(bus, exported) if saga is None else await saga_continuity(bus, saga, exported)


async def saga_continuity(bus: Bus, saga: str, exported: Exported | None = None) -> ContinuityReport:
    """Hold one saga's spans against its records; the spans are those that the bus keeps, unless they were exported.

    Raises :class:`BusError` and :class:`TracesUnavailable`.
    """
    directory = await read_directory(bus)
    log = [each async for each in sent_records(bus, directory, saga)]
    if exported is None:
        rows: Sequence[SpanRow] = await spans_of(bus, saga)
    else:
        rows = await asyncio.to_thread(exported.of_saga, saga, services_of(directory))
    return check_continuity(rows, log, kept=exported is None)


async def continuity(bus: Bus, exported: Exported | None = None) -> ContinuityReport:
    """The same for every saga of the bus. Memory is bounded; disk is used, about half a kilobyte for each span.

    Raises :class:`BusError` and :class:`TracesUnavailable`.
    """
    directory = await read_directory(bus)
    with Sweep(kept=exported is None) as sweep:
        portion: list[Sent] = []
        async for sent in sent_records(bus, directory):
            portion.append(sent)
            if len(portion) == _AT_ONCE:
                sweep.add_log(portion)
                portion = []
        sweep.add_log(portion)
        if exported is None:
            await _add_kept(bus, sweep)
        else:
            services = services_of(directory)
            await asyncio.to_thread(lambda: sweep.add_spans(exported.of_all(sweep.sagas(), services)))
        return await asyncio.to_thread(sweep.report)


def services_of(directory: Directory) -> list[str]:
    """The services whose traces are a deployment's: its agents, and the coordinator, which takes part in every saga."""
    return [COORDINATOR_SERVICE, *sorted(directory.agents)]


async def _add_kept(bus: Bus, sweep: Sweep) -> None:
    try:
        async for record in bus.read(SPANS_TOPIC):
            sweep.add_spans(decode(record))
    except UnknownTopic:
        pass


async def _exported(bus: Bus, jaeger_url: str | None, otlp: Path | None) -> Exported | None:
    """Where the spans are to be read that the bus does not keep; None where it does."""
    if otlp is not None:
        return InFile(otlp)
    if bus.embedded and await keeps_spans(bus):
        return None
    if jaeger_url is not None:
        return InJaeger(jaeger_url, await _first_ms(bus) / 1000)
    where = "set PAVANE_JAEGER_URL=http://host:16686, or name a file of the Collector's: pavane trace --check --otlp FILE"
    raise ConfigurationError(
        "there are no spans to look at", [Problem("spans", "spans.nowhere", f"the bus keeps none: {where}")]
    )


async def keeps_spans(bus: Bus) -> bool:
    """Whether any span is on the bus itself."""
    if SPANS_TOPIC in await bus.topics():
        async for _ in bus.read(SPANS_TOPIC):
            return True
    return False


async def _first_ms(bus: Bus) -> int:
    """When the first saga started whose start event is still there."""
    topics = await bus.topics()
    firsts: list[int] = []
    for plan in (await read_directory(bus)).sagas.values():
        for partition in range(bus.partitions if plan.starts in topics else 0):
            async for record in bus.read(plan.starts, partition=partition):
                firsts.append(record.timestamp_ms)
                break
    return min(firsts, default=0)
