"""Reading: what lies committed on a partition, from one offset to another, without a lane."""

import asyncio
from collections.abc import AsyncIterator

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.failures import LEADER_MOVED, PASSING, Refused
from pavane_events.buses.kafka.fetching import EARLIEST, OFFSET_OUT_OF_RANGE, PATIENCE_S, PAUSE_S, fetch_once, list_offsets
from pavane_events.record import Record


async def read_to(
    client: AIOKafkaClient, place: TopicPartition, start: int, end: int, wait_ms: int = 50
) -> AsyncIterator[tuple[list[Record], int]]:
    """Portions of a partition's committed records from ``start`` up to but not ``end``, each with the offset after it.

    Waits where ``end`` lies beyond what is committed, until the transactions that are open there end.
    """
    offset = start
    loop = asyncio.get_running_loop()
    failing_since: float | None = None
    while offset < end:
        try:
            node = client.cluster.leader_for_partition(place)
            if node is None or node == -1:
                raise Refused(next(iter(LEADER_MOVED)), "Fetch", place.topic)
            _, _, code, portions = await fetch_once(client, node, place, offset, wait_ms)
            if code == OFFSET_OUT_OF_RANGE:  # retention was faster than we
                offset = max(offset, (await list_offsets(client, [place], EARLIEST))[place])
                continue
            if code:
                raise Refused(code, "Fetch", place.topic)
        except (KafkaError, Refused) as error:
            failing_since = failing_since or loop.time()
            if loop.time() - failing_since > PATIENCE_S or (isinstance(error, Refused) and error.code not in PASSING | {3}):
                raise
            await client.force_metadata_update()
            await asyncio.sleep(PAUSE_S)
            continue
        failing_since = None
        for records, after in portions:
            offset = after
            if records and records[-1].offset >= end:
                records = [record for record in records if record.offset < end]
            yield records, min(after, end)
            if after >= end:
                return
