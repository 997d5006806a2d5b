"""A shop in two versions, by ``SHOP_VERSION``. In the second a step is added, one retires, one has another name, and a
saga that is refused ends by another event. Effects are rows of the file that ``SHOP_LEDGER`` names, each with its fence.
"""

import asyncio
import os
import random
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta

from pavane import Agent, Context, Event, Fence, Saga

SECOND = os.environ.get("SHOP_VERSION") == "2"
FENCE = Fence()


class Ordered(Event, type="shop.ordered"):
    order: str
    refuse: bool


class Reserved(Event, type="shop.reserved"):
    order: str
    refuse: bool


class Charged(Event, type="shop.charged"):
    order: str


class Shipped(Event, type="shop.shipped"):
    order: str


class Refused(Event, type="shop.refused"):
    order: str


class Withdrawn(Event, type="shop.withdrawn"):
    """What is said instead, from the second version on."""

    order: str


@contextmanager
def _ledger() -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(os.environ["SHOP_LEDGER"], timeout=20.0)) as ledger, ledger:
        ledger.execute("BEGIN IMMEDIATE")
        ledger.execute("CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, what TEXT, saga TEXT, version INTEGER)")
        FENCE.create(ledger)
        yield ledger


def standing() -> list[tuple[str, str]]:
    """The effects that stand: saga and what."""
    with _ledger() as ledger:
        return [(str(saga), str(what)) for saga, what in ledger.execute("SELECT saga, what FROM effects")]


async def _do(ctx: Context, what: str) -> None:
    await asyncio.sleep(random.uniform(0, 0.05))
    with _ledger() as ledger:
        if FENCE.do(ledger, ctx.idempotency_key):
            row = (ctx.idempotency_key, what, ctx.saga, 2 if SECOND else 1)
            ledger.execute("INSERT INTO effects VALUES (?, ?, ?, ?)", row)
    await asyncio.sleep(random.uniform(0, 0.05))


def _undo(ctx: Context) -> None:
    with _ledger() as ledger:
        FENCE.undo(ledger, ctx.idempotency_key)
        ledger.execute("DELETE FROM effects WHERE key = ?", (ctx.idempotency_key,))


stock, till, door = Agent("stock"), Agent("till"), Agent("door")


@stock.step
async def reserve(ordered: Ordered, ctx: Context) -> Reserved:
    await _do(ctx, "reserved")
    return Reserved(order=ordered.order, refuse=ordered.refuse)


@reserve.compensate
async def put_back(ordered: Ordered, done: Reserved | None, ctx: Context) -> None:
    _undo(ctx)


@stock.step(retiring=SECOND)
async def insure(ordered: Ordered, ctx: Context) -> None:
    await _do(ctx, "insured")


@insure.compensate
async def cancel(ordered: Ordered, done: None, ctx: Context) -> None:
    _undo(ctx)


if SECOND:

    @stock.step
    async def label(ordered: Ordered, ctx: Context) -> None:
        await _do(ctx, "labelled")

    @label.compensate
    async def tear_off(ordered: Ordered, done: None, ctx: Context) -> None:
        _undo(ctx)

    @till.step(formerly="charge")
    async def pay(ordered: Ordered, ctx: Context) -> Charged:
        await _do(ctx, "paid")
        return Charged(order=ordered.order)

    @pay.compensate
    async def pay_back(ordered: Ordered, done: Charged | None, ctx: Context) -> None:
        _undo(ctx)

    @door.step(effects=False)
    async def ship(reserved: Reserved, charged: Charged) -> Shipped | Withdrawn:
        return Withdrawn(order=reserved.order) if reserved.refuse else Shipped(order=reserved.order)

else:

    @till.step
    async def charge(ordered: Ordered, ctx: Context) -> Charged:
        await _do(ctx, "paid")
        return Charged(order=ordered.order)

    @charge.compensate
    async def refund(ordered: Ordered, done: Charged | None, ctx: Context) -> None:
        _undo(ctx)

    @door.step(name="ship", effects=False)
    async def ship_or_refuse(reserved: Reserved, charged: Charged) -> Shipped | Refused:
        return Refused(order=reserved.order) if reserved.refuse else Shipped(order=reserved.order)


order = Saga(
    "order",
    starts=Ordered,
    completes=Shipped,
    fails=(Refused, Withdrawn) if SECOND else Refused,
    deadline=timedelta(minutes=5),
    intake="shop.orders",
)
AGENTS = (stock, till, door)
