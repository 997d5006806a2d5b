"""The attributes of Pavane's spans, put together once per topic and group as far as they never change."""

from collections.abc import Mapping

from pavane_events.envelope import Envelope
from pavane_tracing.conventions import (
    EVENT_ID,
    EVENT_TYPE,
    MESSAGING,
    PAVANE_OFFSET,
    SAGA_ID,
    SAGA_NAME,
    SAGA_STEP,
)

KAFKA = "kafka"

Scalar = str | int | float | bool
Attributes = Mapping[str, Scalar]


def common_attributes(
    saga: str | None, saga_name: str | None, step: str | None, event_id: str | None = None
) -> dict[str, Scalar]:
    """What every span of one unit of work says; ``event_id`` is its input's, and a ``send`` says its own instead."""
    common: dict[str, Scalar] = {}
    if saga is not None:
        common[SAGA_ID] = saga
    if saga_name is not None:
        common[SAGA_NAME] = saga_name
    if step is not None:
        common[SAGA_STEP] = step
    if event_id is not None:
        common[EVENT_ID] = event_id
    return common


class MessagingAttributes:
    """Makes the attributes of ``process`` and ``send`` spans on one messaging system (``kafka``, else ``pavane``)."""

    def __init__(self, system: str) -> None:
        self._system = system
        self._offset = MESSAGING.kafka_offset if system == KAFKA else PAVANE_OFFSET
        self._processed: dict[tuple[str, str], dict[str, Scalar]] = {}
        self._sent: dict[str, dict[str, Scalar]] = {}

    def process(
        self, envelope: Envelope, topic: str, partition: int, offset: int, group: str, common: Attributes
    ) -> dict[str, Scalar]:
        """Of a span ``process <topic>``."""
        statics = self._processed.get((topic, group))
        if statics is None:
            statics = {**self._statics("process", topic), MESSAGING.consumer_group: group}
            self._processed[topic, group] = statics
        return {
            **statics,
            **common,
            MESSAGING.partition: str(partition),
            self._offset: offset,
            MESSAGING.message_id: envelope.id,
            MESSAGING.body_size: len(envelope.data),
            EVENT_ID: envelope.id,
            EVENT_TYPE: envelope.type,
        }

    def send(
        self, topic: str, event_id: str, event_type: str, common: Attributes, saga: str | None, size: int | None
    ) -> dict[str, Scalar]:
        """Of a span ``send <topic>``; ``saga`` where it is another than the common attributes say."""
        statics = self._sent.get(topic)
        if statics is None:
            statics = self._sent[topic] = self._statics("send", topic)
        attributes = {
            **statics,
            **common,
            MESSAGING.message_id: event_id,
            EVENT_ID: event_id,
            EVENT_TYPE: event_type,
        }
        if saga is not None:
            attributes[SAGA_ID] = saga
        if size is not None:
            attributes[MESSAGING.body_size] = size
        return attributes

    def _statics(self, operation: str, topic: str) -> dict[str, Scalar]:
        return {
            MESSAGING.system: self._system,
            MESSAGING.operation_name: operation,
            MESSAGING.operation_type: operation,
            MESSAGING.destination: topic,
        }
