"""The same by the loop of aiokafka's documentation, word for word but for names: consume, transform, produce in transactions.

    python -m chaos.kafka_stock '{"servers": ..., "prefix": ...}'

Source: aiokafka 0.14, "Transactional Consume-Process-Produce". It says ``caught``, ``committed`` and ``refused``.
"""

import asyncio
import os
import signal
import sys
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from chaos.kafka_order import Order, output_value
from chaos.kafka_worker import say


async def work(order: Order) -> None:
    """For ever."""
    group = order.prefix + order.group
    consumer = AIOKafkaConsumer(
        order.prefix + order.source,
        bootstrap_servers=order.servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        group_id=group,
        isolation_level="read_committed",
        session_timeout_ms=order.session_ms,
        heartbeat_interval_ms=order.heartbeat_ms,
    )
    await consumer.start()
    producer = AIOKafkaProducer(bootstrap_servers=order.servers, transactional_id=f"{group}-{uuid.uuid4().hex[:8]}")
    await producer.start()
    say("ready")
    stops = order.stop == "before commit"
    while True:
        batches = await consumer.getmany(timeout_ms=500)
        if not batches:
            continue
        outputs = [
            (record.key, output_value(record.value or b"", record.offset, 0))
            for records in batches.values()
            for record in records
        ]
        if stops:
            stops = False
            say("caught")
            os.kill(os.getpid(), signal.SIGSTOP)
        try:
            async with producer.transaction():
                for key, value in outputs:
                    _ = await producer.send(order.prefix + order.target, value=value, key=key)
                offsets = {place: records[-1].offset + 1 for place, records in batches.items()}
                await producer.send_offsets_to_transaction(offsets, group)
        except KafkaError as error:
            say(f"refused {error!r}")
        else:
            say("committed")


if __name__ == "__main__":
    asyncio.run(work(Order.from_json(sys.argv[1])))
