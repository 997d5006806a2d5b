"""Two requests in the versions that aiokafka 0.14 lacks, as its protocol classes: who commits, and whether it is settled.

TxnOffsetCommit v3 (KIP-447) carries the group's generation and member, so that a broker refuses a member that has lost
its place. OffsetFetch v7 can ask for stable offsets: it is refused while a transaction on them is open.
Source: the message definitions of Apache Kafka 4.1, ``TxnOffsetCommitRequest.json`` and ``OffsetFetchRequest.json``.
"""

from collections.abc import Sequence

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

UNSTABLE_OFFSET_COMMIT = 88
_TEXT = CompactString("utf-8")
_TAGS = ("tags", TaggedFields)

Offset = tuple[int, int, int, str, dict[int, bytes]]
"""Partition, offset, leader epoch, metadata, no tags."""


class TxnOffsetCommitResponseV3(Response):
    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                ("partitions", CompactArray(("partition", Int32), ("error_code", Int16), _TAGS)),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class TxnOffsetCommitRequestV3(RequestStruct):
    API_KEY = 28
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = TxnOffsetCommitResponseV3
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("group_id", _TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _TEXT), _TAGS),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class TxnOffsetCommit(Request[TxnOffsetCommitRequestV3]):
    """Offsets of a group, as part of a transaction, by a member of a generation."""

    API_KEY = 28

    def __init__(
        self,
        transactional_id: str,
        group: str,
        producer: tuple[int, int],
        member: tuple[int, str, str | None],
        topics: Sequence[tuple[str, list[Offset], dict[int, bytes]]],
    ) -> None:
        self._fields: tuple[object, ...] = (transactional_id, group, *producer, *member, list(topics), {})

    def build(self, request_struct_class: type[TxnOffsetCommitRequestV3]) -> TxnOffsetCommitRequestV3:
        """The request on the wire."""
        return request_struct_class(*self._fields)


class OffsetFetchResponseV7(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                        ("error_code", Int16),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("error_code", Int16),
        _TAGS,
    )


class OffsetFetchRequestV7(RequestStruct):
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponseV7
    SCHEMA = Schema(
        ("group_id", _TEXT),
        ("topics", CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), _TAGS)),
        ("require_stable", Boolean),
        _TAGS,
    )


class OffsetFetch(Request[OffsetFetchRequestV7]):
    """What a group has committed; with ``stable``, refused (88) while a transaction on any of it is open."""

    API_KEY = 9

    def __init__(self, group: str, topics: Sequence[tuple[str, list[int], dict[int, bytes]]], *, stable: bool) -> None:
        self._fields: tuple[object, ...] = (group, list(topics), stable, {})

    def build(self, request_struct_class: type[OffsetFetchRequestV7]) -> OffsetFetchRequestV7:
        """The request on the wire."""
        return request_struct_class(*self._fields)
