"""Where the time of an agent's process goes: one run of the relay, or of the credit application, under the sampler.

python -m bench.kafka_profile relay|credit [--count 20000] [--servers host:port] [--lines 40]
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from bench.kafka_credit import at_most, at_work
from bench.kafka_place import Broker, a_broker
from bench.kafka_sampler import read_shares
from bench.kafka_throughput import drained


async def run(what: str, broker: Broker, count: int, path: Path) -> None:
    """One run; the first process writes its shares."""
    if what == "relay":
        figures = await drained(broker, bare=False, records=count, profile=str(path))
    else:
        async with at_work(broker, "1 process", profile=str(path)) as running:
            figures = await at_most(running, count)
    print(", ".join(f"{name} {figure:.4g}" for name, figure in figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["relay", "credit"])
    parser.add_argument("--count", type=int, default=20_000, help="records, or sagas")
    parser.add_argument("--servers", help="brokers that are there already")
    parser.add_argument("--lines", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, a_broker(options.servers, None) as broker:
        path = Path(folder, "shares.json")
        asyncio.run(run(options.what, broker, options.count, path))
        shares = read_shares(path)
    for title, place in (("own", 1), ("with all it calls", 2)):
        print(f"\n   own  whole   the largest, {title}")
        for name, own, whole in sorted(shares, key=lambda share: -float(share[place]))[: options.lines]:
            print(f"{own:6.1%} {whole:6.1%}   {name}")


if __name__ == "__main__":
    main()
