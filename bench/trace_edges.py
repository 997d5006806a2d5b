"""What it costs that a trace's budget travels with every message: ``python bench/trace_edges.py``.

In microseconds, best of rounds. A unit of work with one message sent, its spans exported to nowhere; and a record
written and parsed. With and without the
member of ``tracestate``; without it is what a message costs that begins a trace.
"""

import gc
import time
from collections.abc import Callable

from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import NoOpTracerProvider

from pavane_events.envelope import Envelope, Trace, parse
from pavane_events.record import Record
from pavane_events.stamp import Stamp
from pavane_tracing.budget import Budget
from pavane_tracing.lean_work import LeanTracing
from pavane_tracing.propagation import origin_of
from pavane_tracing.sampling import SagaSampler
from pavane_tracing.unit import Service

ROUNDS, COUNT = 200, 500
PARENT = f"00-{'a' * 32}-{'b' * 16}"
BARE, STAMPED, UNSAMPLED = Trace(f"{PARENT}-01"), Trace(f"{PARENT}-01", "pavane=478"), Trace(f"{PARENT}-00")
SERVICE = Service("bench", NoOpTracerProvider())


def nowhere(encoded: bytes, /) -> None:
    """Where the spans go."""


def main() -> None:
    """Measure, and print."""
    gc.disable()
    lean = LeanTracing(SERVICE, limits=SpanLimits(), sampler=SagaSampler(), take=nowhere)
    stamp = Stamp(event(BARE))
    told: dict[str, Callable[[], object]] = {
        "unit and message, budget": lambda: unit(lean, STAMPED),
        "unit and message, no budget": lambda: unit(lean, BARE),
        "unit and message, unsampled": lambda: unit(lean, UNSAMPLED),
        "record written and parsed, budget": lambda: through(stamp, STAMPED),
        "record written and parsed, no budget": lambda: through(stamp, BARE),
        "context read, budget": lambda: origin_of(STAMPED),
        "context read, no budget": lambda: origin_of(BARE),
        "a budget made and taken from": lambda: Budget(478, None).take(),
    }
    best = dict.fromkeys(told, float("inf"))
    for _ in range(ROUNDS):  # in turns, so that other work on the machine meets all alike
        for name, act in told.items():
            best[name] = min(best[name], cost_us(act))
    for name, found_us in best.items():
        print(f"{name:40} {found_us:6.2f} µs")


def event(trace: Trace) -> Envelope:
    """An event as a step gives it."""
    return Envelope(
        id="e-1",
        source="/agents/x",
        type="a.b",
        data=b"{}",
        time="2026-11-23T03:24:39.109885+00:00",
        saga="s-1",
        causation="c-1",
        causes=("c-1",),
        step="a/s",
        depth=3,
        declaration="a@1",
        trace=trace,
    )


def unit(tracing: LeanTracing, trace: Trace) -> None:
    """A unit of work that sends one message."""
    work = tracing.process(event(trace), topic="a.b", partition=1, offset=7, group="g", step="g/s")
    work.send("c.d", "e-2", "c.d", saga="s-1", size=2)
    work.end()


def through(stamp: Stamp, trace: Trace) -> None:
    """A record from an event, and the event from it."""
    message = stamp.message(event(trace))
    parse(Record("a.b", 1, 7, message.key, message.value, message.headers, 0))


def cost_us(act: Callable[[], object]) -> float:
    """What one call took, on the average of a round."""
    began_s = time.perf_counter()
    for _ in range(COUNT):
        act()
    return (time.perf_counter() - began_s) / COUNT * 1e6


if __name__ == "__main__":
    main()
