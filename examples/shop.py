"""A saga of three agents: an order is charged and packed side by side, then shipped, or all of it is undone.

pavane check examples.shop:AGENTS examples.shop:order
pavane run examples.shop:AGENTS examples.shop:order
pavane publish shop.orders --app examples.shop:order --data '{"order": "o-1", "cents": 500, "item": "tea"}'
"""

import sqlite3
from datetime import timedelta

from pydantic import Field

from pavane import Agent, Context, Event, Fence, Rejected, Saga


class OrderPlaced(Event, type="shop.order-placed", version=1):
    order: str
    cents: int = Field(gt=0)
    item: str


class Charged(Event, type="shop.charged", version=1):
    order: str
    cents: int


class Packed(Event, type="shop.packed", version=1):
    order: str
    item: str


class Shipped(Event, type="shop.shipped", version=1):
    order: str


payment, warehouse, shipping = Agent("payment"), Agent("warehouse"), Agent("shipping")
fence = Fence()


def store() -> sqlite3.Connection:
    """The shop's own database: what was done in the world, by idempotency key."""
    connection = sqlite3.connect("shop-effects.db", timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, what TEXT)")
    fence.create(connection)
    return connection


def do(ctx: Context, what: str) -> None:
    """Do something once; refused where it was undone before."""
    with store() as db:
        if fence.do(db, ctx.idempotency_key):
            db.execute("INSERT INTO effects VALUES (?, ?)", (ctx.idempotency_key, what))


def undo(ctx: Context) -> None:
    """Take it back, and leave a fence, whether or not it is known to have been done."""
    with store() as db:
        if fence.undo(db, ctx.idempotency_key):
            db.execute("DELETE FROM effects WHERE key = ?", (ctx.idempotency_key,))


@payment.step
def charge(order: OrderPlaced, ctx: Context) -> Charged:
    do(ctx, f"{order.cents} cents charged for {order.order}")
    return Charged(order=order.order, cents=order.cents)


@charge.compensate
def refund(order: OrderPlaced, done: Charged | None, ctx: Context) -> None:
    undo(ctx)


@warehouse.step
def pack(order: OrderPlaced, ctx: Context) -> Packed:
    if order.item == "unicorn":
        raise Rejected("no unicorn is in stock")
    do(ctx, f"{order.item} packed for {order.order}")
    return Packed(order=order.order, item=order.item)


@pack.compensate
def unpack(order: OrderPlaced, done: Packed | None, ctx: Context) -> None:
    undo(ctx)


@shipping.step(within=timedelta(seconds=30))
def ship(payment: Charged, parcel: Packed, ctx: Context) -> Shipped:  # two events in: a join by saga
    do(ctx, f"{parcel.item} shipped for {payment.order}")
    return Shipped(order=payment.order)


@ship.compensate
def recall(payment: Charged, parcel: Packed, done: Shipped | None, ctx: Context) -> None:
    undo(ctx)


AGENTS = (payment, warehouse, shipping)
order = Saga("order", starts=OrderPlaced, completes=Shipped, deadline=timedelta(minutes=5), intake="shop.orders")
