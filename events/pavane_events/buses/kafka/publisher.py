"""The publisher: messages from outside any lane, as many calls as wait together in one transaction."""

import asyncio
import logging
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.connecting import close
from pavane_events.buses.kafka.failures import TOO_LARGE, UNKNOWN_TOPIC, Refused, translated
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.reading import read_to
from pavane_events.buses.kafka.transactions import Payload, Producer
from pavane_events.errors import BusError, BusUnavailable, ConfigurationError, RecordTooLarge, UnknownTopic

log = logging.getLogger("pavane.kafka")

_TRANSACTION_S = 9.0
_LOOK_UP_S = 20.0
_MOST = 2000

Placed = Sequence[tuple[TopicPartition, Payload]]


@dataclass(slots=True, eq=False)
class _Call:
    placed: Placed
    future: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def ended(self, error: BusError | ConfigurationError | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)
            self.future.exception()  # whoever waited may have been cancelled


class Publisher:
    """Connects on first use. A transaction that ended in the dark is looked up, so that a call is told what happened.

    ``knock`` raises :class:`ConfigurationError` where brokers do not let us in: connections that are lost do not say so.
    """

    def __init__(
        self,
        connect: Callable[[str], Awaitable[AIOKafkaClient]],
        knock: Callable[[], Awaitable[None]],
        options: KafkaOptions,
    ) -> None:
        self._connect = connect
        self._knock = knock
        self._options = options
        self._client: AIOKafkaClient | None = None
        self._producer: Producer | None = None
        self._queue: deque[_Call] = deque()
        self._task: asyncio.Task[None] | None = None

    async def publish(self, placed: Placed) -> None:
        """Write these: all or nothing, durable on return."""
        call = _Call(placed)
        self._queue.append(call)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await call.future

    async def close(self) -> None:
        """Give up what waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None:
            await close(self._client)

    async def _run(self) -> None:
        calls: list[_Call] = []
        why = "the bus was closed"
        try:
            while self._queue:
                calls = self._take()
                error = await self._publish(calls)
                if isinstance(error, RecordTooLarge | UnknownTopic | ConfigurationError) and len(calls) > 1:
                    for call in calls:  # one of them spoilt it for the others
                        call.ended(await self._publish([call]))
                for call in calls:
                    call.ended(error)
        except Exception as error:
            log.exception("publishing has failed")
            why = f"publishing has failed: {error!r}"
        finally:
            for call in [*calls, *self._queue]:
                call.ended(BusUnavailable(why))
            self._queue.clear()

    def _take(self) -> list[_Call]:
        calls = [self._queue.popleft()]
        size = len(calls[0].placed)
        while self._queue and size + len(self._queue[0].placed) <= _MOST:
            calls.append(self._queue.popleft())
            size += len(calls[-1].placed)
        return calls

    async def _publish(self, calls: Sequence[_Call]) -> BusError | ConfigurationError | None:
        outputs: dict[TopicPartition, list[Payload]] = defaultdict(list)
        for call in calls:
            for place, payload in call.placed:
                outputs[place].append(payload)
        if not outputs:
            return None
        try:
            producer = await self._ready()
            async with asyncio.timeout(_TRANSACTION_S):
                await producer.transact(outputs)
        except (KafkaError, Refused, TimeoutError, BusError, ConfigurationError) as error:
            log.info("a publishing did not end well, it is looked up: %r", error)
            return await self._look_up(error)
        return None

    async def _look_up(self, error: Exception) -> BusError | ConfigurationError | None:
        """What became of the last transaction."""
        producer, self._producer = self._producer, None
        if producer is not None and producer.deciding:
            try:
                async with asyncio.timeout(_LOOK_UP_S):
                    await producer.initialise()
                    if await self._is_there(producer):
                        return None
            except (KafkaError, Refused, TimeoutError) as dark:
                return BusUnavailable(
                    f"Kafka cannot be reached, and whether the messages were published is not known: {dark!r}"
                )
        if isinstance(error, BusError | ConfigurationError):
            return error
        if isinstance(error, Refused) and error.code in TOO_LARGE:
            return RecordTooLarge(f"{error}: raise max.message.bytes of the topic, or send a reference instead")
        if isinstance(error, Refused) and error.code == UNKNOWN_TOPIC:
            return UnknownTopic(f"{error}: create the topic, see `pavane topics diff`")
        found = translated(error, "publishing")
        if isinstance(found, BusUnavailable):
            try:
                await self._knock()
            except ConfigurationError as refusal:
                return refusal
            except BusUnavailable:
                pass
        return found

    async def _is_there(self, producer: Producer) -> bool:
        """Whether the last transaction happened: whether its first record is one that readers of committed records see."""
        assert self._client is not None
        place, offset = min(producer.written.items(), key=lambda each: each[1])
        async for records, _ in read_to(self._client, place, offset, offset + 1):
            if records:
                return records[0].offset == offset
        return False

    async def _ready(self) -> Producer:
        if self._producer is None:
            transactional_id = self._options.physical(f"publisher-{uuid.uuid4().hex[:12]}")
            if self._client is None:
                self._client = await self._connect(transactional_id)
            producer = Producer(
                self._client,
                transactional_id,
                timeout_ms=self._options.transaction_timeout_ms,
                request_ms=self._options.request_timeout_ms,
                backoff_ms=self._options.retry_backoff_ms,
            )
            await producer.initialise()
            self._producer = producer
        return self._producer
