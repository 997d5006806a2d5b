"""The bus on Apache Kafka: exactly-once lanes, state in changelogs, everything explicit. See docs/decisions/0007."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from pavane_events.bus import MAX_RECORD_BYTES, Start, TopicSpec
from pavane_events.buses.kafka.admin import Admin
from pavane_events.buses.kafka.client import check_version
from pavane_events.buses.kafka.connecting import Door, close, connect
from pavane_events.buses.kafka.failures import Refused, translated
from pavane_events.buses.kafka.fetching import EARLIEST, LATEST, list_offsets
from pavane_events.buses.kafka.lanes import KafkaLanes, LaneHealth
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.places import Places
from pavane_events.buses.kafka.publisher import Publisher
from pavane_events.buses.kafka.reading import read_to
from pavane_events.buses.kafka.requests import Client
from pavane_events.buses.placing import check_partition
from pavane_events.buses.spilling_state import ROOM_BYTES, Room
from pavane_events.errors import BusUnavailable
from pavane_events.record import Message, Record
from pavane_events.topics import DEFAULT_PARTITIONS, state_topic, usual_partitions, wanted_topics


class KafkaBus:
    """See :class:`~pavane_events.bus.Bus`. Needs brokers of Kafka 2.5 or newer; made for and tested with 4.1."""

    def __init__(self, servers: str, client: AIOKafkaClient, places: Places) -> None:
        self._servers = servers
        self._client = client
        self._places = places
        self._options = places.options
        self._admin = Admin(client, places.options)
        self._publisher = Publisher(self._connect, self._knock, places.options)
        self._members: list[KafkaLanes] = []
        self._closed = False

    @classmethod
    async def open(
        cls,
        servers: str,
        partitions: int | None = None,
        options: KafkaOptions | None = None,
        *,
        max_record_bytes: int = MAX_RECORD_BYTES,
        state_bytes: int = ROOM_BYTES,
    ) -> "KafkaBus":
        """Connect. ``partitions``: of this deployment's topics; None: as most of those that exist have, else 4.

        ``state_bytes``: how much of the state of all its lanes is kept in memory; the rest lies in files.

        Raises :class:`BusUnavailable` where no broker answers, :class:`ConfigurationError` where they refuse.
        """
        check_version()
        chosen = options or KafkaOptions()
        client = await connect(servers, chosen, client_id=chosen.physical("bus"))
        try:
            if partitions is None:
                found = await Admin(client, chosen).describe()
                wanted = wanted_topics([TopicSpec(name) for name in found], (), chosen.topic_rules)
                partitions = usual_partitions(wanted, found) or DEFAULT_PARTITIONS
        except BaseException:
            await close(client)
            raise
        return cls(servers, client, Places(client, chosen, partitions, max_record_bytes, Room(state_bytes, chosen.state_dir)))

    @property
    def partitions(self) -> int:
        """How many partitions every topic of this deployment has."""
        return self._places.partitions

    @property
    def embedded(self) -> bool:
        """No: topics are made by ``pavane topics apply``, and spans go to a collector."""
        return False

    @property
    def keeps_s(self) -> float | None:
        """As the deployment is told; `pavane topics diff` says where topics differ."""
        return self._options.retention_days * 86_400

    async def create_topics(self, specs: Collection[TopicSpec]) -> None:
        """Create the topics that do not exist. Those that do are left as they are."""
        found = await self._admin.list_topics()
        new = [spec for spec in specs if spec.name not in found]
        if new:
            await self._admin.create(wanted_topics(new, (), self._options.topic_rules), self.partitions)
            await self._admin.wait_for_leaders([spec.name for spec in new])

    async def topics(self) -> Collection[str]:
        """The names of all topics of this deployment."""
        return await self._admin.list_topics()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Append messages from outside any lane; see the port."""
        self._check_open()
        await self._publisher.publish(await self._places.place(messages))

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> KafkaLanes:
        """Join a group; see the port. The group's changelog is made where it does not exist."""
        self._check_open()
        await self._places.check(topics)
        await self.create_topics([TopicSpec(state_topic(group), compacted=True)])
        await self._places.check([state_topic(group)])
        lanes = KafkaLanes(self._places, Door(self._servers, self._options), group, topics, start, earliest)
        self._members.append(lanes)
        await lanes.open()
        return lanes

    async def read(
        self,
        topic: str,
        *,
        partition: int | None = None,
        start: int = 0,
        end: int | None = None,
        key: bytes | None = None,
    ) -> AsyncIterator[Record]:
        """Look at a topic without a group; see the port. Waits for transactions that are open when it begins."""
        self._check_open()
        await self._places.check([topic])
        if partition is not None:
            check_partition(topic, partition, self.partitions)
        numbers = range(self.partitions) if partition is None else [partition]
        places = [self._places.of(topic, number) for number in numbers]
        try:
            begins = await list_offsets(self._client, places, EARLIEST)
            ends = await list_offsets(self._client, places, LATEST)
            for place in places:
                stop = ends[place] if end is None else min(end, ends[place])
                async for records, _ in read_to(self._client, place, max(start, begins[place]), stop):
                    for record in records:
                        if key is None or record.key == key:
                            record.topic = topic
                            yield record
        except (KafkaError, Refused) as error:
            raise translated(error, f"reading {topic}") from error

    async def table(self, topic: str) -> Mapping[bytes, Record]:
        """A compacted topic as a table: the latest record of each key that is not deleted."""
        rows: dict[bytes, Record] = {}
        async for record in self.read(topic):
            if record.key is None:
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record
        return rows

    def health(self) -> list[LaneHealth]:
        """How every lane that this process holds does."""
        return [each for member in self._members for each in member.health()]

    def unready(self) -> str:
        """Why not every group has its lanes yet; empty where all have."""
        if not self._members:
            return "no group has been joined yet"
        waiting = [member.group for member in self._members if not member.settled]
        return f"the lanes of {', '.join(waiting)} are not open yet" if waiting else ""

    async def close(self) -> None:
        """Give up every lane and let go of the bus. Idempotent."""
        if self._closed:
            return
        self._closed = True
        async with AsyncExitStack() as closing:  # all of it, also where it is cut short
            closing.push_async_callback(close, self._client)
            closing.push_async_callback(self._publisher.close)
            await asyncio.gather(*(member.close() for member in self._members))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _connect(self, client_id: str) -> Client:
        return await connect(self._servers, self._options, client_id=client_id)

    async def _knock(self) -> None:
        await Door(self._servers, self._options).knock()

    def _check_open(self) -> None:
        if self._closed:
            raise BusUnavailable("the bus was closed")
