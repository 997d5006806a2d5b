"""The end of a process: every span goes out within the budget, and no collector holds it up any longer than that."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pavane import Agent, Event, Saga
from pavane_tracing.work import FLUSH_S
from support.collector import Collector, collecting

TESTS = Path(__file__).parents[1]
MODULE = f"integration.{Path(__file__).stem}"
PATIENCE_S = 30.0
SAGAS = 20
AUDIENCE = 8
"""More than the pool of threads has on a small machine."""
GRACE_S = 0.8
"""What the end of a process takes besides: lanes are given back, and the interpreter ends."""


class Asked(Event, type="stop.asked"):
    question: str


class Answered(Event, type="stop.answered"):
    answer: str


agent = Agent("stopper")
saga = Saga("stop", starts=Asked, completes=Answered, intake="stop.intake")


@agent.step(effects=False)
async def answer(asked: Asked) -> Answered:
    return Answered(answer=asked.question)


def listener(number: int) -> Agent:
    listening = Agent(f"listener-{number}")

    @listening.observe
    async def listen(answered: Answered) -> None:
        pass

    return listening


audience = [listener(number) for number in range(AUDIENCE)]


@contextmanager
def running(folder: Path, variables: dict[str, str]) -> Generator[subprocess.Popen[bytes]]:
    """``pavane run`` until it is ready; whoever gets it ends it."""
    log = folder / "log"
    command = [sys.executable, "-m", "pavane", "run", *(f"{MODULE}:{name}" for name in ("agent", "audience", "saga"))]
    with log.open("wb") as output, subprocess.Popen(command, cwd=TESTS, env=variables, stderr=output) as process:
        try:
            until(lambda: "ready:" in log.read_text())
            yield process
        finally:
            process.kill()


def until(is_so: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def variables_for(folder: Path, endpoint: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PAVANE_", "OTEL_"))}
    more = {
        "PAVANE_BUS": f"sqlite:///{folder / 'bus.db'}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
    }
    return {**others, **more}


def ask(folder: Path, variables: dict[str, str]) -> None:
    """Some sagas, and wait until all have ended."""
    pavane = [sys.executable, "-m", "pavane"]
    lines = "".join(f'{{"question": "{number}"}}\n' for number in range(SAGAS))
    applications = folder / "asked.ndjson"
    applications.write_text(lines)
    published = [*pavane, "publish", "stop.intake", str(applications)]
    subprocess.run(published, cwd=TESTS, env=variables, check=True, capture_output=True, timeout=PATIENCE_S)

    def all_ended() -> bool:
        listed = [*pavane, "sagas", "list", "--state", "completed", "--json"]
        said = subprocess.run(listed, cwd=TESTS, env=variables, check=True, capture_output=True, timeout=PATIENCE_S)
        return said.stdout.count(b'"completed"') >= SAGAS

    until(all_ended)


def stopped_in_s(process: subprocess.Popen[bytes]) -> float:
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    return time.monotonic() - begun


def test_what_was_not_sent_before_is_sent_when_the_process_is_told_to_stop(tmp_path: Path) -> None:
    with collecting() as collector:
        variables = variables_for(tmp_path, collector.url)
        with running(tmp_path, variables) as process:
            ask(tmp_path, variables)
            before = len(collector.spans())
            stopped_in_s(process)
        spans = collector.spans()
    assert before < len(spans), "the schedule was a minute"
    known = {span.span_id for span in spans}
    assert len(known) == len(spans)
    assert [span.name for span in spans if span.parent_span_id and span.parent_span_id not in known] == []
    assert sum(span.name == "saga stop end" for span in spans) == SAGAS


@pytest.mark.parametrize(
    ("trouble", "tracer", "metrics"),
    [
        ("hangs", "lean", "none"),
        ("refuses", "lean", "none"),
        ("is dead", "lean", "none"),
        ("hangs", "lean", "otlp"),
        ("hangs", "sdk", "none"),
        ("is dead", "sdk", "otlp"),
    ],
)
def test_a_collector_in_trouble_holds_the_end_up_no_longer_than_it_may(
    trouble: str, tracer: str, metrics: str, tmp_path: Path
) -> None:
    """However many leave, and whatever they export: the time is the process's."""
    with collecting() as collector:
        put_in_trouble(collector, trouble)
        endpoint = "http://127.0.0.1:9" if trouble == "is dead" else collector.url
        more = {"PAVANE_TRACER": tracer, "OTEL_METRICS_EXPORTER": metrics}
        variables = {**variables_for(tmp_path, endpoint), **more}
        with running(tmp_path, variables) as process:
            ask(tmp_path, variables_for(tmp_path, ""))
            assert stopped_in_s(process) < FLUSH_S + GRACE_S


def test_of_a_collector_that_has_not_answered_it_is_not_said_that_it_refused(tmp_path: Path) -> None:
    with collecting() as collector:
        put_in_trouble(collector, "hangs")
        variables = variables_for(tmp_path, collector.url)
        with running(tmp_path, variables) as process:
            ask(tmp_path, variables_for(tmp_path, ""))
            stopped_in_s(process)
    said = (tmp_path / "log").read_text()
    assert "spans are dropped" in said
    assert "has not answered" in said
    assert "refused" not in said


def put_in_trouble(collector: Collector, trouble: str) -> None:
    collector.pause_s = 5.0 if trouble == "hangs" else 0.0
    collector.status = 503 if trouble == "refuses" else 200


def test_with_a_spool_nothing_is_lost_to_a_dead_collector_and_a_stop(tmp_path: Path) -> None:
    with collecting() as once:
        port = once.server_port
    variables = {**variables_for(tmp_path, f"http://127.0.0.1:{port}"), "PAVANE_TRACE_SPOOL": str(tmp_path / "spool")}
    with running(tmp_path, variables) as process:
        ask(tmp_path, variables)
        stopped_in_s(process)
    with collecting(port) as collector, running(tmp_path, variables) as process:
        until(lambda: sum(span.name == "saga stop end" for span in collector.spans()) == SAGAS)
        stopped_in_s(process)
        spans = collector.spans()
    known = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_span_id and span.parent_span_id not in known] == []
