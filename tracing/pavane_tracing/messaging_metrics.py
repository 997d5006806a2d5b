"""Messaging metrics by OpenTelemetry's conventions: what is sent, consumed and processed, and how long that takes.

Only where somebody has set a meter provider up when an agent starts; otherwise nothing of this is there at all. Partitions
are left out of the attributes: they would multiply every series by their number.
Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from os import environ
from time import perf_counter
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import get_meter, get_meter_provider

from pavane_events.record import Message, Record
from pavane_tracing.attributes import Scalar
from pavane_tracing.conventions import OPT_IN, Naming, naming_for

SENT: Final = "messaging.client.sent.messages"
CONSUMED: Final = "messaging.client.consumed.messages"
PROCESS_DURATION: Final = "messaging.process.duration"
OPERATION_DURATION: Final = "messaging.client.operation.duration"
DURATIONS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""As the conventions want them."""

_METER: Final = get_meter("pavane")
_SENT: Final = _METER.create_counter(SENT, "{message}", "Number of messages producer attempted to send to the broker.")
_CONSUMED: Final = _METER.create_counter(CONSUMED, "{message}", "Number of messages that were delivered to the application.")
_PROCESS: Final = _METER.create_histogram(
    PROCESS_DURATION, "s", "Duration of processing operation.", explicit_bucket_boundaries_advisory=DURATIONS_S
)
_OPERATION: Final = _METER.create_histogram(
    OPERATION_DURATION,
    "s",
    "Duration of messaging operation initiated by a producer or consumer client.",
    explicit_bucket_boundaries_advisory=DURATIONS_S,
)


def messaging_metrics(system: str) -> "MessagingMetrics | None":
    """What measures messages on that system (``kafka``, else ``pavane``); None where nobody collects measurements."""
    # The API's own providers are the one that does nothing and the one that stands in until another is set.
    if type(get_meter_provider()).__module__.startswith("opentelemetry.metrics"):
        return None
    return MessagingMetrics(system, naming_for(environ.get(OPT_IN, "")))


class MessagingMetrics:
    """Measures for one messaging system. Safe from any task or thread."""

    def __init__(self, system: str, naming: Naming) -> None:
        self._system = system
        self._naming = naming
        self._known: dict[tuple[str, str | None, str | None, str | None], Mapping[str, Scalar]] = {}

    def sent(self, messages: Iterable[Message], failed: str | None = None) -> None:
        """Messages were handed to the bus; ``failed``: the code of the error that this ended in."""
        for topic, count in Counter(message.topic for message in messages).items():
            _SENT.add(count, self._attributes("send", topic, None, failed))

    def consumed(self, records: Iterable[Record], group: str) -> None:
        """Records were received."""
        for topic, count in Counter(record.topic for record in records).items():
            _CONSUMED.add(count, self._attributes("receive", topic, group, None))

    def operated(self, operation: str, group: str | None, duration_s: float, failed: str | None) -> None:
        """The bus was asked for something, and has answered: ``commit`` of a lane, ``send`` outside any."""
        kind = "settle" if operation == "commit" else operation
        attributes = {**self._attributes(operation, None, group, failed), self._naming.names.operation_type: kind}
        _OPERATION.record(duration_s, attributes)

    def processing(self, topic: str, group: str) -> "Processing":
        """A unit of work begins on a record of that topic."""
        return Processing(self, topic, group)

    def processed(self, processing: "Processing", duration_s: float, context: Context | None) -> None:
        """A unit of work has ended. In the context of its span: a sampled one becomes the measurement's exemplar."""
        _PROCESS.record(
            duration_s, self._attributes("process", processing.topic, processing.group, processing.failed), context
        )

    def _attributes(self, operation: str, topic: str | None, group: str | None, failed: str | None) -> Mapping[str, Scalar]:
        key = operation, topic, group, failed
        known = self._known.get(key)
        if known is None:
            names = self._naming.names
            optional = ((names.destination, topic), (names.consumer_group, group), (names.error_type, failed))
            attributes: dict[str, Scalar] = {names.system: self._system, names.operation_name: operation}
            attributes.update((name, value) for name, value in optional if value is not None)
            self._naming.double(attributes)
            known = self._known[key] = attributes
        return known


class Processing:
    """The clock of one unit of work."""

    __slots__ = ("_metrics", "_started_s", "failed", "group", "topic")

    def __init__(self, metrics: MessagingMetrics, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self.failed: str | None = None
        self._metrics = metrics
        self._started_s = perf_counter()

    def end(self, context: Context | None) -> None:
        """The work is done; once."""
        self._metrics.processed(self, perf_counter() - self._started_s, context)
