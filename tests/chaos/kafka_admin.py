"""What an operator does to topics behind everybody's back, by a foreign client."""

from concurrent.futures import Future
from typing import Protocol, cast

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.admin._resource import ResourceType

from support.exporting import until

_PATIENCE_S = 30.0


class _Admin(Protocol):
    """The client, as far as it is used here: its own types leave open what its futures bring."""

    def delete_topics(self, topics: list[str], *, operation_timeout: float) -> dict[str, Future[None]]: ...

    def incremental_alter_configs(self, resources: list[ConfigResource]) -> dict[ConfigResource, Future[None]]: ...

    def describe_configs(self, resources: list[ConfigResource]) -> dict[ConfigResource, Future[dict[str, ConfigEntry]]]: ...

    def list_topics(self, *, timeout: float) -> ClusterMetadata: ...


def delete_topic(servers: str, topic: str) -> None:
    """Delete a topic. It is gone on return, as far as the broker knows that is asked."""
    client = _client(servers)
    client.delete_topics([topic], operation_timeout=_PATIENCE_S)[topic].result(_PATIENCE_S)
    until(lambda: topic not in client.list_topics(timeout=_PATIENCE_S).topics)


def limit_messages(servers: str, topic: str, most_bytes: int) -> None:
    """Let a topic take no batch that is larger. It is so on return, as far as the broker says that is asked."""
    client = _client(servers)
    entry = ConfigEntry("max.message.bytes", str(most_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(_PATIENCE_S)
    asked = ConfigResource(ResourceType.TOPIC, topic)
    until(lambda: client.describe_configs([asked])[asked].result(_PATIENCE_S)["max.message.bytes"].value == str(most_bytes))


def _client(servers: str) -> _Admin:
    # whoever drops it drops what it has under way
    return cast("_Admin", AdminClient({"bootstrap.servers": servers, "log_level": 0}))
