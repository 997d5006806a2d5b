"""The attribute names on spans and measurements: OpenTelemetry's messaging conventions by version, and Pavane's own keys.

The messaging conventions are still in development and rename attributes; nothing outside this module spells one.
Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Final, TypeVar

T = TypeVar("T")

COORDINATOR_SERVICE: Final = "coordinator"
"""The service whose spans every saga has. Agents are services by their own names."""
OPERATOR_SERVICE: Final = "operator"
"""The service that people's decisions are of."""
SAGA_ID: Final = "saga.id"
SAGA_NAME: Final = "saga.name"
SAGA_STEP: Final = "saga.step"
SAGA_UNDO: Final = "saga.undo"
"""True on a span that undoes a step: its links name spans of the step."""
SAGA_VERDICT: Final = "saga.verdict"
"""How a saga ended: on the span ``saga <name> end``."""
EVENT_ID: Final = "event.id"
EVENT_TYPE: Final = "event.type"
PAVANE_OFFSET: Final = "pavane.offset"
"""The offset of a record on a bus that is not Kafka."""
SPANS_DROPPED: Final = "pavane.spans.dropped"
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


V1_44 = Conventions(
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
"""``kafka_key`` is not set on spans: the key is the saga id, and ``saga.id`` says so."""
V1_45 = replace(
    V1_44,
    version="1.45",
    system="messaging.system.name",
    kafka_offset="kafka.offset",
    kafka_key="kafka.message.key",
)
MESSAGING: Final = V1_44
"""What Pavane writes unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Under which names it is written: those of ``names``, and in ``doubles`` (name, older name) the older one beside it."""

    names: Conventions = MESSAGING
    doubles: tuple[tuple[str, str], ...] = ()

    def double(self, attributes: MutableMapping[str, T]) -> None:
        """Write what has a new name under its old one, too, where that is asked for."""
        for name, older in self.doubles:
            if name in attributes:
                attributes[older] = attributes[name]


OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"


def naming_for(opt_in: str) -> Naming:
    """What the value of :data:`OPT_IN` asks for: ``messaging`` the newer names, ``messaging/dup`` both, else the default.

    It is a list with commas; what it says of others than messaging is theirs. ``messaging/dup`` is the stronger one.
    Source: https://opentelemetry.io/docs/specs/semconv/messaging/
    """
    asked = {each.strip().lower() for each in opt_in.split(",")}
    if "messaging/dup" in asked:
        return Naming(V1_45, _renamed(V1_44, V1_45))
    return Naming(V1_45 if "messaging" in asked else V1_44)


def _renamed(older: Conventions, newer: Conventions) -> tuple[tuple[str, str], ...]:
    names = [each.name for each in fields(Conventions) if each.name != "version"]
    pairs = [(str(getattr(newer, name)), str(getattr(older, name))) for name in names]
    return tuple(pair for pair in pairs if pair[0] != pair[1])
