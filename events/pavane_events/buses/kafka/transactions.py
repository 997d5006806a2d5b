"""Transactions: one at a time, whole or not at all; after any failure the producer is initialised anew, never trusted.

aiokafka's own producer is not used: it commits offsets although a delivery failed, cannot say who commits (KIP-447), and
retries on the same epoch where nobody knows what happened. This one is a straight line over its protocol classes.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.failures import (
    CONCURRENT_TRANSACTIONS,
    COORDINATOR_MOVED,
    DUPLICATE_SEQUENCE,
    LEADER_MOVED,
    NOT_ATTEMPTED,
    PASSING,
    UNKNOWN_TOPIC,
    Refused,
)
from pavane_events.buses.kafka.fetching import by_leader
from pavane_events.buses.kafka.protocol import Offset, TxnOffsetCommit

BATCH_BYTES: Final = 256 * 1024
"""Of one record batch; a larger record makes a batch of its own."""

REQUEST_BYTES: Final = 8 * 1024 * 1024
_ALL_REPLICAS: Final = -1
_MARKERS_S: Final = 0.004
"""How long to wait while the broker still writes the last transaction's markers (error 51)."""

_UNKNOWN_TOPIC_PATIENCE_S: Final = 1.0
_SEQUENCES: Final = 2**31


class Member(NamedTuple):
    """A place in a group: what a broker holds a commit against."""

    generation: int
    member_id: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class GroupOffsets:
    """The offsets that a transaction commits for a group, each with its metadata, and who says so."""

    group: str
    member: Member
    offsets: Mapping[TopicPartition, tuple[int, str]]


class Payload(Protocol):
    """What is written of a record. A message is one."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Row(NamedTuple):
    """A payload without headers: what a changelog holds."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


Outputs = Mapping[TopicPartition, Sequence[Payload]]


class Producer:
    """One transactional id. Not for concurrent use: one transaction after another.

    After :meth:`transact` raised anything, nobody knows what became of that transaction until :meth:`initialise` has
    returned: from then on it is either committed for good or aborted for good.
    """

    def __init__(
        self, client: AIOKafkaClient, transactional_id: str, *, timeout_ms: int, request_ms: int, backoff_ms: int
    ) -> None:
        self.transactional_id = transactional_id
        self._client = client
        self._timeout_ms = timeout_ms
        self._patience_s = timeout_ms * 0.8 / 1000
        self._request_ms = request_ms
        self._backoff_s = backoff_ms / 1000
        self._coordinator: int | None = None
        self._group_coordinator: int | None = None
        self._identity = (-1, -1)
        self._sequences: dict[TopicPartition, int] = defaultdict(int)
        self._give_up = 0.0
        self.deciding = False
        """Whether the end of the last transaction was asked for: only then may it have happened where it failed."""
        self.written: dict[TopicPartition, int] = {}
        """Where the first output of the last transaction came to lie, by partition."""

    async def initialise(self) -> None:
        """Take the id: whoever had it is fenced, and what it left open is aborted. Raises KafkaError, Refused."""
        self._give_up = time.monotonic() + 2 * self._patience_s

        async def once() -> int:
            request = InitProducerIdRequest(self.transactional_id, self._timeout_ms)
            response = await self._to_coordinator(request)
            if not response.error_code:
                self._identity = (response.producer_id, response.producer_epoch)
            return int(response.error_code)

        await self._until_accepted("InitProducerId", once)
        self._sequences.clear()

    async def transact(self, outputs: Outputs, offsets: GroupOffsets | None = None) -> dict[TopicPartition, int]:
        """Write outputs and offsets in one transaction; where the first output of each partition came to lie.

        Returns when the transaction is decided: durable, and visible to others in a moment. Raises KafkaError and
        Refused; see the class.
        """
        self._give_up = time.monotonic() + self._patience_s
        self.deciding = False
        if outputs:
            await self._add_partitions(outputs)
        self.written = await _both(self._produce(outputs), self._commit_offsets(offsets))
        self.deciding = True
        await self._end()
        return self.written

    async def _add_partitions(self, outputs: Outputs) -> None:
        topics: dict[str, list[int]] = defaultdict(list)
        for each in outputs:
            topics[each.topic].append(each.partition)

        unknown_until = time.monotonic() + _UNKNOWN_TOPIC_PATIENCE_S

        async def once() -> int:
            request = AddPartitionsToTxnRequest(self.transactional_id, *self._identity, list(topics.items()))
            response = await self._to_coordinator(request)
            codes = [(topic, code) for topic, partitions in response.errors for _, code in partitions if code]
            for topic, code in codes:
                new = code == UNKNOWN_TOPIC and time.monotonic() < unknown_until  # made a moment ago
                if not new and code not in PASSING and code != NOT_ATTEMPTED:
                    raise Refused(code, "AddPartitionsToTxn", topic)
            return next((code for _, code in codes if code != NOT_ATTEMPTED), 0)

        await self._until_accepted("AddPartitionsToTxn", once)

    async def _commit_offsets(self, offsets: GroupOffsets | None) -> None:
        if offsets is None:
            return

        async def add() -> int:
            request = AddOffsetsToTxnRequest(self.transactional_id, *self._identity, offsets.group)
            return int((await self._to_coordinator(request)).error_code)

        await self._until_accepted("AddOffsetsToTxn", add)
        topics: dict[str, list[Offset]] = defaultdict(list)
        for each, (offset, metadata) in offsets.offsets.items():
            topics[each.topic].append((each.partition, offset, -1, metadata, {}))

        async def commit() -> int:
            named = [(topic, partitions, dict[int, bytes]()) for topic, partitions in topics.items()]
            request = TxnOffsetCommit(self.transactional_id, offsets.group, self._identity, offsets.member, named)
            response = await self._to_group_coordinator(request, offsets.group)
            codes = [(topic, each[1]) for topic, partitions, _ in response.topics for each in partitions if each[1]]
            for topic, code in codes:
                if code not in PASSING:
                    raise Refused(code, "TxnOffsetCommit", topic)
            return codes[0][1] if codes else 0

        await self._until_accepted("TxnOffsetCommit", commit)

    async def _end(self) -> None:
        async def once() -> int:
            request = EndTxnRequest(self.transactional_id, *self._identity, True)
            return int((await self._to_coordinator(request)).error_code)

        await self._until_accepted("EndTxn", once)

    async def _produce(self, outputs: Outputs) -> dict[TopicPartition, int]:
        written: dict[TopicPartition, int] = {}
        queues = {place: self._batches(place, payloads) for place, payloads in outputs.items()}
        while queues:  # one batch of each partition at a time: their order is the order of the outputs
            wave = {place: batches.pop(0) for place, batches in queues.items()}
            for place, offset in (await self._deliver(wave)).items():
                written.setdefault(place, offset)
            queues = {place: batches for place, batches in queues.items() if batches}
        return written

    def _batches(self, place: TopicPartition, payloads: Sequence[Payload]) -> list[bytes]:
        now_ms = int(time.time() * 1000)
        batches: list[bytes] = []
        builder, count = self._builder(place), 0
        for payload in payloads:
            headers = list(payload.headers)
            if builder.append(count, now_ms, payload.key, payload.value, headers) is None:
                batches.append(bytes(builder.build()))
                self._sequences[place] = (self._sequences[place] + count) % _SEQUENCES
                builder, count = self._builder(place), 0
                builder.append(count, now_ms, payload.key, payload.value, headers)
            count += 1
        batches.append(bytes(builder.build()))
        self._sequences[place] = (self._sequences[place] + count) % _SEQUENCES
        return batches

    def _builder(self, place: TopicPartition) -> DefaultRecordBatchBuilder:
        producer, epoch = self._identity
        return DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=1,
            producer_id=producer,
            producer_epoch=epoch,
            base_sequence=self._sequences[place],
            batch_size=BATCH_BYTES,
        )

    async def _deliver(self, wave: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, int]:
        """Every batch to its leader. A batch that is sent twice is stored once: it carries its sequence number."""
        written: dict[TopicPartition, int] = {}
        unknown_until = time.monotonic() + _UNKNOWN_TOPIC_PATIENCE_S
        while True:
            missing = [place for place in wave if place not in written]
            if not missing:
                return written
            nodes = by_leader(self._client, missing)
            homeless = nodes.pop(-1, [])
            results = await asyncio.gather(
                *(self._produce_to(node, {place: wave[place] for place in places}) for node, places in nodes.items())
            )
            problem = Refused(min(LEADER_MOVED), "Produce", homeless[0].topic) if homeless else None
            for answers in results:
                for place, (code, offset) in answers.items():
                    if not code or code == DUPLICATE_SEQUENCE:
                        written[place] = offset
                        continue
                    problem = Refused(code, "Produce", place.topic)
                    unknown = code == UNKNOWN_TOPIC and time.monotonic() < unknown_until
                    if not unknown and code not in PASSING:
                        raise problem
            if problem is not None:
                self._check_patience(problem)
                for place in homeless:
                    _ = self._client.add_topic(place.topic)
                if homeless or problem.code in LEADER_MOVED | {UNKNOWN_TOPIC}:
                    await self._client.force_metadata_update()
                if not homeless:
                    await asyncio.sleep(_MARKERS_S if problem.code == CONCURRENT_TRANSACTIONS else self._backoff_s)

    async def _produce_to(self, node: int, wave: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, tuple[int, int]]:
        answers: dict[TopicPartition, tuple[int, int]] = {}
        for part in _portions(wave):
            topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
            for place, batch in part.items():
                topics[place.topic].append((place.partition, batch))
            request = ProduceRequest(self.transactional_id, _ALL_REPLICAS, self._request_ms, list(topics.items()))
            response = await self._client.send(node, request)
            for topic, partitions in response.topics:
                for partition, code, offset, *_ in partitions:
                    answers[TopicPartition(topic, partition)] = (code, offset)
        return answers

    async def _until_accepted(self, name: str, once: Callable[[], Awaitable[int]]) -> None:
        """Ask until the answer is yes; ``once`` raises what it will not have tried again."""
        while True:
            code = await once()
            if not code:
                return
            problem = Refused(code, name)
            if code not in PASSING and code != UNKNOWN_TOPIC:
                raise problem
            self._check_patience(problem)
            if code in COORDINATOR_MOVED:
                self._coordinator = self._group_coordinator = None
            await asyncio.sleep(_MARKERS_S if code == CONCURRENT_TRANSACTIONS else self._backoff_s)

    def _check_patience(self, problem: Refused) -> None:
        if time.monotonic() > self._give_up:
            raise problem

    async def _to_coordinator(self, request: Request[RequestStruct]) -> Response:
        if self._coordinator is None:
            self._coordinator = await self._look_up(CoordinationType.TRANSACTION, self.transactional_id)
        return await self._ask(self._coordinator, request)

    async def _to_group_coordinator(self, request: Request[RequestStruct], group: str) -> Response:
        if self._group_coordinator is None:
            self._group_coordinator = await self._look_up(CoordinationType.GROUP, group)
        return await self._ask(self._group_coordinator, request)

    async def _ask(self, node: int, request: Request[RequestStruct]) -> Response:
        try:
            return await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
        except KafkaError:
            self._coordinator = self._group_coordinator = None
            raise

    async def _look_up(self, kind: int, key: str) -> int:
        while True:
            try:
                return int(await self._client.coordinator_lookup(kind, key))
            except KafkaError as error:
                if not error.retriable or time.monotonic() > self._give_up:
                    raise
            await self._client.force_metadata_update()
            await asyncio.sleep(self._backoff_s)


def _portions(wave: Mapping[TopicPartition, bytes]) -> list[dict[TopicPartition, bytes]]:
    portions: list[dict[TopicPartition, bytes]] = [{}]
    size = 0
    for place, batch in wave.items():
        if portions[-1] and size + len(batch) > REQUEST_BYTES:
            portions.append({})
            size = 0
        portions[-1][place] = batch
        size += len(batch)
    return portions


async def _both(produce: Awaitable[dict[TopicPartition, int]], offsets: Awaitable[None]) -> dict[TopicPartition, int]:
    """Both side by side; the first failure is raised when both have ended, so that nothing is still under way."""
    producing, committing = asyncio.ensure_future(produce), asyncio.ensure_future(offsets)
    await asyncio.gather(producing, committing, return_exceptions=True)
    for each in (committing, producing):
        each.result()
    return producing.result()
