"""How fast the SQLite bus is: publish -> lane -> commit with outputs and state, beside SQLite used bare.

    python bench/bus_sqlite.py [--records 20000] [--directory /somewhere] [--synchronous NORMAL]

The bare loop does what no bus can do without: it writes the same records, reads them back, and writes the same outputs,
state and offsets, in the same batches and transactions, on one table without an index.
"""

import argparse
import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import cast

from pavane_events.bus import TopicSpec
from pavane_events.buses.sqlite import SqliteBus, SqliteLane
from pavane_events.buses.sqlite_file import Synchronous
from pavane_events.buses.sqlite_schema import encode_headers
from pavane_events.errors import LaneLost
from pavane_events.record import Message

VALUE = b'{"score": 712, "confidence": 0.93, "reasons": ["long history", "no late payments"], "model": "card-7"}'
HEADERS = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_id", b"0b5a3d44-6a0e-5a5f-9d6e-1f2e3d4c5b6a"),
    ("ce_source", b"/agents/credit-score"),
    ("ce_type", b"credit.score-computed"),
    ("ce_time", b"2026-11-22T23:30:00Z"),
    ("ce_sagaid", b"01935b1e-7a10-7cc0-8000-3f2b6f0a9d11"),
    ("ce_causationid", b"9d1c1c44-6a0e-5a5f-9d6e-1f2e3d4c5b6a"),
    ("ce_causes", b'["9d1c1c44-6a0e-5a5f-9d6e-1f2e3d4c5b6a"]'),
    ("ce_step", b"credit-score/compute_score"),
    ("ce_depth", b"2"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


def key(number: int) -> bytes:
    return b"01935b1e-7a10-7cc0-8000-%012d" % number


async def through_the_bus(path: Path, records: int, lanes: int, batch: int, synchronous: Synchronous) -> float:
    """Records per second: each is published, delivered, and committed with one output and one state key."""
    async with await SqliteBus.open(path, lanes, synchronous=synchronous) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out")])
        members = await bus.lanes("bench", ["in"])
        left = Counter[int]()
        for number in range(records):
            left[number % lanes] += 1
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish(bus, records, lanes, batch))
            for _ in range(lanes):
                lane = await anext(members)
                tasks.create_task(work(lane, left[lane.partition], batch))
        return records / (time.perf_counter() - begun)


async def publish(bus: SqliteBus, records: int, lanes: int, batch: int) -> None:
    """As many at once as all lanes together take at once."""
    step = batch * lanes
    for first in range(0, records, step):
        numbers = range(first, min(first + step, records))
        await bus.publish([Message("in", VALUE, key(number), HEADERS, number % lanes) for number in numbers])


async def work(lane: SqliteLane, records: int, batch: int) -> None:
    with contextlib.suppress(LaneLost):
        while records > 0:
            received = await lane.receive(batch, 5.0)
            outputs = [Message("out", record.value, record.key, record.headers) for record in received]
            state = {record.key or b"": b"seen" for record in received}
            await lane.commit({"in": received[-1].offset + 1}, outputs, state)
            records -= len(received)


def bare(path: Path, records: int, batch: int, synchronous: Synchronous) -> float:
    """The same rows through sqlite3 alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    execute, executemany = connection.execute, connection.executemany
    execute("PRAGMA journal_mode=WAL")
    execute(f"PRAGMA synchronous={synchronous}")
    execute("PRAGMA secure_delete=OFF")
    execute("CREATE TABLE records (id INTEGER PRIMARY KEY, topic, partition, ts_ms, key, value, headers)")
    execute("CREATE TABLE state (lane, key, value, PRIMARY KEY (lane, key)) WITHOUT ROWID")
    execute("CREATE TABLE lanes (id INTEGER PRIMARY KEY, number, offsets)")
    execute("INSERT INTO lanes VALUES (1, 0, '')")
    insert = "INSERT INTO records (topic, partition, ts_ms, key, value, headers) VALUES (?, ?, ?, ?, ?, ?)"
    headers = encode_headers(HEADERS)
    position = 0
    begun = time.perf_counter()
    for first in range(0, records, batch):
        numbers = range(first, min(first + batch, records))
        execute("BEGIN IMMEDIATE")
        executemany(insert, [(1, 0, 1, key(number), VALUE, headers) for number in numbers])
        execute("COMMIT")
        rows = execute("SELECT * FROM records WHERE id > ? ORDER BY id", (position,)).fetchall()
        execute("BEGIN IMMEDIATE")
        execute("UPDATE lanes SET number = number + 1, offsets = ? WHERE id = 1", (str(rows[-1][0]),))
        executemany(insert, [(2, 0, 1, row[4], row[5], row[6]) for row in rows])
        executemany("INSERT INTO state VALUES (1, ?, 'seen')", [(row[4],) for row in rows])
        execute("COMMIT")
        position = execute("SELECT max(id) FROM records").fetchone()[0]
    rate = records / (time.perf_counter() - begun)
    connection.close()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--directory", default=None, help="where the files go (a temporary directory)")
    parser.add_argument("--synchronous", choices=["NORMAL", "FULL"], default="NORMAL")
    arguments = parser.parse_args()
    synchronous = cast(Synchronous, arguments.synchronous)
    print(f"{'batch':>5} {'lanes':>5} {'bus, records/s':>15} {'bare SQLite':>12} {'ratio':>6}")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        for batch in (1, 10, 100):
            reference = bare(Path(directory, f"bare-{batch}.db"), arguments.records, batch, synchronous)
            for lanes in (1, 4):
                path = Path(directory, f"bus-{lanes}-{batch}.db")
                rate = asyncio.run(through_the_bus(path, arguments.records, lanes, batch, synchronous))
                print(f"{batch:>5} {lanes:>5} {rate:>15,.0f} {reference:>12,.0f} {rate / reference:>6.2f}")


if __name__ == "__main__":
    main()
