"""What every adapter checks before it writes a message, and which partition the message goes to."""

from pavane_events.errors import RecordTooLarge, UnknownTopic
from pavane_events.partition import partition_of
from pavane_events.record import Message


class Placing:
    """Sizes and partitions, the same on every embedded bus. Messages without a key go round the partitions in turn."""

    def __init__(self, partitions: int, max_record_bytes: int) -> None:
        self.partitions = partitions
        self.max_record_bytes = max_record_bytes
        self._turn = 0

    def partition(self, message: Message) -> int:
        """The partition of a message. Raises UnknownTopic if it names one that its topic does not have."""
        if message.partition is not None:
            check_partition(message.topic, message.partition, self.partitions)
            return message.partition
        if message.key is not None:
            return partition_of(message.key, self.partitions)
        self._turn = (self._turn + 1) % self.partitions
        return self._turn

    def check_size(self, message: Message) -> None:
        """Raise RecordTooLarge if the message is larger than the bus takes."""
        size = message.size()
        if size > self.max_record_bytes:
            raise RecordTooLarge(
                f"a message to {message.topic!r} has {size} bytes, the bus takes {self.max_record_bytes}: "
                "store the content elsewhere and send a reference to it"
            )


def check_partition(topic: str, partition: int, partitions: int) -> None:
    """Raise UnknownTopic for a partition that no topic has."""
    if not 0 <= partition < partitions:
        raise UnknownTopic(f"topic {topic!r} has no partition {partition}: its partitions are 0 to {partitions - 1}")


def unknown_topic(name: str) -> UnknownTopic:
    """The error for a topic that does not exist."""
    return UnknownTopic(f"topic {name!r} does not exist: create it with create_topics, or correct its name")
