"""An agent with a ledger and a fence, and a saga around it: what it does is undone whenever its other half says no.

Run by ``pavane run chaos.kafka_ledger:AGENTS chaos.kafka_ledger:SAGAS``. ``LEDGER`` names the ledger's file; the process
that finds the file of ``STOP_ONCE`` takes it away, and stops itself (SIGSTOP) in the middle of its next charge.
"""

import os
import signal
import sqlite3
from pathlib import Path

from pavane import Agent, Context, EffectUndone, Event, Fence, Saga

FENCE = Fence()


class Ordered(Event, type="ledger.ordered"):
    order: str


class Charged(Event, type="ledger.charged"):
    order: str


class Refused(Event, type="ledger.refused"):
    order: str


class Shipped(Event, type="ledger.shipped"):
    order: str


charging, shipping = Agent("charging"), Agent("shipping")


def open_ledger(path: Path) -> sqlite3.Connection:
    """The ledger: effects, and a note of every late one that was refused."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS effects (key TEXT, by INTEGER, standing INTEGER)")
    connection.execute("CREATE TABLE IF NOT EXISTS refusals (key TEXT, by INTEGER)")
    FENCE.create(connection)
    return connection


def _ledger() -> sqlite3.Connection:
    return open_ledger(Path(os.environ["LEDGER"]))


def _stop_once() -> None:
    token = Path(os.environ.get("STOP_ONCE", "nowhere"))
    if token.exists():
        token.unlink()
        print("caught", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)


@charging.step
async def charge(ordered: Ordered, ctx: Context) -> Charged:
    """Book it, unless it was undone."""
    _stop_once()
    ledger = _ledger()
    try:
        ledger.execute("BEGIN IMMEDIATE")
        try:
            if FENCE.do(ledger, ctx.idempotency_key):
                ledger.execute("INSERT INTO effects VALUES (?, ?, 1)", (ctx.idempotency_key, os.getpid()))
        except EffectUndone:
            ledger.execute("INSERT INTO refusals VALUES (?, ?)", (ctx.idempotency_key, os.getpid()))
            raise
        finally:
            ledger.execute("COMMIT")
    finally:
        ledger.close()
    return Charged(order=ordered.order)


@charge.compensate
async def refund(ordered: Ordered, done: Charged | None, ctx: Context) -> None:
    """Take it back, and fence it."""
    ledger = _ledger()
    try:
        ledger.execute("BEGIN IMMEDIATE")
        if FENCE.undo(ledger, ctx.idempotency_key):
            ledger.execute("UPDATE effects SET standing = 0 WHERE key = ?", (ctx.idempotency_key,))
        ledger.execute("COMMIT")
    finally:
        ledger.close()


@shipping.step(effects=False)
async def ship(charged: Charged) -> Shipped | Refused:
    """There is nothing left to ship."""
    return Refused(order=charged.order)


buying = Saga("buying", starts=Ordered, completes=Shipped, fails=(Refused,), intake="ledger.orders")
AGENTS = (charging, shipping)
SAGAS = (buying,)
