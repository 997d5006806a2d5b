"""A bus that measures what goes through it: wrapped around the real one where somebody collects measurements, else absent."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Self, cast

from pavane_events.bus import Bus, Lane, Lanes, Start
from pavane_events.record import Message, Record
from pavane_tracing.attributes import error_type
from pavane_tracing.messaging_metrics import MessagingMetrics


def measured(bus: Bus, metrics: MessagingMetrics) -> Bus:
    """The same bus; what is published, received and committed by it is measured."""
    return cast("Bus", MeasuredBus(bus, metrics))


class MeasuredBus:
    """Everything of the port; what is not here is the bus's own."""

    def __init__(self, bus: Bus, metrics: MessagingMetrics) -> None:
        self._bus = bus
        self._metrics = metrics

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bus.close()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Append messages."""
        failed: str | None = None
        started_s = perf_counter()
        try:
            await self._bus.publish(messages)
        except BaseException as error:
            failed = error_type(error)
            raise
        finally:
            self._metrics.sent(messages, failed)
            self._metrics.operated("send", None, perf_counter() - started_s, failed)

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> Lanes:
        """Join a group."""
        return cast(
            "Lanes", MeasuredLanes(await self._bus.lanes(group, topics, start=start, earliest=earliest), self._metrics)
        )


class MeasuredLanes:
    """A membership whose lanes measure."""

    def __init__(self, lanes: Lanes, metrics: MessagingMetrics) -> None:
        self._lanes = lanes
        self._metrics = metrics

    def __getattr__(self, name: str) -> object:
        return getattr(self._lanes, name)

    def __aiter__(self) -> AsyncIterator[Lane]:
        return cast("AsyncIterator[Lane]", self)

    async def __anext__(self) -> Lane:
        """The next lane granted."""
        return cast("Lane", MeasuredLane(await anext(self._lanes), self._metrics))


class MeasuredLane:
    """A lane that measures. A wait for records is none of its operations: how long it takes says nothing."""

    def __init__(self, lane: Lane, metrics: MessagingMetrics) -> None:
        self._lane = lane
        self._metrics = metrics

    def __getattr__(self, name: str) -> object:
        return getattr(self._lane, name)

    async def receive(self, maximum: int, timeout_s: float) -> Sequence[Record]:
        """The next records."""
        records = await self._lane.receive(maximum, timeout_s)
        if records:
            self._metrics.consumed(records, self._lane.group)
        return records

    async def commit(
        self,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        """All or nothing."""
        failed: str | None = None
        started_s = perf_counter()
        try:
            await self._lane.commit(done, outputs, state)
        except BaseException as error:
            failed = error_type(error)
            raise
        finally:
            self._metrics.sent(outputs, failed)
            self._metrics.operated("commit", self._lane.group, perf_counter() - started_s, failed)
