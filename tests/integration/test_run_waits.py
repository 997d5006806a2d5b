"""``pavane run`` where no broker answers yet: it says so, is not ready, tries again, and works as soon as one is there."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pavane.cli.needs import needs_of
from pavane.dev.ports import HOST, free_block
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.provision import apply
from support.kafka import MakeKafka
from support.stage import until

ROOT = Path(__file__).parents[2]
TARGETS = ("examples.shop:AGENTS", "examples.shop:order")
STOP_S = 20.0


@contextmanager
def waiting(url: str, health: int, cwd: Path) -> "Generator[subprocess.Popen[str]]":
    """A ``pavane run`` of its own, killed if the test leaves it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PAVANE_")}
    environment = {**own, "PAVANE_BUS": url, "PAVANE_HEALTH_PORT": str(health), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pavane", "run", *TARGETS],
        cwd=cwd,
        env={**environment, "PAVANE_PARTITIONS": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: "subprocess.Popen[str]", word: str) -> str:
    """The next line that begins so."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        if line.startswith(word):
            return line
        lines.append(line)
    pytest.fail(f"it ended and never said {word!r}: {''.join(lines)}")


def ask(health: int, path: str) -> tuple[int, str]:
    """Status and reason, as a probe of an orchestrator sees them."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{health}{path}", timeout=10) as response:
            return response.status, json.load(response)["why"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["why"]


def ready(health: int) -> bool:
    return ask(health, "/ready") == (200, "")


def test_it_says_that_it_waits_and_for_how_long_and_a_signal_ends_it_meanwhile(tmp_path: Path) -> None:
    port, health = free_block(1), free_block(1)
    with waiting(f"kafka://{HOST}:{port}", health, tmp_path) as process:
        pauses = [told(process, "waiting: ") for _ in range(3)]
        for pause_s, line in zip((1, 2, 4), pauses, strict=True):
            assert f"Kafka does not answer at {HOST}:{port}" in line
            assert f"it is tried again in {pause_s} s" in line
        status, why = ask(health, "/ready")
        assert status == 503
        assert f"Kafka does not answer at {HOST}:{port}" in why
        assert ask(health, "/live")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0


@pytest.mark.slow
def test_it_is_ready_as_soon_as_a_broker_is_there(make_kafka: MakeKafka, tmp_path: Path) -> None:
    cluster = make_kafka()
    health = free_block(1)
    asyncio.run(apply(cluster.servers, KafkaOptions(), needs_of(TARGETS, cluster.url).wanted, 2))
    cluster.stop()
    with waiting(cluster.url, health, tmp_path) as process:
        assert f"Kafka does not answer at {cluster.servers}" in told(process, "waiting: ")
        assert ask(health, "/ready")[0] == 503
        cluster.start()
        assert "payment" in told(process, "ready: ")
        asyncio.run(until(lambda: asyncio.to_thread(ready, health)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
