"""Places: which partition of which topic a message goes to, and whether the brokers have it."""

from collections.abc import Collection, Mapping, Sequence

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.failures import translated
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.transactions import Payload
from pavane_events.buses.placing import Placing, unknown_topic
from pavane_events.buses.spilling_state import Room
from pavane_events.errors import BusUnavailable, RecordTooLarge
from pavane_events.record import Message
from pavane_events.topics import wrong_partitions


class Places:
    """The topics of a deployment as far as anybody asked, and the rules by which messages are placed on them.

    What was found once is believed: a topic that is deleted under a running deployment shows when it is written to.
    """

    def __init__(
        self, client: AIOKafkaClient, options: KafkaOptions, partitions: int, max_record_bytes: int, room: Room
    ) -> None:
        self.options = options
        self.partitions = partitions
        self.max_record_bytes = max_record_bytes
        self.room = room
        self._client = client
        self._placing = Placing(partitions, max_record_bytes)
        self._known: set[str] = set()
        self._names: dict[tuple[str, int], TopicPartition] = {}

    def of(self, topic: str, partition: int) -> TopicPartition:
        """A partition as the brokers name it."""
        place = self._names.get((topic, partition))
        if place is None:
            place = self._names[topic, partition] = TopicPartition(self.options.physical(topic), partition)
        return place

    async def place(self, messages: Sequence[Message]) -> list[tuple[TopicPartition, Payload]]:
        """Check messages and find their partitions. Raises RecordTooLarge, UnknownTopic."""
        for message in messages:
            if message.size() > self.max_record_bytes:
                self._placing.check_size(message)
        unknown = {message.topic for message in messages} - self._known
        if unknown:
            await self.check(unknown)
        partition = self._placing.partition
        return [(self.of(message.topic, partition(message)), message) for message in messages]

    async def check(self, topics: Collection[str]) -> None:
        """Raise UnknownTopic for the first that does not exist, ConfigurationError where one has other partitions."""
        new = sorted(set(topics) - self._known)
        if not new:
            return
        physical = {self.options.physical(topic): topic for topic in new}
        found = await self._counts(physical)
        for name, topic in physical.items():
            if name not in found:
                raise unknown_topic(topic)
        wrong = {physical[name]: count for name, count in found.items() if count != self.partitions}
        if wrong:
            raise wrong_partitions(wrong, self.partitions)
        self._known.update(new)

    async def _counts(self, names: Collection[str]) -> Mapping[str, int]:
        """How many partitions topics have, of those that exist. Raises BusUnavailable where no broker says so."""
        for name in names:
            _ = self._client.add_topic(name)
        found: dict[str, int] = {}
        answered = False
        for _ in range(2):  # the update that was under way when we asked may be too old
            try:
                answered = await self._client.force_metadata_update()
            except KafkaError as error:
                raise translated(error, "the list of topics") from error
            cluster = self._client.cluster
            found = {name: len(parts) for name in names if (parts := cluster.partitions_for_topic(name))}
            if len(found) == len(names):
                return found
        if not answered:  # what is not known is not missing
            raise BusUnavailable("Kafka cannot be reached for the list of topics: no broker answers")
        return found

    def check_state(self, topic: str, state: Mapping[bytes, bytes | None]) -> None:
        """Raise RecordTooLarge for a state that the bus does not take."""
        for key, value in state.items():
            size = len(key) + len(value or b"")
            if size > self.max_record_bytes:
                raise RecordTooLarge(f"a state of {size} bytes for {topic!r}, the bus takes {self.max_record_bytes}: split it")
