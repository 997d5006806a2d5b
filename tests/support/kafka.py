"""Kafka for tests: fixtures that give a real one, or skip with the reason (see ``support/require.py``).

``kafka`` takes, in this order: the one that ``PAVANE_KAFKA=host:port`` names; Docker, where a daemon answers; Java and
Maven. ``PAVANE_KAFKA=docker`` and ``PAVANE_KAFKA=java`` name one way and no other.
"""

import os
import socket
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

import pytest

from pavane.dev.kafka import KafkaCluster
from pavane.dev.kafka_jars import kafka_jars, problems_here, run_kafka_tool
from pavane.dev.ports import free_block
from pavane_events.errors import PavaneError
from support.kafka_container import NoContainer, remove_container, start_container
from support.require import unavailable
from support.servers import folder_of, is_owner, once_per_run

WAY = "PAVANE_KAFKA"
_CONNECT_S = 5.0
_CONTAINER = "kafka.container"


@dataclass(frozen=True, slots=True)
class Kafka:
    """A broker that the tests of a run share. Nobody stops it, changes its settings, or counts its topics."""

    servers: str
    """``bootstrap.servers``: host:port, or several with commas."""
    way: str
    """How it came: ``given``, ``docker`` or ``java``."""

    @property
    def url(self) -> str:
        """What ``PAVANE_BUS`` is to be."""
        return f"kafka://{self.servers}"

    def prefix(self) -> str:
        """A beginning for names of topics, groups and transactional ids that no other test has, as ``t-1f3a9c04b7.``."""
        return f"t-{uuid.uuid4().hex[:10]}."


class MakeKafka(Protocol):
    """Starts a Kafka of a test's own, as it wants it."""

    def __call__(
        self, *, brokers: int = 1, properties: Mapping[str, str] | None = None, heap_mb: int = 256, folder: Path | None = None
    ) -> KafkaCluster:
        """A running cluster that the test may break; it is ended, and its data deleted, with the test."""
        ...


class KafkaTool(Protocol):
    """Runs a command line tool of Kafka's, as ``org.apache.kafka.tools.ConsoleProducer``."""

    def __call__(self, main_class: str, *arguments: str, stdin: str = "", timeout_s: float = 60.0) -> "CompletedProcess[str]":
        """What it said and its exit code. Raises :class:`subprocess.TimeoutExpired` where it does not end."""
        ...


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Kafka:
    """A Kafka for everybody, on a machine of which nothing is known but that it answers."""
    found = once_per_run(pytestconfig, "kafka", lambda: find_kafka(pytestconfig))
    if "wrong" in found:
        pytest.fail(found["wrong"], pytrace=False)
    if "reason" in found:
        unavailable("kafka", found["reason"])
    return Kafka(found["servers"], found["way"])


@pytest.fixture
def kafka_prefix(kafka: Kafka) -> str:
    """A beginning for names on ``kafka`` that no other test has."""
    return kafka.prefix()


@pytest.fixture
def kafka_cluster(_three_brokers: KafkaCluster) -> KafkaCluster:
    """Three brokers, all of them up as the test begins, that it may kill, suspend and restart. Needs Java.

    They are the same for all tests of a worker: take a :meth:`Kafka.prefix`-like beginning for your names.
    """
    _three_brokers.start()
    return _three_brokers


@pytest.fixture
def make_kafka(pytestconfig: pytest.Config) -> Iterator[MakeKafka]:
    """Starts brokers of the test's own: with other properties, to be broken, or filled to the brim. Needs Java."""
    made: list[KafkaCluster] = []

    def make(
        *, brokers: int = 1, properties: Mapping[str, str] | None = None, heap_mb: int = 256, folder: Path | None = None
    ) -> KafkaCluster:
        _need_java()
        chosen = folder or folder_of(pytestconfig) / f"kafka-{uuid.uuid4().hex[:8]}"
        cluster = _cluster(chosen, brokers, properties or {}, heap_mb)
        made.append(cluster)
        cluster.start()
        return cluster

    try:
        yield make
    finally:
        for cluster in made:
            cluster.forget()


@pytest.fixture(scope="session")
def kafka_tool() -> KafkaTool:
    """Runs a command line tool of Kafka's. Needs Java."""
    _need_java()
    return run_kafka_tool


@pytest.fixture(scope="session")
def _three_brokers(pytestconfig: pytest.Config) -> Generator[KafkaCluster]:  # pyright: ignore[reportUnusedFunction]
    _need_java()
    cluster = _cluster(folder_of(pytestconfig) / f"kafka-{uuid.uuid4().hex[:8]}", 3, {}, 384)
    try:
        yield cluster
    finally:
        cluster.forget()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_owner(config):
        return
    for folder in folder_of(config).glob("kafka-*/"):
        left = KafkaCluster.found_in(folder)
        if left is not None:
            left.forget()
    container = folder_of(config) / _CONTAINER
    if container.exists():
        remove_container(container.read_text())


def find_kafka(config: pytest.Config) -> Mapping[str, str]:
    """``servers`` and ``way``; or the ``reason`` why there is none; or what is ``wrong`` with the one that was named."""
    told = os.environ.get(WAY, "").strip()
    if ":" in told:
        return _given(told)
    ways: dict[str, Callable[[pytest.Config], str]] = {"docker": _by_docker, "java": _by_java}
    if told:
        if told not in ways:
            return {"wrong": f"{WAY}={told} is neither host:port nor one of {', '.join(ways)}"}
        ways = {told: ways[told]}
    reasons: list[str] = []
    for way, start in ways.items():
        try:
            return {"servers": start(config), "way": way}
        except (NoContainer, PavaneError) as error:
            reasons.append(f"by {way}: {error}")
    return {"reason": "; ".join([*([] if told else [f"{WAY} is not set"]), *reasons])}


def _given(servers: str) -> Mapping[str, str]:
    problems = [problem for problem in map(_unreachable, servers.split(",")) if problem]
    if problems:
        return {"wrong": f"{WAY}={servers}: {'; '.join(problems)}"}
    return {"servers": servers, "way": "given"}


def _unreachable(server: str) -> str | None:
    host, _, port = server.strip().rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        return f"{server} does not answer ({error})"
    return None


def _by_docker(config: pytest.Config) -> str:
    container, servers = start_container()
    (folder_of(config) / _CONTAINER).write_text(container)
    return servers


def _by_java(config: pytest.Config) -> str:
    cluster = _cluster(folder_of(config) / "kafka-shared", 1, {}, 512)
    cluster.start()
    return cluster.servers


def _cluster(folder: Path, brokers: int, properties: Mapping[str, str], heap_mb: int) -> KafkaCluster:
    return KafkaCluster(folder, port=free_block(2 * brokers), brokers=brokers, properties=properties, heap_mb=heap_mb)


def _need_java() -> None:
    problems = problems_here()
    if problems:
        unavailable("kafka", "; ".join(map(str, problems)))
    try:
        kafka_jars()
    except PavaneError as error:
        unavailable("kafka", str(error))
