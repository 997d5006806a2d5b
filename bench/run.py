"""How fast the credit choreography is on the SQLite bus, traced and not, beside SQLite used bare for the same records.

    python bench/run.py [--count 960] [--rounds 3] [--profile] [--json]

Each run is a process of its own. The variants take turns, so that a machine whose speed drifts is fair to all; the
figure of a variant is its median. The bare loop writes the very records of the untraced run, in transactions of the
same number of rows, and reads each as often as it was delivered: what no bus on SQLite can do without.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import cast

from pavane.plan import plan_of
from pavane.runner import Surroundings, run
from pavane_credit.applications import read_applications
from pavane_credit.approval import REVIEWED_FROM_DM
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.invariant import check_ledgers
from pavane_credit.where import Where
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.buses.sqlite_file import Synchronous
from pavane_events.envelope import Envelope
from pavane_saga.intake import saga_id_of
from pavane_saga.wire import FACTS
from pavane_tracing.store import SPANS_TOPIC

Figures = dict[str, float]
VARIANTS: dict[str, tuple[bool, str]] = {
    "untraced": (False, "NORMAL"),
    "traced": (True, "NORMAL"),
    "traced, synchronous=FULL": (True, "FULL"),
}


async def decide(directory: Path, count: int, *, trace: bool, synchronous: str) -> Figures:
    """Decide applications that no person reviews, without faults, with all agents in this event loop."""
    applications = [each for each in read_applications() if each.event.amount_dm < REVIEWED_FROM_DM][:count]
    count = len(applications)
    mode: Synchronous = "FULL" if synchronous == "FULL" else "NORMAL"
    async with await SqliteBus.open(directory / "bus.db", 2, synchronous=mode) as bus:
        stop = asyncio.Event()
        running = asyncio.create_task(run(AGENTS, SAGAS, bus, stop, Surroundings(trace=trace)))
        await declared(bus)
        began, cpu = time.perf_counter(), time.process_time()
        messages = [
            Envelope(
                id=each.id, source="/bench", type="credit.application-submitted", subject=each.id, data=each.event.to_json()
            ).to_message("credit.applications", key=saga_id_of("/bench", each.id))
            for each in applications
        ]
        for start in range(0, len(messages), 100):
            await bus.publish(messages[start : start + 100])
        ended, place = 0, 0
        while ended < count:
            await asyncio.sleep(0.05)
            async for record in bus.read("pavane.saga-ended", start=place):
                ended, place = ended + 1, record.offset + 1
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu
        records, deliveries = await counts(bus)
        approved = {
            str(event["application_id"]): cast("int", event["amount_dm"])
            for event in [json.loads(record.value or b"") async for record in bus.read("credit.approved")]
        }
        stop.set()
        await running
    if not check_ledgers(Where(), approved).holds:
        raise SystemExit("the ledgers disagree: the figures are worth nothing")
    return {
        "sagas_per_s": count / seconds,
        "records": records,
        "deliveries": deliveries,
        "deliveries_per_s": deliveries / seconds,
        "cpu_us_per_delivery": spent / deliveries * 1e6,
        "approved": len(approved),
    }


async def declared(bus: SqliteBus) -> None:
    """Wait until every lane of every agent is there."""
    while True:
        await asyncio.sleep(0.02)
        if FACTS in await bus.topics() and len([None async for _ in bus.read(FACTS)]) >= len(AGENTS) * bus.partitions:
            return


async def counts(bus: SqliteBus) -> tuple[int, int]:
    """How many records were published, spans aside, and how often one was delivered to a group."""
    readers: dict[str, int] = defaultdict(int)
    for plan in map(plan_of, AGENTS):
        for topic in plan.topics:
            readers[topic] += 1
    records = deliveries = 0
    for topic in await bus.topics():
        if topic == SPANS_TOPIC:
            continue
        found = len([None async for _ in bus.read(topic)])
        by_coordinator = topic.startswith("credit.") or topic == FACTS
        records += found
        deliveries += found * (readers[topic] + by_coordinator)
    return records, deliveries


def bare(source: Path, target: Path, deliveries: int) -> float:
    """Records delivered per second by nothing but SQLite: the same rows written in one table and read back."""
    with sqlite3.connect(source) as old:
        spans = old.execute("SELECT id FROM topics WHERE name = ?", (SPANS_TOPIC,)).fetchone()
        rows = old.execute(
            "SELECT topic, partition, ts_ms, key, value, headers FROM records WHERE topic IS NOT ?", (spans and spans[0],)
        ).fetchall()
    old.close()
    new = sqlite3.connect(target, isolation_level=None)
    new.execute("PRAGMA journal_mode = WAL")
    new.execute("PRAGMA synchronous = NORMAL")
    new.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, topic, partition, ts_ms, key, value, headers)")
    began = time.perf_counter()
    for start in range(0, len(rows), 50):
        new.execute("BEGIN IMMEDIATE")
        new.executemany("INSERT INTO records VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows[start : start + 50])
        new.execute("COMMIT")
        times = max(1, round(deliveries / len(rows)))
        for _ in range(times):
            new.execute("SELECT * FROM records WHERE id > ? ORDER BY id LIMIT 50", (start,)).fetchall()
    seconds = time.perf_counter() - began
    new.close()
    return deliveries / seconds


def in_a_child(variant: str, count: int) -> Figures:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--child", variant, "--count", str(count), "--directory", directory]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = cast("Figures", json.loads(done.stdout))
        if variant == "untraced":
            where = Path(directory)
            figures["bare_per_s"] = bare(where / "bus.db", where / "bare.db", int(figures["deliveries"]))
    return figures


def where_it_goes(directory: Path, count: int) -> None:
    """One profiled run, traced: the share of each part in the processor's time (profiling inflates small functions)."""
    profile = cProfile.Profile()
    profile.enable()
    asyncio.run(decide(directory, count, trace=True, synchronous="NORMAL"))
    profile.disable()
    found = cast("dict[tuple[str, int, str], tuple[int, int, float]]", vars(pstats.Stats(profile))["stats"])
    shares: dict[str, float] = defaultdict(float)
    for (file, _, name), entry in found.items():
        shares[_part(file, name)] += entry[2]
    total = sum(shares.values())
    for part, seconds in sorted(shares.items(), key=lambda each: -each[1]):
        print(f"  {seconds / total:6.1%}  {part}")


def _part(file: str, name: str) -> str:
    packages = ("pavane_events", "pavane_tracing", "pavane_saga", "pavane_credit", "opentelemetry", "pydantic")
    for part in (*packages, "asyncio", "json"):
        if f"{part}{os.sep}" in file or f"{part}." in name or f"{part}_core" in name:
            return part
    if "sqlite3" in name:
        return "sqlite3"
    return "pavane" if f"pavane{os.sep}" in file else "waiting" if "epoll" in name else "built-in functions and the rest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="show where the time of a traced run goes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child or options.profile:
        with tempfile.TemporaryDirectory() as spare:
            directory = options.directory or Path(spare)
            os.environ.update(CREDIT_LEDGERS=str(directory / "ledgers"), CREDIT_FAULTS="none")
            if options.profile:
                where_it_goes(directory, options.count)
                return
            trace, synchronous = VARIANTS[options.child]
            print(json.dumps(asyncio.run(decide(directory, options.count, trace=trace, synchronous=synchronous))))
        return
    rounds = [{variant: in_a_child(variant, options.count) for variant in VARIANTS} for _ in range(options.rounds)]
    medians = {
        variant: {name: statistics.median(each[variant][name] for each in rounds) for name in rounds[0][variant]}
        for variant in VARIANTS
    }
    if options.json:
        print(json.dumps(medians))
        return
    print(f"{options.count} applications, five agents and the coordinator in one process, median of {options.rounds} rounds")
    print(f"{'':26}{'sagas/s':>9}{'deliveries/s':>14}{'CPU us/delivery':>17}{'of untraced':>13}")
    for variant, figures in medians.items():
        share = figures["sagas_per_s"] / medians["untraced"]["sagas_per_s"]
        line = f"{figures['sagas_per_s']:9.0f}{figures['deliveries_per_s']:14.0f}{figures['cpu_us_per_delivery']:17.0f}"
        print(f"{variant:26}{line}{share:13.2f}")
    plain = medians["untraced"]["bare_per_s"]
    ratio = medians["untraced"]["deliveries_per_s"] / plain
    print(f"{'bare sqlite3, same records':26}{'':9}{plain:14.0f}{1e6 / plain:17.0f}{1 / ratio:13.2f}")
    print(f"deliveries per saga: {medians['untraced']['deliveries'] / options.count:.1f}")


if __name__ == "__main__":
    main()
