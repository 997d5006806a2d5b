"""A small choreography for the tests of the command line: orders are paid, packed and shipped, or refused and undone."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from pavane import Agent, Event, Rejected, Retry, Saga
from pavane.plan import plan_of
from pavane.runner import run
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message
from pavane_saga.intake import saga_id_of
from pavane_saga.manifest import SagaPlan
from pavane_saga.saga import SagaEnded
from pavane_saga.story import Story, read_story
from pavane_saga.wire import AGENTS as AGENTS_TOPIC
from pavane_saga.wire import FACTS

REFUSED, DECLINED, STUCK = 500, 666, 13
"""Amounts that ship refuses, that charge rejects, and whose packing is refused by the shop floor and cannot be undone."""


class OrderPlaced(Event, type="toy.order-placed"):
    order_id: str
    amount: int


class Paid(Event, type="toy.paid"):
    order_id: str
    amount: int


class Packed(Event, type="toy.packed"):
    order_id: str


class Shipped(Event, type="toy.shipped"):
    order_id: str


class Refused(Event, type="toy.refused"):
    order_id: str


payment = Agent("payment")
packing = Agent("packing")
shipping = Agent("shipping")


@payment.step
async def charge(order: OrderPlaced) -> Paid:
    if order.amount == DECLINED:
        raise Rejected("the card was declined")
    return Paid(order_id=order.order_id, amount=order.amount)


@charge.compensate
async def refund(order: OrderPlaced, done: Paid | None) -> None:
    """There is nothing to give back."""


@packing.step
async def pack(order: OrderPlaced) -> Packed:
    return Packed(order_id=order.order_id)


@pack.compensate(retry=Retry(attempts=1))
async def unpack(order: OrderPlaced, done: Packed | None) -> None:
    if order.amount == STUCK:
        raise OSError("the parcel is glued")


@shipping.step(effects=False)
async def ship(paid: Paid, packed: Packed) -> Shipped | Refused:
    if paid.amount in (REFUSED, STUCK):
        return Refused(order_id=paid.order_id)
    return Shipped(order_id=paid.order_id)


orders = Saga(
    "order",
    starts=OrderPlaced,
    completes=Shipped,
    fails=Refused,
    deadline=timedelta(minutes=5),
    intake="toy.orders",
)
AGENTS = [payment, packing, shipping]
EVERYTHING = (*AGENTS, orders)
SOURCE = "/shop"


def saga_of(order_id: str) -> str:
    """The saga that an order starts."""
    return saga_id_of(SOURCE, order_id)


async def perform(url: str, amounts: Sequence[int], junk: Sequence[bytes] = (), name: str = "order") -> list[str]:
    """Take orders ``order-0``, ``order-1``, ... of these amounts, and junk, and run until all have ended or are parked.

    The ids of the orders; ``name`` is what they begin with.
    """
    ids = [f"{name}-{number}" for number in range(len(amounts))]
    async with await open_bus(url) as bus:
        await bus.create_topics([TopicSpec(orders.intake), TopicSpec(SagaEnded.event_type), TopicSpec(FACTS)])
        await bus.publish(
            [_order(order_id, amount) for order_id, amount in zip(ids, amounts, strict=True)]
            + [Message(orders.intake, value, b"junk") for value in junk]
        )
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(run(AGENTS, [orders], bus, stop))
            while True:
                over, dead = await _over(bus), await _count(bus, "pavane.coordinator.dead-letters")
                if len(over) >= len(amounts) and dead >= len(junk):
                    break
                await asyncio.sleep(0.02)
            stop.set()
    return ids


async def go_on(url: str, order_id: str, until: Callable[[Story], bool], kafka: KafkaOptions | None = None) -> Story:
    """Let agents and coordinator work until an order's story says so."""
    async with await open_bus(url, kafka=kafka) as bus:
        stop = asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(run(AGENTS, [orders], bus, stop))
            while True:
                story = await read_story(bus, saga_of(order_id))
                if story is not None and until(story):
                    stop.set()
                    return story
                await asyncio.sleep(0.05)


async def perform_partly(bus: Bus, order_id: str) -> None:
    """What the topics hold of an order that was placed and paid, and that nobody has packed yet."""
    known = [plan_of(agent).manifest.to_message() for agent in AGENTS]
    names = [AGENTS_TOPIC, FACTS, orders.intake, OrderPlaced.event_type, Paid.event_type]
    await bus.create_topics([TopicSpec(name, compacted=name == AGENTS_TOPIC) for name in names])
    placed = OrderPlaced(order_id=order_id, amount=1)
    start = Envelope(id="start", source="/sagas/order", type=placed.event_type, data=placed.to_json(), saga=saga_of(order_id))
    paid = Envelope(
        id="paid",
        source="/agents/payment",
        type=Paid.event_type,
        data=Paid(order_id=order_id, amount=1).to_json(),
        saga=saga_of(order_id),
        causation="start",
        causes=("start",),
        step="payment/charge",
        depth=1,
    )
    await bus.publish([*known, SagaPlan.of(orders).to_message(), start.to_message(), paid.to_message()])


def _order(order_id: str, amount: int) -> Message:
    event = OrderPlaced(order_id=order_id, amount=amount)
    envelope = Envelope(id=order_id, source=SOURCE, type=OrderPlaced.event_type, data=event.to_json(), subject=order_id)
    return envelope.to_message(orders.intake, key=saga_of(order_id))


async def _over(bus: Bus) -> set[str | None]:
    ended = {parse(record).saga async for record in bus.read(SagaEnded.event_type)}
    facts = [parse(record) async for record in bus.read(FACTS)]
    undone = {fact.saga for fact in facts if fact.type == "pavane.fact.undone"}
    parked = {fact.saga for fact in facts if fact.type == "pavane.fact.undofailed"}
    return ended | (parked & undone)


async def _count(bus: Bus, topic: str) -> int:
    return len([record async for record in bus.read(topic)]) if topic in await bus.topics() else 0
