"""``pavane dev kafka`` as it is typed: in the foreground, in the background, and what it says where it cannot."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from pavane.dev.kafka import KafkaCluster
from pavane.dev.ports import free_block

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kafka_tool")]  # it skips where there is no Java

_PATIENCE_S = 60.0


class Typed:
    """A shell in which ``pavane dev kafka`` is typed, always with one folder and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_block(2)
        self._running: list[subprocess.Popen[str]] = []

    @property
    def setting(self) -> str:
        return f"PAVANE_BUS=kafka://127.0.0.1:{self.port}\n"

    @property
    def cluster(self) -> KafkaCluster:
        return KafkaCluster(self.folder, port=self.port)

    def __call__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """To its end."""
        return subprocess.run(
            self._command(*arguments),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S * 2,
            check=False,
            env={**os.environ, **(environment or {})},
        )

    def in_foreground(self, *arguments: str) -> "subprocess.Popen[str]":
        """Until it serves."""
        process = subprocess.Popen(self._command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == self.setting
        return process

    def clear_up(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        self.cluster.forget()

    def _command(self, *arguments: str) -> Sequence[str]:
        own = ("--data", str(self.folder), "--port", str(self.port))
        return (sys.executable, "-m", "pavane", "dev", "kafka", *own, *arguments)


@pytest.fixture
def pavane_dev_kafka(tmp_path: Path) -> Iterator[Typed]:
    typed = Typed(tmp_path / "kafka")
    try:
        yield typed
    finally:
        typed.clear_up()


def test_it_starts_in_the_background_once_and_is_stopped(pavane_dev_kafka: Typed) -> None:
    started = pavane_dev_kafka("start")
    assert (started.returncode, started.stdout) == (0, pavane_dev_kafka.setting)
    pid = pavane_dev_kafka.cluster.node(1).pid
    again = pavane_dev_kafka("start")
    assert (again.returncode, again.stdout) == (0, pavane_dev_kafka.setting)
    assert "runs already" in again.stderr
    assert pavane_dev_kafka.cluster.node(1).pid == pid
    assert pavane_dev_kafka("status").returncode == 0
    status = cast("dict[str, object]", json.loads(pavane_dev_kafka("status", "--json").stdout))
    address = f"127.0.0.1:{pavane_dev_kafka.port}"
    assert (status["running"], status["servers"], status["bus"]) == (True, address, f"kafka://{address}")
    assert status["nodes"] == [
        {"node": 1, "address": address, "pid": pid, "log": str(pavane_dev_kafka.folder / "node-1" / "server.log")}
    ]
    assert pavane_dev_kafka("stop").returncode == 0
    stopped = pavane_dev_kafka("status", "--json")
    assert (stopped.returncode, json.loads(stopped.stdout)["running"]) == (1, False)
    assert pavane_dev_kafka.folder.exists()
    assert pavane_dev_kafka("stop", "--forget").returncode == 0
    assert not pavane_dev_kafka.folder.exists()


def test_ctrl_c_stops_it_and_keeps_its_data(pavane_dev_kafka: Typed) -> None:
    process = pavane_dev_kafka.in_foreground()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    assert pavane_dev_kafka.cluster.running == []
    assert (pavane_dev_kafka.folder / "node-1" / "log").is_dir()


def test_told_to_forget_it_leaves_nothing_at_its_end(pavane_dev_kafka: Typed) -> None:
    process = pavane_dev_kafka.in_foreground("--forget")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0
    assert not pavane_dev_kafka.folder.exists()


def test_in_the_foreground_it_ends_with_its_broker_and_says_why(pavane_dev_kafka: Typed) -> None:
    process = pavane_dev_kafka.in_foreground()
    pid = pavane_dev_kafka.cluster.node(1).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _, said = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1
    assert "node 1 has ended by itself" in said
    assert str(pavane_dev_kafka.folder / "node-1" / "server.log") in said


def test_in_the_foreground_it_ends_when_it_is_stopped_from_elsewhere(pavane_dev_kafka: Typed) -> None:
    process = pavane_dev_kafka.in_foreground()
    busy = pavane_dev_kafka()
    assert (busy.returncode, "runs already" in busy.stderr) == (1, True)
    assert pavane_dev_kafka("stop").returncode == 0
    _, said = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, "stopped from elsewhere" in said) == (0, True)


def test_all_that_is_missing_is_told_at_once(pavane_dev_kafka: Typed, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "JAVA_HOME": "", "PAVANE_CACHE": str(tmp_path / "cache")}
    refused = pavane_dev_kafka("start", environment=bare)
    assert refused.returncode == 2
    assert "Kafka needs Java 17 or newer: on Debian and Ubuntu `apt-get install openjdk-17-jre-headless`" in refused.stderr
    assert "there is no mvn on the PATH" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_another_number_of_brokers_is_wrong_usage(pavane_dev_kafka: Typed) -> None:
    refused = pavane_dev_kafka("start", "--brokers", "2")
    assert (refused.returncode, "not of 2" in refused.stderr) == (2, True)
