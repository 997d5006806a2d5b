"""A test whose server is not to be had is skipped with the reason, and fails where ``PAVANE_REQUIRE`` names the server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.require import REQUIRE, required, unavailable

_TESTS = Path(__file__).parents[1]


def test_without_a_demand_it_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "jaeger")
    with pytest.raises(pytest.skip.Exception, match="no kafka: the stage is dark"):
        unavailable("kafka", "the stage is dark")


def test_where_it_is_demanded_it_fails_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "jaeger, kafka")
    with pytest.raises(pytest.fail.Exception, match=r"PAVANE_REQUIRE demands kafka.*the stage is dark"):
        unavailable("kafka", "the stage is dark")


def test_a_demand_for_what_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "kafak")
    with pytest.raises(pytest.UsageError, match="names kafak; tests ask for docker, helm, jaeger, kafka"):
        required()


@pytest.mark.parametrize(("demand", "outcome"), [("", "1 skipped"), ("kafka", "1 error")])
def test_the_fixture_says_why_there_is_no_kafka_in_any_way(tmp_path: Path, demand: str, outcome: str) -> None:
    said = _run_a_test(tmp_path, "def test_it(kafka): pass", {REQUIRE: demand, "PATH": str(tmp_path), "JAVA_HOME": ""})
    assert outcome in said
    assert "PAVANE_KAFKA is not set" in said
    assert "by docker: no Docker daemon answers (there is no docker on the PATH)" in said
    assert "by java: Kafka cannot be started" in said
    assert "there is no java on the PATH; Kafka needs Java 17 or newer" in said


@pytest.mark.parametrize(("demand", "outcome"), [("", "1 skipped"), ("kafka", "1 error")])
def test_the_three_brokers_need_java(tmp_path: Path, demand: str, outcome: str) -> None:
    environment = {REQUIRE: demand, "PATH": str(tmp_path), "JAVA_HOME": ""}
    said = _run_a_test(tmp_path, "def test_it(kafka_cluster): pass", environment)
    assert outcome in said
    assert "there is no java on the PATH" in said


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("127.0.0.1:1", "127.0.0.1:1 does not answer"),
        ("podman", "PAVANE_KAFKA=podman is neither host:port nor one of docker, java"),
    ],
)
def test_a_kafka_that_is_named_wrongly_fails_even_where_none_is_demanded(tmp_path: Path, named: str, reason: str) -> None:
    said = _run_a_test(tmp_path, "def test_it(kafka): pass", {"PAVANE_KAFKA": named, REQUIRE: ""})
    assert "1 error" in said
    assert reason in said


def test_an_unknown_demand_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    said = _run_a_test(tmp_path, "def test_it(): pass", {REQUIRE: "kafak"})
    assert "PAVANE_REQUIRE names kafak" in said
    assert "passed" not in said


def test_the_workers_of_one_run_share_what_is_started_once(tmp_path: Path) -> None:
    test = """
import os, pytest
from support.servers import folder_of, once_per_run

@pytest.mark.parametrize("number", range(20))
def test_it(number, pytestconfig):
    def start():
        with (folder_of(pytestconfig) / "starts").open("a") as file:
            file.write("started\\n")
        return {"worker": os.environ["PYTEST_XDIST_WORKER"]}
    assert once_per_run(pytestconfig, "thing", start)["worker"].startswith("gw")
    assert (folder_of(pytestconfig) / "starts").read_text() == "started\\n"
"""
    assert "20 passed" in _run_a_test(tmp_path, test, {}, "-n", "2")


def _run_a_test(folder: Path, text: str, environment: dict[str, str], *options: str) -> str:
    (folder / "test_one.py").write_text(text)
    plugins = ("-p", "support.servers", "-p", "support.kafka", "-p", "no:cacheprovider")
    command = (sys.executable, "-m", "pytest", "-ra", f"--rootdir={folder}", "-c", os.devnull, *plugins, *options)
    done = subprocess.run(
        [*command, "test_one.py"],
        cwd=folder,
        env={**os.environ, "PAVANE_KAFKA": "", REQUIRE: "", "PYTHONPATH": str(_TESTS), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).split())
