"""Fetching: records of a partition as they lie on a broker, committed ones only; and where a partition ends."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.failures import PASSING, Refused
from pavane_events.buses.kafka.fetch_protocol import NEW_SESSION, NO_SESSION, Fetch, Fetched, SessionResponse
from pavane_events.errors import BusUnavailable
from pavane_events.record import Columns, Record

UNCOMMITTED, COMMITTED = 0, 1
EARLIEST, LATEST = -2, -1
OFFSET_OUT_OF_RANGE: Final = 1
UNKNOWN_TOPIC: Final = 3

PARTITION_FETCH_BYTES: Final = 256 * 1024
"""Per partition and request; a record that is larger comes alone (KIP-74). It bounds what waits in memory."""

FETCH_BYTES: Final = 1024 * 1024
"""Per request."""

PORTION_RECORDS: Final = 64
"""What is unpacked in one turn of the event loop, and worked on while the processor still has it at hand: a tenth faster."""

PAUSE_S: Final = 0.05
_SESSION_ENDED: Final = frozenset({70, 71})
"""FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH: say everything anew."""

_EPOCHS: Final = 2**31 - 1
PATIENCE_S: Final = 30.0


Portion = tuple[list[Record], int]
"""Records, and the offset to go on from."""


def unpack(
    data: bytes, aborted: Iterable[tuple[int, int]] | None, topic: str, partition: int, offset: int
) -> Iterator[Portion]:
    """The committed records at or above an offset in what a broker sent, in portions; one at least.

    ``aborted``: producer and first offset of each aborted transaction, as the broker says. Source: KIP-98.
    Raises BusUnavailable for a batch that is damaged.
    """
    records: list[Record] = []
    batches = MemoryRecords(data)
    waiting = sorted(aborted or (), key=lambda each: each[1])
    gone: set[int] = set()
    names: tuple[str, ...] = ()
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise BusUnavailable(f"a batch of {topic}[{partition}] at {batch.base_offset} is damaged: its checksum is wrong")
        producer = batch.producer_id
        while waiting and waiting[0][1] <= batch.base_offset:
            gone.add(waiting.pop(0)[0])
        if batch.is_control_batch:
            if producer in gone and ControlRecord.parse(next(batch).key or b"") == ABORT_MARKER:
                gone.discard(producer)
        elif not (batch.is_transactional and producer in gone):
            for each in batch:
                at = each.offset
                if at >= offset:
                    columns = _columns(each.headers, names)
                    names = columns[0]
                    records.append(Record(topic, partition, at, each.key, each.value, None, each.timestamp, None, columns))
                    if len(records) == PORTION_RECORDS:
                        yield records, at + 1
                        records = []
        offset = max(offset, batch.next_offset)
    yield records, offset


def _columns(headers: list[tuple[str, bytes | None]], last: tuple[str, ...]) -> Columns:
    """Names, mostly those of the record before, and values. Kafka knows headers without a value; here they are empty."""
    if not headers:
        return (), ()
    names, values = zip(*headers, strict=True)
    if None in values:
        values = tuple(value or b"" for value in values)
    return last if names == last else names, values


class Answer(NamedTuple):
    """What a fetch brought of one partition: from where, with which error code, and what is unpacked as it is iterated."""

    place: TopicPartition
    asked: int
    code: int
    portions: Iterator[Portion]


class FetchSession:
    """Fetches from one node, one after another. After an error the next fetch begins a session anew."""

    def __init__(self, client: AIOKafkaClient, node: int, wait_ms: int) -> None:
        self._client = client
        self._node = node
        self._wait_ms = wait_ms
        self._session = NEW_SESSION
        self._said: dict[TopicPartition, int] = {}

    async def fetch(self, wanted: Mapping[TopicPartition, int]) -> list[Answer]:
        """What came of these partitions from these offsets on; only those of which there is news. Raises KafkaError."""
        said, self._said = self._said, {}
        session, self._session = self._session, NEW_SESSION
        changed = {place: offset for place, offset in wanted.items() if said.get(place) != offset}
        response = await _send(self._client, self._node, changed, said.keys() - wanted.keys(), session, self._wait_ms)
        if response.error_code in _SESSION_ENDED:
            return []
        if response.error_code:
            raise for_code(response.error_code)()
        self._session = (response.session_id, session[1] % _EPOCHS + 1) if response.session_id else NEW_SESSION
        answers = [_unpacked(each, wanted[each.place]) for each in response.fetched if each.place in wanted]
        self._said = dict(wanted) if response.session_id else {}
        for answer in answers:
            if answer.code:
                self._said.pop(answer.place, None)  # not there where the broker gave no session
        return answers


async def fetch_once(client: AIOKafkaClient, node: int, place: TopicPartition, offset: int, wait_ms: int) -> Answer:
    """One fetch of one partition, outside any session. Raises KafkaError."""
    response = await _send(client, node, {place: offset}, (), NO_SESSION, wait_ms)
    if response.error_code:
        raise for_code(response.error_code)()
    (fetched,) = response.fetched
    return _unpacked(fetched, offset)


async def _send(
    client: AIOKafkaClient,
    node: int,
    wanted: Mapping[TopicPartition, int],
    forgotten: Iterable[TopicPartition],
    session: tuple[int, int],
    wait_ms: int,
) -> SessionResponse:
    request = Fetch(
        wanted,
        forgotten,
        session=session,
        wait_ms=wait_ms,
        most_bytes=FETCH_BYTES,
        partition_bytes=PARTITION_FETCH_BYTES,
    )
    return cast("SessionResponse", await client.send(node, request))


def _unpacked(fetched: Fetched, asked: int) -> Answer:
    place, code, aborted, data = fetched
    return Answer(place, asked, code, unpack(data, aborted, *place, asked) if data and not code else iter(()))


async def list_offsets(
    client: AIOKafkaClient, places: Collection[TopicPartition], which: int, isolation: int = UNCOMMITTED
) -> dict[TopicPartition, int]:
    """The earliest or latest offset of partitions; by isolation, the high watermark or the last stable offset.

    Waits for leaders that move. Raises :class:`Refused` (3: no such topic), and KafkaError when patience ends.
    """
    found: dict[TopicPartition, int] = {}
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE_S
    missing = 0
    while len(found) < len(places):
        by_node = by_leader(client, [place for place in places if place not in found])
        results = await asyncio.gather(
            *(_list_at(client, node, mine, which, isolation) for node, mine in by_node.items() if node >= 0),
            return_exceptions=True,
        )
        problem: BaseException | None = None
        for result in results:
            if isinstance(result, BaseException):
                if not isinstance(result, KafkaError | Refused):
                    raise result
                problem = result
            else:
                found.update(result)
        if len(found) == len(places):
            break
        missing += 1
        if isinstance(problem, Refused) and problem.code not in PASSING and (problem.code != UNKNOWN_TOPIC or missing > 5):
            raise problem
        if loop.time() > give_up:
            raise problem or KafkaError("no leader for " + ", ".join(map(str, by_node.get(-1, ()))))
        await client.force_metadata_update()
        await asyncio.sleep(PAUSE_S)
    return found


def by_leader(client: AIOKafkaClient, places: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
    """Partitions by the node that leads them; under -1 those whose leader is not known."""
    nodes: dict[int, list[TopicPartition]] = defaultdict(list)
    for place in places:
        leader = client.cluster.leader_for_partition(place)
        nodes[-1 if leader is None else leader].append(place)
    return nodes


async def _list_at(
    client: AIOKafkaClient, node: int, places: Iterable[TopicPartition], which: int, isolation: int
) -> dict[TopicPartition, int]:
    topics: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place in places:
        topics[place.topic].append((place.partition, which))
    response = await client.send(node, OffsetRequest(-1, isolation, list(topics.items())))
    found: dict[TopicPartition, int] = {}
    for topic, partitions in response.topics:
        for partition, code, _, offset, *_ in partitions:
            if code:
                raise Refused(code, "ListOffsets", topic)
            found[TopicPartition(topic, partition)] = offset
    return found
