"""Fetch v7 (KIP-227): a session in which only what changes is said again, and an answer that is read at once.

aiokafka decodes field by field, which costs more than the records do where a member reads many partitions.
Source: ``FetchRequest.json`` and ``FetchResponse.json`` of Apache Kafka 4.1.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import NamedTuple

from aiokafka.protocol.api import Request
from aiokafka.protocol.fetch import FetchRequest_v7, FetchResponse_v7
from aiokafka.structs import TopicPartition

_HEAD = struct.Struct(">ihii")
_PARTITION = struct.Struct(">ihqqqi")
_ABORTED = struct.Struct(">qq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")

NO_SESSION = (0, -1)
NEW_SESSION = (0, 0)


class Fetched(NamedTuple):
    """What a broker sent of one partition. ``aborted``: producer and first offset of aborted transactions."""

    place: TopicPartition
    code: int
    aborted: list[tuple[int, int]]
    data: bytes


class SessionResponse(FetchResponse_v7):
    """``error_code``, ``session_id`` and ``fetched``."""

    error_code: int
    session_id: int
    fetched: list[Fetched]

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> "SessionResponse":
        """Read the whole answer."""
        view = data.read() if isinstance(data, BytesIO) else data
        _, code, session, topics = _HEAD.unpack_from(view)
        at = _HEAD.size
        fetched: list[Fetched] = []
        for _ in range(topics):
            (length,) = _INT16.unpack_from(view, at)
            topic = view[at + 2 : at + 2 + length].decode()
            (partitions,) = _INT32.unpack_from(view, at + 2 + length)
            at += 6 + length
            for _ in range(partitions):
                partition, problem, _, _, _, aborted = _PARTITION.unpack_from(view, at)
                at += _PARTITION.size
                gone: list[tuple[int, int]] = []
                for _ in range(max(0, aborted)):
                    producer, first = _ABORTED.unpack_from(view, at)
                    gone.append((producer, first))
                    at += _ABORTED.size
                (size,) = _INT32.unpack_from(view, at)
                at += 4
                records = view[at : at + size] if size > 0 else b""
                at += max(0, size)
                fetched.append(Fetched(TopicPartition(topic, partition), problem, gone, records))
        response = cls.__new__(cls)
        response.error_code, response.session_id, response.fetched = code, session, fetched
        return response


class SessionRequest(FetchRequest_v7):
    RESPONSE_TYPE = SessionResponse


class Fetch(Request[SessionRequest]):
    """A fetch of committed records; within a session, of partitions whose place has changed and of all the others."""

    API_KEY = 1

    def __init__(
        self,
        wanted: Mapping[TopicPartition, int],
        forgotten: Iterable[TopicPartition],
        *,
        session: tuple[int, int],
        wait_ms: int,
        most_bytes: int,
        partition_bytes: int,
    ) -> None:
        topics: dict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
        for place, offset in wanted.items():
            topics[place.topic].append((place.partition, offset, -1, partition_bytes))
        left: dict[str, list[int]] = defaultdict(list)
        for place in forgotten:
            left[place.topic].append(place.partition)
        replica, least_bytes, committed = -1, 1, 1
        self._fields = (
            replica,
            wait_ms,
            least_bytes,
            most_bytes,
            committed,
            *session,
            list(topics.items()),
            list(left.items()),
        )

    def build(self, request_struct_class: type[SessionRequest]) -> SessionRequest:
        """The request on the wire."""
        return request_struct_class(*self._fields)
