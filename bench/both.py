"""Both benchmarks, one after the other: the credit choreography on SQLite (bench/run.py), and everything on Kafka.

    python -m bench.both [--quick] [--only sqlite|throughput|latency|...]... [--json] [options of bench.kafka_run]

``--count`` and ``--rounds`` are those of bench/run.py; every option that is not named here goes to bench.kafka_run.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_SQLITE = "sqlite"


def main() -> None:
    """Ends with the first that fails, as it does: with 1, too, where a figure on Kafka is not what it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look, in some minutes: digits mean little")
    parser.add_argument("--only", action="append", help="sqlite, or one on Kafka (may be repeated)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int, help="applications on SQLite")
    parser.add_argument("--rounds", type=int, help="rounds on SQLite")
    options, others = parser.parse_known_args()
    only: list[str] = options.only or []
    on_kafka = [name for name in only if name != _SQLITE]
    both = ["--json"] if options.json else []
    found: dict[str, object] = {}
    code = 0
    if not only or _SQLITE in only:
        count, rounds = options.count or (300 if options.quick else 1000), options.rounds or (1 if options.quick else 3)
        command = [str(_HERE / "run.py"), "--count", str(count), "--rounds", str(rounds), *both]
        code, found[_SQLITE] = _run(command, as_json=options.json)
    if code == 0 and (not only or on_kafka):
        chosen = [word for name in on_kafka for word in ("--only", name)]
        quick = ["--quick"] if options.quick else []
        command = ["-m", "bench.kafka_run", *quick, *chosen, *both, *others]
        code, found["kafka"] = _run(command, as_json=options.json)
    if options.json:
        print(json.dumps(found))
    raise SystemExit(code)


def _run(command: list[str], *, as_json: bool) -> tuple[int, object]:
    stdout = subprocess.PIPE if as_json else None
    done = subprocess.run([sys.executable, *command], cwd=_HERE.parent, stdout=stdout, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


if __name__ == "__main__":
    main()
