"""Two administrative requests that aiokafka 0.14 lacks, as its protocol classes.

CreateTopics v4 (KIP-464) may leave the replication factor to the brokers. IncrementalAlterConfigs v0 (KIP-339) changes
the settings it names; the older AlterConfigs puts every other setting of the topic back to its default.
Source: the message definitions of Apache Kafka 4.1, ``CreateTopicsRequest.json`` and ``IncrementalAlterConfigsRequest.json``.
"""

from collections.abc import Sequence

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

SET = 0
TOPIC = 2
BROKERS_DEFAULT = -1
_TEXT = String("utf-8")

Assignment = tuple[int, list[int]]
Setting = tuple[str, str]
NewTopic = tuple[str, int, int, list[Assignment], list[Setting]]
"""Name, partitions, replication factor, no assignments, settings."""

Alteration = tuple[int, str, list[tuple[str, int, str]]]
"""``TOPIC``, name, and by setting ``SET`` and its value."""


class CreateTopicsResponse_v4(Response):
    API_KEY = 19
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topic_errors", Array(("topic", _TEXT), ("error_code", Int16), ("error_message", _TEXT))),
    )


class CreateTopicsRequest_v4(RequestStruct):
    API_KEY = 19
    API_VERSION = 4
    RESPONSE_TYPE = CreateTopicsResponse_v4
    SCHEMA = Schema(
        (
            "topics",
            Array(
                ("topic", _TEXT),
                ("num_partitions", Int32),
                ("replication_factor", Int16),
                ("assignments", Array(("partition_id", Int32), ("replicas", Array(Int32)))),
                ("configs", Array(("config_key", _TEXT), ("config_value", _TEXT))),
            ),
        ),
        ("timeout_ms", Int32),
        ("validate_only", Boolean),
    )


class CreateTopics(Request[CreateTopicsRequest_v4]):
    """New topics, each made or refused by itself."""

    API_KEY = 19

    def __init__(self, topics: Sequence[NewTopic], timeout_ms: int, *, validate_only: bool) -> None:
        self._fields = (list(topics), timeout_ms, validate_only)

    def build(self, request_struct_class: type[CreateTopicsRequest_v4]) -> CreateTopicsRequest_v4:
        """The request on the wire."""
        return request_struct_class(*self._fields)


class IncrementalAlterConfigsResponse_v0(Response):
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(("error_code", Int16), ("error_message", _TEXT), ("resource_type", Int8), ("resource_name", _TEXT)),
        ),
    )


class IncrementalAlterConfigsRequest_v0(RequestStruct):
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = IncrementalAlterConfigsResponse_v0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", _TEXT),
                ("configs", Array(("name", _TEXT), ("config_operation", Int8), ("value", _TEXT))),
            ),
        ),
        ("validate_only", Boolean),
    )


class IncrementalAlterConfigs(Request[IncrementalAlterConfigsRequest_v0]):
    """Changes to settings, each topic's made or refused by itself; what is not named stays."""

    API_KEY = 44

    def __init__(self, resources: Sequence[Alteration], *, validate_only: bool) -> None:
        self._fields = (list(resources), validate_only)

    def build(self, request_struct_class: type[IncrementalAlterConfigsRequest_v0]) -> IncrementalAlterConfigsRequest_v0:
        """The request on the wire."""
        return request_struct_class(*self._fields)
