"""The attributes of Pavane's spans, put together once per topic and group as far as they never change."""

from collections.abc import Mapping
from typing import Final, cast

from mypy_extensions import mypyc_attr
from opentelemetry.util.types import AnyValue

from pavane_events.envelope import Envelope
from pavane_events.errors import PavaneError
from pavane_tracing.conventions import (
    EVENT_ID,
    EVENT_TYPE,
    PAVANE_OFFSET,
    SAGA_ID,
    SAGA_NAME,
    SAGA_STEP,
    Naming,
)

KAFKA: Final = "kafka"

Scalar = str | int | float | bool
Attributes = Mapping[str, Scalar]


def error_type(error: BaseException) -> str:
    """What ``error.type`` says of an error: its stable code, or the name of its class; never its message."""
    if isinstance(error, PavaneError):
        return error.code
    return class_name(error)


EXCEPTION: Final = "exception"
"""The event by which OpenTelemetry records one."""


def exception_attributes(error: object, more: object, *, escaped: object) -> dict[str, AnyValue]:
    """What the event of a recorded exception says on a span of ours: message and stack may hold data, so they stay out."""
    told: dict[str, AnyValue] = {"exception.type": class_name(error), "exception.escaped": str(escaped)}
    return {**told, **cast("Mapping[str, AnyValue]", more)} if isinstance(more, Mapping) else told


def class_name(error: object) -> str:
    """Module and name of an error's class, as OpenTelemetry writes it."""
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


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
    """Makes the attributes of ``process`` and ``send`` spans on one messaging system (``kafka``, else ``pavane``).

    In two parts: what spans of one kind share, and what each says of its own message.
    """

    def __init__(self, system: str, naming: Naming | None = None) -> None:
        self.naming = naming or Naming()
        self._system = system
        names = self.naming.names
        self._names = names
        self.offset = names.kafka_offset if system == KAFKA else PAVANE_OFFSET
        self.message_id = names.message_id
        self.body_size = names.body_size
        self.doubles = bool(self.naming.doubles)
        self._processed: dict[tuple[str, str, int, str], dict[str, Scalar]] = {}
        self._sent: dict[tuple[str, str], dict[str, Scalar]] = {}

    def process(
        self, envelope: Envelope, topic: str, partition: int, offset: int, group: str, common: Attributes
    ) -> dict[str, Scalar]:
        """Of a span ``process <topic>``."""
        key = (topic, group, partition, envelope.type)
        fixed = self._processed.get(key)
        if fixed is None:
            fixed = self._processed[key] = self.process_fixed(*key)
        return {**fixed, **self.values(common, envelope.id, len(envelope.data), offset)}

    def send(
        self, topic: str, event_id: str, event_type: str, common: Attributes, saga: str | None, size: int | None
    ) -> dict[str, Scalar]:
        """Of a span ``send <topic>``; ``saga`` where it is another than the common attributes say."""
        fixed = self._sent.get((topic, event_type))
        if fixed is None:
            fixed = self._sent[topic, event_type] = self.send_fixed(topic, event_type)
        return {**fixed, **self.values(common if saga is None else {**common, SAGA_ID: saga}, event_id, size)}

    def process_fixed(self, topic: str, group: str, partition: int, event_type: str) -> dict[str, Scalar]:
        """What all ``process`` spans of events of one type from one partition say."""
        return {
            **self._fixed("process", topic),
            self._names.consumer_group: group,
            self._names.partition: str(partition),
            EVENT_TYPE: event_type,
        }

    def send_fixed(self, topic: str, event_type: str) -> dict[str, Scalar]:
        """What all ``send`` spans of events of one type to one topic say."""
        return {**self._fixed("send", topic), EVENT_TYPE: event_type}

    def values(self, common: Attributes, event_id: str, size: int | None, offset: int | None = None) -> dict[str, Scalar]:
        """What a span says of its own message; ``offset`` where it was received."""
        values: dict[str, Scalar] = {**common}
        if offset is not None:
            values[self.offset] = offset
        values[self.message_id] = event_id
        if size is not None:
            values[self.body_size] = size
        values[EVENT_ID] = event_id
        if self.doubles:
            self.naming.double(values)
        return values

    def _fixed(self, operation: str, topic: str) -> dict[str, Scalar]:
        fixed: dict[str, Scalar] = {
            self._names.system: self._system,
            self._names.operation_name: operation,
            self._names.operation_type: operation,
            self._names.destination: topic,
        }
        self.naming.double(fixed)
        return fixed


@mypyc_attr(free_list_len=1)
class Told:
    """What a span says of its own message, until somebody asks for its attributes: most are encoded without. Immutable.

    ``size``: of the body, in bytes; ``offset`` where it was received.
    """

    __slots__ = ("event_id", "messaging", "offset", "saga", "size")

    def __init__(
        self, messaging: MessagingAttributes, event_id: str, saga: str | None, size: int | None, offset: int | None
    ) -> None:
        self.messaging = messaging
        self.event_id = event_id
        self.saga = saga
        self.size = size
        self.offset = offset

    def values(self) -> dict[str, Scalar]:
        """As attributes."""
        common: dict[str, Scalar] = {} if self.saga is None else {SAGA_ID: self.saga}
        return self.messaging.values(common, self.event_id, self.size, self.offset)
