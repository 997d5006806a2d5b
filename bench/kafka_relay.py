"""What is measured where no application is: agents that pass a parcel on, and the loop that does the same with no platform."""

import asyncio
import importlib
import time
import types
from collections.abc import Callable
from functools import cache
from typing import cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from bench.kafka_place import Place
from pydantic import BaseModel

from pavane import Agent
from pavane_events.envelope import Envelope, Trace
from pavane_events.event import Event
from pavane_events.ids import uuid7
from pavane_events.record import Message

_BATCH = 500
_BACKOFF_S = 0.004
"""aiokafka waits 20 ms for the last transaction's markers; 4 ms, as the bus does, makes the bare loop faster by half."""


class Item(BaseModel):
    """One line of a parcel's list."""

    sku: str
    qty: int
    price: float


class Parcel(Event, type="bench.hop-0", version=1):
    """About 300 bytes by themselves; ``note`` fills them up."""

    id: str
    saga: str
    t0: int
    hop: int = 0
    note: str = ""
    items: tuple[Item, ...] = ()


class Plain(BaseModel):
    """The same without a contract, to be changed in place: as the prototypes' loop had it."""

    id: str
    saga: str
    t0: int
    hop: int = 0
    note: str = ""
    items: tuple[Item, ...] = ()


@cache
def hop(number: int) -> type[Parcel]:
    """The parcel as it is after so many agents."""
    if number == 0:
        return Parcel
    made = types.new_class(f"Hop{number}", (Parcel,), {"type": f"bench.hop-{number}", "version": 1})
    return cast("type[Parcel]", made)


def relay(number: int) -> Agent:
    """The agent that makes hop ``number + 1`` out of hop ``number``."""
    source, target = hop(number), hop(number + 1)
    agent = Agent(f"relay-{number}")

    async def forward(parcel: Parcel) -> Parcel:
        return target(id=parcel.id, saga=parcel.saga, t0=parcel.t0, hop=parcel.hop + 1, note=parcel.note, items=parcel.items)

    forward.__annotations__ = {"parcel": source, "return": target}
    agent.step(effects=False)(forward)
    return agent


def data_of(size: int) -> bytes:
    """A parcel's JSON of that many bytes, sent now."""
    items = tuple(Item(sku=f"sku-{number}", qty=number, price=number + 0.5) for number in range(5 if size > 500 else 2))
    bare = Parcel(id="0" * 32, saga="0" * 32, t0=time.monotonic_ns(), items=items)
    return bare.model_copy(update={"note": "x" * max(0, size - len(bare.to_json()))}).to_json()


def message_of(data: bytes, sampled_as: str | None = None) -> Message:
    """A parcel as an agent would publish it: a saga of its own, all headers; ``sampled_as``: its trace flags, in hex."""
    saga = uuid7()
    traceparent = f"00-{saga.replace('-', '')}-{saga.replace('-', '')[16:]}-{sampled_as}" if sampled_as is not None else None
    return Envelope(
        id=uuid7(),
        source="/agents/bench",
        type=Parcel.event_type,
        data=data,
        time="2026-11-22T23:30:00+00:00",
        subject="bench",
        dataschema=Parcel.dataschema(),
        saga=saga,
        causation=saga,
        causes=(saga,),
        step="bench/send",
        depth=1,
        declaration="0123456789abcdef",
        trace=Trace(traceparent),
    ).to_message()


async def bare_loop(place: Place, received: Callable[[], None], committed: Callable[[int], None]) -> None:
    """Consume, validate, publish, commit: one transactional producer, one consumer, what is there goes in one transaction.

    The prototypes' ``single``: exactly once as long as nothing goes wrong; no fencing by generation, no state.
    """
    vars(importlib.import_module("aiokafka.producer.sender"))["BACKOFF_OVERRIDE"] = _BACKOFF_S
    source, target = (place.prefix + hop(number).event_type for number in (0, 1))
    group = place.prefix + "bare"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.broker.servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=1 << 20,
    )
    consumer.assign([TopicPartition(source, number) for number in range(place.partitions)])
    producer = AIOKafkaProducer(
        bootstrap_servers=place.broker.servers,
        transactional_id=group,
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=262_144,
        max_request_size=4 << 20,
        retry_backoff_ms=20,
    )
    async with consumer, producer:
        while True:
            found = await consumer.getmany(timeout_ms=200, max_records=_BATCH)
            count = sum(map(len, found.values()))
            if not count:
                continue
            received()
            await producer.begin_transaction()
            sent = [
                await producer.send(target, _handle(record.value), record.key, record.partition, headers=list(record.headers))
                for records in found.values()
                for record in records
            ]
            offsets = {where: records[-1].offset + 1 for where, records in found.items()}
            await producer.send_offsets_to_transaction(offsets, group)
            await asyncio.gather(*sent)  # a commit does not look whether deliveries failed
            await producer.commit_transaction()
            committed(count)


def _handle(value: bytes | None) -> bytes:
    parcel = Plain.model_validate_json(value or b"")
    parcel.hop += 1
    return parcel.model_dump_json().encode()
