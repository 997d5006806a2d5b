"""A Jaeger of one's own: what it needs is said before minutes are spent, and nothing is left behind where it fails."""

import socket
from pathlib import Path

import pytest

from pavane.dev.jaeger import JaegerFailed, LocalJaeger, Ports, configuration_of, is_ready
from pavane.dev.jaeger_build import binary_path, jaeger_binary
from pavane_events.errors import ConfigurationError


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PAVANE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def a_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, download: str = "{}") -> None:
    """Something that calls itself Go."""
    script = f"case $1 in env) echo {version};; mod) echo '{download}';; *) echo broken >&2; exit 1;; esac"
    monkeypatch.setenv("GO", str(program(tmp_path / "go", script)))


def code_of(error: pytest.ExceptionInfo[ConfigurationError]) -> str:
    (problem,) = error.value.problems
    return problem.code


def test_what_was_built_before_is_taken(cache: Path) -> None:
    binary = binary_path()
    binary.parent.mkdir(parents=True)
    binary.write_text("")
    said: list[str] = []
    assert (jaeger_binary(said.append), said) == (binary, [])


def test_a_go_that_is_too_old_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_go(monkeypatch, tmp_path, "go1.24.9")
    with pytest.raises(ConfigurationError, match=r"is go1\.24\.9") as error:
        jaeger_binary(print)
    assert code_of(error) == "jaeger.old-go"


def test_a_source_with_another_checksum_is_not_built(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_go(monkeypatch, tmp_path, "go1.25.1", '{"Dir": "/nowhere", "Sum": "h1:other="}')
    with pytest.raises(ConfigurationError, match="h1:other=") as error:
        jaeger_binary(print)
    assert code_of(error) == "jaeger.checksum"
    assert [each.name for each in (cache / "jaeger").iterdir() if each.name.startswith("build")] == []
    assert not binary_path().exists()


def test_a_port_that_is_taken_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        free = Ports.free()
        ports = Ports(port, free.otlp_http, free.query, free.query_grpc, free.health)
        with pytest.raises(JaegerFailed, match=f"listens on port {port} already"):
            LocalJaeger(tmp_path / "none", tmp_path, ports).start()


def test_one_that_ends_at_once_fails_with_the_end_of_its_log(tmp_path: Path) -> None:
    ending = program(tmp_path / "jaeger", "echo no such storage; exit 3")
    jaeger = LocalJaeger(ending, tmp_path, Ports.free())
    with pytest.raises(JaegerFailed, match="it ended with 3:\nno such storage"):
        jaeger.start()
    assert jaeger.wait(0) == 3
    jaeger.stop()


def test_it_listens_on_the_loopback_interface_only() -> None:
    endpoints = [line for line in configuration_of(Ports()).splitlines() if "endpoint" in line]
    assert len(endpoints) == 5
    assert all('"127.0.0.1:' in line for line in endpoints)


def test_where_nobody_answers_nothing_is_ready() -> None:
    assert not is_ready("http://127.0.0.1:9/status")
