"""The attribute names on spans: OpenTelemetry's messaging conventions as one versioned map, and Pavane's own keys.

The messaging conventions are still in development and have renamed attributes before; nothing outside this module
spells one. Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from dataclasses import dataclass

COORDINATOR_SERVICE = "coordinator"
"""The service whose spans every saga has. Agents are services by their own names."""
SAGA_ID = "saga.id"
SAGA_NAME = "saga.name"
SAGA_STEP = "saga.step"
SAGA_UNDO = "saga.undo"
"""True on a span that undoes a step: its links name spans of the step."""
SAGA_VERDICT = "saga.verdict"
"""How a saga ended: on the span ``saga <name> end``."""
EVENT_ID = "event.id"
EVENT_TYPE = "event.type"
PAVANE_OFFSET = "pavane.offset"
"""The offset of a record on a bus that is not Kafka."""
SPANS_DROPPED = "pavane.spans.dropped"
"""How many spans of one unit of work were too many, or too large together, to be kept."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """The names of one version of the messaging conventions. Another version is another instance."""

    version: str
    system: str
    operation_name: str
    operation_type: str
    destination: str
    partition: str
    consumer_group: str
    client_id: str
    message_id: str
    body_size: str
    kafka_offset: str
    kafka_key: str
    error_type: str


MESSAGING = Conventions(
    version="1.44",
    system="messaging.system",
    operation_name="messaging.operation.name",
    operation_type="messaging.operation.type",
    destination="messaging.destination.name",
    partition="messaging.destination.partition.id",
    consumer_group="messaging.consumer.group.name",
    client_id="messaging.client.id",
    message_id="messaging.message.id",
    body_size="messaging.message.body.size",
    kafka_offset="messaging.kafka.offset",
    kafka_key="messaging.kafka.message.key",
    error_type="error.type",
)
"""What Pavane writes. ``kafka_key`` is not set on spans: the key is the saga id, and ``saga.id`` says so."""
