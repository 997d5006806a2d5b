"""Every line that is written within a unit of work says of which trace, span and saga it is: ours, a step's, a library's."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from opentelemetry import trace

from pavane import Agent, Context, Event, Retry, Saga
from pavane_events.envelope import NO_TRACE
from pavane_tracing.here import log_ids
from pavane_tracing.off import OffWork

MODULE = f"unit.{Path(__file__).stem}"
TESTS = Path(__file__).parents[1]
PATIENCE_S = 30.0
LINES = ("by a library", "by structlog", "by the context", "in a thread", "within a span of its own")


class Asked(Event, type="l.asked"):
    question: str


class Answered(Event, type="l.answered"):
    answer: str


agent = Agent("talker")
saga = Saga("talk", starts=Asked, completes=Answered, intake="l.intake")


@agent.step(retry=Retry(attempts=2, first_s=0.0))
async def answer(asked: Asked, ctx: Context) -> Answered:
    logging.getLogger("a.library").warning("by a library")
    structlog.get_logger("somebody").warning("by structlog", asked=asked.question)
    ctx.logger.warning("by the context")
    with trace.get_tracer("somebody").start_as_current_span("look up"):
        logging.getLogger("a.library").warning("within a span of its own")
    raise ConnectionError("down")


@answer.compensate(retry=Retry(attempts=1))
def forget(asked: Asked, done: Answered | None) -> None:
    logging.getLogger("a.library").warning("in a thread")
    raise ConnectionError("down")


def lines_of_a_run(folder: Path, *, traced: bool) -> Sequence[Mapping[str, object]]:
    """The JSON lines of ``pavane run`` up to the one that says that the saga is parked."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PAVANE_", "OTEL_"))}
    variables = {**others, "PAVANE_BUS": f"sqlite:///{folder / 'bus.db'}", "PAVANE_TRACE": str(traced).lower()}
    pavane = [sys.executable, "-m", "pavane"]
    log = folder / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*pavane, "run", f"{MODULE}:agent", f"{MODULE}:saga"], cwd=TESTS, env=variables, stderr=output
        )
    try:
        wait_for("ready:", log)
        published = [*pavane, "publish", "l.intake", "--data", '{"question": "why"}']
        begins = {**variables, "PAVANE_TRACE": "true"}
        subprocess.run(published, cwd=TESTS, env=begins, capture_output=True, timeout=PATIENCE_S, check=True)
        wait_for("is parked", log)
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(PATIENCE_S)
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def wait_for(said: str, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while said not in log.read_text():
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.02)


def test_with_traces_a_line_says_trace_span_and_saga(tmp_path: Path) -> None:
    lines = lines_of_a_run(tmp_path, traced=True)
    ours = [line for line in lines if "trace_id" in line]
    assert {str(line["event"]) for line in ours} >= set(LINES)
    (trace_id,) = {line["trace_id"] for line in ours}
    (saga_id,) = {line["saga_id"] for line in ours}
    assert len(str(trace_id)) == 32
    spans = {str(line["event"]): str(line["span_id"]) for line in ours[:4]}
    assert spans["by a library"] == spans["by structlog"] == spans["by the context"]
    assert spans["within a span of its own"] != spans["by a library"]
    (parked,) = [line for line in lines if "is parked" in str(line["event"])]
    assert (parked["level"], parked["trace_id"], parked["saga_id"]) == ("error", trace_id, saga_id)


def test_without_traces_a_line_says_its_saga_and_the_trace_in_which_the_input_came(tmp_path: Path) -> None:
    lines = [line for line in lines_of_a_run(tmp_path, traced=False) if line["event"] in LINES]
    assert {str(line["event"]) for line in lines} == set(LINES)
    assert len({line["saga_id"] for line in lines}) == 1
    assert len({line["trace_id"] for line in lines}) == 1, "pavane publish began one"
    assert not any("span_id" in line for line in lines)


def test_what_is_written_outside_any_work_says_nothing_of_it() -> None:
    assert log_ids() == {}


def test_without_traces_work_within_work_is_told_apart() -> None:
    outer, inner = (OffWork(NO_TRACE, saga_id) for saga_id in ("saga-1", "saga-2"))
    with outer:
        with inner:
            assert log_ids() == {"saga_id": "saga-2"}
        assert log_ids() == {"saga_id": "saga-1"}
    assert log_ids() == {}
