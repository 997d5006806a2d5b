"""How fast the Kafka bus is, and the agents on it, beside a bare loop in the same run; each figure held to what it must be.

    python -m bench.kafka_run [--quick] [--only NAME]... [--json] [--servers host:port] [--otlp jaeger|null|none]

Starts a broker of its own (Java and Maven, see `pavane dev kafka`) on the loopback interface. Everything measured is a
process of its own; the machine's cores are shared with the broker, so trust ratios within one run before digits. Ends with
1 where a figure is not what it must be.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.kafka_credit import LAYOUTS, credit, failing
from bench.kafka_days import kill, memory, restore
from bench.kafka_latency import latency
from bench.kafka_musts import judged
from bench.kafka_place import Broker, a_broker
from bench.kafka_spans import a_collector
from bench.kafka_tax import tax
from bench.kafka_throughput import growth, throughput
from bench.kafka_tracing import tracing
from bench.kafka_worker import Figures

from pavane_events.compiled import COMPILED
from pavane_events.errors import PavaneError

Found = Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. ``rounds``: of the throughput, traced or not; ``seconds``: of each steady rate; ``traced``:
    records of each traced round; ``turns``: of each variant but the stock SDK, to tell what tracing takes.
    """

    records: int
    rounds: int
    seconds: float
    sagas: int
    backlog: int
    grown: int
    traced: int
    turns: int
    layouts: tuple[str, ...]


FULL = Scale(200_000, 3, 60.0, 3_000, 500_000, 60_000, 40_000, 120, tuple(LAYOUTS))
QUICK = Scale(20_000, 1, 5.0, 400, 40_000, 8_000, 10_000, 8, ("1 process", "6 processes"))


def benches(scale: Scale, endpoint: str | None) -> Mapping[str, Callable[[Broker], Awaitable[Found]]]:
    """By name, in the order in which they run."""
    return {
        "throughput": lambda broker: throughput(broker, records=scale.records, rounds=scale.rounds),
        "tracing": lambda broker: tracing(broker, records=scale.traced, rounds=scale.rounds),
        "tax": lambda broker: tax(broker, records=5_000, cycles=scale.turns),
        "latency": lambda broker: latency(broker, seconds=scale.seconds),
        "credit": lambda broker: credit(
            broker, sagas=scale.sagas, seconds=scale.seconds / 2, endpoint=endpoint, layouts=scale.layouts
        ),
        "failing": lambda broker: failing(broker, sagas=scale.sagas),
        "memory": lambda broker: memory(broker, records=scale.backlog),
        "kill": lambda broker: kill(broker, rate=500.0, sessions_ms=(6_000,) if scale is QUICK else (10_000, 6_000)),
        "growth": lambda broker: growth(broker, records=scale.grown),
        "restore": lambda broker: restore(broker, keys=100_000),
    }


async def warm(broker: Broker) -> None:
    """A broker that has just started compiles itself while it works: its first minute is nobody's measure."""
    await throughput(broker, records=QUICK.records, rounds=1)
    await credit(broker, sagas=QUICK.sagas, seconds=1.0, endpoint=None, layouts=["1 process"])


def show(name: str, found: Found) -> None:
    """One table: a line per variant, a column per figure."""
    columns = list(dict.fromkeys(column for figures in found.values() for column in figures))
    widths = {column: max(len(column), 9) + 1 for column in columns}
    print(f"\n{name}\n{'':32}" + "".join(f"{column:>{widths[column]}}" for column in columns))
    for variant, figures in found.items():
        cells = (f"{_shown(figures[each]):>{widths[each]}}" if each in figures else " " * widths[each] for each in columns)
        print(f"{variant:32}" + "".join(cells))
    for verdict in judged(name, found):
        print(f"  {verdict.text}")
    sys.stdout.flush()


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look, in three minutes: digits mean little")
    parser.add_argument("--only", action="append", choices=list(benches(QUICK, None)), help="this one (may be repeated)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--servers", help="brokers that are there already; their processor time is not measured then")
    parser.add_argument("--directory", type=Path, help="where the broker's data goes (a temporary directory)")
    parser.add_argument("--otlp", choices=["jaeger", "null", "none"], default="null", help="who takes the traced run's spans")
    parser.add_argument("--cold", action="store_true", help="measure a broker that has just started, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # or the broker would outlive us
    try:
        found = measure(options)
    except PavaneError as error:
        raise SystemExit(str(error)) from None
    missed = any(not verdict.holds for name, table in found.items() for verdict in judged(name, table))
    raise SystemExit(int(missed))


def measure(options: argparse.Namespace) -> Mapping[str, Found]:
    """What was asked for, table by table, which are printed."""
    scale = QUICK if options.quick else FULL
    results: dict[str, Found] = {}
    if not options.json:
        print("compiled" if COMPILED else "interpreted (`make bench` measures the compiled form)")
    with ExitStack() as stack:
        broker = stack.enter_context(a_broker(options.servers, options.directory))
        endpoint = stack.enter_context(a_collector(options.otlp))
        if not options.cold:
            asyncio.run(warm(broker))
        for name, bench in benches(scale, endpoint).items():
            if options.only and name not in options.only:
                continue
            results[name] = asyncio.run(_awaited(bench(broker)))
            if not options.json:
                show(name, results[name])
    if options.json:
        print(json.dumps(results))
    return results


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


async def _awaited(found: Awaitable[Found]) -> Found:
    return await found


if __name__ == "__main__":
    main()
