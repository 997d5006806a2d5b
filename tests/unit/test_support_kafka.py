"""Which Kafka tests get: the one that is named, else Docker's, else Java's, else none and why."""

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import pytest

from pavane_events.errors import ConfigurationError, Problem
from support import kafka
from support.kafka_container import NoContainer

NO_JAVA = ConfigurationError("no Java", [Problem("java", "kafka.java", "install Java 17")])


class Find(Protocol):
    def __call__(self, *, told: str, docker: Exception | None = None, java: Exception | None = None) -> Mapping[str, str]: ...


@pytest.fixture
def tried() -> list[str]:
    """The ways that were tried."""
    return []


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, tried: list[str]) -> Find:
    def way(name: str, problem: Exception | None) -> Callable[[pytest.Config], str]:
        def start(config: pytest.Config) -> str:
            tried.append(name)
            if problem is not None:
                raise problem
            return f"{name}:9092"

        return start

    def run(*, told: str, docker: Exception | None = None, java: Exception | None = None) -> Mapping[str, str]:
        monkeypatch.setenv("PAVANE_KAFKA", told)
        monkeypatch.setattr(kafka, "_by_docker", way("docker", docker))
        monkeypatch.setattr(kafka, "_by_java", way("java", java))
        return kafka.find_kafka(pytestconfig)

    return run


def test_one_that_is_named_and_answers_is_taken_and_no_other_tried(find: Find, tried: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        here = f"127.0.0.1:{broker.getsockname()[1]}"
        assert find(told=here) == {"servers": here, "way": "given"}
    assert tried == []


def test_one_that_is_named_and_does_not_answer_is_an_error_and_nothing_stands_in_for_it(find: Find, tried: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        here = f"127.0.0.1:{broker.getsockname()[1]}"
    assert f"{here} does not answer" in find(told=here)["wrong"]
    assert tried == []


def test_else_docker_is_taken_where_a_daemon_answers(find: Find, tried: list[str]) -> None:
    assert find(told="") == {"servers": "docker:9092", "way": "docker"}
    assert tried == ["docker"]


def test_else_java(find: Find, tried: list[str]) -> None:
    assert find(told="", docker=NoContainer("no daemon")) == {"servers": "java:9092", "way": "java"}
    assert tried == ["docker", "java"]


def test_else_there_is_none_and_every_reason_is_told(find: Find) -> None:
    reason = find(told="", docker=NoContainer("no daemon"), java=NO_JAVA)["reason"]
    assert reason.startswith("PAVANE_KAFKA is not set; by docker: no daemon; by java: ")
    assert "install Java 17" in reason


def test_a_way_that_is_named_is_the_only_one(find: Find, tried: list[str]) -> None:
    assert find(told="java") == {"servers": "java:9092", "way": "java"}
    assert find(told="docker", docker=NoContainer("no daemon")) == {"reason": "by docker: no daemon"}
    assert tried == ["java", "docker"]
    assert "neither host:port nor one of docker, java" in find(told="podman")["wrong"]
