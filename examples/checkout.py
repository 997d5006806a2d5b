r"""A checkout: stock is reserved, the payment may come late, then the order is shipped; the customer hears how it ended.

pavane check examples.checkout:AGENTS examples.checkout:checkout
pavane run examples.checkout:AGENTS examples.checkout:checkout
pavane publish checkout.orders --app examples.checkout:checkout \
    --data '{"order": "o-1", "item": "teapot", "pieces": 1, "pay_by": "card"}'
pavane verify examples.checkout:verification --exhaustive

Two orders may want the last piece: one gets it. What is not paid in time goes back on the shelf, also where the money
comes after all.
"""

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Literal

from pydantic import Field

from pavane import Agent, Context, Event, Fence, Rejected, Retry, Saga, SagaEnded
from pavane.testing import HistoryPlayed, Verification


class OrderPlaced(Event, type="checkout.order-placed", version=1):
    order: str = Field(min_length=1)
    item: str
    pieces: int = Field(ge=1, le=100)
    pay_by: Literal["card", "transfer"]


class StockReserved(Event, type="checkout.stock-reserved", version=1):
    order: str
    pay_by: Literal["card", "transfer"]
    cents: int


class PaymentReceived(Event, type="checkout.payment-received", version=1):
    order: str
    cents: int


class OrderShipped(Event, type="checkout.order-shipped", version=1):
    order: str


SHELF = {"teapot": 3, "cup": 40}
CENTS = {"teapot": 25_00, "cup": 4_00}
FENCE = Fence()
PAYMENT_WITHIN = timedelta(seconds=2)


class Shop:
    """Where the shop keeps its books."""

    place = "checkout.db"


@contextmanager
def store() -> Generator[sqlite3.Connection]:
    """The shop's database, in one transaction: whoever writes waits for whoever writes."""
    with closing(sqlite3.connect(Shop.place, timeout=10, isolation_level="IMMEDIATE", uri=True)) as db, db:
        FENCE.create(db)
        db.execute("CREATE TABLE IF NOT EXISTS shelf (item TEXT PRIMARY KEY, pieces INTEGER CHECK (pieces >= 0))")
        db.execute("CREATE TABLE IF NOT EXISTS reserved (key TEXT PRIMARY KEY, saga TEXT, item TEXT, pieces INTEGER)")
        db.execute("CREATE TABLE IF NOT EXISTS paid (key TEXT PRIMARY KEY, saga TEXT, cents INTEGER)")
        db.execute("CREATE TABLE IF NOT EXISTS parcels (key TEXT PRIMARY KEY, saga TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS messages (saga TEXT PRIMARY KEY, verdict TEXT)")
        db.executemany("INSERT OR IGNORE INTO shelf VALUES (?, ?)", SHELF.items())
        yield db


warehouse, bank, post, front = Agent("warehouse"), Agent("bank"), Agent("post"), Agent("front-desk")


@warehouse.step
async def reserve(order: OrderPlaced, ctx: Context) -> StockReserved:
    with store() as db:
        if FENCE.do(db, ctx.idempotency_key):
            took = "UPDATE shelf SET pieces = pieces - ? WHERE item = ? AND pieces >= ? RETURNING 1"
            if db.execute(took, (order.pieces, order.item, order.pieces)).fetchone() is None:
                raise Rejected("sold out")  # and the transaction with the fence's mark is rolled back
            db.execute("INSERT INTO reserved VALUES (?, ?, ?, ?)", (ctx.idempotency_key, ctx.saga, order.item, order.pieces))
    return StockReserved(order=order.order, pay_by=order.pay_by, cents=order.pieces * CENTS.get(order.item, 0))


@reserve.compensate
async def put_back(order: OrderPlaced, done: StockReserved | None, ctx: Context) -> None:
    with store() as db:
        if FENCE.undo(db, ctx.idempotency_key):
            db.execute("UPDATE shelf SET pieces = pieces + ? WHERE item = ?", (order.pieces, order.item))
            db.execute("DELETE FROM reserved WHERE key = ?", (ctx.idempotency_key,))


@bank.step(within=PAYMENT_WITHIN)
async def collect(reserved: StockReserved, ctx: Context) -> PaymentReceived:
    if reserved.pay_by == "transfer":
        await asyncio.sleep(2 * PAYMENT_WITHIN.total_seconds())  # longer than anybody waits for it
    with store() as db:
        if FENCE.do(db, ctx.idempotency_key):
            db.execute("INSERT INTO paid VALUES (?, ?, ?)", (ctx.idempotency_key, ctx.saga, reserved.cents))
    return PaymentReceived(order=reserved.order, cents=reserved.cents)


@collect.reconcile
async def was_collected(reserved: StockReserved, ctx: Context) -> PaymentReceived | bool:
    with store() as db:
        row = db.execute("SELECT cents FROM paid WHERE key = ?", (ctx.idempotency_key,)).fetchone()
    return PaymentReceived(order=reserved.order, cents=row[0]) if row is not None else False


@collect.compensate
async def pay_back(reserved: StockReserved, done: PaymentReceived | None, ctx: Context) -> None:
    with store() as db:
        if FENCE.undo(db, ctx.idempotency_key):
            db.execute("DELETE FROM paid WHERE key = ?", (ctx.idempotency_key,))


@post.step(retry=Retry(attempts=3))
async def ship(paid: PaymentReceived, ctx: Context) -> OrderShipped:
    with store() as db:
        if FENCE.do(db, ctx.idempotency_key):
            db.execute("INSERT INTO parcels VALUES (?, ?)", (ctx.idempotency_key, ctx.saga))
    return OrderShipped(order=paid.order)


@ship.compensate
async def call_back(paid: PaymentReceived, done: OrderShipped | None, ctx: Context) -> None:
    with store() as db:
        if FENCE.undo(db, ctx.idempotency_key):
            db.execute("DELETE FROM parcels WHERE key = ?", (ctx.idempotency_key,))


@front.observe
async def tell_the_customer(ended: SagaEnded) -> None:
    """At least once, so the message is kept by saga: the second time there is one already."""
    with store() as db:
        db.execute("INSERT OR IGNORE INTO messages VALUES (?, ?)", (ended.saga, ended.verdict))


AGENTS = (warehouse, bank, post, front)
checkout = Saga(
    "checkout", starts=OrderPlaced, completes=OrderShipped, deadline=timedelta(minutes=5), intake="checkout.orders"
)


def nothing_is_lost(history: HistoryPlayed) -> None:
    """A completed order is reserved, paid and shipped, once; of any other nothing is left; the shelf adds up.

    Whoever was told was told how it ended. An observer that keeps failing is found in its dead letters.
    """
    with store() as db:
        left = dict(db.execute("SELECT item, pieces FROM shelf").fetchall())
        taken = dict(db.execute("SELECT item, sum(pieces) FROM reserved GROUP BY item").fetchall())
        for saga in history.sagas:
            counts = [
                db.execute(f"SELECT count(*) FROM {table} WHERE saga = ?", (saga.id,)).fetchone()[0]
                for table in ("reserved", "paid", "parcels")
            ]
            expected = [1, 1, 1] if saga.verdict == "completed" else [0, 0, 0]
            assert counts == expected, f"{saga.verdict}: reserved, paid, shipped are {counts}"
            told = db.execute("SELECT verdict FROM messages WHERE saga = ?", (saga.id,)).fetchall()
            assert told in ([], [(saga.verdict,)]), f"{saga.verdict}, and the customer was told {told}"
    for item, pieces in SHELF.items():
        assert left[item] + taken.get(item, 0) == pieces, f"{left[item]} {item}s on the shelf, {taken.get(item, 0)} taken"


@contextmanager
def in_memory() -> Generator[None]:
    """A shop of our own, for as long as somebody verifies."""
    former, Shop.place = Shop.place, "file:checkout?mode=memory&cache=shared"
    with closing(sqlite3.connect(Shop.place, uri=True)):
        yield
    Shop.place = former


def reopen() -> None:
    """Full shelves, empty books."""
    with store() as db:
        for table in ("shelf", "reserved", "paid", "parcels", "messages", "pavane_effects"):
            db.execute(f"DELETE FROM {table}")


def order(**changes: object) -> OrderPlaced:
    """An order, with some of it changed."""
    return OrderPlaced.model_validate({"order": "o", "item": "teapot", "pieces": 2, "pay_by": "card", **changes})


verification = Verification(
    agents=AGENTS,
    sagas=[checkout],
    starts={
        "in stock": order(),
        "sold out": order(pieces=5),
        "paid late": order(pay_by="transfer"),
        "two for the last": [order(), order()],
    },
    invariant=nothing_is_lost,
    reset=reopen,
    around=in_memory,
)
