"""What a worker of the Kafka chaos suite is told, and the events that it copies: each says what must become of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions

Pause = Literal["never", "before commit", "in transaction"]


@dataclass(frozen=True, slots=True)
class Order:
    """A deployment, and what a worker does in it: copy ``source`` to ``target`` as a member of ``group``.

    ``work_s``: how long a handler is at work on a batch. ``stop``: where the worker stops itself (SIGSTOP) once, or, in a
    transaction, waits for ever, before its end is asked for.
    """

    servers: str
    prefix: str
    source: str = "in"
    target: str = "out"
    group: str = "copy"
    partitions: int = 9
    session_ms: int = 6_000
    heartbeat_ms: int = 500
    transaction_timeout_ms: int = 10_000
    batch: int = 20
    work_s: float = 0.02
    stop: Pause = "never"
    clock_jumps_s: float = 0.0
    instance: str | None = None

    @property
    def options(self) -> KafkaOptions:
        """The adapter's options."""
        return KafkaOptions(
            prefix=self.prefix,
            session_ms=self.session_ms,
            heartbeat_ms=self.heartbeat_ms,
            transaction_timeout_ms=self.transaction_timeout_ms,
            instance=self.instance,
        )

    async def open(self) -> KafkaBus:
        """A bus of the deployment."""
        return await KafkaBus.open(self.servers, self.partitions, self.options)

    def to_json(self) -> str:
        """For a process's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Order":
        """What :meth:`to_json` wrote."""
        return cls(**json.loads(text))


def input_value(number: int, nth: int) -> bytes:
    """An event: its number of all, and which of its key it is, from 1."""
    return json.dumps({"n": number, "nth": nth}).encode()


def output_value(given: bytes, offset: int, count: int) -> bytes:
    """What is made of it: where it lay, and what the lane's state counted for its key."""
    event: Mapping[str, int] = json.loads(given)
    return json.dumps({**event, "offset": offset, "count": count}).encode()
